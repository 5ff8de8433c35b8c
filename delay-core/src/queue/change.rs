//! Changing tasks that wait: one, many, or a group.

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

    /// Makes a waiting task due then.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`](crate::DelayBackend::change).
    pub async fn move_to(&self, task: impl Into<TaskRef>, due: impl Into<Due>) -> Result<ChangeOutcome> {
        self.change_one(task.into(), Change::move_to(due)).await
    }

    /// Makes a waiting task due later or sooner.
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

    /// Makes all waiting tasks of a group due then.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`](crate::DelayBackend::change).
    pub async fn move_group(&self, group: &GroupName, due: impl Into<Due>) -> Result<Changed> {
        self.change(Select::Group(group.clone()), Change::move_to(due)).await
    }

    /// Makes all waiting tasks of a group due later or sooner.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`](crate::DelayBackend::change).
    pub async fn shift_group(&self, group: &GroupName, by: Shift) -> Result<Changed> {
        self.change(Select::Group(group.clone()), Change::shift(by)).await
    }

    /// A change under an operation id of one's own, which can be repeated until it is known to be complete.
    ///
    /// Any number of tasks travel in calls of [`Capabilities::batch_max`](crate::Capabilities), one after the other; a delay to
    /// move them by counts anew for each call. A group is one call.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`](crate::DelayBackend::change), where the first call fails. When a later call fails,
    /// its tasks and all that were not sent yet have its error as their own; repeated with the same tasks and operation id,
    /// the change goes on there.
    ///
    /// # Cancel safety
    /// Dropped, some of the tasks may have been changed; with an operation id, repeat it to finish.
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

/// Changes tasks, in as many calls as they need; see [`Queue::change`].
///
/// Each call has an operation id that follows from the change's own and its place. So repeated with the same tasks, each
/// goes on where it stopped, and a call whose tasks are others than they were is refused by the store.
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
        // What was not sent yet would most likely fail in the same way, each after its own time-out.
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
