//! A task on its way out: claimed under a lease, extended, settled.

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
    /// At most this many tasks; 0 claims nothing. A backend may bring fewer at once than are due, and says that more are
    /// there.
    pub max: usize,
    /// At most this many bytes of payload in all, though always one task.
    pub max_bytes: usize,
    /// How long the tasks are the claimer's, from the claim on the backend's clock.
    pub lease: Duration,
}

impl Claim {
    /// Up to `max` tasks for `lease`, with at most 16 MiB of payload.
    #[must_use]
    pub fn new(max: usize, lease: Duration) -> Self {
        Self { max, max_bytes: 16 * 1024 * 1024, lease }
    }

    /// With another limit for the payload in all.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }
}

/// What a claim brought.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Claimed {
    /// The tasks, in delivery order.
    pub deliveries: Vec<ClaimedTask>,
    /// How long the caller may wait unless notified: at most until another task is visible, zero if one is now; `None` if
    /// nothing is in sight. A store that can't be looked into ([`Capabilities::inspect`](crate::Capabilities::inspect)) knows
    /// of no tasks but those that this process holds or sent back, and notifications when any other comes.
    pub next_due_in: Option<Duration>,
    /// How many tasks this claim dead-lettered, because their attempts were used up or they had expired.
    pub dead_lettered: u64,
    /// How many foreign or corrupt entries this claim quarantined.
    pub quarantined: u64,
}

/// One task as it was claimed.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClaimedTask {
    /// The right to work on it.
    pub lease: Lease,
    /// When it was due: for a retry, when the retry was due; after a lease that ended unsettled, that end.
    pub due_at: Timestamp,
    /// How long after `due_at` it was delivered, on the clock that the due time runs on.
    pub lateness: Duration,
    /// Attempts it may have; `lease.attempt` counts to this.
    pub attempts_max: u32,
    /// The last moment at which it may be delivered; later it is dead-lettered.
    pub expires_at: Option<Timestamp>,
    /// What was scheduled.
    pub payload: Bytes,
    /// Its headers.
    pub headers: Headers,
    /// Its group.
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
    /// For backend authors: the parts every delivery has; the others are set on the value.
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

    /// When it was delivered: `due_at` plus `lateness`.
    #[must_use]
    pub fn delivered_at(&self) -> Timestamp {
        self.due_at.saturating_add(self.lateness)
    }
}

/// The right to work on one task until it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The task.
    pub id: TaskId,
    /// Rises with every claim of this id, also when the id is used again: the fencing token to guard one's own
    /// writes with (Kleppmann, "How to do distributed locking", 2016).
    pub fence: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When it ends, as shown on the backend's wall clock when it was given.
    pub expires_at: Timestamp,
    /// Whether the task was cancelled meanwhile: stop if you can; it is not delivered again.
    pub cancelled: bool,
    /// The store's own note.
    pub receipt: Receipt,
}

impl Lease {
    /// For backend authors.
    #[must_use]
    pub fn new(id: TaskId, fence: u64, attempt: u32, expires_at: Timestamp, receipt: Receipt) -> Self {
        Self { id, fence, attempt, expires_at, cancelled: false, receipt }
    }
}

/// How a lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// Done: it is never delivered again.
    Complete,
    /// Failed: again after this time; dead-lettered instead if its attempts are used up.
    Retry {
        /// How long to wait, from the settling on the backend's clock.
        after: Duration,
        /// Why, kept with the task.
        reason: Reason,
    },
    /// Not now: again after this time, with no attempt counted.
    Snooze {
        /// How long to wait, from the settling on the backend's clock.
        after: Duration,
    },
    /// Never again: to the dead letters.
    DeadLetter {
        /// Why, kept with the dead letter.
        reason: Reason,
    },
    /// Given back unworked: visible at once at its old place in the order, with no attempt counted.
    Release,
}

/// Why an attempt failed or a task was dead-lettered: at most 1,024 bytes, the rest is cut.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Reason(Box<str>);

impl Reason {
    /// Takes a text, cut at the last character that fits.
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
