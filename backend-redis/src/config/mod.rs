//! How a Redis backend is set up.

mod capabilities;
mod tls;

use std::fmt;
use std::time::Duration;

use delayline_backend_kit::options::{bad, check_times};
use delayline_backend_kit::{UrlForm, UrlOption};
use delayline_core::{Durability, Result};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

pub(crate) use self::capabilities::capabilities;
use self::tls::Certificates;
use crate::limits::SHARDS_MAX;

/// Server, keys, time-outs and limits of a Redis backend.
///
/// Neither its `Debug` nor any error shows a password.
#[derive(Clone)]
pub struct RedisConfig {
    info: ConnectionInfo,
    certificates: Certificates,
    keepalive: Duration,
    pub(crate) key_prefix: String,
    pub(crate) shards: u32,
    pub(crate) response_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) dead_letters_max: usize,
    pub(crate) payload_bytes_max: usize,
    pub(crate) operation_window: Duration,
    pub(crate) sweep: Duration,
    pub(crate) durability: Durability,
}

/// The longest prefix of keys, in bytes.
const PREFIX_BYTES_MAX: usize = 96;

/// Redis refuses longer strings unless it is told otherwise, and one call carries more than one payload.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// What its URLs look like.
const FORM: UrlForm = UrlForm {
    what: "a Redis URL",
    schemes: &["redis", "rediss"],
    options: &[
        "key_prefix",
        "shards",
        "response_timeout",
        "connect_timeout",
        "keepalive",
        "dead_letters_max",
        "payload_bytes_max",
        "operation_window",
        "sweep",
        "durability",
    ],
    options_with_at: &[],
};

impl RedisConfig {
    /// Reads a URL: `redis://[[user]:password@]host[:port][/database]`, or `rediss://` for TLS, with options such as
    /// `?key_prefix=exams&response_timeout=5s`. In a user name or password, what has a meaning in a URL is written as
    /// `%3F` and so on.
    ///
    /// TLS needs the Cargo feature `tls-ring` (default) or `tls-aws-lc-rs`, and uses the system's certificates.
    ///
    /// The options are named as the methods here. Times are written as `500ms`, `5s` or `1m`, the others as whole numbers.
    /// In a value, `%3A` and so on are read.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config) for anything else.
    pub fn from_url(url: &str) -> Result<Self> {
        let (server, options) = FORM.split(url)?;
        tls::check_scheme(server)?;
        // What it says of a URL it can't read might hold a part of it.
        let info = server.into_connection_info().map_err(|_| {
            bad("a Redis URL is `redis://[[user]:password@]host[:port][/database]?option=value&...`, with a database's number")
        })?;
        let mut config = Self::of(info);
        for option in &options {
            config.set(option)?;
        }
        config.check()?;
        Ok(config)
    }

    fn of(info: ConnectionInfo) -> Self {
        Self {
            info,
            certificates: Certificates::default(),
            keepalive: Duration::from_secs(10),
            key_prefix: "delayline".into(),
            shards: 1,
            response_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            dead_letters_max: 100_000,
            payload_bytes_max: 1 << 20,
            operation_window: Duration::from_secs(60),
            sweep: Duration::from_secs(30),
            durability: Durability::Server,
        }
    }

    fn set(&mut self, option: &UrlOption<'_>) -> Result<()> {
        match option.name() {
            "key_prefix" => option.text().clone_into(&mut self.key_prefix),
            "shards" => self.shards = option.whole()?,
            "response_timeout" => self.response_timeout = option.time()?,
            "connect_timeout" => self.connect_timeout = option.time()?,
            "keepalive" => self.keepalive = option.time()?,
            "dead_letters_max" => self.dead_letters_max = option.whole()?,
            "payload_bytes_max" => self.payload_bytes_max = option.whole()?,
            "operation_window" => self.operation_window = option.time()?,
            "sweep" => self.sweep = option.time()?,
            "durability" => {
                self.durability = match option.text() {
                    "server" => Durability::Server,
                    "disk" => Durability::Disk,
                    _ => return Err(option.takes("`server` or `disk`")),
                };
            }
            _ => return Err(option.unread()),
        }
        Ok(())
    }

