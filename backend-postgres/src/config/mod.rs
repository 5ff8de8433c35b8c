//! The configuration of a Postgres backend.

pub(crate) mod capabilities;
pub(crate) mod server;
pub(crate) mod tls;
mod url;

use std::fmt;
use std::time::Duration;

use delayline_backend_kit::UrlOption;
use delayline_backend_kit::options::{bad, check_times};
use delayline_core::Result;
use sqlx::postgres::PgConnectOptions;
#[cfg(any(test, feature = "sqlx-0_9"))]
use sqlx::postgres::PgPool;

use crate::config::server::{Flush, Source, place, quiet};
use crate::config::tls::SslMode;
use crate::config::url::split;
use crate::schema::Schema;

/// Configuration of a Postgres backend: server, schema, connections, timeouts and limits.
///
/// Its `Debug` output and its errors never show a password.
#[derive(Clone)]
pub struct PostgresConfig {
    pub(crate) source: Source,
    /// Whether a method has set certificates.
    certificates: bool,
    pub(crate) schema: String,
    pub(crate) pool_size: u32,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    /// Whether a pooler assigns each transaction to another session.
    pub(crate) pooler: bool,
    listen: bool,
    listen_at: Option<PgConnectOptions>,
    pub(crate) poll_interval: Duration,
    pub(crate) flush: Flush,
    pub(crate) migrate: bool,
    pub(crate) dead_letters_max: usize,
    pub(crate) payload_bytes_max: usize,
    pub(crate) operation_window: Duration,
    pub(crate) fallback_poll_interval: Duration,
}

/// Maximum size of the backend's own connection pool.
const POOL_MAX: u32 = 100;

/// Postgres allows 1 GB in a field. But a call carries more than one payload, and both sides keep the call in memory as
/// a whole.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

impl PostgresConfig {
    /// Parses a URL: `postgres://[user[:password]@]host[:port][/database]`, with options such as
    /// `?schema=exams&response_timeout=5s`. Percent-encode reserved characters in the user name and password: `%3F` for
    /// `?`. Missing parts are taken from the environment (`PGUSER`, `PGPASSWORD`, ...) and `~/.pgpass`, as in `psql`.
    ///
    /// The options are `schema`, `pool_size`, `connect_timeout`, `response_timeout`, `pooler`, `listen`, `listen_url`,
    /// `poll_interval`, `flush_accepting`, `flush_claims`, `flush_completions`, `migrate`, `dead_letters_max`,
    /// `payload_bytes_max`, `operation_window` and `fallback_poll_interval`. Each one is documented at the method of
    /// the same name. Durations are written as `500ms`, `5s` or `1m`, switches as `on` or `off`, counts and sizes as
    /// whole numbers. Values may be percent-encoded.
    ///
    /// The URL may also contain libpq's options for the connection: `host`, `port`, `dbname`, `user`, `password`,
    /// `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `application_name` and `options`.
    ///
    /// By default (`sslmode=prefer`), the backend uses TLS if the server offers it, and does not verify the server's
    /// certificate, as is usual with PostgreSQL. `sslmode=verify-ca` verifies the certificate, `sslmode=verify-full`
    /// the host name, too.
    /// TLS needs the Cargo feature `tls-ring` (default) or `tls-aws-lc-rs` and uses the system's certificates. Without both,
    /// `prefer` connects unencrypted; `require`, `verify-ca`, `verify-full` and certificates are refused.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config) for a malformed URL, an unknown option or a value out of range.
    pub fn from_url(url: &str) -> Result<Self> {
        let (server, options) = split(url)?;
        let mut config = Self::of(Source::Server(Box::new(server)));
        for option in &options {
            config.set(option)?;
        }
        config.check()?;
        Ok(config)
    }

