//! A connection to the broker. It is opened when a channel is needed, and opened again after it was lost.
//!
//! A backend has two of them: a broker that is short of memory or disk stops reading from connections that publish, so
//! acknowledgements use another connection.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use delayline_backend_kit::{Connected, Lifecycle, Reconnect};
use delayline_core::{Error, ErrorKind, Result, meter};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::sync::watch;
use tokio::time::timeout;

use super::greeting::{Heard, OLDEST, Version};
use super::{failure, runtime};
use crate::config::{RabbitConfig, tls};
use crate::limits::{NAME, TITLE};

/// Number of channel numbers that are tried before the connection is discarded.
const CHANNEL_NUMBERS: usize = 2_048;

/// Maximum frame size, in bytes, of a connection that carries tasks, and of one for requests only. The driver allocates
/// room for 64 frames at the start. A larger message is sent in several frames.
const FRAME_BYTES_MAX: u32 = 32 << 10;
const ASKING_FRAME_BYTES_MAX: u32 = 8 << 10;

/// The first version that counts no attempt for returned messages.
const COUNTS_NO_RETURNS: Version = Version::new(4, 3);

/// Time limit for closing, for a broker that does not answer.
const CLOSE_MAX: Duration = Duration::from_millis(800);

/// One connection. Its name at the broker contains its purpose.
pub(crate) struct Link {
    config: Arc<RabbitConfig>,
    purpose: &'static str,
    frame_bytes_max: u32,
    /// Number of connections so far.
    generation: AtomicU64,
    /// The version that the broker reported on the latest connection.
    version: parking_lot::Mutex<Option<Version>>,
    /// Turns true when the link is closed, so that the driver's tasks end at once.
    ended: watch::Sender<bool>,
    lifecycle: Arc<Lifecycle>,
    reconnect: Reconnect<Open>,
}

/// A handle to an open connection.
#[derive(Clone)]
struct Open(Arc<Connection>);

impl Connected for Open {
    fn works(&self) -> bool {
        self.0.status().connected()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Link {
    pub(crate) fn new(config: Arc<RabbitConfig>, purpose: &'static str) -> Self {
        Self {
            config,
            purpose,
            frame_bytes_max: FRAME_BYTES_MAX,
            generation: AtomicU64::new(0),
            version: parking_lot::Mutex::default(),
            ended: watch::Sender::new(false),
            lifecycle: Lifecycle::new(TITLE),
            reconnect: Reconnect::new(NAME),
        }
    }

    /// A link for requests only, which carries no tasks. It needs less memory.
    pub(crate) fn asking(config: Arc<RabbitConfig>, purpose: &'static str) -> Self {
        Self { frame_bytes_max: ASKING_FRAME_BYTES_MAX, ..Self::new(config, purpose) }
    }

    /// Opens a channel. It closes when its last clone is dropped.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable), [`Denied`](ErrorKind::Denied), [`Config`](ErrorKind::Config),
    /// [`Incompatible`](ErrorKind::Incompatible), [`Closed`](ErrorKind::Closed). A failed call had no effect.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        for reconnected in [false, true] {
            let connection = self.connection().await?;
            match self.channel_of(&connection).await {
                Ok(channel) => return Ok(channel),
                Err(e) if reconnected => return Err(e),
                // The connection broke, or has no channel number left. Try a new connection, once.
                Err(_) => self.reconnect.give_up(&Open(connection)),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "no channel"))
    }

    /// Opens a channel of this connection.
    async fn channel_of(&self, connection: &Connection) -> Result<Channel> {
        let mut tries = 0;
        loop {
            tries += 1;
            meter::round_trip(NAME);
            match timeout(self.config.response_timeout, connection.create_channel()).await {
                Ok(Ok(channel)) => return Ok(channel),
                // After all numbers were used, the driver reuses the number of a channel that the broker closed, and
                // fails with the reason of that close. The next number may work.
                Ok(Err(_)) if tries < CHANNEL_NUMBERS && connection.status().connected() => {}
                Ok(Err(e)) => return Err(failure::failed("opening a channel", &e, false)),
                Err(_) => return Err(failure::silent("opening a channel", &self.config, false)),
            }
        }
    }

