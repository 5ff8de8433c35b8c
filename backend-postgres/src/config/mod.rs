//! How a Postgres backend is set up.

pub(crate) mod capabilities;
pub(crate) mod server;
pub(crate) mod tls;
mod url;

use std::fmt;
use std::time::Duration;

use delayline_backend_kit::UrlOption;
use delayline_backend_kit::options::{bad, check_times};
use delayline_core::Result;
use sqlx::postgres::{PgConnectOptions, PgPool, PgSslMode};

use crate::config::server::{Flush, Source, place, quiet};
use crate::config::url::split;
use crate::schema::Schema;

/// Server, schema, connections, time-outs and limits of a Postgres backend.
///
/// Neither its `Debug` nor any error shows a password.
#[derive(Clone)]
pub struct PostgresConfig {
    pub(crate) source: Source,
    /// Whether a method has set certificates.
    certificates: bool,
    pub(crate) schema: String,
    pub(crate) pool_size: u32,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    /// Whether something between us and the server hands each transaction to another session.
    pub(crate) pooler: bool,
    listen: bool,
    listen_at: Option<PgConnectOptions>,
    pub(crate) poll: Duration,
    pub(crate) flush: Flush,
    pub(crate) migrate: bool,
    pub(crate) dead_letters_max: usize,
    pub(crate) payload_bytes_max: usize,
    pub(crate) operation_window: Duration,
    pub(crate) sweep: Duration,
}

/// The most connections of a pool of ours.
const POOL_MAX: u32 = 100;

/// A row's field may have 1 GB; a call carries more than one, and both sides keep it in memory whole.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

impl PostgresConfig {
    /// Reads a URL: `postgres://[user[:password]@]host[:port][/database]`, with options such as
    /// `?schema=exams&response_timeout=5s`. In a user name or password, what has a meaning in a URL is written as `%3F` and
    /// so on. What is missing is taken from the environment (`PGUSER`, `PGPASSWORD`, ...) and `~/.pgpass`, as `psql` does.
    ///
    /// The options are named as the methods here: `schema`, `pool_size`, `connect_timeout`, `response_timeout`, `pooler`,
    /// `listen`, `listen_url`, `poll`, `flush_accepting`, `flush_claims`, `flush_completions`, `migrate`, `dead_letters_max`,
    /// `payload_bytes_max`, `operation_window` and `sweep`. Times are written as `500ms`, `5s` or `1m`, yes and no as `on`
    /// and `off`, the others as whole numbers. Those of libpq that concern the connection may stand there too: `host`,
    /// `port`, `dbname`, `user`, `password`, `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `application_name` and
    /// `options`.
    ///
    /// TLS is used where the server offers it (`sslmode=prefer`), and its certificate is checked by `sslmode=verify-full`
    /// only, as everywhere with PostgreSQL. TLS needs the Cargo feature `tls-ring` (default) or `tls-aws-lc-rs`, and checks by the
    /// system's certificates. Without both, `prefer` connects unencrypted; `require`, `verify-ca`, `verify-full` and certificates are
    /// refused.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config) for anything else.
    pub fn from_url(url: &str) -> Result<Self> {
        let (server, options) = split(url)?;
        let mut config = Self::of(Source::Server(Box::new(server)));
        for option in &options {
            config.set(option)?;
        }
        config.check()?;
        Ok(config)
    }

