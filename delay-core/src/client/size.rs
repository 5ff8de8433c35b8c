//! Maximum size of a call, and the size of an item in it, in bytes.

use crate::{Disposition, Lease, NewTask, TaskId};

/// Maximum size of one call. A single item may be larger.
pub(crate) const CALL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Size of everything in an item that is not counted separately, including its overhead while it waits.
const REST: usize = 64;

/// Approximate size that a task adds to a call.
pub(crate) fn of_task(task: &NewTask) -> usize {
    let key = task.id.as_ref().and_then(TaskId::as_key).map_or(0, str::len);
    let group = task.group.as_ref().map_or(0, |group| group.as_str().len());
    task.payload.len() + task.headers.byte_len() + key + group + REST
}

/// Approximate size that the settling of a lease adds to a call.
pub(crate) fn of_disposition((_, disposition): &(Lease, Disposition)) -> usize {
    const LEASE: usize = 64;
    match disposition {
        Disposition::Retry { reason, .. } | Disposition::DeadLetter { reason } => LEASE + reason.as_str().len() + REST,
        Disposition::Complete | Disposition::Snooze { .. } | Disposition::Release => LEASE + REST,
    }
}