    /// The number of the current connection. Each connection has another one.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The connection. Opens one if there is none that works.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>> {
        let Open(connection) = self.lifecycle.unless_closed(self.reconnect.get(|| self.connect())).await?;
        Ok(connection)
    }

    /// Whether the broker has reported that it currently blocks this connection.
    pub(crate) fn blocked(&self) -> bool {
        self.reconnect.current().is_some_and(|Open(connection)| connection.status().blocked())
    }

    async fn connect(&self) -> Result<Open> {
        let config = &self.config;
        let name = format!("delayline {} {}", config.namespace, self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let (closed, heard) = (self.ended.subscribe(), Heard::default());
        let uri = config.driver_uri(self.frame_bytes_max);
        tls::prepare(&config.uri, &config.server());
        let connecting = runtime::connect(uri, config.tls.clone(), properties, closed, heard.clone());
        let connection = match timeout(config.connect_timeout, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(e)) => return Err(failure::connecting_failed(config, &e)),
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("{} did not accept the connection within {:?}", config.server(), config.connect_timeout),
                ));
            }
        };
        let version = heard.version();
        *self.version.lock() = version;
        match version.filter(|version| *version < OLDEST) {
            None => {
                self.generation.fetch_add(1, Ordering::AcqRel);
                Ok(Open(Arc::new(connection)))
            }
            Some(old) => {
                let what =
                    format!("{}: RabbitMQ {OLDEST} or newer required: the server is RabbitMQ {old}", config.server());
                Err(Error::new(ErrorKind::Incompatible, what))
            }
        }
    }

    /// The broker's version, as reported on the latest connection. `None` if it did not report one, or is not RabbitMQ.
    pub(crate) fn version(&self) -> Option<Version> {
        *self.version.lock()
    }

    /// The arguments of each consumer.
    ///
    /// From RabbitMQ 4.3 on, a consumer that holds a message for too long loses it, without a counted attempt. The
    /// timeout in the consumer's arguments takes precedence over policies and settings. In older versions, and for
    /// messages from `basic.get`, only the broker's setting applies.
    pub(crate) fn consumer_arguments(&self) -> FieldTable {
        let mut table = FieldTable::default();
        if self.counts_no_returns() {
            // Heartbeats detect a lost client, and a client ends its leases in time, so the timeout may be long.
            let ms = i64::try_from(2 * self.config.hold_time_max().as_millis()).unwrap_or(i64::MAX);
            table.insert("x-consumer-timeout".into(), AMQPValue::LongLongInt(ms));
        }
        table
    }

    /// Whether the broker counts no attempt for messages that a consumer returns or holds for too long: RabbitMQ 4.3 or
    /// newer.
    pub(crate) fn counts_no_returns(&self) -> bool {
        self.version().is_some_and(|version| version >= COUNTS_NO_RETURNS)
    }

    /// Closes the connection, and prevents new ones.
    pub(crate) async fn close(&self) {
        self.lifecycle.close();
        if let Some(Open(connection)) = self.reconnect.end() {
            // The broker's answer does not matter: dropping the connection closes it as well.
            let _ = timeout(CLOSE_MAX, connection.close(200, "closed".into())).await;
        }
        self.ended.send_replace(true);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use delayline_conformance::servers::{Kind, Rabbit, Release, Server};
    use lapin::options::QueueDeclareOptions;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn leak_8_channels_that_the_broker_closed_do_not_cost_the_connection() {
        let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &["channel_max = 16"]).unwrap();
        let broker = tokio::task::spawn_blocking(start).await.unwrap();
        let link = Link::new(Arc::new(RabbitConfig::from_url(&broker.url()).unwrap()), "testing");
        let connection = link.connection().await.unwrap();
        for _ in 0..4 {
            let channel = link.channel().await.unwrap();
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let e = channel.queue_declare("nowhere".into(), passive, FieldTable::default()).await.unwrap_err();
            assert!(failure::is_not_found(&e), "{e}");
        }
        // Every number has its turn, several times.
        for _ in 0..64 {
            link.channel().await.unwrap().close(200, "done".into()).await.unwrap();
        }
        assert!(Arc::ptr_eq(&connection, &link.connection().await.unwrap()), "another connection was opened");
        link.close().await;
        tokio::task::spawn_blocking(|| drop(broker)).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_version_is_that_of_the_broker() {
        let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
        let broker = tokio::task::spawn_blocking(start).await.unwrap();
        let link = Link::new(Arc::new(RabbitConfig::from_url(&broker.url()).unwrap()), "testing");
        assert_eq!(link.version(), None);
        link.connection().await.unwrap();
        let version = link.version().expect("a broker that says its version").to_string();
        assert!(broker.version().starts_with(&version), "{version}, and it is {}", broker.version());
        link.close().await;
        tokio::task::spawn_blocking(|| drop(broker)).await.unwrap();
    }

    #[tokio::test]
    async fn leak_8_nothing_of_the_driver_sleeps_on_after_close() {
        let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
        let broker = tokio::task::spawn_blocking(start).await.unwrap();
        let config = RabbitConfig::from_url(&broker.url()).unwrap().heartbeat(Duration::from_secs(60));
        let link = Link::new(Arc::new(config), "testing");
        drop(link.channel().await.unwrap());
        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        assert!(alive() > 0);
        link.close().await;
        // It would go on for half of the heartbeat.
        let ended = async {
            while alive() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(15), ended).await.expect("its tasks end");
        tokio::task::spawn_blocking(|| drop(broker)).await.unwrap();
    }
}
