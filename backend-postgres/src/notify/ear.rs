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

/// The driver's listener, closed without a word when it is dropped.
pub(crate) struct Ear {
    /// There until it is dropped.
    listener: Option<PgListener>,
    ended: Handle,
}

/// A runtime that has ended, on which a task is over as soon as it is spawned, with all that it holds.
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

impl Ear {
    /// Connects. It does not come back by itself when it is lost.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn open(server: &PgConnectOptions, limit: Duration) -> Result<Self> {
        tls::prepare(server);
        // The driver's listener wants a pool; this one never has more than this one connection.
        let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let pool = pool.acquire_timeout(limit).connect_lazy_with(server.clone());
        let opening = timeout(limit, async {
            let ended = ended()?;
            let mut ear = Self { listener: Some(PgListener::connect_with(&pool).await?), ended };
            ear.listener().eager_reconnect(false);
            ear.listener().execute(KEEPALIVES).await?;
            Ok(ear)
        });
        match opening.await {
            Ok(Ok(ear)) => Ok(ear),
            Ok(Err(e)) => Err(connecting_failed(&place(server), &e)),
            Err(_) => {
                let what = format!("{} did not answer while connecting", place(server));
                Err(Error::new(ErrorKind::Unavailable, what))
            }
        }
    }

    pub(crate) fn listener(&mut self) -> &mut PgListener {
        self.listener.as_mut().expect("it is taken by `drop` alone, which ends the value")
    }
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear").finish()
    }
}

impl Drop for Ear {
    /// Dropped as it is, the driver's listener sends UNLISTEN in a task of its own and waits for the answer, for ever where
    /// the other side is silent; and where there is no runtime it panics. So it gives that task to a runtime that has ended:
    /// it never runs, and the socket is closed at once.
    fn drop(&mut self) {
        let _entered = self.ended.enter();
        drop(self.listener.take());
    }
}
