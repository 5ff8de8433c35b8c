//! What is counted and measured, as plain numbers, without the types of the core.

use std::time::Duration;

/// An event of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// Accepted, as a new task or in place of another.
    Scheduled,
    Completed,
    /// Failed, to be attempted again.
    Retried,
    Snoozed,
    Released,
    DeadLettered,
    Cancelled,
    /// Moved or shifted.
    Moved,
    /// Settled too late.
    LeaseLost,
}

/// The counts of a queue.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "nobody reads what is not recorded"))]
pub(crate) struct Levels {
    pub(crate) scheduled: u64,
    pub(crate) due: u64,
    pub(crate) in_flight: u64,
    pub(crate) dead: u64,
    pub(crate) paused: bool,
    /// How long the oldest due task has been waiting.
    pub(crate) oldest_due: Duration,
}
