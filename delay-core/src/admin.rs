//! Inspecting and administering queues: listings, dead letters, statistics, pause and resume.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hidden::Hidden;
use crate::limits::PAGE_MAX;
use crate::{GroupName, Headers, Reason, Receipt, TaskId, TaskView, Timestamp};

/// Which part of a listing of tasks to return.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// Position after which the page starts: that of the last [`TaskView`] of the previous page. Default: `None`, the
    /// beginning.
    pub after: Option<Cursor>,
    /// Maximum number of tasks. Range: up to 1,000.
    pub limit: usize,
}

impl Page {
    /// The first `limit` tasks. `limit` is at most 1,000; a larger value is reduced to that.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit: limit.min(PAGE_MAX) }
    }

    /// The `limit` tasks after the last one of the previous page. `limit` is at most 1,000; a larger value is reduced
    /// to that.
    #[must_use]
    pub fn after(last: &TaskView, limit: usize) -> Self {
        Self { after: Some(Cursor::of(last)), limit: limit.min(PAGE_MAX) }
    }
}

/// A position in a listing of tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cursor {
    /// When the task at this position becomes visible.
    pub visible_at: Timestamp,
    /// The store's own record of the task, which orders ties.
    pub receipt: Receipt,
}

impl Cursor {
    /// The position of a task.
    #[must_use]
    pub fn of(task: &TaskView) -> Self {
        Self { visible_at: task.visible_at, receipt: task.task.receipt.clone() }
    }
}

/// What to do with dead letters.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DeadLetterOp {
    /// Lists dead letters, oldest first, from a position on.
    List {
        /// Position where the previous page ended. `None` starts with the oldest.
        after: Option<u64>,
        /// Maximum number of dead letters. Range: up to 1,000.
        limit: usize,
    },
    /// Schedules dead letters again, oldest first: due now, with all their attempts and a new sequence. A dead letter
    /// whose id is pending again stays where it is.
    Redrive {
        /// Which dead letters.
        select: DeadLetterSelect,
        /// Maximum rate, in tasks per second; the tasks are staggered evenly. Default: `None`, all at once.
        rate: Option<f64>,
    },
    /// Deletes dead letters.
    Purge {
        /// Which dead letters.
        select: DeadLetterSelect,
    },
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadLetterSelect {
    /// All tasks that were dead-lettered before the call.
    All,
    /// The dead letters with these ids.
    Ids(Vec<TaskId>),
}

/// The result of a [`DeadLetterOp`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DeadLetters {
    /// For a listing: the dead letters of this page.
    pub letters: Vec<DeadLetter>,
    /// For a listing: the position where the next page starts, if there are more.
    pub next: Option<u64>,
    /// Number of dead letters that were redriven or purged.
    pub affected: u64,
    /// Number of dead letters that could not be redriven, because their id is pending again or the store is full. They
    /// stay dead letters.
    pub kept: u64,
}

/// A task that will not run again, and why.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Task id.
    pub id: TaskId,
    /// What made the task a dead letter.
    pub cause: DeadLetterCause,
    /// The reason given by the handler or by the last failure.
    pub reason: Reason,
    /// When the task was dead-lettered.
    pub dead_lettered_at: Timestamp,
    /// When the last attempt was due.
    pub due_at: Timestamp,
    /// Number of attempts.
    pub attempts: u32,
    /// Payload of the task.
    pub payload: Bytes,
    /// Headers of the task.
    pub headers: Headers,
    /// Group of the task.
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
    /// For backend authors: creates a dead letter with the fields that every one has. The others are set on the value.
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

/// What made a task a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeadLetterCause {
    /// The task had no attempts left.
    AttemptsUsedUp,
    /// The task had expired when a claim met it.
    Expired,
    /// The handler asked for it, or the payload can't be decoded.
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

/// The counts of a queue. They are taken while the queue works, so they need not belong to one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Tasks that are not due yet, including retries.
    pub scheduled: u64,
    /// Tasks that are due and wait for a claim.
    pub due: u64,
    /// Tasks under a live lease.
    pub in_flight: u64,
    /// Dead letters.
    pub dead: u64,
    /// Foreign or corrupt entries that were quarantined.
    pub quarantined: u64,
    /// Dead letters that were dropped because the store keeps only a limited number.
    pub dead_dropped: u64,
    /// How long the oldest due task has been waiting; `None` if no task is due, or if the store can't tell.
    pub oldest_due: Option<Duration>,
    /// Time until the next scheduled task is due; `None` if no task is scheduled, or if the store can't tell.
    pub next_due_in: Option<Duration>,
    /// Scheduled tasks by how soon they are due; `None` if the store can't count them cheaply.
    pub due_within: Option<DueWithin>,
    /// Whether delivery is paused.
    pub paused: bool,
}

/// How many of a queue's [scheduled](QueueStats::scheduled) tasks are due within which time from now. The counts are
/// cumulative: each includes those before it. None of them includes tasks that are already due or under a lease.
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
    /// The time windows of the counts, shortest first. A task that is due exactly at the end of a window counts.
    pub const WINDOWS: [Duration; 4] =
        [Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(3_600), Duration::from_secs(86_400)];

    /// For backend authors: creates the counts, in the order of [`WINDOWS`](Self::WINDOWS).
    #[must_use]
    pub fn new([second, minute, hour, day]: [u64; 4]) -> Self {
        Self { second, minute, hour, day }
    }

    /// The counts in the order of [`WINDOWS`](Self::WINDOWS).
    #[must_use]
    pub fn counts(self) -> [u64; 4] {
        [self.second, self.minute, self.hour, self.day]
    }

    /// For backend authors: counts one scheduled task that is due in this time.
    pub fn count(&mut self, due_in: Duration) {
        let counts = [&mut self.second, &mut self.minute, &mut self.hour, &mut self.day];
        for (count, _) in counts.into_iter().zip(Self::WINDOWS).filter(|(_, window)| due_in <= *window) {
            *count += 1;
        }
    }
}

/// What to do with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminOp {
    /// Stops delivery. Everything else continues; leases can still be settled.
    Pause,
    /// Resumes delivery.
    Resume,
    /// Deletes the queue with all its tasks and dead letters. Leases on them are lost.
    Delete,
}
