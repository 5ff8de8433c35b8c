//! The harness of the Postgres backend: a schema of its own for each test on one server, or a server of its own for a test that
//! does something to it or counts what is left on it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use delayline_conformance::servers::{self, Kind, Postgres, Release, Server};
use delayline_conformance::{Fault, Harness, Resources};
use delayline_core::{DelayBackend, Error, ErrorKind, Result, async_trait};
use delayline_postgres::{PostgresBackend, PostgresConfig};
use parking_lot::Mutex;

/// A server, or the one that `DELAYLINE_TEST_POSTGRES` names, and a schema that no other harness has.
#[derive(Debug)]
pub struct OnPostgres {
    url: String,
    schema: String,
    /// One of our own, which can be killed.
    server: Option<Arc<Mutex<Box<dyn Server>>>>,
    /// How many sessions a client may have, or as many as it has by default.
    pool_size: Option<u32>,
}

impl OnPostgres {
    /// On the server that all tests of this process share.
    pub fn shared() -> Self {
        let url = servers::given(Kind::Postgres).unwrap_or_else(|| {
            let server = servers::shared(Kind::Postgres).unwrap_or_else(|e| panic!("{e}"));
            server.lock().url()
        });
        Self { url, schema: schema(), server: None, pool_size: None }
    }

    /// On a server of its own.
    pub fn private() -> Self {
        let server = servers::start(Kind::Postgres).unwrap_or_else(|e| panic!("{e}"));
        Self { url: server.url(), schema: schema(), server: Some(Arc::new(Mutex::new(server))), pool_size: None }
    }

    /// For tests of the heap: on a server of its own that never waits for its disk, with one session a client. Each session
    /// costs as much as the statements that it has prepared so far. With one, what is warmed up is warm.
    pub fn for_the_heap() -> Self {
        let release = Release::chosen(Kind::Postgres).unwrap_or_else(|e| panic!("{e}"));
        let server = Postgres::start(&release, &["fsync=off"]).unwrap_or_else(|e| panic!("{e}"));
        let server: Box<dyn Server> = Box::new(server);
        Self { url: server.url(), schema: schema(), server: Some(Arc::new(Mutex::new(server))), pool_size: Some(1) }
    }

    /// Does something to the server, on a thread that may block; nothing where it is not ours.
    async fn on_server<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Server) -> servers::Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let Some(server) = self.server.clone() else { return Ok(None) };
        let done = tokio::task::spawn_blocking(move || work(&mut **server.lock())).await;
        match done.expect("work on the server that does not panic") {
            Ok(done) => Ok(Some(done)),
            Err(e) => Err(Error::new(ErrorKind::Unavailable, e.to_string())),
        }
    }
}

fn schema() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("conform_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

#[async_trait]
impl Harness for OnPostgres {
    async fn open(&self) -> Result<Arc<dyn DelayBackend>> {
        let mut config = PostgresConfig::from_url(&self.url)?.schema(&self.schema);
        if let Some(size) = self.pool_size {
            config = config.pool_size(size);
        }
        Ok(Arc::new(PostgresBackend::connect(config).await?))
    }

    async fn inject(&self, fault: Fault) -> Result<bool> {
        if let Fault::Stall(time) = fault {
            if self.on_server(|server| server.stop()).await?.is_none() {
                return Ok(false);
            }
            tokio::time::sleep(time).await;
            return Ok(self.on_server(|server| server.resume()).await?.is_some());
        }
        let done = self.on_server(move |server| match fault {
            Fault::Kill => server.kill().and_then(|()| server.start()).map(|()| true),
            Fault::Disconnect => server.disconnect().map(|()| true),
            _ => Ok(false),
        });
        Ok(done.await?.unwrap_or(false))
    }

    async fn resources(&self) -> Result<Resources> {
        Ok(self.on_server(|server| server.resources()).await?.unwrap_or_default())
    }
}
