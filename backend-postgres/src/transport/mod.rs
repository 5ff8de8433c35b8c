//! The way to the server: connections, calls on them that end in time, statements, and what failures mean.

pub(crate) mod db;
pub(crate) mod failure;
pub(crate) mod pool;
pub(crate) mod session;
pub(crate) mod statement;
