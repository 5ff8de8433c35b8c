//! The harness of the RabbitMQ backend: one broker for all tests, which takes ten seconds to start, and one namespace, whose
//! queues are a matter of seconds too; a broker of its own for each test that does something to it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use delayline_conformance::servers::{self, Kind, Rabbit, Release, Server};
use delayline_conformance::{Fault, Harness, Resources};
use delayline_core::{DelayBackend, Error, ErrorKind, Result, async_trait};
use delayline_rabbitmq::{RabbitBackend, RabbitConfig};
use parking_lot::Mutex;

/// The tests that kill, stop or cut their server.
const DISTURBING: [&str; 2] =
    ["live_3_consumers_go_on_unaided_when_a_fault_has_healed", "loss_4_what_is_on_disk_survives_a_kill"];

/// How many channels a connection may have where the heap is measured. The driver notes each number of a channel when it is
/// used for the first time, and keeps that; there are 2,047 by default.
const CHANNELS_MAX: usize = 32;

/// A broker, or the one that `DELAYLINE_TEST_RABBITMQ` names.
#[derive(Debug)]
pub struct OnRabbit {
    url: String,
    server: Option<Arc<Mutex<Box<dyn Server>>>>,
    /// Whether nobody else uses it.
    own: bool,
    /// Whether each client uses up the numbers of channels before anything is measured.
    warmed: bool,
}

impl OnRabbit {
    pub fn start() -> Self {
        if let Some(url) = servers::given(Kind::RabbitMq) {
            return Self { url, server: None, own: false, warmed: false };
        }
        let thread = std::thread::current();
        let own = thread.name().is_some_and(|name| DISTURBING.contains(&name));
        let server = if own {
            servers::start(Kind::RabbitMq).map(|server| Arc::new(Mutex::new(server)))
        } else {
            servers::shared(Kind::RabbitMq)
        };
        let server = server.unwrap_or_else(|e| panic!("{e}"));
        let url = server.lock().url();
        Self { url, server: Some(server), own, warmed: false }
    }

    /// For tests of the heap: on a broker that all of them share, where a connection may have few channels.
    pub fn for_the_heap() -> Self {
        static SERVER: OnceLock<Arc<Mutex<Box<dyn Server>>>> = OnceLock::new();
        let server = SERVER.get_or_init(|| {
            let release = Release::chosen(Kind::RabbitMq).unwrap_or_else(|e| panic!("{e}"));
            let setting = format!("channel_max = {CHANNELS_MAX}");
            let server = Rabbit::start(&release, &[&setting]).unwrap_or_else(|e| panic!("{e}"));
            Arc::new(Mutex::new(Box::new(server)))
        });
        let url = server.lock().url();
        Self { url, server: Some(server.clone()), own: false, warmed: true }
    }

    /// Does something to the server, on a thread that may block; nothing where it is not ours alone.
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
impl Harness for OnRabbit {
    async fn open(&self) -> Result<Arc<dyn DelayBackend>> {
        let mut config = RabbitConfig::from_url(&self.url)?.namespace("conform");
        if self.own {
            // A server that stands still is noticed within the test. Where none does, a busy machine would cost connections.
            config = config.heartbeat(Duration::from_secs(1));
        }
        if self.warmed {
            // Each that publishes costs as much as the largest batch so far. With one, what is warmed up is warm.
            config = config.publish_channels(1);
        }
        let backend = RabbitBackend::connect(config).await?;
        if self.warmed {
            // Each opens a channel on each connection.
            for _ in 0..CHANNELS_MAX {
                backend.ping().await?;
            }
        }
        Ok(Arc::new(backend))
    }

    async fn inject(&self, fault: Fault) -> Result<bool> {
        if !self.own {
            return Ok(false);
        }
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
