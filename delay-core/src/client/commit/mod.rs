//! Group commit: calls of single items that are made at the same time travel as one batch, without a linger.
//!
//! A call that finds nothing under way goes by itself, inside its caller: it costs no more than a direct one. Calls that
//! find one under way enter an inbox, which a task empties batch by batch: what arrives while one batch is out forms the
//! next. So the batches are as large as the store is slow.
//!
//! Invariants
//! 1. Nobody waits for a future that another caller has to poll: a call under way belongs either to its own caller alone,
//!    or to the task. So a caller that stops polling holds up nobody.
//! 2. The inbox is not empty only while the task lives, and the task ends only when it has seen it empty, both under the
//!    lock. If the task dies (a panic in the backend, a runtime that shuts down), it answers all who wait.
//! 3. An item is in the inbox only while its caller waits; a caller that is dropped takes it out. Once sent, a dropped
//!    caller only does not learn its outcome, unless it was the last of its batch: then the call is dropped too.
//! 4. Items are sent in the order in which they came in.
//! 5. What waits in an inbox is bounded in bytes: beyond that a call is refused at once, and nothing of it stays.

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
