//! Group commit: calls of single items that are made at the same time travel as one batch. No call lingers to wait for
//! others.
//!
//! A call that finds no other under way is sent alone, inside its caller: it costs no more than a direct call. A call
//! that finds one under way enters an inbox, which a task empties batch by batch: the items that arrive while one batch
//! is under way form the next one. The slower the store, the larger the batches.
//!
//! Invariants
//! 1. Nobody waits for a future that another caller has to poll: a call under way belongs either to its own caller
//!    alone, or to the task. A caller that stops polling therefore holds up nobody.
//! 2. The inbox is non-empty only while the task lives, and the task ends only when it has seen the inbox empty; both
//!    happen under the lock. If the task dies (a panic in the backend, a runtime that shuts down), it answers all
//!    waiting callers.
//! 3. An item is in the inbox only while its caller waits; a caller that is dropped takes its item out. Once the item
//!    was sent, a dropped caller merely does not learn the outcome. If it was the last caller of its batch, the call is
//!    dropped, too.
//! 4. Items are sent in the order in which they arrived.
//! 5. The bytes that wait in an inbox are limited. A call beyond the limit is rejected at once, and leaves nothing
//!    behind.

mod carrier;
mod committer;
mod inbox;
mod kind;
mod submit;

pub(crate) use self::committer::Committer;
pub(crate) use self::kind::{Kind, Limits, Sending};
pub(crate) use self::submit::{Submit, submit};

#[cfg(test)]
mod tests;
