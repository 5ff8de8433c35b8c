//! The harness of the Redis backend: a server of its own for each test, so that what is counted and what is killed is the
//! test's alone.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use delayline_conformance::servers::{self, Kind, Redis, Release, Server};
use delayline_conformance::{Fault, Harness, Resources};
use delayline_core::{DelayBackend, Durability, Error, ErrorKind, Result, async_trait};
use delayline_redis::{RedisBackend, RedisConfig};
use parking_lot::Mutex;

/// A server, or the one that `DELAYLINE_TEST_REDIS` names, and a prefix that no other harness has.
#[derive(Debug)]
pub struct OnRedis {
    url: String,
    prefix: String,
    shards: u32,
    durability: Durability,
    /// One of our own, which can be killed.
    server: Option<Arc<Mutex<Box<dyn Server>>>>,
}

impl OnRedis {
    pub fn start() -> Self {
        Self::with_shards(1)
    }

    pub fn with_shards(shards: u32) -> Self {
        Self::new(shards, Durability::Server)
    }

    /// A server that answers nothing before it is on the disk, and a backend that declares so.
    pub fn on_disk(shards: u32) -> Self {
        Self::new(shards, Durability::Disk)
    }

    fn new(shards: u32, durability: Durability) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("conform-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        if let Some(url) = servers::given(Kind::Redis) {
            // How it is set up is its owner's affair.
            return Self { url, prefix, shards, durability: Durability::Server, server: None };
        }
        let arguments: &[&str] = if durability == Durability::Disk { &["--appendfsync", "always"] } else { &[] };
        let started = Release::chosen(Kind::Redis).and_then(|release| Redis::start(&release, arguments));
        let server: Box<dyn Server> = Box::new(started.unwrap_or_else(|e| panic!("{e}")));
        Self { url: server.url(), prefix, shards, durability, server: Some(Arc::new(Mutex::new(server))) }
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

#[async_trait]
impl Harness for OnRedis {
    async fn open(&self) -> Result<Arc<dyn DelayBackend>> {
        let config = RedisConfig::from_url(&self.url)?.key_prefix(&self.prefix).shards(self.shards);
        let config = config.durability(self.durability);
        Ok(Arc::new(RedisBackend::connect(config).await?))
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
