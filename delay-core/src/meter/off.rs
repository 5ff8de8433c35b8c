//! The metrics, without the feature `metrics`: nothing is recorded.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::what::{Event, Levels};

/// Describes each metric and its unit to the recorder. Without the feature `metrics`, it does nothing.
#[inline(always)]
pub fn describe() {}

/// Initializes a queue's counters to 0. Without the feature `metrics`, it does nothing.
#[inline(always)]
pub fn begin(_queue: impl AsRef<str>) {}

/// For backend authors: counts a request that was sent to a server. Without the feature `metrics`, it does nothing.
#[inline(always)]
pub fn round_trip(_backend: &'static str) {}

/// For backend authors: counts a connection that replaced a lost one. Without the feature `metrics`, it does nothing.
#[inline(always)]
pub fn reconnected(_backend: &'static str) {}

#[inline(always)]
pub(crate) fn count(_queue: &str, _what: Event, _tasks: u64) {}

#[inline(always)]
pub(crate) fn delivered(_queue: &str, _lateness: impl Iterator<Item = Duration>) {}

#[inline(always)]
pub(crate) fn levels(_queue: &str, _levels: Levels) {}

/// Would call `note` with the result of a call; without the feature `metrics`, it does not.
#[inline(always)]
pub(crate) fn noting<'a, T: Send + 'a>(
    call: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    _note: impl FnOnce(&T) + Send + 'a,
) -> Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    call
}

/// A task between its claim and the end of its handling.
#[derive(Debug)]
pub(crate) struct Flight;

impl Flight {
    #[inline(always)]
    pub(crate) fn new(_queue: &str) -> Self {
        Self
    }
}
