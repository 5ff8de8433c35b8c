//! What a backend and its intakes share, and how they run statements.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use delayline_core::{
    Capabilities, Clock, Durability, Error, ErrorKind, LeaseHold, Order, QueueName, Result, Support, SystemClock,
    TaskId, meter,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{AssertSqlSafe, PgConnection, Postgres};
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use crate::PostgresConfig;
use crate::bells::{Bells, message};
use crate::db::{Db, Effect};
use crate::statements::Statements;
use crate::vacuum::DEAD_ROWS;

/// What this backend is called.
pub(crate) const NAME: &str = "postgres";

/// The farthest a due time may lie ahead: 2^40 - 1 ms, 34.8 years.
pub(crate) const DELAY_MAX: Duration = Duration::from_millis((1 << 40) - 1);

/// The longest lease.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The most items of one statement, so that none holds its locks for long.
pub(crate) const PIECE: usize = 1_000;

/// The most bytes of one statement's arguments or answer, beyond one item.
pub(crate) const PIECE_BYTES: usize = 4 << 20;

/// A statement whose arguments are being bound.
pub(crate) type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) db: Db,
    pub(crate) bells: Bells,
    pub(crate) config: PostgresConfig,
    pub(crate) caps: Capabilities,
    pub(crate) sql: Statements,
    /// For a task that is tried alone.
    pub(crate) sql_alone: Statements,
    /// For a transaction of the caller's.
    pub(crate) sql_inside: Statements,
    /// Rows that this process has deleted or moved since the last vacuum was thought of.
    pub(crate) dead_rows: AtomicU64,
    /// How many make it run one.
    pub(crate) dead_rows_max: u64,
    /// Dead letters that this process has made since it last counted them.
    pub(crate) buried: Mutex<BTreeMap<QueueName, u64>>,
    /// When this process's last operation may be forgotten; what comes then does it.
    pub(crate) forget_at: Mutex<Option<Instant>>,
    closed: AtomicBool,
    /// How many intakes each queue has here.
    intakes: Mutex<BTreeMap<QueueName, usize>>,
    /// For generated ids alone; due times go by the server's clock.
    clock: SystemClock,
    random: Mutex<[fastrand::Rng; 2]>,
}

impl Shared {
    pub(crate) fn new(db: Db, bells: Bells, config: PostgresConfig, durability: Durability) -> Self {
        // An id that is given twice loses a task, so 128 bits of the system's randomness go into them.
        let (a, b) = Uuid::new_v4().as_u64_pair();
        Self {
            caps: capabilities(&config, durability),
            sql: Statements::new(db.schema(), config.flush),
            sql_alone: Statements::alone(db.schema(), config.flush),
            sql_inside: Statements::inside(db.schema()),
            db,
            bells,
            config,
            dead_rows: AtomicU64::new(0),
            dead_rows_max: DEAD_ROWS,
            buried: Mutex::default(),
            forget_at: Mutex::default(),
            closed: AtomicBool::new(false),
            intakes: Mutex::default(),
            clock: SystemClock::new(),
            random: Mutex::new([fastrand::Rng::with_seed(a), fastrand::Rng::with_seed(b)]),
        }
    }

    pub(crate) fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the Postgres backend was closed"));
        }
        Ok(())
    }

    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// A UUIDv7.
    pub(crate) fn fresh_id(&self) -> TaskId {
        let ms = u64::try_from(self.clock.wall().unix_millis_floor()).unwrap_or(0);
        let mut bytes = [0; 10];
        let mut random = self.random.lock();
        bytes[..8].copy_from_slice(&random[0].u64(..).to_be_bytes());
        bytes[8..].copy_from_slice(&random[1].u16(..).to_be_bytes());
        drop(random);
        TaskId::from_uuid(Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid())
    }

    /// A number that no other claim has, as far as chance allows, and not 0.
    pub(crate) fn fresh_claim(&self) -> i64 {
        self.random.lock()[0].i64(1..)
    }

    /// Runs one statement and answers its rows. Its arguments are bound anew for each try.
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
        let (sql, named, bind) = (sql.clone(), self.db.named(), Arc::new(bind));
        self.db
            .run(what, effect, move |connection: &mut PgConnection| {
                let query = query(&sql, named, &*bind);
                async move { query.fetch_all(connection).await }.boxed()
            })
            .await
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

/// Whoever waits for a call that goes on without them to the end of its piece.
pub(crate) struct Caller(pub(crate) Weak<()>);

