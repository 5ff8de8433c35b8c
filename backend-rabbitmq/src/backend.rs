//! The trait on RabbitMQ: each method is one call of [`crate::ops`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    Capabilities, Change, Changed, DeadLetterOp, DeadLetters, DelayBackend, Disposition, Lease, NewTask, QueueName,
    Result, Scheduled, Select, Subscription, SubscriptionOptions,
};

use crate::config::RabbitConfig;
use crate::consuming::lines::Lines;
use crate::ops::{admin, change, claim, dead, schedule, settle};
use crate::store::Store;
use crate::{start, topology};

/// Delay queues in RabbitMQ, shared by every process that connects to the same namespace.
///
/// Sharing it within a process is done in an `Arc`.
#[derive(Debug)]
pub struct RabbitBackend {
    store: Arc<Store>,
    lines: Arc<Lines>,
}

impl RabbitBackend {
    /// Connects, checks that the broker can keep what this backend promises, and makes the queues that all of a namespace
    /// share.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config), [`Denied`](delayline_core::ErrorKind::Denied),
    /// [`Incompatible`](delayline_core::ErrorKind::Incompatible), [`Unavailable`](delayline_core::ErrorKind::Unavailable):
    /// each says what to do.
    pub async fn connect(config: RabbitConfig) -> Result<Self> {
        config.check()?;
        let store = Arc::new(Store::new(config));
        start::check(&store).await?;
        Ok(Self { store, lines: Arc::default() })
    }

    /// Removes every queue and exchange of a namespace, with all tasks and dead letters that are in them.
    ///
    /// Nobody should be using the namespace: whoever does may make a part of it again.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config), [`Denied`](delayline_core::ErrorKind::Denied),
    /// [`Unavailable`](delayline_core::ErrorKind::Unavailable). Repeated, it goes on with what is left.
    ///
    /// # Cancel safety
    /// Dropped, a part of it may have been removed; repeat it.
    pub async fn remove_namespace(config: RabbitConfig) -> Result<()> {
        config.check()?;
        topology::remove(&Arc::new(config)).await
    }
}

#[async_trait]
impl DelayBackend for RabbitBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.store.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        schedule::schedule(&self.store, queue, tasks).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        claim::subscribe(&self.store, &self.lines, queue, options).await
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        settle::settle(&self.store, &self.lines, queue, dispositions).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        settle::extend(&self.store, &self.lines, queue, leases, by)
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        change::change(&self.store, queue, select, change).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        dead::dead_letters(&self.store, queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        admin::ping(&self.store).await
    }

    async fn close(&self) -> Result<()> {
        admin::close(&self.store, &self.lines).await
    }
}

impl Drop for RabbitBackend {
    fn drop(&mut self) {
        // The pumps hold what they need to give back; this lets them end.
        self.store.lifecycle.close();
    }
}
