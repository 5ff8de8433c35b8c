//! Private real servers for tests, fault runs and benchmarks: each in a temporary directory, on free ports, and gone when its
//! value is dropped, when the test panics, and when the test run is killed.
//!
//! | module | what is in it |
//! |---|---|
//! | [`release`] | which binaries there are: the installed ones, and those of other versions |
//! | `sandbox` | a directory and the processes in it, and the guard that outlives us to clean up |
//! | `redis`, `postgres`, `rabbitmq` | how each is started, asked and looked at |
//! | `pgbouncer` | a pooler in front of a PostgreSQL server |
//!
//! All calls block: make servers outside a runtime, or with `spawn_blocking`.
//!
//! Environment: `DELAYLINE_TEST_REDIS`, `DELAYLINE_TEST_POSTGRES` and `DELAYLINE_TEST_RABBITMQ` hold the URL of a server that
//! is already there and is used instead. `DELAYLINE_RELEASE_REDIS` and so on, with `DELAYLINE_RELEASE_PGBOUNCER`, choose a release
//! by its name, as `scripts/servers status --matrix` lists them.

mod pgbouncer;
mod postgres;
mod rabbitmq;
mod redis;
pub mod release;
mod sandbox;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use rabbitmq::{Rabbit, RabbitCluster};
pub use redis::{Redis, RedisCluster};
pub use release::Release;

use crate::harness::Resources;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Redis, or Valkey.
    Redis,
    /// PostgreSQL.
    Postgres,
    /// RabbitMQ.
    RabbitMq,
}

impl Kind {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Redis, Self::Postgres, Self::RabbitMq];

    /// As `scripts/servers` and the environment variables spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::RabbitMq => "rabbitmq",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Its program is not on this machine.
    #[error("there is no `{program}` on this machine; install it with: scripts/servers install {kind}")]
    Missing {
        /// The program that was looked for.
        program: String,
        /// Whose it is.
        kind: Kind,
    },
    /// A release was asked for that is not there.
    #[error("there is no release `{name}` of {kind}; there are: {known}. Others: scripts/servers install --matrix")]
    NoRelease {
        /// The release.
        name: String,
        /// Whose.
        kind: Kind,
        /// Those that are there.
        known: String,
    },
    /// It did not come up, or a command failed.
    #[error("{what}{}", shown(log))]
    Failed {
        /// What was being done, and what came of it.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What it said.
        source: std::io::Error,
    },
}

fn shown(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; the end of its log:\n{log}") }
}

impl ServerError {
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), log: String::new() }
    }
}

/// The result of every call here.
pub type Result<T, E = ServerError> = std::result::Result<T, E>;

pub(crate) fn io<T>(result: std::io::Result<T>, what: impl FnOnce() -> String) -> Result<T> {
    result.map_err(|source| ServerError::Io { what: what(), source })
}

/// A server that was started here.
pub trait Server: fmt::Debug + Send {
    /// What it is.
    fn kind(&self) -> Kind;

    /// Its version, as it says itself.
    fn version(&self) -> &str;

    /// The URL that a backend connects to.
    fn url(&self) -> String;

    /// Kills it as by `kill -9`: nothing is flushed.
    ///
    /// # Errors
    /// [`ServerError::Io`].
    fn kill(&mut self) -> Result<()>;

    /// Starts it again with its data, and waits until it answers.
    ///
    /// # Errors
    /// [`ServerError::Failed`] with the end of its log.
    fn start(&mut self) -> Result<()>;

    /// Stops all its processes, as by `SIGSTOP`: its connections stay open, and nothing answers.
    ///
    /// # Errors
    /// [`ServerError::Io`].
    fn stop(&mut self) -> Result<()>;

    /// Lets them go on.
    ///
    /// # Errors
    /// [`ServerError::Io`].
    fn resume(&mut self) -> Result<()>;

    /// Cuts every client's connection.
    ///
    /// # Errors
    /// [`ServerError::Failed`].
    fn disconnect(&mut self) -> Result<()>;

    /// What it holds, as counts by name.
    ///
    /// # Errors
    /// [`ServerError::Failed`].
    fn resources(&mut self) -> Result<Resources>;

    /// Its main process, for who measures its memory and time.
    fn pid(&self) -> u32;
}

/// The server of a kind for this process: started at the first call, the same for each. Tests are kept apart by name spaces.
///
/// # Errors
/// [`ServerError`]; [`ServerError::Missing`] names the command that installs it.
pub fn shared(kind: Kind) -> Result<Arc<Mutex<Box<dyn Server>>>> {
    type Slot = OnceLock<std::result::Result<Arc<Mutex<Box<dyn Server>>>, Arc<ServerError>>>;
    static SERVERS: [Slot; 3] = [const { OnceLock::new() }; 3];
    let started = SERVERS[kind as usize].get_or_init(|| match start(kind) {
        Ok(server) => Ok(Arc::new(Mutex::new(server))),
        Err(e) => Err(Arc::new(e)),
    });
    started.clone().map_err(|e| ServerError::failed(e.to_string()))
}

/// Starts a server of a kind, of the release that the environment chooses or the installed one.
///
/// # Errors
/// [`ServerError`].
pub fn start(kind: Kind) -> Result<Box<dyn Server>> {
    let release = Release::chosen(kind)?;
    Ok(match kind {
        Kind::Redis => Box::new(Redis::start(&release, &[])?),
        Kind::Postgres => Box::new(Postgres::start(&release, &[])?),
        Kind::RabbitMq => Box::new(Rabbit::start(&release, &[])?),
    })
}

/// The URL of a server that is already there, from `DELAYLINE_TEST_REDIS` and so on.
#[must_use]
pub fn given(kind: Kind) -> Option<String> {
    std::env::var(format!("DELAYLINE_TEST_{}", kind.name().to_uppercase())).ok().filter(|url| !url.is_empty())
}

/// How long a server may take to come up.
pub(crate) const START_MAX: Duration = Duration::from_secs(60);

/// Where other versions are kept: `DELAYLINE_SERVERS_DIR`, or `delayline/servers` in the user's cache; for root in
/// `/var/cache`, because its own can't be read by the users that servers run as.
#[must_use]
pub fn matrix_dir() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("DELAYLINE_SERVERS_DIR").unwrap_or_else(|| {
        let own = || var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")));
        let cache = if nix::unistd::Uid::effective().is_root() { Some("/var/cache".into()) } else { own() };
        cache.unwrap_or_else(std::env::temp_dir).join("delayline").join("servers")
    })
}
