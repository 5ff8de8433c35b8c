//! Counts and times of what happens to tasks, through the facade of the crate `metrics`: `docs/metrics.md` lists them.
//!
//! The core records them where things happen, so that every backend has the same. What only a backend sees, it tells by
//! [`round_trip`] and [`reconnected`]. Without the Cargo feature `metrics` every function here is empty.
//!
//! With it, an application installs a recorder of its choice, such as `metrics-exporter-prometheus`, and may call
//! [`describe`] to give it the units and what they mean.

#[cfg(feature = "metrics")]
mod on;

#[cfg(feature = "metrics")]
pub(crate) use self::on::{Flight, buried, changed, delivered, released, scheduling, settled, stats};
#[cfg(feature = "metrics")]
pub use self::on::{begin, describe, reconnected, round_trip};

#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::{Flight, buried, changed, delivered, released, scheduling, settled, stats};
#[cfg(not(feature = "metrics"))]
pub use self::off::{begin, describe, reconnected, round_trip};

#[cfg(not(feature = "metrics"))]
mod off {
    use crate::commit::Sending;
    use crate::consume::settle::Settling;
    use crate::{Action, Changed, ClaimedTask, QueueName, QueueStats, Result, Scheduled};

    /// Gives the recorder what each metric means. Nothing without the feature `metrics`.
    #[inline(always)]
    pub fn describe() {}

    /// Shows a queue's counts before anything has happened. Nothing without the feature `metrics`.
    #[inline(always)]
    pub fn begin(_queue: &QueueName) {}

    /// For backend authors: one request was sent to a server. Nothing without the feature `metrics`.
    #[inline(always)]
    pub fn round_trip(_backend: &'static str) {}

    /// For backend authors: a connection was made in place of one that was lost. Nothing without the feature `metrics`.
    #[inline(always)]
    pub fn reconnected(_backend: &'static str) {}

    #[inline(always)]
    pub(crate) fn scheduling<'a>(_queue: &QueueName, sending: Sending<'a, Scheduled>) -> Sending<'a, Scheduled> {
        sending
    }

    #[inline(always)]
    pub(crate) fn delivered(_queue: &QueueName, _tasks: &[ClaimedTask]) {}

    #[inline(always)]
    pub(crate) fn buried(_queue: &QueueName, _tasks: u64) {}

    #[inline(always)]
    pub(crate) fn released(_queue: &QueueName) {}

    #[inline(always)]
    pub(crate) fn settled(_queue: &QueueName, _settling: &Settling, _answer: &Result<()>) {}

    #[inline(always)]
    pub(crate) fn changed(_queue: &QueueName, _action: Action, _changed: &Changed) {}

    #[inline(always)]
    pub(crate) fn stats(_queue: &QueueName, _stats: &QueueStats) {}

    /// A task between its claim and the end of its handling.
    #[derive(Debug)]
    pub(crate) struct Flight;

    impl Flight {
        #[inline(always)]
        pub(crate) fn new(_queue: &QueueName) -> Self {
            Self
        }
    }
}
