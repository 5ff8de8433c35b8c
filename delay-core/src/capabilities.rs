//! What a backend supports, and its limits. Tests use these values as bounds; no code decides by a backend's name.

use std::time::Duration;

use crate::{Error, ErrorKind, NewTask, Result};

/// What a backend supports and promises beyond the common rules.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Name of the backend, for people.
    pub name: &'static str,
    /// What an accepted task survives.
    pub durability: Durability,
    /// How exact the delivery order is.
    pub order: Order,
    /// Unit in which due times are kept.
    pub resolution: Duration,
    /// Maximum lateness beyond `resolution`, while a consumer waits and the machine is not busy.
    pub lateness: Duration,
    /// Maximum distance of a due time from now. A due time beyond it is [`OutOfRange`](ErrorKind::OutOfRange).
    pub delay_max: Duration,
    /// Maximum lease duration.
    pub lease_max: Duration,
    /// What a lease depends on, besides its time.
    pub lease_hold: LeaseHold,
    /// Maximum payload size, in bytes.
    pub payload_bytes_max: usize,
    /// Maximum number of tasks in one call.
    pub batch_max: usize,
    /// Maximum time that a consumer sleeps without asking the store. It bounds the delay that a lost notification
    /// causes (LIVE).
    pub fallback_poll_interval: Duration,
    /// How long the id of a completed task is remembered. During this time, scheduling the id again has no effect.
    pub retry_window: Duration,
    /// How long the [`OperationId`](crate::OperationId) of a change is remembered. During this time, repeating the
    /// change changes no task twice.
    pub operation_window: Duration,
    /// Extending leases: `extend`.
    pub extend: Support,
    /// Cancelling tasks.
    pub cancel: Support,
    /// Moving and shifting tasks.
    pub reschedule: Support,
    /// Scheduling into groups and changing whole groups.
    pub groups: Support,
    /// Whether a group change happens at one instant. Otherwise it runs in chunks.
    pub groups_atomic: bool,
    /// Whether `change` needs the [`Receipt`](crate::Receipt) that `schedule` returned.
    pub change_needs_receipt: bool,
    /// Replacing tasks: [`OnConflict::Replace`](crate::OnConflict).
    pub replace: Support,
    /// Unique ids: `schedule` answers [`Existing`](crate::ScheduleOutcome::Existing) for an id that is pending.
    pub unique_ids: Support,
    /// Inspecting tasks: `find` and `list`.
    pub inspect: Support,
    /// Listing, redriving and purging dead letters.
    pub dead_letters: Support,
    /// Pausing and resuming a queue.
    pub pause: Support,
    /// Deleting a queue.
    pub delete: Support,
    /// Counting: `stats` and `queues`.
    pub stats: Support,
}

impl Capabilities {
    /// For backend authors: a backend that only schedules, delivers and settles, in any order. Set what your backend
    /// supports beyond that on the value. A capability that is added here later is then not claimed by a backend that
    /// does not support it.
    #[must_use]
    pub fn minimal(name: &'static str) -> Self {
        Self {
            name,
            durability: Durability::Process,
            order: Order::Any,
            resolution: Duration::from_millis(1),
            lateness: Duration::from_millis(1),
            delay_max: Duration::from_secs(365 * 86_400),
            lease_max: Duration::from_secs(12 * 3600),
            lease_hold: LeaseHold::Connection,
            payload_bytes_max: 256 * 1024,
            batch_max: 1_000,
            fallback_poll_interval: Duration::from_secs(30),
            retry_window: Duration::ZERO,
            operation_window: Duration::ZERO,
            extend: Support::Unsupported,
            cancel: Support::Unsupported,
            reschedule: Support::Unsupported,
            groups: Support::Unsupported,
            groups_atomic: false,
            change_needs_receipt: false,
            replace: Support::Unsupported,
            unique_ids: Support::Unsupported,
            inspect: Support::Unsupported,
            dead_letters: Support::Unsupported,
            pause: Support::Unsupported,
            delete: Support::Unsupported,
            stats: Support::Unsupported,
        }
    }

