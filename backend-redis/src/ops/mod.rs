//! The operations of the trait. Each one splits its work into script calls and combines their replies.

mod admin;
pub(crate) mod change;
pub(crate) mod claim;
pub(crate) mod dead;
pub(crate) mod look;
mod schedule;
mod settle;
