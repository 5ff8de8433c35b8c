//! The events of a history. Times are microseconds: `at_us` since the history began, on the client's monotonic clock.

use std::time::Duration;

use delayline_core as core;
use delayline_core::{
    Bytes, ChangeOutcome, ClaimedTask, ErrorKind, GroupName, Headers, Lease, NewTask, OnConflict, QueueName, Select,
    Shift, TaskId, TaskRef, Timestamp,
};
use serde::{Deserialize, Serialize};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, on the client's monotonic clock.
    pub at_us: u64,
    /// When, on the backend's wall clock.
    pub wall: Timestamp,
    /// The call that it belongs to: its invocation and its end have the same number.
    pub call: u64,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A call began.
    Invoked {
        /// By which of the test's clients.
        client: u32,
        /// On which queue.
        queue: QueueName,
        /// Which call.
        op: Op,
    },
    /// It was answered.
    Ok(Answer),
    /// It failed, and no part of it has taken effect.
    Failed {
        /// The error's kind, as `ErrorKind` is written in `Debug`: `LeaseLost`, say.
        kind: String,
        /// The error.
        message: String,
    },
    /// It was dropped, or its answer was lost: it may have taken effect, or be taking effect still.
    Unknown {
        /// Why.
        why: String,
    },
    /// The test has emptied this queue: a task that is still in it is lost.
    Drained {
        /// The queue.
        queue: QueueName,
    },
    /// The backend's wall clock was stepped.
    WallStepped,
    /// A client is being closed, or a fault is injected: leases that are bound to a connection may end.
    ConnectionsEnd,
}

impl What {
    /// The end of a call that answered an error.
    #[must_use]
    pub fn of_error(e: &core::Error) -> Self {
        match e.kind() {
            ErrorKind::Ambiguous => Self::Unknown { why: e.to_string() },
            kind => Self::Failed { kind: kind_name(kind), message: e.to_string() },
        }
    }

    /// How many items this answers for.
    pub(crate) fn operations(&self) -> u64 {
        match self {
            Self::Ok(answer) => answer.operations(),
            Self::Failed { .. } => 1,
            Self::Invoked { .. } | Self::Unknown { .. } | Self::Drained { .. } => 0,
            Self::WallStepped | Self::ConnectionsEnd => 0,
        }
    }
}

/// A kind of error in a history: `LeaseLost`, say.
#[must_use]
pub(super) fn kind_name(kind: ErrorKind) -> String {
    format!("{kind:?}")
}

/// A call that changes something, or delivers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// `schedule`.
    Schedule(Vec<Planned>),
    /// `claim`.
    Claim {
        /// The most tasks.
        max: usize,
        /// The most bytes of payload.
        max_bytes: usize,
        /// The lease's length.
        lease_us: u64,
    },
    /// `settle`.
    Settle(Vec<(Held, Disposition)>),
    /// `extend`.
    Extend {
        /// Which leases.
        leases: Vec<Held>,
        /// How far from now.
        by_us: u64,
    },
    /// `change` of named tasks.
    ChangeTasks {
        /// Which.
        ids: Vec<TaskId>,
        /// What.
        change: Change,
        /// Under which operation id.
        operation: Option<core::OperationId>,
    },
    /// `change` of a group.
    ChangeGroup {
        /// Which.
        group: GroupName,
        /// What.
        change: Change,
        /// Under which operation id.
        operation: Option<core::OperationId>,
    },
    /// Redriving dead letters.
    Redrive {
        /// Which; all without.
        ids: Option<Vec<TaskId>>,
        /// How many a second.
        rate: Option<f64>,
    },
    /// Purging dead letters.
    Purge {
        /// Which; all without.
        ids: Option<Vec<TaskId>>,
    },
    /// Pausing the queue.
    Pause,
    /// Resuming it.
    Resume,
    /// Deleting it.
    Delete,
}

/// The answer to an [`Op`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `schedule`.
    Schedule(Vec<Item<Accepted>>),
    /// To `claim`.
    Claim {
        /// The tasks, in delivery order.
        deliveries: Vec<Delivered>,
        /// How long the caller may wait.
        next_due_us: Option<u64>,
        /// How many it dead-lettered.
        #[serde(rename = "buried")]
        dead_lettered: u64,
        /// How many entries it quarantined.
        #[serde(rename = "set_aside")]
        quarantined: u64,
    },
    /// To `settle`.
    Settle(Vec<Item<()>>),
    /// To `extend`.
    Extend(Vec<Item<Extended>>),
    /// To `change`.
    Change {
        /// For named tasks, one for each.
        outcomes: Vec<Item<ChangeAnswer>>,
        /// How many of each.
        tally: Tally,
    },
    /// To redrive and purge.
    Dead {
        /// How many were redriven or purged.
        affected: u64,
        /// How many could not be redriven.
        kept: u64,
    },
    /// To pause, resume and delete.
    Done,
}

