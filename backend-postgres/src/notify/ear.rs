//! One connection that listens.

use std::fmt;
use std::time::Duration;

use delayline_core::{Error, ErrorKind, Result};
use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::time::timeout;

use crate::config::server::place;
use crate::transport::failure::connecting_failed;
use crate::transport::session::KEEPALIVES;

/// The driver's listener, closed without a word when it is dropped.
pub(crate) struct Ear(Option<PgListener>);

impl Ear {
    /// Connects. It does not come back by itself when it is lost.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn open(server: &PgConnectOptions, limit: Duration) -> Result<Self> {
        // The driver's listener wants a pool; this one never has more than this one connection.
        let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let pool = pool.acquire_timeout(limit).connect_lazy_with(server.clone());
        let opening = timeout(limit, async {
            let mut ear = Self(Some(PgListener::connect_with(&pool).await?));
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
        self.0.as_mut().expect("it is taken by `drop` alone, which ends the value")
    }
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear").finish()
    }
}

impl Drop for Ear {
    /// Dropped as it is, the driver's listener sends UNLISTEN in a task of its own and waits for the answer, for ever where
    /// the other side is silent. So that task is given to a runtime that ends before it has run, and what it holds is
    /// closed with it.
    fn drop(&mut self) {
        let listener = self.0.take();
        let Ok(brief) = tokio::runtime::Builder::new_current_thread().build() else { return drop(listener) };
        let entered = brief.enter();
        drop(listener);
        drop(entered);
        brief.shutdown_background();
    }
}
