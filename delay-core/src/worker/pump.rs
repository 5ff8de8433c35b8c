//! The loop of one queue, which claims its tasks and starts their handlers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::context::InFlight;
use super::handler::Handler;
use super::lane::Lane;
use super::shared::Shared;
use super::work::Work;
use crate::consume::fetch::{Fetched, Fetcher};
use crate::{Claim, ClaimedTask, Error, ErrorKind, Result};

impl Lane {
    /// Claims tasks and starts their handlers, forever.
    ///
    /// Slots are held only during a claim and while a handler runs, never while waiting for a task. A claim never asks
    /// for more tasks than the free slots can run. If the loop is dropped, it has started every task that it claimed.
    ///
    /// # Errors
    /// Only permanent ones.
    pub(super) async fn pump(self: &Arc<Self>, fetcher: &mut Fetcher) -> Result<()> {
        loop {
            let slots = self.slots(fetcher.in_outage()).await?;
            let max = match &self.handler {
                Handler::One(_) => slots.num_permits(),
                Handler::Many { max, .. } => *max,
            };
            let round = self.shared.idle.as_ref().map(|idle| (idle, idle.round()));
            let Fetched { tasks, ends } = fetcher.claim(Claim::new(max, self.shared.lease)).await?;
            // Unused slots are released here.
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

    /// At least one slot, and all free ones if they can be used.
    async fn slots(&self, one_will_do: bool) -> Result<OwnedSemaphorePermit> {
        let all = &self.shared.slots;
        let closed = |_| Error::new(ErrorKind::Closed, "the worker has ended");
        let mut slots = all.clone().acquire_owned().await.map_err(closed)?;
        // Lets handlers that end at about the same time be replaced by one claim, instead of one claim each.
        tokio::task::yield_now().await;
        // While the store can't be reached, one slot is enough to probe it; the others are left to other queues.
        if matches!(self.handler, Handler::One(_)) && !one_will_do {
            let more = all.available_permits().min(self.line.batch_max() - 1);
            if more > 0
                && let Ok(more) = all.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(0))
            {
                slots.merge(more);
            }
        }
        Ok(slots)
    }

    /// Starts the handlers of claimed tasks.
    fn start(self: &Arc<Self>, tasks: Vec<ClaimedTask>, ends: Instant, mut slots: OwnedSemaphorePermit) {
        self.shared.counts.claimed.fetch_add(tasks.len() as u64, Ordering::Relaxed);
        let works = tasks.into_iter().map(|mut task| {
            let payload = std::mem::take(&mut task.payload);
            let in_flight = Arc::new(InFlight::new(self.line.clone(), self.shared.clone(), task, ends));
            Work { key: self.registry.insert(in_flight.clone()), in_flight, payload }
        });
        match &self.handler {
            Handler::One(_) => works.for_each(|work| self.start_one(work, slots.split(1))),
            Handler::Many { .. } => self.start_many(works.collect(), slots.split(1)),
        }
    }

    fn start_one(self: &Arc<Self>, work: Work, slot: Option<OwnedSemaphorePermit>) {
        let (lane, running) = (self.clone(), self.running(slot));
        let (key, in_flight) = (work.key, work.in_flight.clone());
        let handler = tokio::spawn(async move {
            lane.work_one(work).await;
            drop(running);
        });
        self.registry.spawned(key, &in_flight, handler.abort_handle());
    }

    fn start_many(self: &Arc<Self>, works: Vec<Work>, slot: Option<OwnedSemaphorePermit>) {
        if works.is_empty() {
            return;
        }
        let (lane, running) = (self.clone(), self.running(slot));
        let tasks: Vec<_> = works.iter().map(|work| (work.key, work.in_flight.clone())).collect();
        let handler = tokio::spawn(async move {
            lane.work_many(works).await;
            drop(running);
        });
        for (key, in_flight) in tasks {
            self.registry.spawned(key, &in_flight, handler.abort_handle());
        }
    }

    /// Without a slot if a backend delivered more tasks than requested: that is better than to keep a task waiting.
    fn running(self: &Arc<Self>, slot: Option<OwnedSemaphorePermit>) -> Running {
        if let Some(idle) = &self.shared.idle {
            idle.handler_started();
        }
        Running { shared: self.shared.clone(), _slot: slot }
    }
}

/// A handler that runs or settles, and its slot: the shutdown waits for the settling, too. Ends when dropped, for
/// whatever reason.
struct Running {
    shared: Arc<Shared>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(idle) = &self.shared.idle {
            idle.handler_ended();
        }
    }
}
