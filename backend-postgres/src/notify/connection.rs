//! One connection that listens.

use std::sync::OnceLock;
use std::time::Duration;
use std::{fmt, io};

use delayline_core::{Error, ErrorKind, Result};
use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::runtime::{Builder, Handle};
use tokio::time::timeout;

use crate::config::server::place;
use crate::config::tls;
use crate::transport::failure::connecting_failed;
use crate::transport::session::KEEPALIVES;

/// The driver's listener. When dropped, it closes the socket without sending anything.
pub(crate) struct ListenConnection {
    /// `Some` until the value is dropped.
    listener: Option<PgListener>,
    ended: Handle,
}

/// A runtime that has ended. A task that is spawned on it ends at once, and everything it holds is dropped.
fn ended() -> io::Result<Handle> {
    static ENDED: OnceLock<Handle> = OnceLock::new();
    if let Some(ended) = ENDED.get() {
        return Ok(ended.clone());
    }
    let runtime = Builder::new_current_thread().build()?;
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    Ok(ENDED.get_or_init(|| handle).clone())
}

impl ListenConnection {
    /// Connects. The connection does not reconnect by itself.
    ///
    /// # Errors
    /// If it can't connect.
    pub(crate) async fn open(server: &PgConnectOptions, limit: Duration) -> Result<Self> {
        tls::prepare(server);
        // The driver's listener needs a pool. This one never has more than one connection.
        let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let pool = pool.acquire_timeout(limit).connect_lazy_with(server.clone());
        let opening = timeout(limit, async {
            let ended = ended()?;
            let mut connection = Self { listener: Some(PgListener::connect_with(&pool).await?), ended };
            connection.listener().eager_reconnect(false);
            connection.listener().execute(KEEPALIVES).await?;
            Ok(connection)
        });
        match opening.await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(e)) => Err(connecting_failed(&place(server), &e)),
            Err(_) => {
                let what = format!("{} did not answer within the connect timeout", place(server));
                Err(Error::new(ErrorKind::Unavailable, what))
            }
        }
    }

    pub(crate) fn listener(&mut self) -> &mut PgListener {
        self.listener.as_mut().expect("it is taken by `drop` alone, which ends the value")
    }
}

impl fmt::Debug for ListenConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenConnection").finish()
    }
}

impl Drop for ListenConnection {
    /// When the driver's listener is dropped, it spawns a task that sends UNLISTEN and waits for the answer, forever if
    /// the server does not answer. Without a runtime, it panics. So this drops it within a runtime that has ended: the
    /// task never runs, and the socket is closed at once.
    fn drop(&mut self) {
        let _entered = self.ended.enter();
        drop(self.listener.take());
    }
}
