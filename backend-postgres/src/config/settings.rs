//! The settings of a Postgres backend, with a method for each.

use std::fmt;
use std::time::Duration;

use delayline_core::Result;
use sqlx::postgres::{PgConnectOptions, PgPool, PgSslMode};

use crate::config::server::{Flush, Source, place, quiet};
use crate::config::url::{bad, shown, split};
use crate::schema::Schema;

/// Server, schema, connections, time-outs and limits of a Postgres backend.
///
/// Neither its `Debug` nor any error shows a password.
#[derive(Clone)]
pub struct PostgresConfig {
    pub(crate) source: Source,
    pub(crate) schema: String,
    pub(crate) pool_size: u32,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    /// Whether something between us and the server hands each transaction to another session.
    pub(crate) pooler: bool,
    pub(super) listen: bool,
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
    /// Takes its connections from a pool of the application's, which stays open when the backend is closed. The
    /// connection that listens for wake-ups is one more, with the pool's settings.
    #[must_use]
    pub fn from_pool(pool: PgPool) -> Self {
        Self::of(Source::Pool(pool))
    }

    pub(super) fn of(source: Source) -> Self {
        Self {
            source,
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
        if let Some((name, _)) = options.first() {
            return Err(bad(format!(
                "a `listen_url` has no option `{}`, it only says where to connect to",
                shown(name)
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
        self.on_server(|server| server.ssl_root_cert_from_pem(pem))
    }

    /// Our own certificate and its key (PEM), for servers that ask for one. Without effect on an application's pool.
    #[must_use]
    pub fn tls_client(self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.on_server(|server| server.ssl_client_cert_from_pem(certificate).ssl_client_key_from_pem(key))
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
        for (name, time) in [
            ("response_timeout", self.response_timeout),
            ("connect_timeout", self.connect_timeout),
            ("poll", self.poll),
            ("operation_window", self.operation_window),
            ("sweep", self.sweep),
        ] {
            if time < Duration::from_millis(1) || time > Duration::from_secs(86_400) {
                return Err(bad(format!("{name} is 1ms to a day")));
            }
        }
        Schema::new(&self.schema)
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
