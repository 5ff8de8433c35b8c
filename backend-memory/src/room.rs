//! The limits of the store, and what it holds, over all queues.

use delayline_core::Result;

use crate::config::MemoryConfig;
use crate::store::{self, Usage};
use crate::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Room {
    tasks_max: u64,
    bytes_max: u64,
    tasks: AtomicU64,
    bytes: AtomicU64,
}

impl Room {
    pub(crate) fn new(config: &MemoryConfig) -> Self {
        let (tasks, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { tasks_max: config.max_tasks, bytes_max: config.max_bytes, tasks, bytes }
    }

    /// Reserves room for `wanted`, all or nothing. `leaving` is about to be freed for it.
    pub(crate) fn reserve(&self, wanted: Usage, leaving: Usage) -> Result<()> {
        let take = |counter: &AtomicU64, by: u64, leaves: u64, max: u64| {
            counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                // A change that makes nothing larger fits even if dead letters have exceeded the limit.
                let limit = if leaves > 0 { max.max(used) } else { max };
                used.checked_add(by).filter(|&after| after.saturating_sub(leaves) <= limit)
            })
        };
        if take(&self.tasks, wanted.tasks, leaving.tasks, self.tasks_max).is_err() {
            return Err(store::full(&format!("{} tasks", self.tasks_max)));
        }
        if take(&self.bytes, wanted.bytes, leaving.bytes, self.bytes_max).is_err() {
            self.tasks.fetch_sub(wanted.tasks, Ordering::Relaxed);
            return Err(store::full(&format!("{} bytes", self.bytes_max)));
        }
        Ok(())
    }

    /// Counts what left a queue, and what was added without a reservation.
    pub(crate) fn moved(&self, (freed, grown): (Usage, Usage)) {
        self.take(grown);
        self.release(freed);
    }

    /// Releases room that was freed, or reserved and not used.
    pub(crate) fn release(&self, freed: Usage) {
        if freed != Usage::default() {
            self.tasks.fetch_sub(freed.tasks, Ordering::Relaxed);
            self.bytes.fetch_sub(freed.bytes, Ordering::Relaxed);
        }
    }

    fn take(&self, grown: Usage) {
        if grown != Usage::default() {
            self.tasks.fetch_add(grown.tasks, Ordering::Relaxed);
            self.bytes.fetch_add(grown.bytes, Ordering::Relaxed);
        }
    }
}
