//! The operations of the trait. Each one checks its arguments, then runs bounded pieces of work under the queue's lock.

pub(crate) mod admin;
pub(crate) mod change;
pub(crate) mod claim;
pub(crate) mod dead;
pub(crate) mod look;
pub(crate) mod schedule;
pub(crate) mod settle;

/// Number of items of a batch that are handled under one lock.
const CHUNK: usize = 4096;
