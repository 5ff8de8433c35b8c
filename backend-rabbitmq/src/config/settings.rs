//! The configuration of a RabbitMQ backend.

use std::fmt;
use std::time::Duration;

use delayline_backend_kit::options::{bad, check_times};
use delayline_core::Result;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPQueryString, AMQPUri};

use super::tls;
use crate::limits::{LEVELS_MAX, PARALLEL_MAX};
use crate::names;

/// Configuration of a RabbitMQ backend: server, virtual host, namespace, timeouts and limits.
///
/// Its `Debug` output and its errors never show a password.
#[derive(Clone)]
pub struct RabbitConfig {
    pub(crate) uri: AMQPUri,
    pub(crate) tls: OwnedTLSConfig,
    pub(crate) namespace: String,
    pub(crate) levels: u32,
    pub(crate) parallel: u16,
    pub(crate) margin: Duration,
    pub(crate) hold_max: u16,
    pub(crate) hold_bytes_max: usize,
    pub(crate) lease_max: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) dead_letters_max: u32,
    pub(crate) payload_bytes_max: usize,
    pub(crate) fallback_poll_interval: Duration,
    pub(crate) publish_channels: u16,
}

/// Maximum number of publishing channels. By default, brokers allow 2,047 channels on a connection, and gates need
/// some, too.
const PUBLISH_CHANNELS_MAX: u16 = 64;

/// By default, RabbitMQ 4.x refuses messages over 16 MiB.
const PAYLOAD_BYTES_MAX: usize = 15 << 20;

impl RabbitConfig {
    /// The defaults, for this address.
    pub(super) fn of(uri: AMQPUri) -> Self {
        Self {
            uri,
            tls: OwnedTLSConfig::default(),
            namespace: "delayline".into(),
            levels: LEVELS_MAX,
            parallel: 2,
            margin: Duration::from_secs(2),
            hold_max: 60_000,
            hold_bytes_max: 128 << 20,
            lease_max: Duration::from_secs(25 * 60),
            heartbeat: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
            dead_letters_max: 100_000,
            payload_bytes_max: 1 << 20,
            fallback_poll_interval: Duration::from_secs(30),
            publish_channels: 8,
        }
    }

    /// Namespace: the prefix of every queue and exchange. Default: `delayline`. 1 to 64 letters, digits and `-_`.
    ///
    /// Clients with different namespaces share no data.
    ///
    /// A namespace within a namespace has a name such as `delayline.exams`: after the dot, 1 to 32 letters, digits and
    /// `-`; at most 96 bytes in all. A permission for `^NAME\\..*` covers these namespaces, too. The words that the
    /// backend itself uses after the dot, such as `q` or `level`, are reserved.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// Number of levels, which hold the tasks that are not due soon. Default: 21. Range: 1 to 21.
    ///
    /// With 21 levels, a task passes through the levels once for delays up to 49.7 days. Each level less halves this,
    /// and saves the queues of the level. A task with a longer delay leaves the levels early, and passes through them
    /// again as soon as its queue has a subscription. All clients of a namespace must use the same number.
    #[must_use]
    pub fn levels(mut self, levels: u32) -> Self {
        self.levels = levels;
        self
    }

    /// Number of parallel queues in each level. Default: 2. Range: 1 to 16.
    ///
    /// All clients of a namespace must use the same number.
    #[must_use]
    pub fn parallel(mut self, queues: u16) -> Self {
        self.parallel = queues;
        self
    }

    /// Minimum time before its due time at which a task leaves the levels. Default: 2 s. Range: 50 ms to 60 s.
    ///
    /// It covers the time that the way through the broker takes.
    #[must_use]
    pub fn margin(mut self, time: Duration) -> Self {
        self.margin = time;
        self
    }

    /// Maximum number of tasks that are due soon and that a process holds for a queue. Default: 60,000. Range: 1 to
    /// 65,535.
    #[must_use]
    pub fn hold_max(mut self, tasks: u16) -> Self {
        self.hold_max = tasks;
        self
    }