    /// Checks everything about a task that can be checked without the store. Backends call it before they send.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) for the payload. [`OutOfRange`](ErrorKind::OutOfRange) for a delay beyond
    /// `delay_max`. [`Invalid`](ErrorKind::Invalid) for an expiry before the due time, if both are delays or both are
    /// instants. [`Unsupported`](ErrorKind::Unsupported) for a group or a replacement, if the backend does not support
    /// it.
    pub fn check(&self, task: &NewTask) -> Result<()> {
        if task.payload.len() > self.payload_bytes_max {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("payload is {} bytes; the limit is {} bytes", task.payload.len(), self.payload_bytes_max),
            ));
        }
        if task.group.is_some() && self.groups == Support::Unsupported {
            return Err(Error::unsupported("group"));
        }
        if task.on_conflict == crate::OnConflict::Replace && self.replace == Support::Unsupported {
            return Err(Error::unsupported("replace"));
        }
        self.check_delay(task.due)?;
        match (task.expires, task.due) {
            (Some(crate::Due::After(expires)), crate::Due::After(due)) if expires < due => Err(expires_before_due()),
            (Some(crate::Due::At(expires)), crate::Due::At(due)) if expires < due => Err(expires_before_due()),
            _ => Ok(()),
        }
    }

    /// Checks a relative delay against `delay_max`. An instant is not checked, because that needs the backend's clock.
    ///
    /// # Errors
    /// [`OutOfRange`](ErrorKind::OutOfRange) for a delay beyond `delay_max`.
    pub fn check_delay(&self, due: crate::Due) -> Result<()> {
        match due {
            crate::Due::After(delay) if delay > self.delay_max => Err(self.out_of_range()),
            crate::Due::After(_) | crate::Due::At(_) => Ok(()),
        }
    }

    /// Checks a lease duration. Range: 1 ms to `lease_max`.
    ///
    /// # Errors
    /// [`OutOfRange`](ErrorKind::OutOfRange) for a duration outside this range.
    pub fn check_lease(&self, lease: Duration) -> Result<()> {
        if lease >= Duration::from_millis(1) && lease <= self.lease_max {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::OutOfRange,
            format!("expected a lease of 1ms to {}, got {lease:?}", humantime::format_duration(self.lease_max)),
        ))
    }

    /// Checks the size of a batch against `batch_max`.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) for a larger batch.
    pub fn check_batch(&self, len: usize) -> Result<()> {
        if len <= self.batch_max {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TooLarge, format!("batch has {len} items; the limit is {}", self.batch_max)))
    }

    /// The error for a due time beyond `delay_max`.
    #[must_use]
    pub fn out_of_range(&self) -> Error {
        let days = self.delay_max.as_secs() / 86_400;
        let limit = match days {
            0 => humantime::format_duration(self.delay_max).to_string(),
            1..730 => format!("{days} days"),
            _ => format!("{} years", days * 100 / 36_525),
        };
        Error::new(ErrorKind::OutOfRange, format!("the time is more than {limit} ahead, which is the limit"))
    }
}

/// The error for a task that could never run.
#[must_use]
pub(crate) fn expires_before_due() -> Error {
    Error::new(ErrorKind::Invalid, "the task expires before it is due")
}

/// Whether a backend supports an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Support {
    /// Supported, with a definite outcome.
    Definite,
    /// Supported as a request: the backend answers [`Requested`](crate::ChangeOutcome::Requested).
    Requested,
    /// Not supported: the call returns [`Unsupported`](ErrorKind::Unsupported).
    Unsupported,
}

impl Support {
    /// The value as one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Definite => "definite",
            Self::Requested => "requested",
            Self::Unsupported => "unsupported",
        }
    }
}

/// What an accepted task survives (LOSS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: the task is lost when its process ends.
    Process,
    /// The end of the client. A crash of the server may lose the last writes, depending on its configuration.
    Server,
    /// A crash of the server.
    Disk,
}

impl Durability {
    /// The value as one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Server => "server",
            Self::Disk => "disk",
        }
    }
}

/// What a lease depends on, besides its time (DUP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseHold {
    /// Nothing else. The lease outlives connections and clients, and any client of the store can settle and extend it.
    /// After its end, it still settles until somebody else takes the task.
    Store,
    /// The connection of the client that claimed the task (DUP-16). Only this client can settle and extend the lease;
    /// the lease is lost when the connection is lost; and its end is final.
    Connection,
}

impl LeaseHold {
    /// The value as one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Connection => "connection",
        }
    }
}

/// How exact the delivery order is (ORDER).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Always by (visible at in milliseconds, sequence).
    Exact,
    /// Exact within each shard of a queue. The value is the number of shards.
    PerShard(u32),
    /// Exact for tasks whose times of visibility are farther apart than this.
    Within(Duration),
    /// No promised order.
    Any,
}
