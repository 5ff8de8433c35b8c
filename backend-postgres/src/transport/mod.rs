//! The connection to the server: connections, calls with a time limit, statements, and the mapping of errors.

pub(crate) mod db;
pub(crate) mod failure;
pub(crate) mod pool;
pub(crate) mod session;
pub(crate) mod statement;
