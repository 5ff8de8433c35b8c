//! Notifications: who waits for tasks of a queue is told that something has become due earlier than was known.
//!
//! 1. A [`Listener`] is level-triggered: one that was notified since it was asked last returns at once.
//! 2. It is notified as having [`missed`](Notification::missed) something once its key is subscribed to, whenever the
//!    connection is lost, and when it is back: what was published in between can't have been received, so its owner looks.
//! 3. There is one connection for all keys, apart from those of the calls, and one task that serves it, as long as there are
//!    listeners; with the last listener both end.
//! 4. An idle connection costs the server nothing. One that is silent for good is found because it is asked whenever another
//!    connection to the server was in trouble, or somebody found what should have been notified of.
//!
//! A store supplies a [`Source`]: how to connect, subscribe and receive. The rest is here.

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
