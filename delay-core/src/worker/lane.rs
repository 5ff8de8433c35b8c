//! One queue of a worker: fetching its tasks and starting their handlers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::InFlight;
use super::handler::Handler;
use super::idle::Idle;
use super::registry::{Key, Registry};
use super::report::Counts;
use super::work::Work;
use crate::consume::fetch::{Fetched, Fetcher};
use crate::queue::line::Line;
use crate::{Claim, ClaimedTask, Error, ErrorKind, Result, RetryPolicy};

/// What the queues of a worker share.
pub(super) struct Shared {
    /// One for each handler that may run at once; held until its tasks are settled.
    pub(super) slots: Arc<Semaphore>,
    pub(super) lease: Duration,
    pub(super) retry: RetryPolicy,
    /// Tells the handlers that the worker shuts down.
    pub(super) shutdown: CancellationToken,
    /// Ends what is still settling when the time for that is up.
    pub(super) give_up: CancellationToken,
    pub(super) counts: Counts,
    /// Where the worker is to end when nothing is left.
    pub(super) idle: Option<Idle>,
}

/// One queue of a worker.
pub(super) struct Lane {
    /// Its place among the worker's queues.
    pub(super) number: usize,
    pub(super) line: Arc<Line>,
    pub(super) handler: Arc<Handler>,
    /// How many tasks one handler takes at once; `None` is one at a time.
    pub(super) batch: Option<usize>,
    pub(super) registry: Arc<Registry>,
    pub(super) shared: Arc<Shared>,
}

impl Lane {
    /// Fetches tasks and starts their handlers, for ever.
    ///
    /// Slots are held only while a claim is under way and while a handler runs, never while waiting for a task. A claim
    /// never asks for more than the slots at hand can run. Dropped, it has started all that it has claimed.
    ///
    /// # Errors
    /// What will not pass.
    pub(super) async fn pump(self: &Arc<Self>, fetcher: &mut Fetcher) -> Result<()> {
        loop {
            let slots = self.slots(fetcher.in_outage()).await?;
            let max = self.batch.unwrap_or(slots.num_permits());
            let round = self.shared.idle.as_ref().map(|idle| (idle, idle.round()));
            let Fetched { tasks, ends } = fetcher.claim(Claim::new(max, self.shared.lease)).await?;
            // The slots that are left over are given back here.
            self.start(tasks, ends, slots);
            let Some((idle, round)) = round else {
                fetcher.rest(None).await;
                continue;
            };
            if fetcher.nothing_in_sight() {
                idle.found_empty(self.number, round);
            }
            tokio::select! {
                () = fetcher.rest(None) => {}
                () = idle.round_over(round) => {}
            }
        }
    }

    /// At least one slot, and all that are free where they can be used.
    async fn slots(&self, one_will_do: bool) -> Result<OwnedSemaphorePermit> {
        let all = &self.shared.slots;
        let closed = |_| Error::new(ErrorKind::Closed, "the worker has ended");
        let mut slots = all.clone().acquire_owned().await.map_err(closed)?;
        // While the store can't be reached, one slot is enough to find out, and the others are left to other queues.
        if self.batch.is_none() && !one_will_do {
            let more = all.available_permits().min(self.line.batch_max() - 1);
            if let Ok(more) = all.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
                slots.merge(more);
            }
        }
        Ok(slots)
    }

    /// Starts the handlers of tasks that were claimed.
    fn start(self: &Arc<Self>, tasks: Vec<ClaimedTask>, ends: Instant, mut slots: OwnedSemaphorePermit) {
        let mut works = tasks.into_iter().map(|mut task| {
            let payload = std::mem::take(&mut task.payload);
            let in_flight = Arc::new(InFlight::new(self.line.clone(), task, ends));
            Work { key: self.registry.insert(in_flight.clone()), in_flight, payload }
        });
        match self.batch {
            Some(_) => {
                let all: Vec<Work> = works.collect();
                if !all.is_empty() {
                    self.spawn(all, &mut slots);
                }
            }
            None => works.by_ref().for_each(|work| self.spawn(vec![work], &mut slots)),
        }
    }

    fn spawn(self: &Arc<Self>, works: Vec<Work>, slots: &mut OwnedSemaphorePermit) {
        let slot = slots.split(1);
        debug_assert!(slot.is_some(), "a claim brings no more tasks than it asked for");
        let keys: Vec<Key> = works.iter().map(|work| work.key).collect();
        let running = self.shared.idle.is_some().then(|| Running::new(self.clone()));
        let lane = self.clone();
        let handler = tokio::spawn(async move {
            lane.work(works).await;
            // Only now, so that the shutdown waits for the settling too.
            drop((slot, running));
        });
        for key in keys {
            self.registry.spawned(key, handler.abort_handle());
        }
    }
}

/// Counts a handler as running until dropped, however that comes.
struct Running(Arc<Lane>);

impl Running {
    fn new(lane: Arc<Lane>) -> Self {
        if let Some(idle) = &lane.shared.idle {
            idle.handler_started();
        }
        Self(lane)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(idle) = &self.0.shared.idle {
            idle.handler_ended();
        }
    }
}
