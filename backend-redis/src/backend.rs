//! Implements `DelayBackend` on Redis. Each method calls a function in `ops`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    AdminOp, Capabilities, Change, Changed, DeadLetterOp, DeadLetters, DelayBackend, Disposition, Lease, NewTask, Page,
    QueueName, QueueStats, Result, Scheduled, Select, Subscription, SubscriptionOptions, TaskId, TaskView,
};

use crate::ops::{change, claim, dead, look};
use crate::store::Store;
use crate::transport::Connection;
use crate::{RedisConfig, notify, start};

/// Delay queues in Redis, shared by all processes that connect with the same key prefix.
///
/// To share the backend within a process, wrap it in an `Arc`.
#[derive(Debug)]
pub struct RedisBackend {
    store: Arc<Store>,
}

impl RedisBackend {
    /// Connects, and checks that the server supports what this backend promises.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config), [`Denied`](delayline_core::ErrorKind::Denied),
    /// [`Incompatible`](delayline_core::ErrorKind::Incompatible),
    /// [`Unavailable`](delayline_core::ErrorKind::Unavailable). The message says what to do.
    pub async fn connect(config: RedisConfig) -> Result<Self> {
        config.check()?;
        let connection = Connection::new(&config)?;
        start::check(&connection, &config).await?;
        let notifier = notify::notifier(&config, &connection)?;
        Ok(Self { store: Arc::new(Store::new(connection, notifier, config)) })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for RedisBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.store.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.store.schedule(queue, tasks).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        claim::subscribe(self.store.clone(), queue, options)
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        self.store.settle(queue, &dispositions).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.store.extend(queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        change::change(&self.store, queue, select, change).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        look::find(&self.store, queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        look::list(&self.store, queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        dead::operate(&self.store, queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        look::stats(&self.store, queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        look::queues(&self.store).await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.store.administer(queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        self.store.lifecycle.open()?;
        self.store.connection.read("PING", &redis::cmd("PING")).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        self.store.lifecycle.close();
        // Wake the waiting subscriptions first; their next claim is refused.
        self.store.notifier.close().await;
        self.store.connection.close().await;
        Ok(())
    }
}
