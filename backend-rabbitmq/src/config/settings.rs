//! How a RabbitMQ backend is set up.

use std::fmt;
use std::time::Duration;

use delayline_backend_kit::options::{bad, check_times};
use delayline_core::Result;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPQueryString, AMQPUri};

use super::tls;
use crate::limits::{LEVELS_MAX, PARALLEL_MAX};
use crate::names;

/// Server, virtual host, name space, time-outs and limits of a RabbitMQ backend.
///
/// Neither its `Debug` nor any error shows a password.
#[derive(Clone)]
pub struct RabbitConfig {
    pub(crate) uri: AMQPUri,
    pub(crate) tls: OwnedTLSConfig,
    pub(crate) name_space: String,
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
    pub(crate) sweep: Duration,
    pub(crate) publish_channels: u16,
}

/// The most channels that publish: brokers let a connection have 2,047 unless they are told otherwise, and gates have theirs.
const PUBLISH_CHANNELS_MAX: u16 = 64;

/// Brokers of 4.x refuse messages over 16 MiB unless they are told otherwise.
const PAYLOAD_BYTES_MAX: usize = 15 << 20;

impl RabbitConfig {
    /// The defaults, for this address.
    pub(super) fn of(uri: AMQPUri) -> Self {
        Self {
            uri,
            tls: OwnedTLSConfig::default(),
            name_space: "delayline".into(),
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
            sweep: Duration::from_secs(30),
            publish_channels: 8,
        }
    }

    /// What every queue and exchange of ours begins with. Default: `delayline`. Clients with different namespaces share no data.
    ///
    /// 1 to 64 letters, digits and `-_`; behind that may stand a dot and the name of a namespace within it, 1 to 32 letters, digits
    /// and `-`, 96 bytes in all. A permission for `^NAME\\..*` covers those too. What the backend itself puts behind the dot, such as
    /// `q` or `level`, is invalid there.
    #[must_use]
    pub fn name_space(mut self, name: impl Into<String>) -> Self {
        self.name_space = name.into();
        self
    }

    /// How many levels hold what is not due soon, 1 to 21; 21 unless set, which reaches 49.7 days at one go. Each one less
    /// halves that, and saves the queues of that level: what is due later comes out early, and goes round again if there is
    /// an intake on its queue then, or once there is one. All that use a name space must say the same.
    #[must_use]
    pub fn levels(mut self, levels: u32) -> Self {
        self.levels = levels;
        self
    }

    /// How many queues each level is spread over, 1 to 16; 2 unless set. All that use a name space must say the same.
    #[must_use]
    pub fn parallel(mut self, queues: u16) -> Self {
        self.parallel = queues;
        self
    }

    /// How long before it is due a task leaves the levels at the latest, 2 s unless set: it covers what the way takes.
    #[must_use]
    pub fn margin(mut self, time: Duration) -> Self {
        self.margin = time;
        self
    }

    /// How many tasks of a queue that are due soon one process holds at the most, 60,000 unless set.
    #[must_use]
    pub fn hold_max(mut self, tasks: u16) -> Self {
        self.hold_max = tasks;
        self
    }

    /// How many bytes of tasks that are due soon one process holds of a queue before it takes in no more, 128 MiB unless set.
    #[must_use]
    pub fn hold_bytes_max(mut self, bytes: usize) -> Self {
        self.hold_bytes_max = bytes;
        self
    }

    /// The longest lease, 25 minutes unless set. It must end well before the broker's `consumer_timeout`, which is 30
    /// minutes unless an operator changed it: a broker closes the channel on which a message stays unacknowledged for longer.
    #[must_use]
    pub fn lease_max(mut self, time: Duration) -> Self {
        self.lease_max = time;
        self
    }

    /// How often client and broker show each other that they are there, in whole seconds, 1 to 60; 5 s unless set. One that
    /// was silent for twice as long is given up.
    #[must_use]
    pub fn heartbeat(mut self, time: Duration) -> Self {
        self.heartbeat = time;
        self
    }

    /// How long connecting may take, 5 s unless set.
    #[must_use]
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// How long an answer may take, 10 s unless set. Beyond it the call answers [`Ambiguous`](delayline_core::ErrorKind::Ambiguous), or
    /// [`Unavailable`](delayline_core::ErrorKind::Unavailable) where it took no effect.
    #[must_use]
    pub fn response_timeout(mut self, time: Duration) -> Self {
        self.response_timeout = time;
        self
    }

    /// The user name and password, in the place of the URL's.
    #[must_use]
    pub fn credentials(mut self, user: &str, password: &str) -> Self {
        user.clone_into(&mut self.uri.authority.userinfo.username);
        password.clone_into(&mut self.uri.authority.userinfo.password);
        self
    }

