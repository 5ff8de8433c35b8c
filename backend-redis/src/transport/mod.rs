//! The connection to the server.

mod connection;
mod failure;
mod reply;
mod script;

pub(crate) use connection::Connection;
pub(crate) use failure::{connecting_failed, unavailable};
pub(crate) use reply::{Refusal, Reply, answered, unreadable};
pub(crate) use script::Script;
