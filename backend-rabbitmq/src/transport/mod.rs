//! The way to the broker and back: two connections, what the driver has to be kept from, publishing, and errors.

pub(crate) mod asking;
pub(crate) mod connection;
pub(crate) mod driver;
pub(crate) mod failure;
pub(crate) mod greeting;
pub(crate) mod publisher;
mod runtime;
