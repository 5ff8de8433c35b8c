//! Private real servers for tests, fault runs and benchmarks. Each runs in a temporary directory on free ports, and is
//! removed when its value is dropped, when the test panics, and when the test run is killed.
//!
//! | module | what is in it |
//! |---|---|
//! | `kind`, `server`, `error` | the kinds of server, their common interface, and errors |
//! | [`release`] | the available binaries: the installed ones, and those of other versions |
//! | `sandbox` | a directory with its processes, and the guard that outlives this process and cleans up |
//! | `redis`, `postgres`, `rabbitmq` | starting and querying each kind |
//! | `pgbouncer` | a pooler in front of a PostgreSQL server |
//!
//! All calls block: start servers outside a runtime, or with `spawn_blocking`.
//!
//! Environment: `DELAYLINE_TEST_REDIS`, `DELAYLINE_TEST_POSTGRES` and `DELAYLINE_TEST_RABBITMQ` contain the URL of a
//! running server to use instead. `DELAYLINE_RELEASE_REDIS` and so on, and `DELAYLINE_RELEASE_PGBOUNCER`, choose a
//! release by the name that `scripts/servers status --matrix` lists.

mod error;
mod kind;
mod pgbouncer;
mod postgres;
mod rabbitmq;
mod redis;
pub mod release;
mod sandbox;
mod server;

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

pub use error::{Result, ServerError};
pub use kind::Kind;
pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use rabbitmq::{Rabbit, RabbitCluster};
pub use redis::{Redis, RedisCluster};
pub use release::{Release, matrix_dir};
pub use server::Server;

/// The server of a kind for this process. The first call starts it, and all calls return the same one. Namespaces keep
/// tests apart.
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

/// The URL of a running server, from `DELAYLINE_TEST_REDIS` and so on.
#[must_use]
pub fn given(kind: Kind) -> Option<String> {
    std::env::var(format!("DELAYLINE_TEST_{}", kind.name().to_uppercase())).ok().filter(|url| !url.is_empty())
}
