//! The trait on Postgres: each method checks its arguments and hands on to its room. What changes something goes on when its
//! caller is dropped up to the end of its piece, because a wake-up follows that.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    AdminOp, Capabilities, Change, Changed, DeadLetterOp, DeadLetters, DelayBackend, Disposition, Lease, NewTask, Page,
    QueueName, QueueStats, Result, Scheduled, Select, Subscription, SubscriptionOptions, TaskId, TaskView,
};
use sqlx::PgConnection;

use crate::config::PostgresConfig;
use crate::migrate;
use crate::ops::caller::to_the_end;
use crate::ops::{admin, change, claim, dead, look, schedule, settle};
use crate::start;
use crate::store::Store;
use crate::transport::failure::Effect;

/// A delay queue in Postgres, shared by every process that connects to it.
///
/// Sharing it within a process is done in an `Arc`.
#[derive(Debug)]
pub struct PostgresBackend {
    pub(crate) store: Arc<Store>,
}

impl PostgresBackend {
    /// The version of the tables that this backend works with.
    pub const SCHEMA_VERSION: i32 = migrate::VERSION;

    /// What makes the tables in a schema, as SQL for `psql`: for applications that may not make tables, and set
    /// [`migrate`](PostgresConfig::migrate) to off. From version 0, which is nothing, or from an older one to this.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config) for a schema's name that can't be one,
    /// [`Invalid`](delayline_core::ErrorKind::Invalid) for a version that there never was.
    pub fn schema_sql(schema: &str, from: i32) -> Result<String> {
        migrate::sql(schema, from)
    }

    /// Connects, makes the tables unless they are there, and checks that the server can keep what this backend promises.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config), [`Denied`](delayline_core::ErrorKind::Denied),
    /// [`Incompatible`](delayline_core::ErrorKind::Incompatible), [`Unavailable`](delayline_core::ErrorKind::Unavailable):
    /// each says what to do.
    pub async fn connect(config: PostgresConfig) -> Result<Self> {
        let opened = start::open(&config).await?;
        Ok(Self { store: Arc::new(Store::new(opened.db, opened.notifier, config, opened.durability)) })
    }

    /// Schedules tasks inside the caller's transaction: they are visible, and wake who sleeps, at its commit, and are gone
    /// with its rollback.
    ///
    /// Due times count from the call. A task whose id another open transaction has just scheduled or changed is waited for,
    /// as with any row in Postgres: the transaction's `lock_timeout` and deadlock detection apply.
    ///
    /// # Errors
    /// As of [`DelayBackend::schedule`]. An outer error has aborted the transaction.
    ///
    /// # Cancel safety
    /// Dropped, roll the transaction back: what was sent may have been done.
    pub async fn schedule_in(
        &self,
        connection: &mut PgConnection,
        queue: &QueueName,
        tasks: Vec<NewTask>,
    ) -> Result<Vec<Result<Scheduled>>> {
        schedule::schedule_inside(&self.store, connection, queue, tasks).await
    }

    /// Completes tasks inside the caller's transaction, so that what a handler wrote and its task's completion are one.
    ///
    /// Until the commit, the leases run on: extend them before, not meanwhile, because the rows are locked.
    ///
    /// # Errors
    /// Of an item: [`LeaseLost`](delayline_core::ErrorKind::LeaseLost), after which the transaction should be rolled back.
    /// An outer error has aborted the transaction.
    ///
    /// # Cancel safety
    /// Dropped, roll the transaction back: what was sent may have been done.
    pub async fn complete_in(
        &self,
        connection: &mut PgConnection,
        queue: &QueueName,
        leases: &[Lease],
    ) -> Result<Vec<Result<()>>> {
        settle::complete_inside(&self.store, connection, queue, leases).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for PostgresBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.store.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        let (store, queue) = (self.store.clone(), queue.clone());
        to_the_end(|caller| async move { schedule::schedule(&store, &queue, tasks, &caller).await }).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        Ok(Box::new(claim::subscribe(self.store.clone(), queue, options)?))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        let (store, queue) = (self.store.clone(), queue.clone());
        to_the_end(|_| async move { settle::settle(&store, &queue, &dispositions).await }).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        settle::extend(&self.store, queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        let (store, queue) = (self.store.clone(), queue.clone());
        to_the_end(|caller| async move { change::change(&store, &queue, select, change, &caller).await }).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        look::find(&self.store, queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        look::list(&self.store, queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        let (store, queue) = (self.store.clone(), queue.clone());
        to_the_end(|caller| async move { dead::operate(&store, &queue, op, &caller).await }).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        look::stats(&self.store, queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        look::queues(&self.store).await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        let (store, queue) = (self.store.clone(), queue.clone());
        to_the_end(|caller| async move { admin::administer(&store, &queue, op, &caller).await }).await
    }

    async fn ping(&self) -> Result<()> {
        self.store.rows("asking", Effect::Read, &"SELECT 1".into(), |query| query).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await;
        Ok(())
    }
}
