//! Connections: a few of our own, or those of an application's pool.
//!
//! 1. Whoever works on a connection holds a permit, and gives it back with it, whatever happens to the connection.
//! 2. A connection goes back only when its last statement was answered. Else it is closed at once, without a word to a
//!    server that may not be there: a dead socket keeps nobody waiting and no permit.
//! 3. An idle one is asked whether it still works before something is sent on it that must not be lost; when it does not,
//!    the other idle ones are not believed either.
//!
//! Our own are kept here rather than in a pool of the driver's: that one makes a round trip whenever a connection comes back,
//! waits for its answer for ever, and with it keeps the permit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use delayline_core::{Error, ErrorKind, Result, meter};
use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{Connection, Executor, PgConnection, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::config::PostgresConfig;
use crate::config::server::{Source, place};
use crate::limits::NAME;
use crate::transport::failure::connecting_failed;
use crate::transport::session::session_settings;

/// How long an idle connection is believed to work.
const BELIEVED: Duration = Duration::from_secs(1);

/// How long one that is not needed is kept.
const KEPT: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub(crate) struct Connections {
    kind: Kind,
    permits: Arc<Semaphore>,
    size: u32,
    closed: watch::Sender<bool>,
    place: String,
    connect_timeout: Duration,
    response_timeout: Duration,
    /// Connections of our own that were lost and have no other in their place yet.
    missing: AtomicU64,
}

#[derive(Debug)]
enum Kind {
    Own {
        server: Box<PgConnectOptions>,
        /// What every new session is told first.
        settings: Option<String>,
        /// The one that was used last is the last.
        idle: Mutex<Vec<Idle>>,
    },
    Given(PgPool),
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    since: Instant,
}

/// A connection and the permit to work on it. Dropped, the connection is closed.
#[derive(Debug)]
pub(crate) struct Held {
    connection: Option<Connected>,
    /// It was made before this call, and not asked since whether it works.
    pub(crate) unasked: bool,
    of: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Connected {
    Own(PgConnection),
    Given(PoolConnection<Postgres>),
}

impl Connections {
    pub(crate) fn new(config: &PostgresConfig) -> Self {
        let (kind, size) = match &config.source {
            Source::Server(_) => {
                let settings = (!config.pooler).then(|| session_settings(config.response_timeout));
                (Kind::Own { server: Box::new(config.server()), settings, idle: Mutex::default() }, config.pool_size)
            }
            Source::Pool(pool) => (Kind::Given(pool.clone()), pool.options().get_max_connections()),
        };
        Self {
            kind,
            permits: Arc::new(Semaphore::new(size as usize)),
            size,
            closed: watch::Sender::new(false),
            place: place(&config.server()),
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
            missing: AtomicU64::new(0),
        }
    }

    /// The server's host and port, for people.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Whether connections are the application's, with its settings.
    pub(crate) fn given(&self) -> bool {
        matches!(self.kind, Kind::Given(_))
    }

    /// Waits for a permit and takes or makes a connection. One that was idle is asked first if it `must_work`.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), or why there is none: nothing was sent.
    pub(crate) async fn take(self: &Arc<Self>, must_work: bool) -> Result<Held> {
        let permit = timeout(self.response_timeout, self.permits.clone().acquire_owned()).await;
        let permit = match permit {
            Ok(Ok(permit)) if !*self.closed.borrow() => permit,
            Ok(_) => return Err(closed()),
            Err(_) => return Err(unavailable(format!("all {} connections were busy", self.size))),
        };
        let mut held = Held { connection: None, unasked: false, of: self.clone(), _permit: permit };
        let connection = match &self.kind {
            Kind::Given(pool) => Connected::Given(self.in_time(pool.acquire()).await?),
            Kind::Own { server, settings, idle } => match self.wake(idle, must_work).await {
                Some((connection, unasked)) => {
                    held.unasked = unasked;
                    Connected::Own(connection)
                }
                None => {
                    let connection = self.in_time(open(server, settings.as_deref())).await?;
                    let one_less = |missing: u64| missing.checked_sub(1);
                    if self.missing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
                        meter::reconnected(NAME);
                    }
                    Connected::Own(connection)
                }
            },
        };
        held.connection = Some(connection);
        Ok(held)
    }

    /// An idle connection that works, or is taken to, and whether it is only taken to.
    async fn wake(&self, idle: &Mutex<Vec<Idle>>, must_work: bool) -> Option<(PgConnection, bool)> {
        let Idle { mut connection, since } = idle.lock().pop()?;
        if since.elapsed() < BELIEVED || !must_work {
            return Some((connection, true));
        }
        meter::round_trip(NAME);
        match timeout(self.connect_timeout, connection.ping()).await {
            Ok(Ok(())) => Some((connection, false)),
            Ok(Err(_)) | Err(_) => {
                self.missing.fetch_add(1, Ordering::Relaxed);
                self.forget_idle();
                None
            }
        }
    }

    /// Closes all that are idle: one that was did not work any more.
    pub(crate) fn forget_idle(&self) {
        if let Kind::Own { idle, .. } = &self.kind {
            let forgotten = std::mem::take(&mut *idle.lock());
            self.missing.fetch_add(forgotten.len() as u64, Ordering::Relaxed);
            drop(forgotten);
        }
    }

    async fn in_time<T>(&self, connecting: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
        match timeout(self.connect_timeout, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(e)) => Err(connecting_failed(&self.place, &e)),
            Err(_) => Err(unavailable(format!("{} did not answer while connecting", self.place))),
        }
    }

    /// Returns when `close` was called.
    pub(crate) async fn closing(&self) {
        // It can't fail, because its sender is here.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Waits for what is under way, and closes what is ours. Repeated, it does nothing more.
    pub(crate) async fn close(&self) {
        self.closed.send_replace(true);
        let all = timeout(self.response_timeout, self.permits.clone().acquire_many_owned(self.size)).await;
        self.permits.close();
        drop(all);
        let Kind::Own { idle, .. } = &self.kind else { return };
        let idle = std::mem::take(&mut *idle.lock());
        let goodbyes = idle.into_iter().map(|idle| idle.connection.close());
        // Whoever does not hear it finds the socket closed.
        let _ = timeout(Duration::from_secs(1), futures_util::future::join_all(goodbyes)).await;
    }
}

impl Held {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        match self.connection.as_mut().expect("it is taken by `give_back` and `drop` alone, which end the value") {
            Connected::Own(connection) => connection,
            Connected::Given(connection) => connection,
        }
    }

    /// Closes one that does not work any more.
    pub(crate) fn lost(self) {
        if let Some(Connected::Own(_)) = self.connection {
            self.of.missing.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives it back, after its last statement was answered.
    pub(crate) fn give_back(mut self) {
        match self.connection.take() {
            Some(Connected::Own(connection)) => {
                let Kind::Own { idle, .. } = &self.of.kind else { return };
                if *self.of.closed.borrow() {
                    return;
                }
                let now = Instant::now();
                let mut idle = idle.lock();
                let old = idle.iter().take_while(|idle| now - idle.since > KEPT).count();
                let old: Vec<_> = idle.drain(..old).collect();
                idle.push(Idle { connection, since: now });
                // Closing sockets is done outside the lock.
                drop(idle);
                drop(old);
            }
            Some(Connected::Given(mut connection)) => {
                // The driver asks it once more, and would wait for the answer for ever.
                let (limit, back) = (self.of.response_timeout, connection.return_to_pool());
                tokio::spawn(async move {
                    let _ = timeout(limit, back).await;
                });
            }
            None => {}
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(Connected::Given(connection)) = self.connection.take() {
            // Gives the pool's permit back and closes the socket, where dropping it in place would ask the server first.
            drop(connection.detach());
        }
    }
}

async fn open(server: &PgConnectOptions, settings: Option<&str>) -> sqlx::Result<PgConnection> {
    let mut connection = PgConnection::connect_with(server).await?;
    if let Some(settings) = settings {
        connection.execute(sqlx::AssertSqlSafe(settings)).await?;
    }
    Ok(connection)
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the backend is closed")
}

fn unavailable(what: String) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}
