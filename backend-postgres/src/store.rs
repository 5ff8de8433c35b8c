//! What a backend and its intakes share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use delayline_core::{Capabilities, Durability, Error, ErrorKind, QueueName, Result};
use parking_lot::Mutex;
use sqlx::postgres::PgRow;
use tokio::time::Instant;

use crate::config::capabilities::capabilities;
use crate::config::settings::PostgresConfig;
use crate::ids::Ids;
use crate::notify::bells::{Bells, message};
use crate::statements::Statements;
use crate::transport::db::Db;
use crate::transport::failure::Effect;
use crate::transport::statement::Query;
use crate::vacuum::Vacuum;

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) db: Db,
    pub(crate) bells: Bells,
    pub(crate) config: PostgresConfig,
    pub(crate) caps: Capabilities,
    pub(crate) sql: Statements,
    /// For a task that is tried alone.
    pub(crate) sql_alone: Statements,
    /// For a transaction of the caller's.
    pub(crate) sql_inside: Statements,
    pub(crate) ids: Ids,
    pub(crate) vacuum: Vacuum,
    /// Dead letters that this process has made since it last counted them.
    pub(crate) buried: Mutex<BTreeMap<QueueName, u64>>,
    /// When this process's last operation may be forgotten; what comes then does it.
    pub(crate) forget_at: Mutex<Option<Instant>>,
    closed: AtomicBool,
    /// How many intakes each queue has here.
    intakes: Mutex<BTreeMap<QueueName, usize>>,
}

impl Store {
    pub(crate) fn new(db: Db, bells: Bells, config: PostgresConfig, durability: Durability) -> Self {
        Self {
            caps: capabilities(&config, durability),
            sql: Statements::new(db.schema(), config.flush),
            sql_alone: Statements::alone(db.schema(), config.flush),
            sql_inside: Statements::inside(db.schema()),
            ids: Ids::new(),
            vacuum: Vacuum::new(db.clone(), !config.pooler),
            db,
            bells,
            config,
            buried: Mutex::default(),
            forget_at: Mutex::default(),
            closed: AtomicBool::new(false),
            intakes: Mutex::default(),
        }
    }

    pub(crate) fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the Postgres backend was closed"));
        }
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // The sleepers first: what they then ask is refused.
        self.bells.close().await;
        self.db.close().await;
    }

    /// Runs one statement and answers its rows, unless the backend was closed. Its arguments are bound anew for each try.
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
        self.open()?;
        self.db.rows(what, effect, sql, bind).await
    }

    /// Tells those who sleep that something was placed there, if that matters to them. Once something was committed, a
    /// failure of this is no failure of what was done: whoever was not told looks for itself at its next sweep.
    pub(crate) async fn placed(&self, queue: &QueueName, least_ms: Option<i64>) {
        let Some(least_ms) = least_ms else { return };
        let (name, channel) = (queue.as_str().to_string(), self.db.schema().channel(queue));
        let text = message(queue, least_ms);
        let told = self.rows("NOTIFY", Effect::Repeat, &self.sql.notify, move |query| {
            query.bind(name.clone()).bind(channel.clone()).bind(text.clone()).bind(least_ms)
        });
        match told.await {
            Ok(rows) if rows.is_empty() => {}
            // Where it is not known, one look too many does no harm.
            Ok(_) | Err(_) => self.bells.ring(queue, least_ms),
        }
    }

    pub(crate) fn enter(&self, queue: &QueueName) {
        *self.intakes.lock().entry(queue.clone()).or_default() += 1;
    }

    pub(crate) fn leave(&self, queue: &QueueName) {
        let mut intakes = self.intakes.lock();
        if let Some(n) = intakes.get_mut(queue) {
            *n -= 1;
            if *n == 0 {
                intakes.remove(queue);
            }
        }
    }

    /// The queues that have an intake here.
    pub(crate) fn entered(&self) -> Vec<QueueName> {
        self.intakes.lock().keys().cloned().collect()
    }
}