impl Answer {
    fn operations(&self) -> u64 {
        let items = match self {
            Self::Schedule(items) => items.len(),
            Self::Claim { deliveries, .. } => deliveries.len().max(1),
            Self::Settle(items) => items.len(),
            Self::Extend(items) => items.len(),
            Self::Change { outcomes, .. } => outcomes.len().max(1),
            Self::Dead { .. } | Self::Done => 1,
        };
        items as u64
    }
}

/// The answer to one item of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item<T> {
    /// It took effect.
    Ok(T),
    /// It failed and had no effect; the error's kind.
    Failed(String),
    /// It may have taken effect.
    Unknown,
}

impl<T> Item<T> {
    /// One item's result.
    pub fn of<A>(result: &core::Result<A>, ok: impl FnOnce(&A) -> T) -> Self {
        match result {
            Ok(answer) => Self::Ok(ok(answer)),
            Err(e) if e.kind() == ErrorKind::Ambiguous => Self::Unknown,
            Err(e) => Self::Failed(kind_name(e.kind())),
        }
    }
}

/// A task as it was passed to `schedule`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The caller's id.
    pub id: Option<TaskId>,
    /// When it is to be due.
    pub due: Due,
    /// When it expires.
    pub expires: Option<Due>,
    /// What is to be delivered.
    pub content: Content,
    /// Whether it replaces.
    pub replace: bool,
}

/// A due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    /// This long after acceptance, in microseconds.
    AfterUs(u64),
    /// At this instant of the backend's wall clock.
    At(Timestamp),
}

/// What a task carries: payloads as their length and a hash, which is enough to tell them apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The payload's length in bytes.
    pub payload_len: usize,
    /// The payload's hash, FNV-1a of 64 bits.
    pub payload_hash: u64,
    /// The headers.
    pub headers: Headers,
    /// The group.
    pub group: Option<GroupName>,
    /// The attempts it may have.
    #[serde(rename = "max_attempts")]
    pub attempts_max: u32,
}

/// An accepted task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Where it is.
    pub task: TaskRef,
    /// `created`, `existing` or `replaced`.
    pub outcome: String,
}

impl Accepted {
    /// Whether the task that was scheduled is a task of its own now.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.outcome != "existing"
    }
}

/// A task that was delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// Its lease.
    pub lease: Held,
    /// Which attempt.
    pub attempt: u32,
    /// When the lease ends, as it says.
    pub lease_expires: Timestamp,
    /// When it was due, as the backend says.
    pub due_at: Timestamp,
    /// How late it was, as the backend says.
    pub lateness_us: u64,
    /// When it expires, as the backend says.
    pub expires_at: Option<Timestamp>,
    /// What was delivered.
    pub content: Content,
}

/// A lease: the fence is unique for an id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Held {
    /// The task.
    pub id: TaskId,
    /// The fence.
    pub fence: u64,
}

/// A disposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// Done.
    Complete,
    /// Again after this many microseconds.
    Retry(u64),
    /// Again after this many microseconds, with no attempt counted.
    Snooze(u64),
    /// To the dead letters.
    #[serde(rename = "bury")]
    DeadLetter,
    /// Given back.
    Release,
}

/// An extended lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extended {
    /// When it ends now, as it says.
    pub lease_expires: Timestamp,
    /// Whether the task was cancelled.
    pub cancelled: bool,
}

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Cancel.
    Cancel,
    /// Make due then.
    MoveTo(Due),
    /// Make due later (positive) or sooner, in microseconds.
    Shift(i64),
}

/// What became of one task under a change, as one word: `changed`, `in_flight`, `not_found` or `requested`.
pub type ChangeAnswer = String;

/// How many tasks of a change got which answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Changed.
    pub changed: u64,
    /// In flight.
    pub in_flight: u64,
    /// Not found.
    pub not_found: u64,
    /// Asked for.
    pub requested: u64,
    /// Refused.
    pub refused: u64,
}