    /// Size, in bytes, of the tasks that are due soon and that a process holds for a queue. Default: 128 MiB.
    ///
    /// Beyond it, the process holds further tasks without their payloads, and fetches them again when they are due.
    #[must_use]
    pub fn hold_bytes_max(mut self, bytes: usize) -> Self {
        self.hold_bytes_max = bytes;
        self
    }

    /// Maximum duration of a lease. Default: 25 minutes. Range: 1 s to 1 day.
    ///
    /// It must be well below the broker's `consumer_timeout`, by default 30 minutes: the broker closes a channel on
    /// which a message stays unacknowledged for longer.
    #[must_use]
    pub fn lease_max(mut self, time: Duration) -> Self {
        self.lease_max = time;
        self
    }

    /// Interval of AMQP heartbeats, in whole seconds. Default: 5 s. Range: 1 s to 60 s.
    ///
    /// Client and broker close a connection on which nothing arrives for twice this time.
    #[must_use]
    pub fn heartbeat(mut self, time: Duration) -> Self {
        self.heartbeat = time;
        self
    }

    /// Timeout for connecting to the server. Default: 5 s. Range: 1 ms to 1 day.
    #[must_use]
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// Timeout for an answer of the server. Default: 10 s. Range: 1 ms to 1 day.
    ///
    /// After it, the call returns [`Ambiguous`](delayline_core::ErrorKind::Ambiguous), or
    /// [`Unavailable`](delayline_core::ErrorKind::Unavailable) if it had no effect.
    #[must_use]
    pub fn response_timeout(mut self, time: Duration) -> Self {
        self.response_timeout = time;
        self
    }

    /// User name and password; they replace those of the URL.
    #[must_use]
    pub fn credentials(mut self, user: &str, password: &str) -> Self {
        user.clone_into(&mut self.uri.authority.userinfo.username);
        password.clone_into(&mut self.uri.authority.userinfo.password);
        self
    }

    /// Virtual host; it replaces that of the URL. 1 to 255 bytes.
    #[must_use]
    pub fn virtual_host(mut self, name: &str) -> Self {
        name.clone_into(&mut self.uri.vhost);
        self
    }

    /// Root certificates (PEM) to verify the server's certificate with, in addition to the system's root certificates.
    /// Requires an `amqps://` URL.
    #[must_use]
    pub fn tls_roots(mut self, pem: impl Into<String>) -> Self {
        self.tls.cert_chain = Some(pem.into());
        self
    }

    /// Client certificate and its private key (PEM, PKCS #8), for servers that request one. Requires an `amqps://` URL.
    #[must_use]
    pub fn tls_client(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.tls.identity = Some(OwnedIdentity::PKCS8 { pem: certificate.into(), key: key.into() });
        self
    }

    /// Maximum number of dead letters in each queue. Default: 100,000. At least 1.
    ///
    /// Beyond it, the broker drops the oldest. All clients of a queue must use the same number.
    #[must_use]
    pub fn dead_letters_max(mut self, letters: u32) -> Self {
        self.dead_letters_max = letters;
        self
    }

    /// Maximum size of a payload, in bytes. Default: 1 MiB. At most 15 MiB.
    #[must_use]
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// Maximum time that a consumer waits between two claims when nothing is due and nothing arrives. Default: 30 s.
    /// Range: 1 ms to 1 day.
    ///
    /// In the same interval, a process that consumes checks whether one of the exchanges still exists.
    #[must_use]
    pub fn fallback_poll_interval(mut self, time: Duration) -> Self {
        self.fallback_poll_interval = time;
        self
    }

    /// Maximum number of batches that a process publishes at the same time, each on its own channel. Default: 8. Range:
    /// 1 to 64.
    ///
    /// Further batches wait. The channels are opened on demand and stay open. Gates publish due tasks on other
    /// channels.
    #[must_use]
    pub fn publish_channels(mut self, channels: u16) -> Self {
        self.publish_channels = channels;
        self
    }

