//! A backend with one defect.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    AdminOp, Capabilities, Change, Changed, DeadLetterOp, DeadLetters, DelayBackend, Disposition, Lease, NewTask, Page,
    QueueName, QueueStats, Result, Scheduled, Select, Subscription, SubscriptionOptions, TaskId, TaskView,
};

use super::defect::{Defect, Inner, Opened};
use super::subscription::MutantSubscription;

/// A sound backend seen through a defect.
pub(super) struct MutantBackend {
    inner: Inner,
    defect: Arc<dyn Defect>,
    caps: Capabilities,
}

impl MutantBackend {
    pub(super) fn new(inner: Inner, defect: Arc<dyn Defect>) -> Self {
        let caps = defect.capabilities(inner.capabilities());
        Self { inner, defect, caps }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for MutantBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.defect.schedule(&self.inner, queue, tasks).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let opened = Opened::new(self.inner.subscribe(queue, options).await?, queue.clone(), number);
        let opened = self.defect.opened(&self.inner, opened).await?;
        Ok(Box::new(MutantSubscription::new(self.inner.clone(), self.defect.clone(), opened)))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        self.defect.settle(&self.inner, queue, dispositions).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.defect.extend(&self.inner, queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        self.defect.change(&self.inner, queue, select, change).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        self.defect.find(&self.inner, queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        self.defect.list(&self.inner, queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.defect.dead_letters(&self.inner, queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.defect.stats(&self.inner, queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.defect.queues(&self.inner).await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.defect.administer(&self.inner, queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.defect.close(&self.inner).await
    }
}

impl fmt::Debug for MutantBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutantBackend").field("inner", &self.inner.backend).finish_non_exhaustive()
    }
}
