//! Connections: the backend's own, or those of an application's pool.
//!
//! 1. A call that uses a connection holds a permit. It releases both together, whatever happens to the connection.
//! 2. A connection is reused only after its last statement was answered. Otherwise it is closed at once, without a
//!    message to the server, which may be gone. So a dead socket blocks no caller and holds no permit.
//! 3. Before a call that must not be lost, an idle connection is checked. If it does not work, all other idle
//!    connections are discarded, too.
//!
//! The backend keeps its own connections here and not in the driver's pool. That pool makes a round trip whenever a
//! connection is returned, waits for its answer forever, and holds the permit during the wait.

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

/// Idle time up to which a connection is assumed to work.
const BELIEVED: Duration = Duration::from_secs(1);

/// Idle time after which an unused connection is closed.
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
    /// Number of lost connections that are not replaced yet.
    missing: AtomicU64,
}

#[derive(Debug)]
enum Kind {
    Own {
        server: Box<PgConnectOptions>,
        /// Settings that every new session starts with.
        settings: Option<String>,
        /// In the order of their last use.
        idle: Mutex<Vec<Idle>>,
    },
    Given(PgPool),
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    since: Instant,
}

/// A connection and its permit. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Held {
    connection: Option<Connected>,
    /// The connection existed before this call and was not checked.
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

    /// The server's host and port, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Whether the connections come from the application's pool, with its settings.
    pub(crate) fn given(&self) -> bool {
        matches!(self.kind, Kind::Given(_))
    }

    /// Waits for a permit, then takes an idle connection or opens a new one. With `must_work`, checks an idle
    /// connection first.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), or the error of connecting. Nothing was sent.
    pub(crate) async fn take(self: &Arc<Self>, must_work: bool) -> Result<Held> {
        let permit = timeout(self.response_timeout, self.permits.clone().acquire_owned()).await;
        let permit = match permit {
            Ok(Ok(permit)) if !*self.closed.borrow() => permit,
            Ok(_) => return Err(closed()),
            Err(_) => {
                return Err(unavailable(format!(
                    "all {} connections were busy until the response timeout: use a larger pool",
                    self.size
                )));
            }
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

    /// An idle connection that works or is assumed to, and whether it is only assumed to.
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

    /// Closes all idle connections, because one of them did not work any more.
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
            Err(_) => Err(unavailable(format!("{} did not answer within the connect timeout", self.place))),
        }
    }

    /// Returns when `close` was called.
    pub(crate) async fn closing(&self) {
        // It can't fail, because `self` owns the sender.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Waits for the calls under way and closes the backend's own connections. A second call does nothing.
    pub(crate) async fn close(&self) {
        self.closed.send_replace(true);
        let all = timeout(self.response_timeout, self.permits.clone().acquire_many_owned(self.size)).await;
        self.permits.close();
        drop(all);
        let Kind::Own { idle, .. } = &self.kind else { return };
        let idle = std::mem::take(&mut *idle.lock());
        let goodbyes = idle.into_iter().map(|idle| idle.connection.close());
        // A server that does not receive the goodbye finds the socket closed.
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

    /// Closes a connection that does not work any more.
    pub(crate) fn lost(self) {
        if let Some(Connected::Own(_)) = self.connection {
            self.of.missing.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the connection, after its last statement was answered.
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
                // Close sockets outside the lock.
                drop(idle);
                drop(old);
            }
            Some(Connected::Given(mut connection)) => {
                // The driver pings it once more, and would wait for the answer forever.
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
            // Releases the pool's permit and closes the socket. A plain drop would send a request to the server first.
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
