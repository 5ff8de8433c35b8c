//! What the trait's methods do: each cuts its work into scripts and puts the answers together.

mod admin;
pub(crate) mod change;
pub(crate) mod claim;
pub(crate) mod dead;
pub(crate) mod look;
mod schedule;
mod settle;