    /// The virtual host, in the place of the URL's.
    #[must_use]
    pub fn virtual_host(mut self, name: &str) -> Self {
        name.clone_into(&mut self.uri.vhost);
        self
    }

    /// The certificates (PEM) of those whose signature on the server's certificate counts, beside the system's. Needs an
    /// `amqps://` URL.
    #[must_use]
    pub fn tls_roots(mut self, pem: impl Into<String>) -> Self {
        self.tls.cert_chain = Some(pem.into());
        self
    }

    /// Our own certificate and its key (PEM, PKCS #8), for servers that ask for one. Needs an `amqps://` URL.
    #[must_use]
    pub fn tls_client(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.tls.identity = Some(OwnedIdentity::PKCS8 { pem: certificate.into(), key: key.into() });
        self
    }

    /// The most dead letters in a queue, 100,000 unless set; beyond it the broker drops the oldest. All that use a queue
    /// must say the same.
    #[must_use]
    pub fn dead_letters_max(mut self, letters: u32) -> Self {
        self.dead_letters_max = letters;
        self
    }

    /// The largest payload in bytes, 1 MiB unless set, and at most 15 MiB.
    #[must_use]
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// How long a consumer sleeps without asking when nothing arrives, and how often a process that consumes looks whether one of
    /// the exchanges is there, 30 s unless set.
    #[must_use]
    pub fn sweep(mut self, time: Duration) -> Self {
        self.sweep = time;
        self
    }

    /// How many batches a process publishes at once, each on a channel, 1 to 64; 8 unless set. More wait for their turn. The
    /// channels are opened when they are needed, and stay. What falls due is published beside them.
    #[must_use]
    pub fn publish_channels(mut self, channels: u16) -> Self {
        self.publish_channels = channels;
        self
    }

    /// Checks what a method may have set to something impossible.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config).
    pub(crate) fn check(&self) -> Result<()> {
        names::check(&self.name_space)?;
        if !(1..=LEVELS_MAX).contains(&self.levels) {
            return Err(bad(format!("there are 1 to {LEVELS_MAX} levels")));
        }
        if !(1..=PARALLEL_MAX).contains(&self.parallel) {
            return Err(bad(format!("a level has 1 to {PARALLEL_MAX} parallel queues")));
        }
        if self.hold_max == 0 {
            return Err(bad("hold_max is 1 to 65535"));
        }
        if !(1..=PUBLISH_CHANNELS_MAX).contains(&self.publish_channels) {
            return Err(bad(format!("1 to {PUBLISH_CHANNELS_MAX} channels publish")));
        }
        if self.dead_letters_max == 0 {
            return Err(bad("dead_letters_max is at least 1"));
        }
        if self.payload_bytes_max > PAYLOAD_BYTES_MAX {
            return Err(bad(format!("payload_bytes_max is at most {PAYLOAD_BYTES_MAX}")));
        }
        if self.uri.vhost.is_empty() || self.uri.vhost.len() > 255 {
            return Err(bad("a virtual host's name has 1 to 255 bytes"));
        }
        check_times(&[
            ("lease_max", self.lease_max, 1_000),
            ("connect_timeout", self.connect_timeout, 1),
            ("response_timeout", self.response_timeout, 1),
            ("sweep", self.sweep, 1),
        ])?;
        for (name, time, least_ms, most_s) in
            [("margin", self.margin, 50, 60), ("heartbeat", self.heartbeat, 1_000, 60)]
        {
            if time < Duration::from_millis(least_ms) || time > Duration::from_secs(most_s) {
                return Err(bad(format!("{name} is {least_ms}ms to {most_s}s")));
            }
        }
        tls::check(&self.uri, &self.tls)
    }

    /// How long a message may be held in all: a broker closes the channel when its `consumer_timeout` is over.
    pub(crate) fn hold_time_max(&self) -> Duration {
        self.lease_max + self.lease_max / 8
    }

    /// The name space, virtual host and server that this is for, as a message says it.
    #[must_use]
    pub fn place(&self) -> String {
        format!("name space `{}` in virtual host `{}` at {}", self.name_space, self.vhost(), self.server())
    }

    /// The server's host and port, for people.
    pub(crate) fn server(&self) -> String {
        let mut host = self.uri.authority.host.clone();
        if host.contains(':') && !host.starts_with('[') {
            host = format!("[{host}]");
        }
        format!("{host}:{}", self.uri.authority.port)
    }

    /// The user's name, for messages about its permissions.
    pub(crate) fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    pub(crate) fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// The address with what the driver is to negotiate.
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
            .field("name_space", &self.name_space)
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
            .field("sweep", &self.sweep)
            .field("publish_channels", &self.publish_channels)
            .finish()
    }
}
