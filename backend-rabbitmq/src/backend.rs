//! Implements `DelayBackend` on RabbitMQ. Each method calls a function in [`crate::ops`].

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

/// Delay queues in RabbitMQ, shared by all processes that connect with the same namespace.
///
/// To share the backend within a process, wrap it in an `Arc`.
#[derive(Debug)]
pub struct RabbitBackend {
    store: Arc<Store>,
    lines: Arc<Lines>,
}

impl RabbitBackend {
    /// Connects, checks that the broker supports what this backend promises, and declares the shared queues and
    /// exchanges of the namespace.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config), [`Denied`](delayline_core::ErrorKind::Denied),
    /// [`Incompatible`](delayline_core::ErrorKind::Incompatible),
    /// [`Unavailable`](delayline_core::ErrorKind::Unavailable). The message says what to do.
    pub async fn connect(config: RabbitConfig) -> Result<Self> {
        config.check()?;
        let store = Arc::new(Store::new(config));
        start::check(&store).await?;
        Ok(Self { store, lines: Arc::default() })
    }

    /// Removes the namespace of the configuration: deletes all its queues and exchanges, with all tasks and dead
    /// letters.
    ///
    /// Stop all clients of the namespace first: a running client may declare a part of it again.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config), [`Denied`](delayline_core::ErrorKind::Denied),
    /// [`Unavailable`](delayline_core::ErrorKind::Unavailable). A repeated call removes what is left.
    ///
    /// # Cancel safety
    /// A dropped call may have removed a part of the namespace. Repeat it.
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
        // The pumps own what they need to return their messages. This lets them end.
        self.store.lifecycle.close();
    }
}