impl Caller {
    /// Begin another piece only then: what comes late would meet what a repeated call, or others, have done since.
    ///
    /// # Errors
    /// Nobody sees them.
    pub(crate) fn waits(&self) -> Result<()> {
        match self.0.strong_count() {
            0 => Err(Error::new(ErrorKind::Unavailable, "its caller has left")),
            _ => Ok(()),
        }
    }
}

/// A statement with its arguments, which is about to be sent.
pub(crate) fn query(
    sql: &Arc<str>,
    named: bool,
    bind: &(impl Fn(Query<'static>) -> Query<'static> + ?Sized),
) -> Query<'static> {
    meter::round_trip(NAME);
    bind(sqlx::query(AssertSqlSafe(sql.clone())).persistent(named))
}

/// Says of a closure that it is work on any connection, which the compiler does not find out for itself.
pub(crate) fn as_work<T, F>(work: F) -> F
where
    F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>>,
{
    work
}

/// A time in microseconds, rounded up.
pub(crate) fn micros_ceil(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// Cuts a list into pieces of bounded length and size.
pub(crate) fn pieces<T>(items: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut pieces = Vec::new();
    let mut piece = Vec::with_capacity(items.len().min(PIECE));
    let mut bytes = 0;
    for item in items {
        let more = size(&item);
        if piece.len() == PIECE || (bytes + more > PIECE_BYTES && !piece.is_empty()) {
            pieces.push(std::mem::take(&mut piece));
            bytes = 0;
        }
        bytes += more;
        piece.push(item);
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// Parts a list so that no two in one part have the same key; each part keeps the order, and what has a key for the second
/// time comes in the second part.
pub(crate) fn parted<T, K: std::hash::Hash + Eq>(items: Vec<T>, key: impl Fn(&T) -> K) -> Vec<Vec<T>> {
    let mut met = std::collections::HashMap::new();
    let mut parts: Vec<Vec<T>> = Vec::new();
    for item in items {
        let nth = met.entry(key(&item)).or_insert(0_usize);
        if parts.len() == *nth {
            parts.push(Vec::new());
        }
        parts[*nth].push(item);
        *nth += 1;
    }
    parts
}

/// What the items of pieces answer that were not sent any more.
pub(crate) fn unsent(e: &Error) -> Error {
    let kind = if e.kind() == ErrorKind::Ambiguous { ErrorKind::Unavailable } else { e.kind() };
    Error::new(kind, format!("not sent, because a part of the call before it failed: {}", e.message()))
}

/// The answer to a row that somebody else keeps locked.
pub(crate) fn busy() -> Error {
    Error::new(ErrorKind::Busy, "another transaction holds the task's row")
}

/// One answer for each item. If nothing was answered and nothing can have taken effect, the failure is that of all.
pub(crate) fn all_answered<T>(results: Vec<Option<Result<T>>>, failed: Option<Error>) -> Result<Vec<Result<T>>> {
    let Some(e) = failed else {
        return results.into_iter().map(|result| result.ok_or_else(crate::record::corrupt)).collect();
    };
    let without_effect = |result: &Option<Result<T>>| match result {
        None => true,
        Some(Ok(_)) => false,
        Some(Err(own)) => own.kind() == e.kind() && own.kind() != ErrorKind::Ambiguous,
    };
    if results.iter().all(without_effect) {
        return Err(e);
    }
    Ok(results.into_iter().map(|result| result.unwrap_or_else(|| Err(unsent(&e)))).collect())
}

fn capabilities(config: &PostgresConfig, durability: Durability) -> Capabilities {
    let mut caps = Capabilities::minimal(NAME);
    caps.lease_hold = LeaseHold::Store;
    caps.durability = durability;
    caps.order = Order::Exact;
    caps.resolution = Duration::from_millis(1);
    let listens = config.listens_at().is_some();
    caps.lateness = if listens { Duration::from_millis(5) } else { config.poll + Duration::from_millis(5) };
    caps.delay_max = DELAY_MAX;
    caps.lease_max = LEASE_MAX;
    caps.payload_bytes_max = config.payload_bytes_max;
    caps.batch_max = 10_000;
    caps.sweep = config.sleep_max();
    caps.operation_window = config.operation_window;
    caps.extend = Support::Definite;
    caps.cancel = Support::Definite;
    caps.reschedule = Support::Definite;
    caps.groups = Support::Definite;
    caps.replace = Support::Definite;
    caps.unique_ids = Support::Definite;
    caps.inspect = Support::Definite;
    caps.dead_letters = Support::Definite;
    caps.pause = Support::Definite;
    caps.delete = Support::Definite;
    caps.stats = Support::Definite;
    caps
}
