//! A backend that is watched: what is claimed, completed, retried and buried through it goes into the tally, whether
//! a consumer, a worker or this program's own code makes the call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use delayline::{
    AdminOp, Attempts, Capabilities, Change, Changed, Claim, Claimed, DeadLetterOp, DeadLetters, DelayBackend, Intake,
    IntakeOptions, Lease, NewTask, Page, QueueName, QueueStats, Result, Scheduled, Select, TaskId, TaskView, Verdict,
    async_trait,
};

use crate::tally::Tally;

pub(crate) struct Watched {
    inner: Arc<dyn DelayBackend>,
    tally: Arc<Tally>,
    max_attempts: Attempts,
}

impl Watched {
    /// Watches a backend through which tasks of so many attempts each are run.
    pub(crate) fn new(inner: Arc<dyn DelayBackend>, tally: Arc<Tally>, max_attempts: Attempts) -> Self {
        Self { inner, tally, max_attempts }
    }

    fn fate(&self, lease: &Lease, verdict: &Verdict) -> Fate {
        match verdict {
            Verdict::Complete => Fate::Completed,
            // The memory backend buries it there and then. One that leaves it to the next claim counts it as buried
            // there, too, and will need a list of ids.
            Verdict::Retry { .. } if lease.attempt >= self.max_attempts.get() => Fate::Dead,
            Verdict::Retry { .. } => Fate::Retried,
            Verdict::Bury { .. } => Fate::Dead,
            Verdict::Snooze { .. } | Verdict::Release => Fate::Waiting,
        }
    }
}

/// What a verdict makes of a task, if it is accepted.
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

    async fn intake(&self, queue: &QueueName, options: IntakeOptions) -> Result<Box<dyn Intake>> {
        let inner = self.inner.intake(queue, options).await?;
        Ok(Box::new(WatchedIntake { inner, tally: self.tally.clone() }))
    }

    async fn settle(&self, queue: &QueueName, verdicts: Vec<(Lease, Verdict)>) -> Result<Vec<Result<()>>> {
        let fates: Vec<Fate> = verdicts.iter().map(|(lease, verdict)| self.fate(lease, verdict)).collect();
        let answers = self.inner.settle(queue, verdicts).await?;
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
struct WatchedIntake {
    inner: Box<dyn Intake>,
    tally: Arc<Tally>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Intake for WatchedIntake {
    async fn claim(&mut self, claim: Claim) -> Result<Claimed> {
        let claimed = self.inner.claim(claim).await?;
        self.tally.tell_next_due(claimed.next_due_in);
        self.tally.dead(claimed.buried);
        Ok(claimed)
    }

    async fn wait(&mut self, at_most: Duration) {
        self.inner.wait(at_most).await;
    }

    async fn close(self: Box<Self>) -> Result<()> {
        self.inner.close().await
    }
}