    /// Uses the application's connection pool. The pool stays open when the backend is closed.
    ///
    /// To listen for notifications, the backend opens one more connection outside the pool, with the pool's settings.
    #[must_use]
    #[cfg(any(test, feature = "sqlx-0_9"))]
    pub fn from_pool(pool: PgPool) -> Self {
        Self::of(Source::Pool(pool))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            certificates: false,
            schema: "delayline".into(),
            pool_size: 8,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
            pooler: false,
            listen: true,
            listen_at: None,
            poll_interval: Duration::from_secs(1),
            flush: Flush { accepting: true, claims: true, completions: true },
            migrate: true,
            dead_letters_max: 100_000,
            payload_bytes_max: 1 << 20,
            operation_window: Duration::from_secs(60),
            fallback_poll_interval: Duration::from_secs(30),
        }
    }

    fn set(&mut self, option: &UrlOption<'_>) -> Result<()> {
        match option.name() {
            "schema" => option.text().clone_into(&mut self.schema),
            "pool_size" => self.pool_size = option.whole()?,
            "connect_timeout" => self.connect_timeout = option.time()?,
            "response_timeout" => self.response_timeout = option.time()?,
            "pooler" => self.pooler = option.switch()?,
            "listen" => self.listen = option.switch()?,
            "listen_url" => *self = self.clone().listen_url(option.text())?,
            "poll_interval" => self.poll_interval = option.time()?,
            "flush_accepting" => self.flush.accepting = option.switch()?,
            "flush_claims" => self.flush.claims = option.switch()?,
            "flush_completions" => self.flush.completions = option.switch()?,
            "migrate" => self.migrate = option.switch()?,
            "dead_letters_max" => self.dead_letters_max = option.whole()?,
            "payload_bytes_max" => self.payload_bytes_max = option.whole()?,
            "operation_window" => self.operation_window = option.time()?,
            "fallback_poll_interval" => self.fallback_poll_interval = option.time()?,
            _ => return Err(option.unread()),
        }
        Ok(())
    }

    /// Namespace: the schema of the tables. Default: `delayline`. 1 to 40 letters, digits and `_`, not beginning with a
    /// digit or `pg_`.
    ///
    /// Clients with different schemas share no data.
    #[must_use]
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// Maximum number of connections that calls use at the same time. Default: 8. Range: 1 to 100.
    ///
    /// One more connection listens for notifications. This has no effect on an application's pool, which has its own
    /// limit.
    #[must_use]
    pub fn pool_size(mut self, connections: u32) -> Self {
        self.pool_size = connections;
        self
    }

    /// Timeout for connecting to the server. Default: 5 s. Range: 1 ms to 1 day.
    #[must_use]
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// Timeout for an answer of the server, and for the wait for a free connection. Default: 10 s. Range: 1 ms to 1
    /// day.
    ///
    /// After it, the backend discards the connection, and a call that changes something returns
    /// [`Ambiguous`](delayline_core::ErrorKind::Ambiguous).
    #[must_use]
    pub fn response_timeout(mut self, time: Duration) -> Self {
        self.response_timeout = time;
        self
    }

    /// Whether a pooler such as PgBouncer assigns each transaction to another session. Default: off.
    ///
    /// When on, every call is one transaction that leaves nothing in the session: no named statements, no settings.
    /// This costs three more round trips for each call. LISTEN does not work through a pooler, so it is off, unless
    /// [`listen_url`](Self::listen_url) names the server itself.
    #[must_use]
    pub fn pooler(mut self, yes: bool) -> Self {
        self.pooler = yes;
        self
    }

    /// Whether LISTEN wakes consumers. Default: on. When off, a consumer polls every
    /// [`poll_interval`](Self::poll_interval).
    #[must_use]
    pub fn listen(mut self, yes: bool) -> Self {
        self.listen = yes;
        self
    }

    /// URL of the server itself, for the connection that listens, when the other connections go through a pooler.
    /// Default: none.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config) for a malformed URL, or one with options of this backend.
    pub fn listen_url(mut self, url: &str) -> Result<Self> {
        let (server, options) = split(url)?;
        if let Some(option) = options.first() {
            return Err(bad(format!(
                "`listen_url` has no option `{}`: it only names the server, move the option to the main URL",
                option.name()
            )));
        }
        self.listen_at = Some(server);
        Ok(self)
    }

    /// Maximum time that a consumer waits between two claims when nothing is due and it can't listen. Default: 1 s.
    /// Range: 1 ms to 1 day.
    ///
    /// Without LISTEN, a task that another process schedules may be late by this time.
    #[must_use]
    pub fn poll_interval(mut self, time: Duration) -> Self {
        self.poll_interval = time;
        self
    }

    /// Whether scheduling, moving, cancelling and redriving a task wait until the change is on disk. Default: on.
    ///
    /// When off, a crash of the server loses the changes that it acknowledged last: those of up to three times its
    /// `wal_writer_delay`, 0.6 s by default. The [`Capabilities`](delayline_core::Capabilities) then declare durability
    /// [`Server`](delayline_core::Durability::Server) only.
    #[must_use]
    pub fn flush_accepting(mut self, yes: bool) -> Self {
        self.flush.accepting = yes;
        self
    }

    /// Whether a claim, and the dead-lettering of expired tasks by it, waits until it is on disk. Default: on.
    ///
    /// When off, the server may deliver the tasks that it delivered just before a crash a second time, before their
    /// leases have ended: two workers then run the same task at once. No task is lost.
    #[must_use]
    pub fn flush_claims(mut self, yes: bool) -> Self {
        self.flush.claims = yes;
        self
    }

    /// Whether settling, with any disposition, waits until it is on disk. Default: on.
    ///
    /// When off, the server may deliver the tasks that were completed just before a crash again. No task is lost.
    #[must_use]
    pub fn flush_completions(mut self, yes: bool) -> Self {
        self.flush.completions = yes;
        self
    }

    /// Whether to create and migrate the tables when connecting. Default: on.
    ///
    /// When off, the tables must exist: see [`PostgresBackend::schema_sql`](crate::PostgresBackend::schema_sql).
    #[must_use]
    pub fn migrate(mut self, yes: bool) -> Self {
        self.migrate = yes;
        self
    }

    /// TLS mode; it replaces that of the URL. This has no effect on an application's pool.
    #[must_use]
    pub fn ssl_mode(self, mode: SslMode) -> Self {
        self.on_server(|server| server.ssl_mode(mode.into()))
    }

    /// Root certificates (PEM) to verify the server's certificate with, in addition to the system's root certificates.
    /// Only [`SslMode::VerifyCa`] and [`SslMode::VerifyFull`] verify it. This has no effect on an application's pool.
    #[must_use]
    pub fn tls_roots(self, pem: impl Into<Vec<u8>>) -> Self {
        let pem = pem.into();
        Self { certificates: true, ..self.on_server(|server| server.ssl_root_cert_from_pem(pem)) }
    }

    /// Client certificate and its private key (PEM), for servers that request one. This has no effect on an
    /// application's pool.
    #[must_use]
    pub fn tls_client(self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        let change =
            |server: PgConnectOptions| server.ssl_client_cert_from_pem(certificate).ssl_client_key_from_pem(key);
        Self { certificates: true, ..self.on_server(change) }
    }

    /// User name and password; they replace those of the URL. This has no effect on an application's pool.
    #[must_use]
    pub fn credentials(self, user: &str, password: &str) -> Self {
        self.on_server(|server| server.username(user).password(password))
    }

    fn on_server(mut self, change: impl FnOnce(PgConnectOptions) -> PgConnectOptions) -> Self {
        if let Source::Server(server) = self.source {
            self.source = Source::Server(Box::new(change(*server)));
        }
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

    /// Checks the values that the methods set without a check, and returns the schema.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config).
    pub(crate) fn check(&self) -> Result<Schema> {
        if !(1..=POOL_MAX).contains(&self.pool_size) {
            return Err(bad(format!("pool_size must be 1 to {POOL_MAX} connections, is {}", self.pool_size)));
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
            ("poll_interval", self.poll_interval, 1),
            ("operation_window", self.operation_window, 1),
            ("fallback_poll_interval", self.fallback_poll_interval, 1),
        ])?;
        self.check_tls()?;
        Schema::new(&self.schema)
    }

    fn check_tls(&self) -> Result<()> {
        // An application's pool is of a driver that may have TLS by features of the application's.
        if let Source::Server(server) = &self.source {
            tls::check_mode(server.get_ssl_mode())?;
            tls::check_certificates(self.certificates)?;
        }
        let listens_at = self.listen_at.as_ref().filter(|_| self.listen);
        listens_at.map_or(Ok(()), |server| tls::check_mode(server.get_ssl_mode()))
    }

    /// Maximum time that a consumer waits without a notification: the fallback poll interval, or, where it can't
    /// listen, the poll interval if that is shorter.
    pub(crate) fn sleep_max(&self) -> Duration {
        if self.listens_at().is_some() {
            self.fallback_poll_interval
        } else {
            self.poll_interval.min(self.fallback_poll_interval)
        }
    }

    /// The server to listen on; `None` for no listening.
    pub(crate) fn listens_at(&self) -> Option<PgConnectOptions> {
        match (self.listen, &self.listen_at, self.pooler) {
            (false, _, _) | (true, None, true) => None,
            (true, Some(server), _) => Some(quiet(server.clone())),
            (true, None, false) => Some(self.server()),
        }
    }

    /// The connection options.
    pub(crate) fn server(&self) -> PgConnectOptions {
        match &self.source {
            Source::Server(server) => {
                let named = server.get_application_name().is_some();
                let server = PgConnectOptions::clone(server);
                let server = if named { server } else { server.application_name("delayline") };
                quiet(server)
            }
            Source::Pool(pool) => quiet(pool.connect_options().as_ref().clone()),
        }
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self.server();
        f.debug_struct("PostgresConfig")
            .field("server", &place(&server))
            .field("user", &server.get_username())
            .field("database", &server.get_database())
            .field("sslmode", &server.get_ssl_mode())
            .field("pool", &matches!(self.source, Source::Pool(_)).then_some("the application's"))
            .field("schema", &self.schema)
            .field("pool_size", &self.pool_size)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("pooler", &self.pooler)
            .field("listens_at", &self.listens_at().as_ref().map(place))
            .field("poll_interval", &self.poll_interval)
            .field("flush", &self.flush)
            .field("migrate", &self.migrate)
            .field("dead_letters_max", &self.dead_letters_max)
            .field("payload_bytes_max", &self.payload_bytes_max)
            .field("operation_window", &self.operation_window)
            .field("fallback_poll_interval", &self.fallback_poll_interval)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use delayline_core::ErrorKind;
    use sqlx::postgres::PgSslMode;

    use super::*;

    #[test]
    fn urls_set_everything() {
        let config = PostgresConfig::from_url(
            "postgres://me:hunter2@example.org:7000/exams?sslmode=allow&application_name=app&schema=x&pool_size=3\
             &connect_timeout=2s&response_timeout=1500ms&pooler=on&listen=on&poll_interval=2s&flush_accepting=off\
             &flush_claims=off&flush_completions=off&migrate=off&dead_letters_max=7&payload_bytes_max=8\
             &operation_window=9s&fallback_poll_interval=10s&listen_url=postgres%3A%2F%2Fme%3Ahunter2%40direct%3A5433%2Fexams",
        )
        .unwrap();
        let server = config.server();
        assert_eq!((place(&server).as_str(), server.get_username()), ("example.org:7000", "me"));
        assert_eq!((server.get_database(), server.get_application_name()), (Some("exams"), Some("app")));
        assert!(matches!(server.get_ssl_mode(), PgSslMode::Allow));
        assert_eq!((config.check().unwrap().name(), config.pool_size), ("x", 3));
        assert_eq!((config.connect_timeout.as_millis(), config.response_timeout.as_millis()), (2_000, 1_500));
        assert_eq!((config.dead_letters_max, config.payload_bytes_max, config.migrate), (7, 8, false));
        assert_eq!(
            (
                config.operation_window.as_secs(),
                config.fallback_poll_interval.as_secs(),
                config.poll_interval.as_secs()
            ),
            (9, 10, 2)
        );
        assert_eq!(config.flush, Flush { accepting: false, claims: false, completions: false });
        assert_eq!(config.listens_at().as_ref().map(place).as_deref(), Some("direct:5433"));
        let plain = PostgresConfig::from_url("PostgreSQL://me@localhost").unwrap();
        assert_eq!((place(&plain.server()).as_str(), plain.sleep_max().as_secs()), ("localhost:5432", 30));
        assert!(plain.clone().listen(false).listens_at().is_none() && plain.pooler(true).sleep_max().as_secs() == 1);
    }

    #[test]
    fn clear_2_urls_say_what_is_wrong_with_them() {
        for (url, says) in [
            ("postgres:", "begins with `postgres://`"),
            ("memory:", "begins with"),
            ("postgres://host:port/", "`port` is a number"),
            ("postgres://host?sslmode=sometimes", "verify-full"),
            ("postgres://host?schemes=1", "no option `schemes`"),
            ("postgres://host?schema=a-b", "letters, digits and `_`"),
            ("postgres://host?pool_size=101", "1 to 100 connections"),
            ("postgres://host?pool_size=", "whole number"),
            ("postgres://host?fallback_poll_interval=soon", "such as `500ms`"),
            ("postgres://host?fallback_poll_interval=2days", "fallback_poll_interval must be 1ms to a day"),
            ("postgres://host?listen=maybe", "`on` or `off`"),
            ("postgres://host?listen_url=postgres://h?schema%3Dx", "has no option `schema`"),
            ("postgres://host?schema=%4", "two digits"),
            ("postgres://host#x", "can't contain `#`"),
        ] {
            let e = PostgresConfig::from_url(url).unwrap_err();
            assert!(e.kind() == ErrorKind::Config && e.message().contains(says), "{url}: {e}");
        }
    }

    #[test]
    fn clear_4_no_password_is_shown() {
        let url = "postgres://me:hunter2@host?listen_url=postgres://me:hunter2@other";
        let config = PostgresConfig::from_url(url).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        for url in [
            "postgres://me:hu?hunter2@host",
            "postgres://me:hunter2@host:x",
            "postgres://me:hunter2@",
            "postgres://h?hunter2=1",
            "postgres://h?Password=hunter2",
            "postgres://h?port=hunter2",
            "postgres://h?listen_url=hunter2",
        ] {
            let e = PostgresConfig::from_url(url).unwrap_err();
            assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
        }
    }
}
