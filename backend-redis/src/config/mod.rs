//! The configuration of a Redis backend.

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

/// Configuration of a Redis backend: server, keys, timeouts and limits.
///
/// Its `Debug` output and its errors never show a password.
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
    pub(crate) fallback_poll_interval: Duration,
    pub(crate) durability: Durability,
}

/// Maximum length of the key prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 96;

/// Redis limits the size of a string (`proto-max-bulk-len`, 512 MiB by default), and one call carries more than one
/// payload.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// The form of Redis URLs.
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
        "fallback_poll_interval",
        "durability",
    ],
    options_with_at: &[],
    aliases: &[],
};

impl RedisConfig {
    /// Parses a URL: `redis://[[user]:password@]host[:port][/database]`, or `rediss://` for TLS, with options such as
    /// `?key_prefix=exams&response_timeout=5s`. Percent-encode reserved characters in the user name and password: `%3F`
    /// for `?`.
    ///
    /// TLS needs the Cargo feature `tls-ring` (default) or `tls-aws-lc-rs` and uses the system's certificates.
    ///
    /// The options are `key_prefix`, `shards`, `response_timeout`, `connect_timeout`, `keepalive`, `dead_letters_max`,
    /// `payload_bytes_max`, `operation_window`, `fallback_poll_interval` and `durability` (`server` or `disk`). Each
    /// one is documented at the method of the same name. Durations are written as `500ms`, `5s` or `1m`, counts and
    /// sizes as whole numbers. Values may be percent-encoded.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config) for a malformed URL, an unknown option or a value out of range.
    pub fn from_url(url: &str) -> Result<Self> {
        let (server, options) = FORM.split(url)?;
        tls::check_scheme(server)?;
        // The driver's error may quote a part of the URL, which may hold a password.
        let info = server.into_connection_info().map_err(|_| {
            bad("invalid Redis URL: use `redis://[[user]:password@]host[:port][/database]?option=value&...`, \
                 where `database` is a number")
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
            fallback_poll_interval: Duration::from_secs(30),
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
            "fallback_poll_interval" => self.fallback_poll_interval = option.time()?,
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

    /// Namespace: the prefix of every key. Default: `delayline`. 1 to 96 letters, digits and `-_.:`.
    ///
    /// Clients with different prefixes share no data.
    #[must_use]
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Number of shards in each queue. Default: 1. Range: 1 to 64.
    ///
    /// With one shard, the order is exact; with more, it is exact within each shard. The number can't be changed while
    /// the queue holds anything, and all clients of a queue must use the same number.
    #[must_use]
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// Timeout for an answer of the server. Default: 5 s. Range: 1 ms to 1 day.
    ///
    /// After it, the backend discards the connection, and the call returns
    /// [`Ambiguous`](delayline_core::ErrorKind::Ambiguous).
    #[must_use]
    pub fn response_timeout(mut self, time: Duration) -> Self {
        self.response_timeout = time;
        self
    }

    /// Timeout for connecting to the server. Default: 5 s. Range: 1 ms to 1 day.
    #[must_use]
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// Idle time after which TCP sends keepalive probes. Default: 10 s. Range: 1 s to 1 day.
    ///
    /// TCP sends three probes, a third of this time apart. They cost the Redis server nothing.
    #[must_use]
    pub fn keepalive(mut self, time: Duration) -> Self {
        self.keepalive = time;
        self
    }

    /// User name and password; they replace those of the URL. Without a user name, the URL's user name is kept.
    #[must_use]
    pub fn credentials(mut self, user: Option<&str>, password: &str) -> Self {
        let settings = self.info.redis_settings().clone().set_password(password);
        let settings = if let Some(user) = user { settings.set_username(user) } else { settings };
        self.info = self.info.set_redis_settings(settings);
        self
    }

    /// Database number; it replaces that of the URL.
    #[must_use]
    pub fn database(mut self, number: u32) -> Self {
        let settings = self.info.redis_settings().clone().set_db(i64::from(number));
        self.info = self.info.set_redis_settings(settings);
        self
    }

    /// Root certificates (PEM) to verify the server's certificate with, instead of the system's root certificates.
    /// Requires a `rediss://` URL.
    #[must_use]
    pub fn tls_roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.roots = Some(pem.into());
        self
    }

    /// Client certificate and its private key (PEM), for servers that request one. Requires a `rediss://` URL.
    #[must_use]
    pub fn tls_client(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.certificates.client = Some((certificate.into(), key.into()));
        self
    }

    /// Maximum number of dead letters in each queue. Default: 100,000.
    ///
    /// Beyond it, the backend drops the oldest and counts them in `stats`.
    #[must_use]
    pub fn dead_letters_max(mut self, letters: usize) -> Self {
        self.dead_letters_max = letters;
        self
    }

    /// Maximum size of a payload, in bytes. Default: 1 MiB. At most 64 MiB.
    #[must_use]
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// Time for which the operation id of a change is remembered. Default: 60 s. Range: 1 ms to 1 day.
    #[must_use]
    pub fn operation_window(mut self, time: Duration) -> Self {
        self.operation_window = time;
        self
    }

    /// Maximum time that a consumer waits between two claims when nothing is due and no notification arrives. Default:
    /// 30 s. Range: 1 ms to 1 day.
    #[must_use]
    pub fn fallback_poll_interval(mut self, time: Duration) -> Self {
        self.fallback_poll_interval = time;
        self
    }

    /// Durability that the server is configured for, and that the backend declares. Default:
    /// [`Server`](Durability::Server).
    ///
    /// [`Disk`](Durability::Disk) means that the server loses nothing it acknowledged in a crash. It requires
    /// `appendonly yes`, `appendfsync always` and `no-appendfsync-on-rewrite no`.
    /// [`connect`](crate::RedisBackend::connect) refuses a server with other settings. If the user isn't allowed to run
    /// `CONFIG GET`, it only checks that there is an append-only file.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Checks the values that the methods set without a check.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config).
    pub(crate) fn check(&self) -> Result<()> {
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        let prefix = &self.key_prefix;
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(letter) {
            return Err(bad(format!("invalid key_prefix: use 1 to {PREFIX_BYTES_MAX} letters, digits and `-_.:`")));
        }
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return Err(bad(format!("shards must be 1 to {SHARDS_MAX}, is {}", self.shards)));
        }
        if self.payload_bytes_max > PAYLOAD_BYTES_MAX {
            return Err(bad(format!(
                "payload_bytes_max must be at most {PAYLOAD_BYTES_MAX}, is {}",
                self.payload_bytes_max
            )));
        }
        check_times(&[
            ("response_timeout", self.response_timeout, 1),
            ("connect_timeout", self.connect_timeout, 1),
            ("keepalive", self.keepalive, 1_000),
            ("operation_window", self.operation_window, 1),
            ("fallback_poll_interval", self.fallback_poll_interval, 1),
        ])?;
        if !matches!(self.durability, Durability::Server | Durability::Disk) {
            return Err(bad("the durability of a Redis backend must be `Server` or `Disk`"));
        }
        self.certificates.check(&self.info)
    }

    /// The server's host and port, for messages.
    pub(crate) fn server(&self) -> String {
        self.info.addr().to_string()
    }

    /// The user name, for messages about permissions.
    pub(crate) fn user(&self) -> &str {
        self.info.redis_settings().username().unwrap_or("default")
    }

    /// A client that makes connections. It opens none by itself.
    ///
    /// Requests and notifications use separate connections: claims may bring many bytes, and Redis closes a
    /// subscriber's connection when too much output waits on it.
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
            .field("fallback_poll_interval", &self.fallback_poll_interval)
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
             &keepalive=1m&dead_letters_max=7&payload_bytes_max=8&operation_window=9s&fallback_poll_interval=10s\
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
        assert_eq!(
            (config.operation_window, config.fallback_poll_interval),
            (Duration::from_secs(9), Duration::from_secs(10))
        );
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
            ("redis://host/three", "`database` is a number"),
            ("redis://host?shard=1", "no option `shard`"),
            ("redis://host?shards=65", "1 to 64"),
            ("redis://host?shards=", "whole number"),
            ("redis://host?fallback_poll_interval=soon", "such as `500ms`"),
            ("redis://host?durability=process", "`server` or `disk`"),
            ("redis://host?fallback_poll_interval=2days", "fallback_poll_interval must be 1ms to a day"),
            ("redis://host?key_prefix={a}", "1 to 96 letters"),
            ("rediss://host#insecure", "can't contain `#`"),
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
