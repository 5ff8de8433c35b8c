//! The trait on memory: each method checks its arguments, and runs pieces of bounded work under the queue's lock.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    Action, AdminOp, Capabilities, Change, ChangeOutcome, Changed, DeadLetterOp, DeadLetters, DeadSelect, DelayBackend,
    Error, ErrorKind, GroupName, Intake, IntakeOptions, Lease, NewTask, OnConflict, Outcome, Page, QueueName,
    QueueStats, Result, Scheduled, Select, TaskId, TaskRef, TaskView, Verdict, limits,
};

use crate::config::MemoryConfig;
use crate::intake::MemoryIntake;
use crate::operations::{Begun, Progress};
use crate::shared::Shared;
use crate::store::{self, DELAY_MAX, DeadFilter, DeadWalk, GroupWalk, ListScan, StatsScan, Store, Usage};

/// Items of a batch handled under one lock.
const CHUNK: usize = 4096;

/// Items that are looked up together.
const BLOCK: usize = 64;

type Outcomes = Vec<Result<ChangeOutcome>>;

/// A delay queue in this process's memory.
///
/// Tasks do not survive the process. Cloning is done by sharing it in an `Arc`.
#[derive(Debug)]
pub struct MemoryBackend {
    shared: Arc<Shared>,
}

