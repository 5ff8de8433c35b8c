//! What a call may carry, and what an item adds to it, in bytes.

use crate::{Disposition, Lease, NewTask, TaskId};

/// The most that is put into one call; a single item may be larger.
pub(crate) const CALL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Of what is not counted one by one: numbers, and what an item costs while it waits.
const REST: usize = 64;

/// What a task adds to a call, roughly.
pub(crate) fn of_task(task: &NewTask) -> usize {
    let key = task.id.as_ref().and_then(TaskId::as_key).map_or(0, str::len);
    let group = task.group.as_ref().map_or(0, |group| group.as_str().len());
    task.payload.len() + task.headers.byte_len() + key + group + REST
}

/// What the settling of a lease adds to a call, roughly.
pub(crate) fn of_disposition((_, disposition): &(Lease, Disposition)) -> usize {
    const LEASE: usize = 64;
    match disposition {
        Disposition::Retry { reason, .. } | Disposition::DeadLetter { reason } => LEASE + reason.as_str().len() + REST,
        Disposition::Complete | Disposition::Snooze { .. } | Disposition::Release => LEASE + REST,
    }
}