    /// Checks the values that the methods set without a check.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config).
    pub(crate) fn check(&self) -> Result<()> {
        names::check(&self.namespace)?;
        if !(1..=LEVELS_MAX).contains(&self.levels) {
            return Err(bad(format!("levels must be 1 to {LEVELS_MAX}, is {}", self.levels)));
        }
        if !(1..=PARALLEL_MAX).contains(&self.parallel) {
            return Err(bad(format!("parallel must be 1 to {PARALLEL_MAX}, is {}", self.parallel)));
        }
        if self.hold_max == 0 {
            return Err(bad("hold_max must be at least 1, is 0"));
        }
        if !(1..=PUBLISH_CHANNELS_MAX).contains(&self.publish_channels) {
            return Err(bad(format!(
                "publish_channels must be 1 to {PUBLISH_CHANNELS_MAX}, is {}",
                self.publish_channels
            )));
        }
        if self.dead_letters_max == 0 {
            return Err(bad("dead_letters_max must be at least 1, is 0"));
        }
        if self.payload_bytes_max > PAYLOAD_BYTES_MAX {
            return Err(bad(format!(
                "payload_bytes_max must be at most {PAYLOAD_BYTES_MAX}, is {}",
                self.payload_bytes_max
            )));
        }
        if self.uri.vhost.is_empty() || self.uri.vhost.len() > 255 {
            return Err(bad(format!("the virtual host must have 1 to 255 bytes, has {}", self.uri.vhost.len())));
        }
        check_times(&[
            ("lease_max", self.lease_max, 1_000),
            ("connect_timeout", self.connect_timeout, 1),
            ("response_timeout", self.response_timeout, 1),
            ("fallback_poll_interval", self.fallback_poll_interval, 1),
        ])?;
        for (name, time, least_ms, most_s) in
            [("margin", self.margin, 50, 60), ("heartbeat", self.heartbeat, 1_000, 60)]
        {
            if time < Duration::from_millis(least_ms) || time > Duration::from_secs(most_s) {
                return Err(bad(format!("{name} must be {least_ms}ms to {most_s}s, is {time:?}")));
            }
        }
        tls::check(&self.uri, &self.tls)
    }

    /// Maximum total time for which a message is held unacknowledged. It must be below the broker's `consumer_timeout`,
    /// after which the broker closes the channel.
    pub(crate) fn hold_time_max(&self) -> Duration {
        self.lease_max + self.lease_max / 8
    }

    /// Describes the namespace, virtual host and server, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        format!("namespace `{}` in virtual host `{}` at {}", self.namespace, self.vhost(), self.server())
    }

    /// The server's host and port, for messages.
    pub(crate) fn server(&self) -> String {
        let mut host = self.uri.authority.host.clone();
        if host.contains(':') && !host.starts_with('[') {
            host = format!("[{host}]");
        }
        format!("{host}:{}", self.uri.authority.port)
    }

    /// The user name, for messages about permissions.
    pub(crate) fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    pub(crate) fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// The address, with the values that the driver negotiates.
    pub(crate) fn driver_uri(&self, frame_bytes_max: u32) -> AMQPUri {
        let mut uri = self.uri.clone();
        uri.query = AMQPQueryString {
            frame_max: Some(frame_bytes_max),
            heartbeat: Some(u16::try_from(self.heartbeat.as_secs()).unwrap_or(60).max(1)),
            connection_timeout: Some(u64::try_from(self.connect_timeout.as_millis()).unwrap_or(u64::MAX)),
            ..AMQPQueryString::default()
        };
        uri
    }
}

impl fmt::Debug for RabbitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitConfig")
            .field("server", &self.server())
            .field("tls", &tls::is_used(&self.uri))
            .field("user", &self.user())
            .field("virtual_host", &self.vhost())
            .field("namespace", &self.namespace)
            .field("levels", &self.levels)
            .field("parallel", &self.parallel)
            .field("margin", &self.margin)
            .field("hold_max", &self.hold_max)
            .field("hold_bytes_max", &self.hold_bytes_max)
            .field("lease_max", &self.lease_max)
            .field("heartbeat", &self.heartbeat)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("dead_letters_max", &self.dead_letters_max)
            .field("payload_bytes_max", &self.payload_bytes_max)
            .field("fallback_poll_interval", &self.fallback_poll_interval)
            .field("publish_channels", &self.publish_channels)
            .finish()
    }
}
