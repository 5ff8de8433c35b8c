//! Changing waiting tasks: cancel, move and shift, for single tasks or a whole group.

use std::time::Duration;

use crate::{Due, Error, GroupName, OperationId, Result, TaskRef};

/// Which tasks to change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Select {
    /// These tasks: at most [`Capabilities::batch_max`](crate::Capabilities) in one call of a backend, any number in
    /// [`Queue::change`](crate::Queue::change).
    Tasks(Vec<TaskRef>),
    /// All tasks that were scheduled into this group before the change began.
    Group(GroupName),
}

/// What to do with the selected tasks.
///
/// With an [`OperationId`], a change can be repeated after a lost answer or a dropped call: it continues where it
/// stopped, and changes no task twice. Backends remember an operation id for
/// [`Capabilities::operation_window`](crate::Capabilities).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The action.
    pub action: Action,
    /// Operation id, under which the change can be repeated. Default: none; repeating the change then applies it again.
    pub operation: Option<OperationId>,
}

/// What a change does to a waiting task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Removes the task. A task in flight is marked: it is not delivered again, and its handler learns of the
    /// cancellation at its next extension.
    Cancel,
    /// Sets the due time. A task in flight is left alone.
    MoveTo(Due),
    /// Moves the due time later or sooner by this much. A task in flight is left alone.
    Shift(Shift),
}

/// A duration with a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shift {
    /// Due later.
    Later(Duration),
    /// Due sooner. A task whose new due time is in the past is due at once.
    Sooner(Duration),
}

impl Shift {
    /// The shift in whole milliseconds, negative for sooner. Rounded so that no task becomes due earlier than
    /// requested: later is rounded up, sooner down. Saturates at 2^52 ms, about 140,000 years.
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
    /// A change that cancels.
    #[must_use]
    pub fn cancel() -> Self {
        Self::of(Action::Cancel)
    }

    /// A change that sets the due time.
    pub fn move_to(due: impl Into<Due>) -> Self {
        Self::of(Action::MoveTo(due.into()))
    }

    /// A change that moves the due time later or sooner.
    #[must_use]
    pub fn shift(by: Shift) -> Self {
        Self::of(Action::Shift(by))
    }

    /// A change with this action, without an operation id.
    #[must_use]
    pub fn of(action: Action) -> Self {
        Self { action, operation: None }
    }

    /// Sets the operation id, under which the caller can repeat the change.
    #[must_use]
    pub fn operation(mut self, operation: OperationId) -> Self {
        self.operation = Some(operation);
        self
    }
}

/// What a change did with one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeOutcome {
    /// The task was waiting, and was changed.
    Changed,
    /// The task is in flight: a cancel marked it, a move or shift left it alone.
    InFlight,
    /// The task was completed, cancelled or dead-lettered, or never existed.
    NotFound,
    /// The change is on its way; this backend can't tell whether it reaches the task in time.
    Requested,
}

impl ChangeOutcome {
    /// The outcome as one lower-case word, such as `in_flight`.
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

/// The result of a change.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Changed {
    /// For [`Select::Tasks`]: one result for each task, in order. A task with an inner error (such as a shift out of
    /// range) was not changed, with one exception: [`Queue::change`](crate::Queue::change) made several calls, and the
    /// answer of one was lost. Empty for a group.
    pub outcomes: Vec<Result<ChangeOutcome>>,
    /// Number of tasks that were changed.
    pub changed: u64,
    /// Number of tasks in flight.
    pub in_flight: u64,
    /// Number of tasks that were not found.
    pub not_found: u64,
    /// Number of tasks for which a change was requested whose outcome is unknown.
    pub requested: u64,
    /// Number of tasks whose result is an error. They were left as they were, except for those with
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous).
    pub refused: u64,
    /// The first of these errors.
    pub first_refusal: Option<Error>,
}

impl Changed {
    /// For backend authors: counts the result of one task.
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