/// A length of time in a history.
#[must_use]
pub(super) fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

impl From<core::Due> for Due {
    fn from(due: core::Due) -> Self {
        match due {
            // Rounded up, so that 300 ns are told apart from at once, as every backend does.
            core::Due::After(after) => Self::AfterUs(micros(after.saturating_add(Duration::from_nanos(999)))),
            core::Due::At(at) => Self::At(at),
            _ => unreachable!("one that the suite does not know"),
        }
    }
}

impl Content {
    fn new(payload: &Bytes, headers: &Headers, group: Option<&GroupName>, attempts_max: u32) -> Self {
        Self {
            payload_len: payload.len(),
            payload_hash: fnv1a(payload),
            headers: headers.clone(),
            group: group.cloned(),
            attempts_max,
        }
    }
}

/// Fowler, Noll and Vo's hash: the same in every run and version, because files keep it.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl From<&NewTask> for Planned {
    fn from(task: &NewTask) -> Self {
        Self {
            id: task.id.clone(),
            due: task.due.into(),
            expires: task.expires.map(Due::from),
            content: Content::new(&task.payload, &task.headers, task.group.as_ref(), task.attempts_max.get()),
            replace: task.on_conflict == OnConflict::Replace,
        }
    }
}

impl From<&core::Scheduled> for Accepted {
    fn from(scheduled: &core::Scheduled) -> Self {
        Self { task: scheduled.task.clone(), outcome: scheduled.outcome.as_str().into() }
    }
}

impl From<&ClaimedTask> for Delivered {
    fn from(task: &ClaimedTask) -> Self {
        Self {
            lease: Held::from(&task.lease),
            attempt: task.lease.attempt,
            lease_expires: task.lease.expires_at,
            due_at: task.due_at,
            lateness_us: micros(task.lateness),
            expires_at: task.expires_at,
            content: Content::new(&task.payload, &task.headers, task.group.as_ref(), task.attempts_max),
        }
    }
}

impl From<&Lease> for Held {
    fn from(lease: &Lease) -> Self {
        Self { id: lease.id.clone(), fence: lease.fence }
    }
}

impl From<&Lease> for Extended {
    fn from(lease: &Lease) -> Self {
        Self { lease_expires: lease.expires_at, cancelled: lease.cancelled }
    }
}

impl From<&core::Disposition> for Disposition {
    fn from(disposition: &core::Disposition) -> Self {
        match disposition {
            core::Disposition::Complete => Self::Complete,
            core::Disposition::Retry { after, .. } => Self::Retry(micros(*after)),
            core::Disposition::Snooze { after } => Self::Snooze(micros(*after)),
            core::Disposition::DeadLetter { .. } => Self::DeadLetter,
            core::Disposition::Release => Self::Release,
            _ => unreachable!("one that the suite does not know"),
        }
    }
}

impl From<core::Action> for Change {
    fn from(action: core::Action) -> Self {
        let signed = |d| i64::try_from(micros(d)).unwrap_or(i64::MAX);
        match action {
            core::Action::Cancel => Self::Cancel,
            core::Action::MoveTo(due) => Self::MoveTo(due.into()),
            core::Action::Shift(Shift::Later(by)) => Self::Shift(signed(by)),
            core::Action::Shift(Shift::Sooner(by)) => Self::Shift(-signed(by)),
            _ => unreachable!("one that the suite does not know"),
        }
    }
}

impl Op {
    /// A change as it is called.
    #[must_use]
    pub fn change(select: &Select, change: &core::Change) -> Self {
        let (operation, what) = (change.operation, Change::from(change.action));
        match select {
            Select::Tasks(tasks) => {
                Self::ChangeTasks { ids: tasks.iter().map(|t| t.id.clone()).collect(), change: what, operation }
            }
            Select::Group(group) => Self::ChangeGroup { group: group.clone(), change: what, operation },
            _ => unreachable!("one that the suite does not know"),
        }
    }
}

impl From<&core::Changed> for Answer {
    fn from(changed: &core::Changed) -> Self {
        let word = |outcome: &ChangeOutcome| outcome.as_str().to_string();
        Self::Change {
            outcomes: changed.outcomes.iter().map(|outcome| Item::of(outcome, word)).collect(),
            tally: Tally {
                changed: changed.changed,
                in_flight: changed.in_flight,
                not_found: changed.not_found,
                requested: changed.requested,
                refused: changed.refused,
            },
        }
    }
}
