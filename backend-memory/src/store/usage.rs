//! What counts toward the limits of the memory store: tasks and bytes.

use bytes::Bytes;
use delayline_core::{Error, ErrorKind, NewTask, TaskId};

use super::task::{Extra, is_plain};

/// Bytes that each task counts toward `max_bytes`, in addition to payload, headers and id.
pub(crate) const TASK_BYTES: u64 = 64;

/// Further bytes for a task with a custom id, a group, headers, an expiry, a custom number of attempts, a large payload
/// or a failure, and for every dead letter.
pub(crate) const EXTRA_BYTES: u64 = 160;

/// Tasks and bytes, as `max_tasks` and `max_bytes` count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) tasks: u64,
    pub(crate) bytes: u64,
}

impl Usage {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.tasks += 1;
        self.bytes += bytes;
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.tasks += other.tasks;
        self.bytes += other.bytes;
    }
}

/// Bytes that a task counts toward `max_bytes`.
pub(crate) fn bytes_of(task: &NewTask) -> u64 {
    let payload = task.payload.len() as u64;
    if is_plain(task) {
        return TASK_BYTES + payload;
    }
    let key = task.id.as_ref().and_then(TaskId::as_key).map_or(0, str::len);
    let group = task.group.as_ref().map_or(0, |group| group.as_str().len());
    TASK_BYTES + EXTRA_BYTES + (key + group + task.headers.byte_len()) as u64 + payload
}

/// Bytes that an extra part counts toward `max_bytes`.
pub(super) fn extra_bytes(extra: &Extra) -> u64 {
    let id = extra.id.as_ref().and_then(TaskId::as_key).map_or(0, str::len);
    let group = extra.group.as_ref().map_or(0, |group| group.as_str().len());
    let payload = extra.payload.as_ref().map_or(0, Bytes::len);
    let reason = extra.last_failure.as_ref().map_or(0, |reason| reason.as_str().len());
    EXTRA_BYTES + (id + group + payload + reason + extra.headers.byte_len()) as u64
}

/// The error of a store at its limit.
pub(crate) fn full(limit: &str) -> Error {
    Error::new(
        ErrorKind::Full,
        format!("the memory store has reached its limit of {limit}: wait until tasks end, or raise the limit"),
    )
}

/// The error of a store that is at a limit that can't be raised.
pub(crate) fn full_for_now(limit: &str, until: &str) -> Error {
    Error::new(ErrorKind::Full, format!("the memory store has reached its limit of {limit}: wait until {until}"))
}
