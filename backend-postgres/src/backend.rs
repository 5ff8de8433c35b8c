//! Implements `DelayBackend` on Postgres. Each method calls a function in `ops`. If the caller of a change is dropped,
//! the change goes on to the end of its current piece, because a notification follows it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    AdminOp, Capabilities, Change, Changed, DeadLetterOp, DeadLetters, DelayBackend, Disposition, Lease, NewTask, Page,
    QueueName, QueueStats, Result, Scheduled, Select, Subscription, SubscriptionOptions, TaskId, TaskView,
};
#[cfg(any(test, feature = "sqlx-0_9"))]
use sqlx::PgConnection;

use crate::config::PostgresConfig;
use crate::migrate;
use crate::ops::caller::to_the_end;
use crate::ops::{admin, change, claim, dead, look, schedule, settle};
use crate::start;
use crate::store::Store;
use crate::transport::failure::Effect;

/// Delay queues in Postgres, shared by all processes that connect with the same schema.
///
/// To share the backend within a process, wrap it in an `Arc`.
#[derive(Debug)]
pub struct PostgresBackend {
    pub(crate) store: Arc<Store>,
}

impl PostgresBackend {
    /// Version of the tables that this backend works with.
    pub const SCHEMA_VERSION: i32 = migrate::VERSION;

    /// Returns the SQL, for `psql`, that migrates the tables in a schema from version `from` to the current one.
    /// Version 0 means that there are no tables.
    ///
    /// Use it for applications that may not create tables and turn [`migrate`](PostgresConfig::migrate) off.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config) for an invalid schema name,
    /// [`Invalid`](delayline_core::ErrorKind::Invalid) for a version that does not exist.
    pub fn schema_sql(schema: &str, from: i32) -> Result<String> {
        migrate::sql(schema, from)
    }

    /// Connects, creates or migrates the tables, and checks that the server supports what this backend promises.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config), [`Denied`](delayline_core::ErrorKind::Denied),
    /// [`Incompatible`](delayline_core::ErrorKind::Incompatible),
    /// [`Unavailable`](delayline_core::ErrorKind::Unavailable). The message says what to do.
    pub async fn connect(config: PostgresConfig) -> Result<Self> {
        let opened = start::open(&config).await?;
        Ok(Self { store: Arc::new(Store::new(opened.db, opened.notifier, config, opened.durability)) })
    }

    /// Schedules tasks inside the caller's transaction. Its commit makes the tasks visible and wakes consumers; its
    /// rollback removes them.
    ///
    /// Due times count from this call. If another open transaction has scheduled or changed a task with the same id,
    /// the call waits for that transaction, as for any locked row in Postgres: the caller's `lock_timeout` and deadlock
    /// detection apply.
    ///
    /// # Errors
    /// As for [`DelayBackend::schedule`]. An outer error has aborted the transaction.
    ///
    /// # Cancel safety
    /// A dropped call may have taken effect in the transaction: roll it back.
    #[cfg(any(test, feature = "sqlx-0_9"))]
    pub async fn schedule_in(
        &self,
        connection: &mut PgConnection,
        queue: &QueueName,
        tasks: Vec<NewTask>,
    ) -> Result<Vec<Result<Scheduled>>> {
        schedule::schedule_inside(&self.store, connection, queue, tasks).await
    }

    /// Completes tasks inside the caller's transaction, so that the handler's writes and the completion take effect
    /// together.
    ///
    /// The leases keep running until the commit. Extend them before this call: until the commit, their rows are locked.
    ///
    /// # Errors
    /// For an item: [`LeaseLost`](delayline_core::ErrorKind::LeaseLost); then roll the transaction back. An outer error
    /// has aborted the transaction.
    ///
    /// # Cancel safety
    /// A dropped call may have taken effect in the transaction: roll it back.
    #[cfg(any(test, feature = "sqlx-0_9"))]
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
        self.store.rows("ping", Effect::Read, &"SELECT 1".into(), |query| query).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await;
        Ok(())
    }
}
