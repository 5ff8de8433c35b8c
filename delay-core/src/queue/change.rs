//! Changing waiting tasks: one, many, or a group.

use super::handle::Queue;
use crate::client::answers::{only, spread};
use crate::client::line::Line;
use crate::meter::{self, Event};
use crate::{Action, Change, ChangeOutcome, Changed, Due, GroupName, Result, Select, Shift, TaskRef};

impl<T: 'static> Queue<T> {
    /// Cancels a task.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`](crate::DelayBackend::change).
    pub async fn cancel(&self, task: impl Into<TaskRef>) -> Result<ChangeOutcome> {
        self.change_one(task.into(), Change::cancel()).await
    }

    /// Sets the due time of a waiting task.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`](crate::DelayBackend::change).
    pub async fn move_to(&self, task: impl Into<TaskRef>, due: impl Into<Due>) -> Result<ChangeOutcome> {
        self.change_one(task.into(), Change::move_to(due)).await
    }

    /// Moves the due time of a waiting task later or sooner.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`](crate::DelayBackend::change).
    pub async fn shift(&self, task: impl Into<TaskRef>, by: Shift) -> Result<ChangeOutcome> {
        self.change_one(task.into(), Change::shift(by)).await
    }

    /// Cancels all tasks of a group.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`](crate::DelayBackend::change).
    pub async fn cancel_group(&self, group: &GroupName) -> Result<Changed> {
        self.change(Select::Group(group.clone()), Change::cancel()).await
    }

    /// Sets the due time of all waiting tasks of a group.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`](crate::DelayBackend::change).
    pub async fn move_group(&self, group: &GroupName, due: impl Into<Due>) -> Result<Changed> {
        self.change(Select::Group(group.clone()), Change::move_to(due)).await
    }

    /// Moves the due times of all waiting tasks of a group later or sooner.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`](crate::DelayBackend::change).
    pub async fn shift_group(&self, group: &GroupName, by: Shift) -> Result<Changed> {
        self.change(Select::Group(group.clone()), Change::shift(by)).await
    }

    /// Changes the selected tasks. With an [`OperationId`](crate::OperationId), the change can be repeated until it is
    /// known to be complete.
    ///
    /// Any number of tasks is allowed: they are sent in calls of at most
    /// [`Capabilities::batch_max`](crate::Capabilities) tasks, one call after the other. A move by a delay counts the
    /// delay anew for each call. A group is changed by one call.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`](crate::DelayBackend::change), if the first call fails. If a later call fails,
    /// its error is the answer for its tasks and for all tasks that were not sent yet. Repeated with the same tasks and
    /// operation id, the change continues there.
    ///
    /// # Cancel safety
    /// If the call is dropped, some of the tasks may have been changed. With an operation id, repeat the call to
    /// finish.
    pub async fn change(&self, select: Select, change: Change) -> Result<Changed> {
        let action = change.action;
        let changed = match select {
            Select::Tasks(tasks) => change_tasks(self.line(), tasks, change).await?,
            Select::Group(_) => self.backend().change(self.name(), select, change).await?,
        };
        let what = match action {
            Action::Cancel => Event::Cancelled,
            Action::MoveTo(_) | Action::Shift(_) => Event::Moved,
        };
        meter::count(self.name().as_str(), what, changed.changed);
        Ok(changed)
    }

    async fn change_one(&self, task: TaskRef, change: Change) -> Result<ChangeOutcome> {
        only(self.change(Select::Tasks(vec![task]), change).await?.outcomes)
    }
}

/// Changes tasks, in as many calls as needed; see [`Queue::change`].
///
/// The operation id of each call is derived from the change's own id and the call's number. When the change is repeated
/// with the same tasks, each call therefore continues where it stopped. If the tasks of a call differ from before, the
/// store rejects that call.
async fn change_tasks(line: &Line, mut tasks: Vec<TaskRef>, change: Change) -> Result<Changed> {
    let mut all = Changed::default();
    for number in 0.. {
        let later = tasks.split_off(tasks.len().min(line.batch_max()));
        if number == 0 && later.is_empty() {
            return line.backend.change(&line.name, Select::Tasks(tasks), change).await;
        }
        let asked = tasks.len();
        let piece = Change { operation: change.operation.map(|id| id.of_piece(number)), ..change.clone() };
        let answer = line.backend.change(&line.name, Select::Tasks(tasks), piece).await.map(|changed| changed.outcomes);
        let failed = answer.is_err();
        // What was not sent yet would most likely fail in the same way, each call after its own timeout.
        let answered = if failed { asked + later.len() } else { asked };
        if failed && number == 0 {
            return answer.map(|_| all);
        }
        for outcome in spread(answer, answered) {
            all.count(&outcome);
            all.outcomes.push(outcome);
        }
        if failed || later.is_empty() {
            break;
        }
        tasks = later;
    }
    Ok(all)
}
