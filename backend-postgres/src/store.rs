//! State that a backend and its subscriptions share.

use std::collections::BTreeMap;
use std::sync::Arc;

use delayline_backend_kit::{Ids, Lifecycle, Notification};
use delayline_core::{Capabilities, Durability, QueueName, Result};
use parking_lot::Mutex;
use sqlx::postgres::PgRow;
use tokio::time::Instant;

use crate::config::PostgresConfig;
use crate::config::capabilities::capabilities;
use crate::notify::channels::{Notifier, message};
use crate::statements::Statements;
use crate::transport::db::Db;
use crate::transport::failure::Effect;
use crate::transport::statement::Query;
use crate::vacuum::Vacuum;

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) db: Db,
    pub(crate) notifier: Notifier,
    pub(crate) config: PostgresConfig,
    pub(crate) caps: Capabilities,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) sql: Statements,
    /// Statements for a task that is tried alone.
    pub(crate) sql_alone: Statements,
    /// Statements for the caller's transaction.
    pub(crate) sql_inside: Statements,
    pub(crate) ids: Ids,
    pub(crate) vacuum: Vacuum,
    /// For each queue, the number of dead letters from this process since its last check of the limit.
    pub(crate) dead_lettered: Mutex<BTreeMap<QueueName, u64>>,
    /// Time at which this process's last operation id expires; the next call after it deletes expired operations.
    pub(crate) forget_at: Mutex<Option<Instant>>,
}

impl Store {
    pub(crate) fn new(db: Db, notifier: Notifier, config: PostgresConfig, durability: Durability) -> Self {
        Self {
            caps: capabilities(&config, durability),
            sql: Statements::new(db.schema(), config.flush),
            sql_alone: Statements::alone(db.schema(), config.flush),
            sql_inside: Statements::inside(db.schema()),
            lifecycle: Lifecycle::new("Postgres"),
            ids: Ids::new(),
            vacuum: Vacuum::new(db.clone(), !config.pooler),
            db,
            notifier,
            config,
            dead_lettered: Mutex::default(),
            forget_at: Mutex::default(),
        }
    }

    pub(crate) async fn close(&self) {
        self.lifecycle.close();
        // Wake the waiting subscriptions first; their next claim is refused.
        self.notifier.close().await;
        self.db.close().await;
    }

    /// Runs one statement and returns its rows, unless the backend is closed. Binds the arguments again for each try.
    pub(crate) async fn rows<B>(
        &self,
        what: &'static str,
        effect: Effect,
        sql: &Arc<str>,
        bind: B,
    ) -> Result<Vec<PgRow>>
    where
        B: Fn(Query<'static>) -> Query<'static> + Send + Sync + 'static,
    {
        self.lifecycle.open()?;
        self.db.rows(what, effect, sql, bind).await
    }

    /// Notifies waiting subscriptions that tasks were placed in the queue, if the time matters to them. The tasks are
    /// already committed, so a failed notification is no error: subscriptions find them at their next fallback poll.
    pub(crate) async fn placed(&self, queue: &QueueName, least_ms: Option<i64>) {
        let Some(least_ms) = least_ms else { return };
        let (name, channel) = (queue.as_str().to_string(), self.db.schema().channel(queue));
        let text = message(queue, least_ms);
        let told = self.rows("NOTIFY", Effect::Repeat, &self.sql.notify, move |query| {
            query.bind(name.clone()).bind(channel.clone()).bind(text.clone()).bind(least_ms)
        });
        match told.await {
            Ok(rows) if rows.is_empty() => {}
            // If the time is unknown, an unnecessary claim does no harm.
            Ok(_) | Err(_) => self.notifier.notify(queue, Notification { due_ms: Some(least_ms), missed: false }),
        }
    }
}
