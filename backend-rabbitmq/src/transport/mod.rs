//! The connection to the broker: two connections, workarounds for the driver, publishing, and errors.

pub(crate) mod asking;
pub(crate) mod connection;
pub(crate) mod driver;
pub(crate) mod failure;
pub(crate) mod greeting;
pub(crate) mod publisher;
mod runtime;
