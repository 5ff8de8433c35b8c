//! Notifications: what tells a waiting consumer that something was placed in its queue.

pub(crate) mod channels;
pub(crate) mod connection;
