//! What is ours in a message of the broker, and back: tasks, dead letters and tombstones, receipts, ids.

pub(crate) mod message;
