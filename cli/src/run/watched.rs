//! A wrapper around a backend that counts claims, completions, retries and dead letters in the tally, no matter whether
//! a consumer, a worker or this program's own code makes the call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use delayline::backend::{AdminOp, Claim, Claimed, DeadLetterOp, Subscription, SubscriptionOptions, async_trait};
use delayline::{
    Attempts, Capabilities, Change, Changed, DeadLetters, DelayBackend, Disposition, Lease, NewTask, Page, QueueName,
    QueueStats, Result, Scheduled, Select, TaskId, TaskView,
};

use crate::tally::Tally;

pub(crate) struct Watched {
    inner: Arc<dyn DelayBackend>,
    tally: Arc<Tally>,
    attempts_max: Attempts,
}

impl Watched {
    /// Wraps a backend on which each task has `attempts_max` attempts.
    pub(crate) fn new(inner: Arc<dyn DelayBackend>, tally: Arc<Tally>, attempts_max: Attempts) -> Self {
        Self { inner, tally, attempts_max }
    }

    fn fate(&self, lease: &Lease, disposition: &Disposition) -> Fate {
        match disposition {
            Disposition::Complete => Fate::Completed,
            // The memory backend dead-letters the task at once. A backend that leaves this to the next claim would
            // count the task there again; supporting one needs a list of ids.
            Disposition::Retry { .. } if lease.attempt >= self.attempts_max.get() => Fate::Dead,
            Disposition::Retry { .. } => Fate::Retried,
            Disposition::DeadLetter { .. } => Fate::Dead,
            // Release, snooze, or a disposition that this version does not know: the task has not ended.
            _ => Fate::Waiting,
        }
    }
}

/// What becomes of a task if its disposition is accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Completed,
    Retried,
    Dead,
    Waiting,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for Watched {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.inner.schedule(queue, tasks).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        let inner = self.inner.subscribe(queue, options).await?;
        Ok(Box::new(WatchedSubscription { inner, tally: self.tally.clone() }))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        let fates: Vec<Fate> = dispositions.iter().map(|(lease, disposition)| self.fate(lease, disposition)).collect();
        let answers = self.inner.settle(queue, dispositions).await?;
        let count = |wanted| {
            let met = fates.iter().zip(&answers).filter(|(fate, answer)| **fate == wanted && answer.is_ok());
            met.count() as u64
        };
        self.tally.retried(count(Fate::Retried));
        self.tally.completed(count(Fate::Completed));
        self.tally.dead(count(Fate::Dead));
        Ok(answers)
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.inner.extend(queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        self.inner.change(queue, select, change).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        self.inner.find(queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        self.inner.list(queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.inner.dead_letters(queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.inner.stats(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.inner.queues().await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.inner.administer(queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.inner).finish()
    }
}

#[derive(Debug)]
struct WatchedSubscription {
    inner: Box<dyn Subscription>,
    tally: Arc<Tally>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Subscription for WatchedSubscription {
    async fn claim(&mut self, claim: Claim) -> Result<Claimed> {
        let claimed = self.inner.claim(claim).await?;
        self.tally.tell_next_due(claimed.next_due_in);
        self.tally.dead(claimed.dead_lettered);
        Ok(claimed)
    }

    async fn wait(&mut self, at_most: Duration) {
        self.inner.wait(at_most).await;
    }

    async fn close(self: Box<Self>) -> Result<()> {
        self.inner.close().await
    }
}
