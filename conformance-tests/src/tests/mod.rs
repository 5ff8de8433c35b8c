//! The tests, by the family of the promise that they check. Each takes a [`Trial`](crate::Trial) and panics where the promise
//! does not hold; what its history shows is looked at afterwards.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test is told by its name, and fails by panicking")]

pub mod backlog;
pub mod bound;
pub mod cancel;
pub mod cancel_groups;
pub mod cancel_races;
pub mod cancel_shift;
pub mod clear;
pub mod close;
pub mod close_worker;
mod crew;
pub mod drop;
pub mod drop_calls;
pub mod drop_effects;
pub mod dup;
pub mod dup_attempts;
pub mod dup_extend;
pub mod dup_ids;
pub mod dup_stale;
mod front;
pub mod idle;
pub mod leak;
pub mod leak_probes;
pub mod live;
pub mod live_more;
pub mod live_worker;
pub mod loss;
pub mod loss_batch;
pub mod loss_dead;
pub mod loss_kill;
pub mod model;
pub mod order;
pub mod time;
