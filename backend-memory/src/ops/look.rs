//! Reads: one task, a page of tasks, counts, in bounded pieces.

use delayline_core::{Page, QueueName, QueueStats, Result, TaskId, TaskView, limits};

use crate::queues::Queues;
use crate::store::{self, ListScan, StatsScan};

/// [`DelayBackend::find`](delayline_core::DelayBackend::find).
pub(crate) fn find(queues: &Queues, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
    let now = queues.now();
    Ok(queues.on_existing(queue, |store| store.find(now, id))?.flatten())
}

/// [`DelayBackend::list`](delayline_core::DelayBackend::list).
pub(crate) async fn list(queues: &Queues, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
    let limit = page.limit.min(limits::PAGE_MAX);
    let mut after = page.after.as_ref().map(store::rank_of);
    loop {
        let mut scan = ListScan::new(limit, after);
        let now = queues.now();
        while !queues.on_existing(queue, |store| store.list_piece(now, &mut scan))?.unwrap_or(true) {
            tokio::task::yield_now().await;
        }
        let last = scan.last();
        let tasks = queues.on_existing(queue, |store| store.list_done(now, scan))?.unwrap_or_default();
        match last {
            // All found tasks have ended in the meantime. An empty page would look like the end of the list.
            Some(last) if tasks.is_empty() && limit > 0 => after = Some(last),
            _ => return Ok(tasks),
        }
    }
}

/// [`DelayBackend::stats`](delayline_core::DelayBackend::stats).
pub(crate) async fn stats(queues: &Queues, queue: &QueueName) -> Result<QueueStats> {
    let mut scan = StatsScan::default();
    let now = queues.now();
    while !queues.on_existing(queue, |store| store.stats_piece(now, &mut scan))?.unwrap_or(true) {
        tokio::task::yield_now().await;
    }
    Ok(scan.stats)
}