impl MemoryBackend {
    /// With the default limits and the real clocks.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(MemoryConfig::default())
    }

    /// With one's own limits or clock.
    #[must_use]
    pub fn with_config(config: MemoryConfig) -> Self {
        Self { shared: Arc::new(Shared::new(config)) }
    }

    /// Schedules a chunk at one instant, as far as there is room.
    fn schedule_chunk(
        &self,
        queue: &QueueName,
        now: crate::now::Now,
        tasks: &mut std::vec::IntoIter<NewTask>,
        results: &mut Vec<Result<Scheduled>>,
    ) -> Result<()> {
        let chunk = tasks.len().min(CHUNK);
        let wanted = Usage { tasks: chunk as u64, bytes: tasks.as_slice()[..chunk].iter().map(store::bytes_of).sum() };
        let all_fit = self.shared.reserve(wanted, Usage::default()).is_ok();
        let mut unused = Usage::default();
        let done = self.shared.on_queue(queue, |store| {
            for task in tasks.take(chunk) {
                let bytes = store::bytes_of(&task);
                // An id that is there takes no more room, or that of the task which it replaces: repeating a call works
                // in a full store too.
                let there = if all_fit { None } else { store.held_by(&task) };
                if !all_fit && let Err(never) = self.shared.caps.check(&task) {
                    results.push(Err(never));
                    continue;
                }
                let one = Usage { tasks: 1, bytes };
                let kept = there.is_some() && task.on_conflict == OnConflict::Keep;
                if !all_fit
                    && !kept
                    && let Err(full) = self.shared.reserve(one, there.unwrap_or_default())
                {
                    results.push(Err(full));
                    continue;
                }
                let result = store.schedule(now, &self.shared.caps, task);
                let taken = result.as_ref().is_ok_and(|s| matches!(s.outcome, Outcome::Created | Outcome::Replaced));
                if !taken && !kept {
                    unused.add(bytes);
                }
                if !all_fit {
                    // What this one replaced makes room for the next.
                    self.shared.moved(store.take_moved());
                }
                results.push(result);
            }
            // Replacing leaves stale keys too.
            store.sweep_after(chunk);
        });
        if done.is_err() && all_fit {
            unused = wanted;
        }
        self.shared.release(unused);
        done
    }

    /// Does something for each of a batch of leases, in bounded pieces; a queue that is gone has none.
    async fn on_leases<L, R>(
        &self,
        queue: &QueueName,
        items: &[L],
        lease_of: impl Fn(&L) -> &Lease + Clone,
        each: impl Fn(&mut Store, crate::now::Now, &L) -> Result<R>,
    ) -> Result<Vec<Result<R>>> {
        let mut results = Vec::with_capacity(items.len());
        for chunk in items.chunks(CHUNK) {
            if !results.is_empty() {
                tokio::task::yield_now().await;
            }
            let now = self.shared.now();
            let done = self.shared.on_existing(queue, |store| {
                for block in chunk.chunks(BLOCK) {
                    store.touch_leased(block.iter().map(&lease_of));
                    results.extend(block.iter().map(|item| each(store, now, item)));
                }
                store.sweep_after(chunk.len());
            });
            match done {
                Ok(Some(())) => {}
                Ok(None) => results.extend(chunk.iter().map(|_| Err(Error::lease_lost()))),
                Err(e) => results.extend(chunk.iter().map(|_| Err(e.clone()))),
            }
        }
        Ok(results)
    }

    async fn change_tasks(
        &self,
        queue: &QueueName,
        tasks: &[TaskRef],
        action: Action,
        outcomes: &mut Outcomes,
    ) -> Result<()> {
        let caps = &self.shared.caps;
        while outcomes.len() < tasks.len() {
            let chunk = &tasks[outcomes.len()..tasks.len().min(outcomes.len() + CHUNK)];
            let now = self.shared.now();
            let done = self.shared.on_existing(queue, |store| {
                chunk.iter().for_each(|task| outcomes.push(store.change_task(now, caps, task, action)));
                store.sweep_after(chunk.len());
            })?;
            if done.is_none() {
                outcomes.extend(chunk.iter().map(|_| Ok(ChangeOutcome::NotFound)));
            }
            if outcomes.len() < tasks.len() {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn change_group(
        &self,
        queue: &QueueName,
        group: &GroupName,
        action: Action,
        walk: &mut GroupWalk,
    ) -> Result<()> {
        loop {
            let now = self.shared.now();
            let through = self
                .shared
                .on_existing(queue, |store| store.change_group(now, &self.shared.caps, group, action, walk))?;
            if through.unwrap_or(true) {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Walks over the dead letters in bounded steps; each answers whether it was the last.
    async fn walk_dead(
        &self,
        queue: &QueueName,
        mut step: impl FnMut(&mut Store, &mut DeadWalk) -> bool + Send,
    ) -> Result<DeadLetters> {
        let mut answer = DeadLetters::default();
        let Some(mut walk) = self.shared.on_existing(queue, |store| store.dead_walk())? else { return Ok(answer) };
        while !self.shared.on_existing(queue, |store| step(store, &mut walk))?.unwrap_or(true) {
            tokio::task::yield_now().await;
        }
        answer.affected = walk.affected;
        answer.kept = walk.kept;
        Ok(answer)
    }

    async fn redrive(&self, queue: &QueueName, select: DeadSelect, rate: Option<f64>) -> Result<DeadLetters> {
        let gap_us = match rate {
            None => 0.0,
            Some(rate) if rate.is_finite() && rate > 0.0 => 1e6 / rate,
            Some(rate) => return Err(Error::new(ErrorKind::Invalid, format!("{rate} a second is no rate"))),
        };
        let letters = self.shared.on_existing(queue, |store| store.dead_len())?.unwrap_or(0);
        let longest_us = DELAY_MAX.as_micros() as f64;
        if gap_us > longest_us || letters as f64 * gap_us > longest_us {
            return Err(self.shared.caps.out_of_range());
        }
        // All are staggered from one instant.
        let now = self.shared.now();
        let filter = self.filter(select)?;
        self.walk_dead(queue, |store, walk| store.redrive(now, &filter, gap_us, walk)).await
    }

    fn filter(&self, select: DeadSelect) -> Result<DeadFilter> {
        match select {
            DeadSelect::All => Ok(DeadFilter::All),
            DeadSelect::Ids(ids) => {
                self.shared.caps.check_batch(ids.len())?;
                Ok(DeadFilter::Ids(ids.into_iter().collect()))
            }
            _ => Err(Error::unsupported("this selection of dead letters")),
        }
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl DelayBackend for MemoryBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.shared.open()?;
        self.shared.caps.check_batch(tasks.len())?;
        let mut results = Vec::with_capacity(tasks.len());
        // One instant for the whole batch, however many locks it takes.
        let now = self.shared.now();
        let mut tasks = tasks.into_iter();
        while tasks.len() > 0 {
            let left = tasks.len();
            if let Err(e) = self.schedule_chunk(queue, now, &mut tasks, &mut results) {
                if results.is_empty() {
                    return Err(e);
                }
                results.resize_with(results.len() + left, || Err(e.clone()));
                return Ok(results);
            }
            if tasks.len() > 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(results)
    }

    async fn intake(&self, queue: &QueueName, options: IntakeOptions) -> Result<Box<dyn Intake>> {
        Ok(Box::new(MemoryIntake::open(self.shared.clone(), queue, options)?))
    }

    async fn settle(&self, queue: &QueueName, verdicts: Vec<(Lease, Verdict)>) -> Result<Vec<Result<()>>> {
        self.shared.open()?;
        self.shared.caps.check_batch(verdicts.len())?;
        let caps = &self.shared.caps;
        let settle_one = |store: &mut Store, now, (lease, verdict): &(Lease, Verdict)| {
            store.settle(now, caps, lease, verdict.clone())
        };
        self.on_leases(queue, &verdicts, |(lease, _)| lease, settle_one).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.shared.open()?;
        self.shared.caps.check_lease(by)?;
        self.shared.caps.check_batch(leases.len())?;
        self.on_leases(queue, &leases, |lease| lease, |store, now, lease: &Lease| store.extend(now, lease, by)).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        self.shared.open()?;
        store::check_change(self.shared.now(), &self.shared.caps, change.action)?;
        if let Select::Tasks(tasks) = &select {
            self.shared.caps.check_batch(tasks.len())?;
        }
        let fresh = || match &select {
            Select::Tasks(_) => Ok(Progress::Tasks(Vec::new())),
            Select::Group(_) => {
                Ok(Progress::Group(self.shared.on_existing(queue, |store| store.walk())?.unwrap_or_default()))
            }
        };
        let begun = self.shared.operations.begin(self.shared.now(), (queue, &select, &change), fresh)?;
        let mut running = match begun {
            Begun::Done(changed) => return Ok(changed),
            Begun::Run(running) => running,
        };
        match (&select, &mut running.progress) {
            (Select::Tasks(tasks), Progress::Tasks(done)) => {
                self.change_tasks(queue, tasks, change.action, done).await?;
            }
            (Select::Group(group), Progress::Group(walk)) => {
                self.change_group(queue, group, change.action, walk).await?;
            }
            _ => return Err(Error::new(ErrorKind::Invalid, "the operation was a change of another kind")),
        }
        Ok(running.finish(self.shared.now()))
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        let now = self.shared.now();
        Ok(self.shared.on_existing(queue, |store| store.find(now, id))?.flatten())
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        let limit = page.limit.min(limits::PAGE_MAX);
        let mut after = page.after.as_ref().map(store::rank_of);
        loop {
            let mut scan = ListScan::new(limit, after);
            let now = self.shared.now();
            while !self.shared.on_existing(queue, |store| store.list_piece(now, &mut scan))?.unwrap_or(true) {
                tokio::task::yield_now().await;
            }
            let last = scan.last();
            let tasks = self.shared.on_existing(queue, |store| store.list_done(now, scan))?.unwrap_or_default();
            match last {
                // All that was found has gone meanwhile, and an empty page would look like the end.
                Some(last) if tasks.is_empty() && limit > 0 => after = Some(last),
                _ => return Ok(tasks),
            }
        }
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        match op {
            DeadLetterOp::List { after, limit } => {
                let mut answer = DeadLetters::default();
                let limit = limit.min(limits::PAGE_MAX);
                if let Some(page) = self.shared.on_existing(queue, |store| store.dead_page(after, limit))? {
                    (answer.letters, answer.next) = page;
                }
                Ok(answer)
            }
            DeadLetterOp::Redrive { select, rate } => self.redrive(queue, select, rate).await,
            DeadLetterOp::Purge { select } => {
                let filter = self.filter(select)?;
                self.walk_dead(queue, |store, walk| store.purge(&filter, walk)).await
            }
            _ => Err(Error::unsupported("this operation on dead letters")),
        }
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let mut scan = StatsScan::default();
        let now = self.shared.now();
        while !self.shared.on_existing(queue, |store| store.stats_piece(now, &mut scan))?.unwrap_or(true) {
            tokio::task::yield_now().await;
        }
        Ok(scan.stats)
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.shared.queues()
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        match op {
            AdminOp::Pause => self.shared.on_queue(queue, |store| store.pause(true)),
            AdminOp::Resume => self.shared.on_existing(queue, |store| store.pause(false)).map(|_| ()),
            AdminOp::Delete => self.shared.delete(queue),
            _ => Err(Error::unsupported("this operation on a queue")),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.shared.open()
    }

    async fn close(&self) -> Result<()> {
        self.shared.close();
        Ok(())
    }
}
