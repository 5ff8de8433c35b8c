//! What a backend does: each method of the trait checks its arguments here and goes on.

pub(crate) mod admin;
pub(crate) mod change;
pub(crate) mod claim;
pub(crate) mod dead;
pub(crate) mod schedule;
pub(crate) mod settle;
