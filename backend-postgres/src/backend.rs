//! The trait on Postgres: each method checks its arguments and hands on to its room. What changes something goes on when its
//! caller is dropped up to the end of its piece, because a wake-up follows that.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    AdminOp, Capabilities, Change, Changed, DeadLetterOp, DeadLetters, DelayBackend, Error, Intake, IntakeOptions,
    Lease, NewTask, Page, QueueName, QueueStats, Result, Scheduled, Select, TaskId, TaskView, Verdict, owned,
};
use sqlx::PgConnection;

use crate::db::Effect;
use crate::intake::PostgresIntake;
use crate::record::{self, count, get};
use crate::shared::{Caller, PIECE, Shared, busy};
use crate::{PostgresConfig, change, dead, look, schedule, settle, start};

/// A delay queue in Postgres, shared by every process that connects to it.
///
/// Sharing it within a process is done in an `Arc`.
#[derive(Debug)]
pub struct PostgresBackend {
    pub(crate) shared: Arc<Shared>,
}

impl PostgresBackend {
    /// Connects, makes the tables unless they are there, and checks that the server can keep what this backend promises.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config), [`Denied`](delayline_core::ErrorKind::Denied),
    /// [`Incompatible`](delayline_core::ErrorKind::Incompatible), [`Unavailable`](delayline_core::ErrorKind::Unavailable): each says what to do.
    pub async fn connect(config: PostgresConfig) -> Result<Self> {
        let opened = start::open(&config).await?;
        Ok(Self { shared: Arc::new(Shared::new(opened.db, opened.bells, config, opened.durability)) })
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
        schedule::schedule_inside(&self.shared, connection, queue, tasks).await
    }

    /// Completes tasks inside the caller's transaction, so that what a handler wrote and its task's completion are one.
    ///
    /// Until the commit, the leases run on: extend them before, not meanwhile, because the rows are locked.
    ///
    /// # Errors
    /// Of an item: [`LeaseLost`](delayline_core::ErrorKind::LeaseLost), after which the transaction should be rolled back. An outer error
    /// has aborted the transaction.
    ///
    /// # Cancel safety
    /// Dropped, roll the transaction back: what was sent may have been done.
    pub async fn complete_in(
        &self,
        connection: &mut PgConnection,
        queue: &QueueName,
        leases: &[Lease],
    ) -> Result<Vec<Result<()>>> {
        settle::complete_inside(&self.shared, connection, queue, leases).await
    }
}

#[async_trait]
impl DelayBackend for PostgresBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        let (shared, queue) = (self.shared.clone(), queue.clone());
        to_the_end(|caller| async move { schedule::schedule(&shared, &queue, tasks, &caller).await }).await
    }

    async fn intake(&self, queue: &QueueName, options: IntakeOptions) -> Result<Box<dyn Intake>> {
        self.shared.open()?;
        Ok(Box::new(PostgresIntake::open(self.shared.clone(), queue, options)))
    }

    async fn settle(&self, queue: &QueueName, verdicts: Vec<(Lease, Verdict)>) -> Result<Vec<Result<()>>> {
        self.shared.open()?;
        self.shared.caps.check_batch(verdicts.len())?;
        let (shared, queue) = (self.shared.clone(), queue.clone());
        to_the_end(|_| async move { settle::settle(&shared, &queue, &verdicts).await }).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.shared.open()?;
        self.shared.caps.check_lease(by)?;
        self.shared.caps.check_batch(leases.len())?;
        settle::extend(&self.shared, queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        let (shared, queue) = (self.shared.clone(), queue.clone());
        to_the_end(|caller| async move { change::change(&shared, &queue, select, change, &caller).await }).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        look::find(&self.shared, queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        look::list(&self.shared, queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.shared.open()?;
        let (shared, queue) = (self.shared.clone(), queue.clone());
        to_the_end(|caller| async move { dead::operate(&shared, &queue, op, &caller).await }).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        look::stats(&self.shared, queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        look::queues(&self.shared).await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        let (shared, queue) = (self.shared.clone(), queue.clone());
        to_the_end(|caller| async move { administer(&shared, &queue, op, &caller).await }).await
    }

    async fn ping(&self) -> Result<()> {
        self.shared.rows("asking", Effect::Read, &"SELECT 1".into(), |query| query).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        self.shared.set_closed();
        // The sleepers first: what they then ask is refused.
        self.shared.bells.close().await;
        self.shared.db.close().await;
        Ok(())
    }
}

/// Runs work that is not cut short, and tells it between its pieces whether anybody still waits for it.
async fn to_the_end<T, F>(work: impl FnOnce(Caller) -> F + Send) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let here = Arc::new(());
    let work = work(Caller(Arc::downgrade(&here)));
    owned(work, |_| async {}).await
}

async fn administer(shared: &Arc<Shared>, queue: &QueueName, op: AdminOp, caller: &Caller) -> Result<()> {
    let name = queue.clone();
    let bind = move |query: crate::shared::Query<'static>| query.bind(name.as_str());
    match op {
        AdminOp::Pause => shared.rows("pausing", Effect::Repeat, &shared.sql.pause, bind).await.map(drop),
        AdminOp::Resume => {
            let rows = shared.rows("resuming", Effect::Repeat, &shared.sql.resume, bind).await?;
            let least_ms = rows.first().map(|row| get(row, 0)).transpose()?;
            shared.placed(queue, least_ms).await;
            Ok(())
        }
        AdminOp::Delete => delete(shared, queue, caller).await,
        _ => Err(Error::unsupported("this operation on a queue")),
    }
}

/// Deletes what is there now, in pieces; what is scheduled meanwhile stays.
async fn delete(shared: &Arc<Shared>, queue: &QueueName, caller: &Caller) -> Result<()> {
    let rows = shared.rows("deleting", Effect::Repeat, &shared.sql.seqs, |query| query.bind(1_i64)).await?;
    let until: i64 = get(rows.first().ok_or_else(record::corrupt)?, 0)?;
    let mut pauses = settle::PAUSES_MS.into_iter();
    loop {
        caller.waits()?;
        let name = queue.clone();
        let rows = shared.rows("deleting", Effect::Repeat, &shared.sql.delete_tasks, move |query| {
            query.bind(name.as_str()).bind(until).bind(PIECE as i64)
        });
        let rows = rows.await?;
        let row = rows.first().ok_or_else(record::corrupt)?;
        let (gone, any) = (count(row, 0)?, get::<Option<bool>>(row, 1)?.is_some());
        shared.settled(gone);
        if gone == PIECE as u64 {
            continue;
        }
        // The statement does not see its own effect: what was there before it are the deleted ones, or locked ones too.
        match (any, gone, pauses.next()) {
            (false, _, _) => break,
            (true, 1.., Some(_)) => {}
            (true, _, Some(ms)) => tokio::time::sleep(Duration::from_millis(ms)).await,
            (true, _, None) => return Err(busy()),
        }
    }
    let purge = DeadLetterOp::Purge { select: delayline_core::DeadSelect::All };
    dead::operate(shared, queue, purge, caller).await?;
    let name = queue.clone();
    let rest = shared.rows("deleting", Effect::Repeat, &shared.sql.delete_rest, move |query| query.bind(name.as_str()));
    rest.await.map(drop)
}
