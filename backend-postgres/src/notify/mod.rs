//! Notifications: they tell a waiting consumer that a task was placed in its queue.

pub(crate) mod channels;
pub(crate) mod connection;
