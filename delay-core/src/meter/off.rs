//! The same where nothing is recorded.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::what::{Event, Levels};

/// Gives the recorder what each metric means. Nothing without the feature `metrics`.
#[inline(always)]
pub fn describe() {}

/// Shows a queue's counts before anything has happened. Nothing without the feature `metrics`.
#[inline(always)]
pub fn begin(_queue: impl AsRef<str>) {}

/// For backend authors: one request was sent to a server. Nothing without the feature `metrics`.
#[inline(always)]
pub fn round_trip(_backend: &'static str) {}

/// For backend authors: a connection was made in place of one that was lost. Nothing without the feature `metrics`.
#[inline(always)]
pub fn reconnected(_backend: &'static str) {}

#[inline(always)]
pub(crate) fn count(_queue: &str, _what: Event, _tasks: u64) {}

#[inline(always)]
pub(crate) fn delivered(_queue: &str, _lateness: impl Iterator<Item = Duration>) {}

#[inline(always)]
pub(crate) fn levels(_queue: &str, _levels: Levels) {}

/// Calls `note` with what comes of a call: never, where nothing is recorded.
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
