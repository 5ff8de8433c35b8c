//! Calls: each on a connection of its own, in a task of its own, with an end.
//!
//! 1. A call that was begun runs to its end although its caller is dropped: nothing cancels a statement or a `BEGIN` half
//!    way, so no connection is left in the middle of something.
//! 2. A call ends within its time. Then its connection is closed, and the server stops the statement itself.
//! 3. A conflict with another transaction is no error until it has happened a few times in a row.

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

/// A database, and our schema in it. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Db(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connections: Arc<Connections>,
    schema: Schema,
    response_timeout: Duration,
    /// Each call is a transaction of several statements, because the session's settings are not ours.
    explicit: bool,
    named: bool,
    /// Counts connections that were lost.
    troubles: watch::Sender<u64>,
}

/// How often a call is run that is in the way of others.
const CONFLICTS_MAX: u32 = 6;

/// The pause before it is run again, and the longest.
const CONFLICT_PAUSE: Duration = Duration::from_millis(2);
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(32);

impl Db {
    /// For a configuration, which is checked; opens nothing.
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

    /// The server's host and port, for people.
    pub(crate) fn place(&self) -> &str {
        self.0.connections.place()
    }

    /// What `persistent` of every query is to be: whether statements may have names, which a pooler loses.
    pub(crate) fn named(&self) -> bool {
        self.0.named
    }

    /// Changes when a connection was lost.
    pub(crate) fn troubles(&self) -> watch::Receiver<u64> {
        self.0.troubles.subscribe()
    }

    /// Runs `work`, one statement, on a connection in a task of its own, which goes on if the caller is dropped. It runs at
    /// READ COMMITTED whatever the database's default, and stands in a transaction of its own where that needs one.
    /// `work` may run again from the start after a conflict.
    ///
    /// # Errors
    /// Those of `failure`; [`Closed`](delayline_core::ErrorKind::Closed).
    ///
    /// # Cancel safety
    /// Dropped once it was polled, it runs to its end.
    pub(crate) async fn run<T, F>(&self, what: &'static str, effect: Effect, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
    {
        self.call(Call { what, effect, explicit: self.0.explicit, limit: self.0.response_timeout }, work).await
    }

    /// The same for several statements in one transaction. An error of one must be the error of `work`: a transaction with
    /// a failed statement in it can't be committed.
    pub(crate) async fn transact<T, F>(&self, what: &'static str, effect: Effect, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
    {
        self.call(Call { what, effect, explicit: true, limit: self.0.response_timeout }, work).await
    }

    /// The same for what may take longer than an answer. It has to lift the `statement_timeout` itself.
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

    /// Runs `work` outside any transaction, for as long as it takes up to `limit`, or until [`close`](Self::close): for
    /// maintenance, such as `VACUUM`. It has to lift the session's `statement_timeout` itself, and its connection is closed
    /// after it.
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
                // So that the server stops when we do. Not every system that it runs on can look.
                let look =
                    "DO $$ BEGIN SET client_connection_check_interval = 500; EXCEPTION WHEN OTHERS THEN NULL; END $$";
                held.connection().execute(look).await?;
                work(held.connection()).await
            };
            let failed = |e| failed(what, Effect::Write, e);
            tokio::select! {
                done = timeout(limit, work) => {
                    done.map_err(|_| lost(what, Effect::Write, "it took too long"))?.map_err(failed)
                }
                () = connections.closing() => Err(closed()),
            }
        };
        owned(work, |_| async {}).await
    }

    /// Waits for the calls under way, and closes the connections. Repeated, it does nothing more.
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
                    // The driver would keep room for the largest statement and answer of each connection.
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
                    // With chance in it, so that those who met do not meet again.
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
        // What was lost before anything was sent has no effect.
        let effect = if sent { call.effect } else { Effect::Read };
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(Failed { aftermath: aftermath(&e), error: failed(call.what, effect, e), late: false }),
            Err(_) => {
                let why = format!("there was none within {:?}", call.limit);
                Err(Failed { aftermath: Aftermath::Lost, error: lost(call.what, effect, &why), late: true })
            }
        }
    }
}

/// What is called, and how.
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
    /// Its time is used up.
    late: bool,
}
