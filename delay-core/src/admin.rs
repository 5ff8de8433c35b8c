//! Looking at queues and running them: listings, dead letters, statistics, pause and resume.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hidden::Hidden;
use crate::limits::PAGE_MAX;
use crate::{GroupName, Headers, Reason, Receipt, TaskId, TaskView, Timestamp};

/// One page of a listing of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// Only what comes after this in the listing: the [`TaskView`] that the page before ended with.
    pub after: Option<Cursor>,
    /// At most this many, 1,000 at the most.
    pub limit: usize,
}

impl Page {
    /// The first `limit` entries, 1,000 at the most.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit: limit.min(PAGE_MAX) }
    }

    /// The `limit` entries that follow a page's last one.
    #[must_use]
    pub fn after(last: &TaskView, limit: usize) -> Self {
        Self { after: Some(Cursor::of(last)), limit: limit.min(PAGE_MAX) }
    }
}

/// A place in a listing of tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cursor {
    /// The entry's time of visibility.
    pub visible_at: Timestamp,
    /// The store's own note, which orders ties.
    pub receipt: Receipt,
}

impl Cursor {
    /// The place of an entry.
    #[must_use]
    pub fn of(task: &TaskView) -> Self {
        Self { visible_at: task.visible_at, receipt: task.task.receipt.clone() }
    }
}

/// What to do with dead letters.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DeadLetterOp {
    /// Shows them, the oldest first, from a place on.
    List {
        /// Only what follows the place that the page before ended at.
        after: Option<u64>,
        /// At most this many, 1,000 at the most.
        limit: usize,
    },
    /// Schedules them again, due now, with all their attempts and a new sequence; the oldest first. One whose id is
    /// pending again stays where it is.
    Redrive {
        /// Which.
        select: DeadLetterSelect,
        /// At most this many a second, evenly staggered; all at once without it.
        rate: Option<f64>,
    },
    /// Deletes them.
    Purge {
        /// Which.
        select: DeadLetterSelect,
    },
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadLetterSelect {
    /// All that were dead-lettered before the call.
    All,
    /// Those with these ids.
    Ids(Vec<TaskId>),
}

/// The answer to a [`DeadLetterOp`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DeadLetters {
    /// For a listing: the page.
    pub letters: Vec<DeadLetter>,
    /// For a listing: where the next page starts, if there is more.
    pub next: Option<u64>,
    /// How many were redriven or purged.
    pub affected: u64,
    /// How many could not be redriven, because their id is pending again or the store is full; they stay dead letters.
    pub kept: u64,
}

/// A task that will not run any more, and why.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its id.
    pub id: TaskId,
    /// Which way it came here.
    pub cause: DeadLetterCause,
    /// What the handler or the last failure said.
    pub reason: Reason,
    /// When it was dead-lettered.
    pub dead_lettered_at: Timestamp,
    /// When its last attempt was due.
    pub due_at: Timestamp,
    /// How often it had been attempted.
    pub attempts: u32,
    /// Its payload.
    pub payload: Bytes,
    /// Its headers.
    pub headers: Headers,
    /// Its group.
    pub group: Option<GroupName>,
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, cause, reason, dead_lettered_at, due_at, attempts, payload, headers, group } = self;
        f.debug_struct("DeadLetter")
            .field("id", id)
            .field("cause", cause)
            .field("reason", reason)
            .field("dead_lettered_at", dead_lettered_at)
            .field("due_at", due_at)
            .field("attempts", attempts)
            .field("payload", &Hidden(payload.len()))
            .field("headers", headers)
            .field("group", group)
            .finish()
    }
}

impl DeadLetter {
    /// For backend authors: the parts every dead letter has; the others are set on the value.
    #[must_use]
    pub fn new(
        id: TaskId,
        cause: DeadLetterCause,
        reason: Reason,
        dead_lettered_at: Timestamp,
        payload: Bytes,
    ) -> Self {
        Self {
            id,
            cause,
            reason,
            dead_lettered_at,
            due_at: dead_lettered_at,
            attempts: 0,
            payload,
            headers: Headers::default(),
            group: None,
        }
    }
}

/// Which way a task became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeadLetterCause {
    /// It was attempted as often as it may be.
    AttemptsUsedUp,
    /// It had expired when it was to be delivered.
    Expired,
    /// Its handler, or a payload that can't be decoded, asked for it.
    #[serde(rename = "buried")]
    Requested,
}

impl DeadLetterCause {
    /// The cause as one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsUsedUp => "attempts_used_up",
            Self::Expired => "expired",
            Self::Requested => "buried",
        }
    }
}

/// How a queue stands. Counts are taken while it works, so they need not belong to one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Tasks that are not due yet, retries included.
    pub scheduled: u64,
    /// Tasks that are due and wait for a claim.
    pub due: u64,
    /// Tasks under a live lease.
    pub in_flight: u64,
    /// Dead letters.
    pub dead: u64,
    /// Foreign or corrupt entries that were quarantined.
    pub quarantined: u64,
    /// Dead letters that were dropped because there were more than the store keeps.
    pub dead_dropped: u64,
    /// How long the oldest due task has been waiting.
    pub oldest_due: Option<Duration>,
    /// How long until the next scheduled task is due.
    pub next_due_in: Option<Duration>,
    /// How many of the scheduled are due how soon; `None` where the store can't count that cheaply.
    pub due_within: Option<DueWithin>,
    /// Whether delivery is paused.
    pub paused: bool,
}

/// How many of a queue's [scheduled](QueueStats::scheduled) tasks are due within which time from now: each count holds
/// those before it. Tasks that are due already, and those under a lease, are in none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DueWithin {
    /// Within 1 s.
    pub second: u64,
    /// Within 60 s.
    pub minute: u64,
    /// Within 3,600 s.
    pub hour: u64,
    /// Within 86,400 s.
    pub day: u64,
}

impl DueWithin {
    /// The times that are counted by, the shortest first; one that lies just so far ahead counts.
    pub const WINDOWS: [Duration; 4] =
        [Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(3_600), Duration::from_secs(86_400)];

    /// For backend authors: the counts in the order of [`WINDOWS`](Self::WINDOWS).
    #[must_use]
    pub fn new([second, minute, hour, day]: [u64; 4]) -> Self {
        Self { second, minute, hour, day }
    }

    /// The counts in the order of [`WINDOWS`](Self::WINDOWS).
    #[must_use]
    pub fn counts(self) -> [u64; 4] {
        [self.second, self.minute, self.hour, self.day]
    }

    /// For backend authors: counts one scheduled task that is due after this time.
    pub fn count(&mut self, due_in: Duration) {
        let counts = [&mut self.second, &mut self.minute, &mut self.hour, &mut self.day];
        for (count, _) in counts.into_iter().zip(Self::WINDOWS).filter(|(_, window)| due_in <= *window) {
            *count += 1;
        }
    }
}

/// What an operator does with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminOp {
    /// Stops delivery; everything else goes on, and leases can be settled.
    Pause,
    /// Hands out again.
    Resume,
    /// Deletes the queue with all its tasks and dead letters; leases on them are lost.
    Delete,
}
