//! Notifications: a subscription that waits for tasks learns that a task is due earlier than it knew.
//!
//! 1. A [`Listener`] is level-triggered: if it was notified since its notifications were last taken, it returns at
//!    once.
//! 2. A listener is told that it may have [`missed`](Notification::missed) something once its key is subscribed to,
//!    whenever the connection is lost, and when the connection is back. Whatever was published in between can't have
//!    been received, so the listener's owner looks at the store.
//! 3. There is one connection for all keys, separate from those of the calls, and one task that serves it. Both exist
//!    as long as there are listeners.
//! 4. An idle connection costs the server nothing. To detect one that has gone silent, the task pings the server when
//!    another connection to the server was in trouble, or when somebody found a task that should have been notified of.
//!
//! A store supplies a [`Source`]: how to connect, subscribe and receive. This module does the rest.

mod book;
mod listener;
mod notifier;
mod serve;
mod source;
#[cfg(test)]
mod tests;

pub use listener::Listener;
pub use notifier::Notifier;
pub use source::{Local, Nobody, Notification, Source, Subscriber};
