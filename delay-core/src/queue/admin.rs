//! Inspecting and administering a queue: listings, statistics, dead letters, pause and resume.

use super::handle::Queue;
use crate::meter::{self, Levels};
use crate::{AdminOp, DeadLetterOp, DeadLetterSelect, DeadLetters, Page, QueueStats, Result, TaskId, TaskView};

impl<T: 'static> Queue<T> {
    /// Returns a task that is pending or in flight; `None` if there is no such task.
    ///
    /// # Errors
    /// Those of [`DelayBackend::find`](crate::DelayBackend::find).
    pub async fn find(&self, id: &TaskId) -> Result<Option<TaskView>> {
        self.backend().find(self.name(), id).await
    }

    /// Returns a page of the tasks that are pending or in flight, in the order in which they become visible.
    ///
    /// # Errors
    /// Those of [`DelayBackend::list`](crate::DelayBackend::list).
    pub async fn list(&self, page: Page) -> Result<Vec<TaskView>> {
        self.backend().list(self.name(), page).await
    }

    /// Counts the queue's tasks.
    ///
    /// # Errors
    /// Those of [`DelayBackend::stats`](crate::DelayBackend::stats).
    pub async fn stats(&self) -> Result<QueueStats> {
        let stats = self.backend().stats(self.name()).await?;
        let QueueStats { scheduled, due, in_flight, dead, paused, .. } = stats;
        let oldest_due = stats.oldest_due.unwrap_or_default();
        meter::levels(self.name().as_str(), Levels { scheduled, due, in_flight, dead, paused, oldest_due });
        Ok(stats)
    }

    /// Stops delivery until [`resume`](Self::resume). Tasks can still be scheduled, changed and settled.
    ///
    /// # Errors
    /// Those of [`DelayBackend::administer`](crate::DelayBackend::administer).
    pub async fn pause(&self) -> Result<()> {
        self.backend().administer(self.name(), AdminOp::Pause).await
    }

    /// Resumes delivery.
    ///
    /// # Errors
    /// Those of [`DelayBackend::administer`](crate::DelayBackend::administer).
    pub async fn resume(&self) -> Result<()> {
        self.backend().administer(self.name(), AdminOp::Resume).await
    }

    /// Deletes all tasks and dead letters of the queue. Leases on the deleted tasks are lost.
    ///
    /// # Errors
    /// Those of [`DelayBackend::administer`](crate::DelayBackend::administer).
    pub async fn delete(&self) -> Result<()> {
        self.backend().administer(self.name(), AdminOp::Delete).await
    }

    /// Returns at most `limit` dead letters, oldest first. `after` is the position where the previous page ended, its
    /// [`next`](DeadLetters::next); `None` starts with the oldest.
    ///
    /// # Errors
    /// Those of [`DelayBackend::dead_letters`](crate::DelayBackend::dead_letters).
    pub async fn dead_letters(&self, after: Option<u64>, limit: usize) -> Result<DeadLetters> {
        self.backend().dead_letters(self.name(), DeadLetterOp::List { after, limit }).await
    }

    /// Schedules dead letters again, at most `rate` per second; `None` redrives all of them at once.
    ///
    /// # Errors
    /// Those of [`DelayBackend::dead_letters`](crate::DelayBackend::dead_letters).
    pub async fn redrive(&self, select: DeadLetterSelect, rate: Option<f64>) -> Result<DeadLetters> {
        self.backend().dead_letters(self.name(), DeadLetterOp::Redrive { select, rate }).await
    }

    /// Deletes dead letters.
    ///
    /// # Errors
    /// Those of [`DelayBackend::dead_letters`](crate::DelayBackend::dead_letters).
    pub async fn purge(&self, select: DeadLetterSelect) -> Result<DeadLetters> {
        self.backend().dead_letters(self.name(), DeadLetterOp::Purge { select }).await
    }
}
