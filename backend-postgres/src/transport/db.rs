//! Calls: each on a separate connection, in a separate tokio task, with a time limit.
//!
//! 1. A call that has begun runs to its end, even if its caller is dropped. Nothing cancels a statement or a `BEGIN`
//!    half way, so no connection is left in the middle of a transaction.
//! 2. A call ends within its time limit. At the limit, its connection is closed, and the server stops the statement.
//! 3. After a conflict with another transaction, the call runs again. It fails only after several conflicts in a row.

use std::sync::Arc;
use std::time::Duration;

use delayline_backend_kit::Backoff;
use delayline_core::{Error, Result, meter, owned};
use futures_util::future::BoxFuture;
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::config::{PostgresConfig, tls};
use crate::limits::NAME;
use crate::schema::Schema;
use crate::transport::failure::{Aftermath, Effect, aftermath, failed, lost};
use crate::transport::pool::{Connections, Held, closed};
use crate::transport::session::begin;

/// A database, and the backend's schema in it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Db(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connections: Arc<Connections>,
    schema: Schema,
    response_timeout: Duration,
    /// Whether each call is a transaction of several statements, because the backend does not control the session's
    /// settings.
    explicit: bool,
    named: bool,
    /// Number of lost connections.
    troubles: watch::Sender<u64>,
}

/// Maximum number of times that a call runs when it conflicts with others.
const CONFLICTS_MAX: u32 = 6;

/// First and longest pause before it runs again.
const CONFLICT_PAUSE: Duration = Duration::from_millis(2);
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(32);

impl Db {
    /// A database for a checked configuration. Opens no connection.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config).
    pub(crate) fn new(config: &PostgresConfig) -> Result<Self> {
        let schema = config.check()?;
        tls::prepare(&config.server());
        let connections = Connections::new(config);
        let explicit = config.pooler || connections.given();
        Ok(Self(Arc::new(Inner {
            connections: Arc::new(connections),
            schema,
            response_timeout: config.response_timeout,
            explicit,
            named: !config.pooler,
            troubles: watch::Sender::new(0),
        })))
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.0.schema
    }

    /// The server's host and port, for messages.
    pub(crate) fn place(&self) -> &str {
        self.0.connections.place()
    }

    /// The value for `persistent` of every query: whether statements may have names. Through a pooler, names are lost.
    pub(crate) fn named(&self) -> bool {
        self.0.named
    }

    /// A counter that changes when a connection is lost.
    pub(crate) fn troubles(&self) -> watch::Receiver<u64> {
        self.0.troubles.subscribe()
    }