    /// What stands in front of every key, `delayline` unless set: two prefixes are two worlds on one server. Letters, digits
    /// and `-_.:`.
    #[must_use]
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// How many shards a queue has, 1 to 64; 1 unless set, which keeps the order exact. It can't be changed for a queue that
    /// holds something.
    #[must_use]
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// How long an answer may take, 5 s unless set. Beyond it the connection is given up, and the call answers
    /// [`Ambiguous`](delayline_core::ErrorKind::Ambiguous).
    #[must_use]
    pub fn response_timeout(mut self, time: Duration) -> Self {
        self.response_timeout = time;
        self
    }

    /// How long connecting may take, 5 s unless set.
    #[must_use]
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// After how long a silence TCP asks whether the other side is still there, 10 s unless set; it asks three times, with a
    /// third of this in between. It costs the server nothing.
    #[must_use]
    pub fn keepalive(mut self, time: Duration) -> Self {
        self.keepalive = time;
        self
    }

    /// The user name and password, in the place of the URL's.
    #[must_use]
    pub fn credentials(mut self, user: Option<&str>, password: &str) -> Self {
        let settings = self.info.redis_settings().clone().set_password(password);
        let settings = if let Some(user) = user { settings.set_username(user) } else { settings };
        self.info = self.info.set_redis_settings(settings);
        self
    }

    /// The database's number, in the place of the URL's.
    #[must_use]
    pub fn database(mut self, number: u32) -> Self {
        let settings = self.info.redis_settings().clone().set_db(i64::from(number));
        self.info = self.info.set_redis_settings(settings);
        self
    }

