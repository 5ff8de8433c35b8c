//! What the trait's methods do: each takes what backend and subscriptions share, checks its arguments, runs statements, and
//! puts the answers together.

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