    /// Runs `work`, which is one statement, on a connection, in a separate tokio task that goes on if the caller is
    /// dropped. It runs at READ COMMITTED, whatever the database's default; if that requires a transaction, in its own
    /// transaction. After a conflict, `work` may run again from the start.
    ///
    /// # Errors
    /// Those of `failure`; [`Closed`](delayline_core::ErrorKind::Closed).
    ///
    /// # Cancel safety
    /// Once polled, a dropped call runs to its end in the background.
    pub(crate) async fn run<T, F>(&self, what: &'static str, effect: Effect, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
    {
        self.call(Call { what, effect, explicit: self.0.explicit, limit: self.0.response_timeout }, work).await
    }

    /// Like [`run`](Self::run), for several statements in one transaction. If one of them fails, `work` must return the
    /// error: a transaction with a failed statement can't be committed.
    pub(crate) async fn transact<T, F>(&self, what: &'static str, effect: Effect, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
    {
        self.call(Call { what, effect, explicit: true, limit: self.0.response_timeout }, work).await
    }

    /// Like [`transact`](Self::transact), for work that may take longer than the response timeout. It must lift the
    /// `statement_timeout` itself.
    pub(crate) async fn transact_within<T, F>(
        &self,
        what: &'static str,
        effect: Effect,
        limit: Duration,
        work: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
    {
        self.call(Call { what, effect, explicit: true, limit }, work).await
    }

    /// Runs maintenance, such as `VACUUM`, outside any transaction, until `limit` or [`close`](Self::close). `work`
    /// must lift the session's `statement_timeout` itself. The connection is closed afterwards.
    pub(crate) async fn maintain<T, F>(&self, what: &'static str, limit: Duration, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
    {
        let db = self.clone();
        let work = async move {
            let connections = db.0.connections.clone();
            let mut held = connections.take(true).await?;
            let work = async {
                // Makes the server stop the statement when this connection ends. Not every operating system supports
                // it.
                let look =
                    "DO $$ BEGIN SET client_connection_check_interval = 500; EXCEPTION WHEN OTHERS THEN NULL; END $$";
                held.connection().execute(look).await?;
                work(held.connection()).await
            };
            let failed = |e| failed(what, Effect::Write, e);
            tokio::select! {
                done = timeout(limit, work) => {
                    done.map_err(|_| lost(what, Effect::Write, "it exceeded its time limit"))?.map_err(failed)
                }
                () = connections.closing() => Err(closed()),
            }
        };
        owned(work, |_| async {}).await
    }

    /// Waits for the calls under way and closes the connections. A second call does nothing.
    pub(crate) async fn close(&self) {
        self.0.connections.close().await;
    }

    async fn call<T, F>(&self, call: Call, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
    {
        let db = self.clone();
        owned(async move { db.until_done(call, work).await }, |_| async {}).await
    }

    async fn until_done<T, F>(&self, call: Call, work: F) -> Result<T>
    where
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
    {
        let mut backoff = Backoff::between(CONFLICT_PAUSE, CONFLICT_PAUSE_MAX);
        let mut conflicts = 0;
        loop {
            let mut held = self.0.connections.take(call.effect == Effect::Write).await?;
            let unasked = held.unasked;
            let e = match self.once(&call, &mut held, &work).await {
                Ok(value) => {
                    // Otherwise the driver keeps buffers of the size of the largest statement and answer for each
                    // connection.
                    held.connection().shrink_buffers();
                    held.give_back();
                    return Ok(value);
                }
                Err(e) => e,
            };
            match e.aftermath {
                Aftermath::Refused => {
                    held.give_back();
                    return Err(e.error);
                }
                Aftermath::Conflict => {
                    held.give_back();
                    conflicts += 1;
                    if conflicts == CONFLICTS_MAX {
                        return Err(e.error);
                    }
                    // Random, so that the calls that conflicted do not conflict again.
                    sleep(backoff.failed()).await;
                }
                Aftermath::Lost => {
                    held.lost();
                    self.0.troubles.send_modify(|count| *count += 1);
                    if !unasked || call.effect == Effect::Write || e.late {
                        return Err(e.error);
                    }
                    self.0.connections.forget_idle();
                }
            }
        }
    }

    async fn once<T, F>(&self, call: &Call, held: &mut Held, work: &F) -> Result<T, Failed>
    where
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
    {
        let mut sent = !call.explicit;
        let done = timeout(call.limit, async {
            if !call.explicit {
                return work(held.connection()).await;
            }
            let begin = sqlx::AssertSqlSafe(begin(self.0.response_timeout));
            meter::round_trip(NAME);
            let mut transaction = held.connection().begin_with(begin).await?;
            sent = true;
            let done = work(&mut transaction).await;
            meter::round_trip(NAME);
            match done {
                Ok(value) => transaction.commit().await.map(|()| value),
                Err(e) => {
                    if aftermath(&e) != Aftermath::Lost {
                        transaction.rollback().await?;
                    }
                    Err(e)
                }
            }
        });
        let done = done.await;
        // If the connection was lost before anything was sent, the call had no effect.
        let effect = if sent { call.effect } else { Effect::Read };
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(Failed { aftermath: aftermath(&e), error: failed(call.what, effect, e), late: false }),
            Err(_) => {
                let why = format!("none arrived within {:?}", call.limit);
                Err(Failed { aftermath: Aftermath::Lost, error: lost(call.what, effect, &why), late: true })
            }
        }
    }
}

/// A call and its options.
#[derive(Clone, Copy)]
struct Call {
    what: &'static str,
    effect: Effect,
    explicit: bool,
    limit: Duration,
}

struct Failed {
    aftermath: Aftermath,
    error: Error,
    /// The time limit has passed.
    late: bool,
}
