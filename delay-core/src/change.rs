//! Changing tasks that wait: cancel, move and shift, one at a time or a whole group.

use std::time::Duration;

use crate::{Due, Error, GroupName, OperationId, Result, TaskRef};

/// Which tasks to change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Select {
    /// These: at most [`Capabilities::batch_max`](crate::Capabilities) in one call of a backend, any number of
    /// [`Queue::change`](crate::Queue::change).
    Tasks(Vec<TaskRef>),
    /// All that were scheduled into this group before the change began.
    Group(GroupName),
}

/// What to do with them.
///
/// Under an [`OperationId`] of the caller's, repeating the change after a lost answer or a dropped call goes on where it
/// stopped, and changes no task twice. Backends remember an id for
/// [`Capabilities::operation_window`](crate::Capabilities).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// What to do.
    pub action: Action,
    /// The id to repeat it by; without one, the change can't be repeated.
    pub operation: Option<OperationId>,
}

/// What a change does to a waiting task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Removes it. One in flight is marked: it is not delivered again, and its handler learns of it at its next
    /// extension.
    Cancel,
    /// Makes it due then. One in flight is left alone.
    MoveTo(Due),
    /// Makes it due this much later or sooner than it would be. One in flight is left alone.
    Shift(Shift),
}

/// A distance in time with a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shift {
    /// Due later.
    Later(Duration),
    /// Due sooner; at once, if that lies in the past.
    Sooner(Duration),
}

impl Shift {
    /// In whole milliseconds, negative for sooner. Rounded so that no task comes earlier than asked: later up, sooner
    /// down. Saturates at 2^52, about 140,000 years.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        const MAX: u128 = 1 << 52;
        match self {
            Self::Later(by) => by.as_nanos().div_ceil(1_000_000).min(MAX) as i64,
            Self::Sooner(by) => -(by.as_millis().min(MAX) as i64),
        }
    }
}

impl Change {
    /// Cancels.
    #[must_use]
    pub fn cancel() -> Self {
        Self::of(Action::Cancel)
    }

    /// Makes due then.
    pub fn move_to(due: impl Into<Due>) -> Self {
        Self::of(Action::MoveTo(due.into()))
    }

    /// Makes due later or sooner.
    #[must_use]
    pub fn shift(by: Shift) -> Self {
        Self::of(Action::Shift(by))
    }

    /// An action, without an operation id.
    #[must_use]
    pub fn of(action: Action) -> Self {
        Self { action, operation: None }
    }

    /// The same change under an id that the caller keeps, to repeat it by.
    #[must_use]
    pub fn operation(mut self, operation: OperationId) -> Self {
        self.operation = Some(operation);
        self
    }
}

/// What became of one task under a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeOutcome {
    /// It was waiting, and was changed.
    Changed,
    /// It is in flight: marked by a cancel, left alone by a move or shift.
    InFlight,
    /// It was completed, cancelled or dead-lettered, or never there.
    NotFound,
    /// The change is on its way, and this backend can't tell whether it will reach the task in time.
    Requested,
}

impl ChangeOutcome {
    /// As one lower-case word, such as `in_flight`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::InFlight => "in_flight",
            Self::NotFound => "not_found",
            Self::Requested => "requested",
        }
    }
}

/// The answer to a change.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Changed {
    /// For [`Select::Tasks`]: one answer for each, in order. An inner error (a shift out of range, say) changed nothing,
    /// except where [`Queue::change`](crate::Queue::change) took several calls, one of which was lost.
    /// Empty for a group.
    pub outcomes: Vec<Result<ChangeOutcome>>,
    /// How many were changed.
    pub changed: u64,
    /// How many were in flight.
    pub in_flight: u64,
    /// How many were not found.
    pub not_found: u64,
    /// How many got a request whose outcome is not known.
    pub requested: u64,
    /// How many have an error for their answer: left as they were, unless that is
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous).
    pub refused: u64,
    /// Why the first of those was refused.
    pub first_refusal: Option<Error>,
}

impl Changed {
    /// For backend authors: counts one task's answer.
    pub fn count(&mut self, outcome: &Result<ChangeOutcome>) {
        match outcome {
            Ok(ChangeOutcome::Changed) => self.changed += 1,
            Ok(ChangeOutcome::InFlight) => self.in_flight += 1,
            Ok(ChangeOutcome::NotFound) => self.not_found += 1,
            Ok(ChangeOutcome::Requested) => self.requested += 1,
            Err(e) => {
                self.refused += 1;
                self.first_refusal.get_or_insert_with(|| e.clone());
            }
        }
    }
}
