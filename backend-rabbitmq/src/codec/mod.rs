//! Encoding of messages: tasks, dead letters, tombstones, receipts.

pub(crate) mod kind;
pub(crate) mod message;
pub(crate) mod receipt;
pub(crate) mod table;
