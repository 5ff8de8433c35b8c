//! The operations of the trait. Each one takes the shared `Store`, checks its arguments, runs statements and combines
//! the answers.

pub(crate) mod admin;
mod batch;
pub(crate) mod caller;
pub(crate) mod change;
pub(crate) mod claim;
pub(crate) mod dead;
mod locked;
pub(crate) mod look;
mod operation;
pub(crate) mod schedule;
pub(crate) mod settle;
