//! A task that is delivered: claimed under a lease, extended, settled.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::hidden::Hidden;
use crate::limits::REASON_BYTES_MAX;
use crate::{GroupName, Headers, Receipt, TaskId, Timestamp};

/// How much to claim, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// Maximum number of tasks; 0 claims nothing. A backend may return fewer tasks than are due, and then reports that
    /// more are due.
    pub max: usize,
    /// Maximum size of all payloads together, in bytes. A claim returns one task even if its payload is larger.
    /// Default: 16 MiB.
    pub max_bytes: usize,
    /// Lease duration, from the claim on the backend's clock. Range: 1 ms to
    /// [`Capabilities::lease_max`](crate::Capabilities).
    pub lease: Duration,
}

impl Claim {
    /// Claims up to `max` tasks for `lease`, with at most 16 MiB of payload.
    #[must_use]
    pub fn new(max: usize, lease: Duration) -> Self {
        Self { max, max_bytes: 16 * 1024 * 1024, lease }
    }

    /// Sets the maximum size of all payloads together, in bytes.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }
}

/// The result of a claim.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Claimed {
    /// The claimed tasks, in delivery order.
    pub deliveries: Vec<ClaimedTask>,
    /// How long the caller may wait if no notification arrives: at most until another task becomes visible; zero if one
    /// is visible now; `None` if the backend knows of no further task. A store whose tasks can't be listed
    /// ([`Capabilities::inspect`](crate::Capabilities::inspect)) knows only of the tasks that this process holds or
    /// sent back, and notifies the subscription when any other task arrives.
    pub next_due_in: Option<Duration>,
    /// Number of tasks that this claim dead-lettered because they had no attempts left or had expired.
    pub dead_lettered: u64,
    /// Number of foreign or corrupt entries that this claim quarantined.
    pub quarantined: u64,
}

/// One encoded task under a lease, as a claim returns it.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClaimedTask {
    /// The right to work on the task.
    pub lease: Lease,
    /// When the task was due. For a retry: when the retry was due. After a lease that ended unsettled: the end of that
    /// lease.
    pub due_at: Timestamp,
    /// How long after `due_at` the task was delivered, on the clock of the due time.
    pub lateness: Duration,
    /// Maximum number of attempts; `lease.attempt` counts up to this.
    pub attempts_max: u32,
    /// Last moment at which the task may be delivered; after it, the task is dead-lettered.
    pub expires_at: Option<Timestamp>,
    /// Payload of the task.
    pub payload: Bytes,
    /// Headers of the task.
    pub headers: Headers,
    /// Group of the task.
    pub group: Option<GroupName>,
}

impl fmt::Debug for ClaimedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lease, due_at, lateness, attempts_max, expires_at, payload, headers, group } = self;
        f.debug_struct("ClaimedTask")
            .field("lease", lease)
            .field("due_at", due_at)
            .field("lateness", lateness)
            .field("attempts_max", attempts_max)
            .field("expires_at", expires_at)
            .field("payload", &Hidden(payload.len()))
            .field("headers", headers)
            .field("group", group)
            .finish()
    }
}

impl ClaimedTask {
    /// For backend authors: creates a claimed task with the fields that every one has. The others are set on the value.
    #[must_use]
    pub fn new(lease: Lease, due_at: Timestamp, lateness: Duration, payload: Bytes) -> Self {
        Self {
            lease,
            due_at,
            lateness,
            attempts_max: crate::limits::ATTEMPTS_DEFAULT,
            expires_at: None,
            payload,
            headers: Headers::default(),
            group: None,
        }
    }

    /// When the task was delivered: `due_at` plus `lateness`.
    #[must_use]
    pub fn delivered_at(&self) -> Timestamp {
        self.due_at.saturating_add(self.lateness)
    }
}

/// The exclusive right to work on one task for a limited time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// Task id.
    pub id: TaskId,
    /// Fencing token: rises with every claim of this id, also when the id is reused. Use it to guard your own writes
    /// (Kleppmann, "How to do distributed locking", 2016).
    pub fence: u64,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// End of the lease, on the backend's wall clock as it was when the lease was given.
    pub expires_at: Timestamp,
    /// Whether the task was cancelled in the meantime. If so, stop if you can; it is not delivered again.
    pub cancelled: bool,
    /// The store's own record of the lease.
    pub receipt: Receipt,
}

impl Lease {
    /// For backend authors: creates a lease.
    #[must_use]
    pub fn new(id: TaskId, fence: u64, attempt: u32, expires_at: Timestamp, receipt: Receipt) -> Self {
        Self { id, fence, attempt, expires_at, cancelled: false, receipt }
    }
}

/// How a lease is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// The task is done; it is never delivered again.
    Complete,
    /// The attempt failed. The task is delivered again after a delay, or dead-lettered if it has no attempts left.
    Retry {
        /// Delay, counted from the settling on the backend's clock. Range: zero to
        /// [`Capabilities::delay_max`](crate::Capabilities).
        after: Duration,
        /// Why the attempt failed; stored with the task.
        reason: Reason,
    },
    /// The task is put off: it is delivered again after a delay, and this attempt does not count.
    Snooze {
        /// Delay, counted from the settling on the backend's clock. Range: zero to
        /// [`Capabilities::delay_max`](crate::Capabilities).
        after: Duration,
    },
    /// The task is dead-lettered.
    DeadLetter {
        /// Why it is dead-lettered; stored with the dead letter.
        reason: Reason,
    },
    /// The task is given back unprocessed: it is visible at once, at its old place in the order, and this attempt does
    /// not count.
    Release,
}

/// Why an attempt failed or a task was dead-lettered. A text over 1,024 bytes is cut.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Reason(Box<str>);

impl Reason {
    /// Creates a reason. A longer text is cut at the last character that fits.
    pub fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
        Self(text.into_boxed_str())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Reason {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_3_a_long_reason_is_cut_at_a_character() {
        let reason = Reason::new("ü".repeat(1000));
        assert_eq!(reason.as_str().len(), 1024);
        assert_eq!(Reason::new("x".to_string() + &"ü".repeat(1000)).as_str().len(), 1023);
    }
}
