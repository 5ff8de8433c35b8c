//! What a backend can and can't do, in numbers. Tests use them as bounds; nothing decides by a backend's name.

use std::time::Duration;

use crate::{Error, ErrorKind, NewTask, Result};

/// What a backend promises beyond the common rules.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Its name, for people.
    pub name: &'static str,
    /// What an accepted task survives.
    pub durability: Durability,
    /// How exact the delivery order is.
    pub order: Order,
    /// The unit in which due times are kept.
    pub resolution: Duration,
    /// How late a task may be delivered when a consumer waits and the machine is not busy, beyond `resolution`.
    pub lateness: Duration,
    /// The farthest due time from now; beyond it is [`OutOfRange`](ErrorKind::OutOfRange).
    pub delay_max: Duration,
    /// The longest lease.
    pub lease_max: Duration,
    /// What a lease hangs on beside its time.
    pub lease_hold: LeaseHold,
    /// The largest payload, in bytes.
    pub payload_bytes_max: usize,
    /// The most tasks in one call.
    pub batch_max: usize,
    /// How long a consumer may sleep without asking, so that a lost notification delays it no longer (LIVE).
    pub fallback_poll_interval: Duration,
    /// How long the id of a completed task is remembered, so that scheduling it again has no effect.
    pub retry_window: Duration,
    /// How long the [`OperationId`](crate::OperationId) of a change is remembered, so that no task changes twice.
    pub operation_window: Duration,
    /// `extend`.
    pub extend: Support,
    /// Cancelling a task.
    pub cancel: Support,
    /// Moving and shifting a task.
    pub reschedule: Support,
    /// Changing a whole group.
    pub groups: Support,
    /// Whether a group change happens at one instant rather than in chunks.
    pub groups_atomic: bool,
    /// Whether `change` needs the [`Receipt`](crate::Receipt) that `schedule` gave.
    pub change_needs_receipt: bool,
    /// [`OnConflict::Replace`](crate::OnConflict).
    pub replace: Support,
    /// Answering [`Existing`](crate::ScheduleOutcome::Existing) for an id that is pending.
    pub unique_ids: Support,
    /// `find` and `list`.
    pub inspect: Support,
    /// Listing, redriving and purging dead letters.
    pub dead_letters: Support,
    /// Pausing and resuming a queue.
    pub pause: Support,
    /// Deleting a queue.
    pub delete: Support,
    /// `stats` and `queues`.
    pub stats: Support,
}

impl Capabilities {
    /// For backend authors: a backend that only schedules, delivers and settles, in any order. What it has beyond that is
    /// set on the value, so that what is added here later is not claimed by anybody who doesn't have it.
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

    /// Checks what can be checked of a task without the store; backends call it before they send.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) for the payload, [`OutOfRange`](ErrorKind::OutOfRange) for a delay beyond
    /// `delay_max`, [`Invalid`](ErrorKind::Invalid) for an expiry before the due time where both are of one kind,
    /// [`Unsupported`](ErrorKind::Unsupported) for a group or a replacement on a backend that has none.
    pub fn check(&self, task: &NewTask) -> Result<()> {
        if task.payload.len() > self.payload_bytes_max {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("a payload of {} bytes; the limit is {}", task.payload.len(), self.payload_bytes_max),
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

    /// Checks a relative delay against `delay_max`; an instant needs the backend's own clock.
    ///
    /// # Errors
    /// [`OutOfRange`](ErrorKind::OutOfRange).
    pub fn check_delay(&self, due: crate::Due) -> Result<()> {
        match due {
            crate::Due::After(delay) if delay > self.delay_max => Err(self.out_of_range()),
            crate::Due::After(_) | crate::Due::At(_) => Ok(()),
        }
    }

    /// Checks a lease's length: 1 ms to `lease_max`.
    ///
    /// # Errors
    /// [`OutOfRange`](ErrorKind::OutOfRange).
    pub fn check_lease(&self, lease: Duration) -> Result<()> {
        if lease >= Duration::from_millis(1) && lease <= self.lease_max {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::OutOfRange,
            format!("a lease of {lease:?}; 1ms to {} are possible", humantime::format_duration(self.lease_max)),
        ))
    }

    /// Checks the size of a batch.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge).
    pub fn check_batch(&self, len: usize) -> Result<()> {
        if len <= self.batch_max {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TooLarge, format!("a batch of {len}; the limit is {}", self.batch_max)))
    }

    /// The error for a due time that is too far away.
    #[must_use]
    pub fn out_of_range(&self) -> Error {
        let days = self.delay_max.as_secs() / 86_400;
        let limit = match days {
            0 => humantime::format_duration(self.delay_max).to_string(),
            1..730 => format!("{days} days"),
            _ => format!("{} years", days * 100 / 36_525),
        };
        Error::new(ErrorKind::OutOfRange, format!("the due time lies more than {limit} ahead, which is the limit"))
    }
}

/// The error for a task that could never run.
#[must_use]
pub(crate) fn expires_before_due() -> Error {
    Error::new(ErrorKind::Invalid, "the task expires before it is due")
}

/// Whether a backend has an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Support {
    /// Yes, with a definite answer.
    Definite,
    /// It can ask for it, and answers [`Requested`](crate::ChangeOutcome::Requested).
    Requested,
    /// No: the call answers [`Unsupported`](ErrorKind::Unsupported).
    Unsupported,
}

impl Support {
    /// As one lower-case word.
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
    /// Nothing beyond its process.
    Process,
    /// The end of its client; a crash of the server may lose the last writes, as it is set up.
    Server,
    /// A crash of the server.
    Disk,
}

impl Durability {
    /// As one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Server => "server",
            Self::Disk => "disk",
        }
    }
}

/// What a lease hangs on beside its time (DUP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseHold {
    /// Nothing: it outlives connections and clients, any client of the store can settle and extend it, and after its end it
    /// still settles until somebody else takes the task.
    Store,
    /// The connection of the client that claimed (DUP-16): only this client can settle and extend it, it is lost when the
    /// connection is, and its end is final.
    Connection,
}

impl LeaseHold {
    /// As one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Connection => "connection",
        }
    }
}

/// How exact the order of delivery is (ORDER).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// By (visible at in milliseconds, sequence), always.
    Exact,
    /// Exact within each shard of a queue, of which there are this many.
    PerShard(u32),
    /// Tasks whose visibility is farther apart than this are in order.
    Within(Duration),
    /// No order is promised.
    Any,
}
