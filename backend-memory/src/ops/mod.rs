//! What the methods of the trait do: each checks its arguments, then runs pieces of bounded work under the queue's lock.

pub(crate) mod admin;
pub(crate) mod change;
pub(crate) mod claim;
pub(crate) mod dead;
pub(crate) mod look;
pub(crate) mod schedule;
pub(crate) mod settle;

/// Items of a batch handled under one lock.
const CHUNK: usize = 4096;