    /// The certificates (PEM) of those whose signature on the server's certificate counts, in the place of the system's.
    /// Needs a `rediss://` URL.
    #[must_use]
    pub fn tls_roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.roots = Some(pem.into());
        self
    }

    /// Our own certificate and its key (PEM), for servers that ask for one. Needs a `rediss://` URL.
    #[must_use]
    pub fn tls_client(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.certificates.client = Some((certificate.into(), key.into()));
        self
    }

    /// The most dead letters in a queue, 100,000 unless set; beyond it the oldest are dropped, and counted in `stats`.
    #[must_use]
    pub fn dead_letters_max(mut self, letters: usize) -> Self {
        self.dead_letters_max = letters;
        self
    }

    /// The largest payload in bytes, 1 MiB unless set, and at most 64 MiB.
    #[must_use]
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// How long the operation id of a change is remembered, 60 s unless set.
    #[must_use]
    pub fn operation_window(mut self, time: Duration) -> Self {
        self.operation_window = time;
        self
    }

    /// How long a consumer sleeps without asking when nothing is due and nothing rings, 30 s unless set.
    #[must_use]
    pub fn sweep(mut self, time: Duration) -> Self {
        self.sweep = time;
        self
    }

    /// What the server is set up to keep, and so what the backend declares: [`Server`](Durability::Server) unless set.
    ///
    /// [`Disk`](Durability::Disk) says that nothing acknowledged is lost in a crash: `appendonly yes`, `appendfsync always` and
    /// `no-appendfsync-on-rewrite no`. [`connect`](crate::RedisBackend::connect) refuses a server on which it finds it
    /// otherwise. Where a user may not ask (`CONFIG GET`), it can only look whether there is an append-only file.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Checks what a method may have set to something impossible.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config).
    pub(crate) fn check(&self) -> Result<()> {
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        let prefix = &self.key_prefix;
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(letter) {
            return Err(bad(format!("a key prefix is 1 to {PREFIX_BYTES_MAX} letters, digits and `-_.:`")));
        }
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return Err(bad(format!("a queue has 1 to {SHARDS_MAX} shards")));
        }
        if self.payload_bytes_max > PAYLOAD_BYTES_MAX {
            return Err(bad(format!("payload_bytes_max is at most {PAYLOAD_BYTES_MAX}")));
        }
        check_times(&[
            ("response_timeout", self.response_timeout, 1),
            ("connect_timeout", self.connect_timeout, 1),
            ("keepalive", self.keepalive, 1_000),
            ("operation_window", self.operation_window, 1),
            ("sweep", self.sweep, 1),
        ])?;
        if !matches!(self.durability, Durability::Server | Durability::Disk) {
            return Err(bad("the durability of Redis is `Server` or `Disk`"));
        }
        self.certificates.check(&self.info)
    }

    /// The server's host and port, for people.
    pub(crate) fn server(&self) -> String {
        self.info.addr().to_string()
    }

    /// The user's name, for messages about its permissions.
    pub(crate) fn user(&self) -> &str {
        self.info.redis_settings().username().unwrap_or("default")
    }

    /// What makes connections; it opens none. Requests and wake-ups have one each, because a server cuts a subscriber's
    /// connection when its answers pile up, and claims may bring many bytes.
    pub(crate) fn client(&self, protocol: ProtocolVersion) -> Result<Client> {
        let alive = TcpKeepalive::new().with_time(self.keepalive).with_interval(self.keepalive / 3).with_retries(3);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(alive);
        let settings = self.info.redis_settings().clone().set_protocol(protocol);
        let settings = settings.set_lib_name("delayline", env!("CARGO_PKG_VERSION"));
        let info = self.info.clone().set_tcp_settings(tcp).set_redis_settings(settings);
        tls::prepare(&info);
        self.certificates.client(info)
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("server", &self.server())
            .field("tls", &tls::is_used(&self.info))
            .field("user", &self.user())
            .field("database", &self.info.redis_settings().db())
            .field("key_prefix", &self.key_prefix)
            .field("shards", &self.shards)
            .field("response_timeout", &self.response_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("keepalive", &self.keepalive)
            .field("dead_letters_max", &self.dead_letters_max)
            .field("payload_bytes_max", &self.payload_bytes_max)
            .field("operation_window", &self.operation_window)
            .field("sweep", &self.sweep)
            .field("durability", &self.durability)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use delayline_core::ErrorKind;

    use super::*;

    #[test]
    fn urls_set_everything() {
        let config = RedisConfig::from_url(
            "redis://me:hunter2@example.org:7000/3?key_prefix=exams&shards=4&response_timeout=1500ms&connect_timeout=2s\
             &keepalive=1m&dead_letters_max=7&payload_bytes_max=8&operation_window=9s&sweep=10s\
             &durability=disk",
        )
        .unwrap();
        assert_eq!((config.server().as_str(), config.user()), ("example.org:7000", "me"));
        assert_eq!(config.info.redis_settings().password(), Some("hunter2"));
        assert_eq!(config.info.redis_settings().db(), 3);
        assert_eq!((config.key_prefix.as_str(), config.shards), ("exams", 4));
        assert_eq!(
            (config.response_timeout, config.connect_timeout),
            (Duration::from_millis(1500), Duration::from_secs(2))
        );
        assert_eq!((config.dead_letters_max, config.payload_bytes_max), (7, 8));
        assert_eq!((config.operation_window, config.sweep), (Duration::from_secs(9), Duration::from_secs(10)));
        assert_eq!((config.keepalive, config.durability), (Duration::from_secs(60), Durability::Disk));
        let plain = RedisConfig::from_url("REDIS://localhost").unwrap();
        assert_eq!((plain.server().as_str(), plain.user(), plain.shards), ("localhost:6379", "default", 1));
        plain.client(ProtocolVersion::RESP3).unwrap();
    }

    #[test]
    fn clear_2_urls_say_what_is_wrong_with_them() {
        for (url, says) in [
            ("redis:", "begins with `redis://`"),
            ("memory:", "begins with"),
            ("redis://", "redis://[[user]"),
            ("redis://host/three", "a database's number"),
            ("redis://host?shard=1", "no option `shard`"),
            ("redis://host?shards=65", "1 to 64 shards"),
            ("redis://host?shards=", "whole number"),
            ("redis://host?sweep=soon", "such as `500ms`"),
            ("redis://host?durability=process", "`server` or `disk`"),
            ("redis://host?sweep=2days", "sweep is 1ms to a day"),
            ("redis://host?key_prefix={a}", "1 to 96 letters"),
            ("rediss://host#insecure", "has no `#`"),
        ] {
            let e = RedisConfig::from_url(url).unwrap_err();
            assert!(e.kind() == ErrorKind::Config && e.message().contains(says), "{url}: {e}");
        }
    }

    #[test]
    fn clear_4_no_password_is_shown() {
        let config = RedisConfig::from_url("redis://:hunter2@host").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!format!("{:?}", config.client(ProtocolVersion::RESP2).unwrap()).contains("hunter2"));
        for url in ["redis://:hu?hunter2@host", "redis://:hunter2@host/x", "redis://:hunter2@", "redis://h?hunter2=1"] {
            let e = RedisConfig::from_url(url).unwrap_err();
            assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
        }
    }
}
