//! The operations of the trait. Each one checks its arguments first.

pub(crate) mod admin;
pub(crate) mod change;
pub(crate) mod claim;
pub(crate) mod dead;
pub(crate) mod schedule;
pub(crate) mod settle;