    /// Takes its connections from a pool of the application's, which stays open when the backend is closed. The
    /// connection that listens for wake-ups is one more, with the pool's settings.
    #[must_use]
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
            poll: Duration::from_secs(1),
            flush: Flush { accepting: true, claims: true, completions: true },
            migrate: true,
            dead_letters_max: 100_000,
            payload_bytes_max: 1 << 20,
            operation_window: Duration::from_secs(60),
            sweep: Duration::from_secs(30),
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
            "poll" => self.poll = option.time()?,
            "flush_accepting" => self.flush.accepting = option.switch()?,
            "flush_claims" => self.flush.claims = option.switch()?,
            "flush_completions" => self.flush.completions = option.switch()?,
            "migrate" => self.migrate = option.switch()?,
            "dead_letters_max" => self.dead_letters_max = option.whole()?,
            "payload_bytes_max" => self.payload_bytes_max = option.whole()?,
            "operation_window" => self.operation_window = option.time()?,
            "sweep" => self.sweep = option.time()?,
            _ => return Err(option.unread()),
        }
        Ok(())
    }

    /// The schema that the tables are in, `delayline` unless set: two schemas are two worlds in one database. Up to 40
    /// letters, digits and `_`.
    #[must_use]
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// The most connections that calls may use at the same time, 1 to 100; 8 unless set. One more listens. Without effect
    /// on an application's pool, which has a limit of its own.
    #[must_use]
    pub fn pool_size(mut self, connections: u32) -> Self {
        self.pool_size = connections;
        self
    }

    /// How long connecting may take, 5 s unless set.
    #[must_use]
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// How long an answer may take, 10 s unless set; a call waits as long for a free connection. Beyond it the connection
    /// is given up, and a call that changes something answers [`Ambiguous`](delayline_core::ErrorKind::Ambiguous).
    #[must_use]
    pub fn response_timeout(mut self, time: Duration) -> Self {
        self.response_timeout = time;
        self
    }

    /// Whether a pooler such as PgBouncer hands each transaction to another session, off unless set. Then every call is
    /// one transaction that leaves nothing in the session: no named statements, no settings. It takes three round trips
    /// more. LISTEN does not work through it and is off, unless [`listen_url`](Self::listen_url) names the server itself.
    #[must_use]
    pub fn pooler(mut self, yes: bool) -> Self {
        self.pooler = yes;
        self
    }

    /// Whether to be woken by LISTEN, on unless set. When it is off, a consumer asks once in [`poll`](Self::poll).
    #[must_use]
    pub fn listen(mut self, yes: bool) -> Self {
        self.listen = yes;
        self
    }

    /// Where to listen when the other connections go through a pooler: the server itself.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config) for a URL that is malformed or has options of this backend.
    pub fn listen_url(mut self, url: &str) -> Result<Self> {
        let (server, options) = split(url)?;
        if let Some(option) = options.first() {
            return Err(bad(format!(
                "a `listen_url` has no option `{}`, it only says where to connect to",
                option.name()
            )));
        }
        self.listen_at = Some(server);
        Ok(self)
    }

    /// How long a consumer sleeps without asking when nothing is due and it can't listen, 1 s unless set. So late may a
    /// task then be that another process schedules.
    #[must_use]
    pub fn poll(mut self, time: Duration) -> Self {
        self.poll = time;
        self
    }

    /// Whether accepting a task, moving, cancelling or burying it waits until that is on the disk, on unless set. When it
    /// is off, a server that crashes loses what it acknowledged in its last moments (up to three times its
    /// `wal_writer_delay`, 0.6 s unless set), and no [`Capabilities`](delayline_core::Capabilities) promise it.
    #[must_use]
    pub fn flush_accepting(mut self, yes: bool) -> Self {
        self.flush.accepting = yes;
        self
    }

    /// Whether a claim waits until it is on the disk, on unless set. When it is off, a server that crashes may hand out
    /// again what it handed out in its last moments, before its lease has ended: two workers at once. No task is lost.
    #[must_use]
    pub fn flush_claims(mut self, yes: bool) -> Self {
        self.flush.claims = yes;
        self
    }

    /// Whether settling waits until it is on the disk, on unless set. When it is off, a server that crashes may hand out
    /// again what was completed in its last moments. No task is lost.
    #[must_use]
    pub fn flush_completions(mut self, yes: bool) -> Self {
        self.flush.completions = yes;
        self
    }

    /// Whether to make and update the tables when connecting, on unless set. When it is off they must be there: see
    /// [`PostgresBackend::schema_sql`](crate::PostgresBackend::schema_sql).
    #[must_use]
    pub fn migrate(mut self, yes: bool) -> Self {
        self.migrate = yes;
        self
    }

    /// How strictly TLS is used, in the place of the URL's. Without effect on an application's pool.
    #[must_use]
    pub fn ssl_mode(self, mode: PgSslMode) -> Self {
        self.on_server(|server| server.ssl_mode(mode))
    }

    /// The certificates (PEM) of those whose signature on the server's certificate counts too, beside the system's; they
    /// are looked at with `PgSslMode::VerifyCa` and `VerifyFull`. Without effect on an application's pool.
    #[must_use]
    pub fn tls_roots(self, pem: impl Into<Vec<u8>>) -> Self {
        let pem = pem.into();
        Self { certificates: true, ..self.on_server(|server| server.ssl_root_cert_from_pem(pem)) }
    }

    /// Our own certificate and its key (PEM), for servers that ask for one. Without effect on an application's pool.
    #[must_use]
    pub fn tls_client(self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        let change =
            |server: PgConnectOptions| server.ssl_client_cert_from_pem(certificate).ssl_client_key_from_pem(key);
        Self { certificates: true, ..self.on_server(change) }
    }

    /// The user name and password, in the place of the URL's. Without effect on an application's pool.
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

    /// Checks what a method may have set to something impossible, and answers the schema.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config).
    pub(crate) fn check(&self) -> Result<Schema> {
        if !(1..=POOL_MAX).contains(&self.pool_size) {
            return Err(bad(format!("pool_size is 1 to {POOL_MAX} connections")));
        }
        if self.payload_bytes_max > PAYLOAD_BYTES_MAX {
            return Err(bad(format!("payload_bytes_max is at most {PAYLOAD_BYTES_MAX}")));
        }
        check_times(&[
            ("response_timeout", self.response_timeout, 1),
            ("connect_timeout", self.connect_timeout, 1),
            ("poll", self.poll, 1),
            ("operation_window", self.operation_window, 1),
            ("sweep", self.sweep, 1),
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

    /// How long a consumer may sleep unless it is rung: the sweep, or the poll where nothing can ring it.
    pub(crate) fn sleep_max(&self) -> Duration {
        if self.listens_at().is_some() { self.sweep } else { self.poll.min(self.sweep) }
    }

    /// Where to listen, if at all.
    pub(crate) fn listens_at(&self) -> Option<PgConnectOptions> {
        match (self.listen, &self.listen_at, self.pooler) {
            (false, _, _) | (true, None, true) => None,
            (true, Some(server), _) => Some(quiet(server.clone())),
            (true, None, false) => Some(self.server()),
        }
    }

    /// How to connect.
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
            .field("poll", &self.poll)
            .field("flush", &self.flush)
            .field("migrate", &self.migrate)
            .field("dead_letters_max", &self.dead_letters_max)
            .field("payload_bytes_max", &self.payload_bytes_max)
            .field("operation_window", &self.operation_window)
            .field("sweep", &self.sweep)
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
             &connect_timeout=2s&response_timeout=1500ms&pooler=on&listen=on&poll=2s&flush_accepting=off\
             &flush_claims=off&flush_completions=off&migrate=off&dead_letters_max=7&payload_bytes_max=8\
             &operation_window=9s&sweep=10s&listen_url=postgres%3A%2F%2Fme%3Ahunter2%40direct%3A5433%2Fexams",
        )
        .unwrap();
        let server = config.server();
        assert_eq!((place(&server).as_str(), server.get_username()), ("example.org:7000", "me"));
        assert_eq!((server.get_database(), server.get_application_name()), (Some("exams"), Some("app")));
        assert!(matches!(server.get_ssl_mode(), PgSslMode::Allow));
        assert_eq!((config.check().unwrap().name(), config.pool_size), ("x", 3));
        assert_eq!((config.connect_timeout.as_millis(), config.response_timeout.as_millis()), (2_000, 1_500));
        assert_eq!((config.dead_letters_max, config.payload_bytes_max, config.migrate), (7, 8, false));
        assert_eq!((config.operation_window.as_secs(), config.sweep.as_secs(), config.poll.as_secs()), (9, 10, 2));
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
            ("postgres://host:port/", "a port's number"),
            ("postgres://host?sslmode=sometimes", "verify-full"),
            ("postgres://host?schemes=1", "no option `schemes`"),
            ("postgres://host?schema=a-b", "letters, digits and `_`"),
            ("postgres://host?pool_size=101", "1 to 100 connections"),
            ("postgres://host?pool_size=", "whole number"),
            ("postgres://host?sweep=soon", "such as `500ms`"),
            ("postgres://host?sweep=2days", "sweep is 1ms to a day"),
            ("postgres://host?listen=maybe", "`on` or `off`"),
            ("postgres://host?listen_url=postgres://h?schema%3Dx", "has no option `schema`"),
            ("postgres://host?schema=%4", "two digits"),
            ("postgres://host#x", "has no `#`"),
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
