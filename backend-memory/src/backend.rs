//! Implements `DelayBackend` in memory. Each method calls a function in `ops`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    AdminOp, Capabilities, Change, Changed, DeadLetterOp, DeadLetters, DelayBackend, Disposition, Lease, NewTask, Page,
    QueueName, QueueStats, Result, Scheduled, Select, Subscription, SubscriptionOptions, TaskId, TaskView,
};

use crate::config::MemoryConfig;
use crate::operations::Operations;
use crate::ops::claim::MemorySubscription;
use crate::ops::{admin, change, dead, look, schedule, settle};
use crate::queues::Queues;

/// Delay queues in the memory of this process. Tasks do not survive the process.
///
/// To share the backend, wrap it in an `Arc`.
#[derive(Debug)]
pub struct MemoryBackend {
    queues: Arc<Queues>,
    operations: Operations,
}

impl MemoryBackend {
    /// Creates a backend with the default limits and the real clocks.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(MemoryConfig::default())
    }

    /// Creates a backend with a custom configuration.
    #[must_use]
    pub fn with_config(config: MemoryConfig) -> Self {
        Self { queues: Arc::new(Queues::new(&config)), operations: Operations::default() }
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for MemoryBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.queues.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        schedule::schedule(&self.queues, queue, tasks).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        Ok(Box::new(MemorySubscription::open(self.queues.clone(), queue, options)?))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        settle::settle(&self.queues, queue, dispositions).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        settle::extend(&self.queues, queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        change::change(&self.queues, &self.operations, queue, select, change).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        look::find(&self.queues, queue, id)
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        look::list(&self.queues, queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        dead::dead_letters(&self.queues, queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        look::stats(&self.queues, queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.queues.names()
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        admin::administer(&self.queues, queue, op)
    }

    async fn ping(&self) -> Result<()> {
        self.queues.open()
    }

    async fn close(&self) -> Result<()> {
        self.queues.close();
        Ok(())
    }
}
