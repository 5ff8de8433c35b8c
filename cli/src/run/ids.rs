//! The ids of the tasks that would be lost with this process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use delayline::{DelayBackend, QueueName, TaskId};

use crate::exit::Failure;

/// Ids of ended tasks are removed when there may be this many.
const GONE_MAX: usize = 1_000_000;

/// The ids of tasks that would be lost with this process, in the order in which they were accepted. To go through many
/// tasks, finding each is faster than listing them in pages, because every page looks at all tasks.
#[derive(Debug, Default)]
pub(crate) struct Ids(Mutex<Vec<TaskId>>);

impl Ids {
    /// Adds ids, and removes those of ended tasks once they are the majority.
    pub(crate) async fn keep(
        &self,
        more: impl IntoIterator<Item = TaskId>,
        outstanding: u64,
        queue: &QueueName,
        backend: &dyn DelayBackend,
    ) -> Result<(), Failure> {
        let outstanding = usize::try_from(outstanding).unwrap_or(usize::MAX);
        let may_be_gone = {
            let mut ids = self.lock();
            ids.extend(more);
            if ids.len() < outstanding.saturating_mul(2).saturating_add(GONE_MAX) {
                return Ok(());
            }
            std::mem::take(&mut *ids)
        };
        let mut there = Vec::new();
        for id in may_be_gone {
            if backend.find(queue, &id).await?.is_some() {
                there.push(id);
            }
        }
        *self.lock() = there;
        Ok(())
    }

    pub(super) fn all(&self) -> Vec<TaskId> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<TaskId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
