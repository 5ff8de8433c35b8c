//! Private real servers for tests, fault runs and benchmarks: each in a temporary directory, on free ports, and gone when its
//! value is dropped, when the test panics, and when the test run is killed.
//!
//! | module | what is in it |
//! |---|---|
//! | `kind`, `server`, `error` | what each can do, and why there is none |
//! | [`release`] | which binaries there are: the installed ones, and those of other versions |
//! | `sandbox` | a directory and the processes in it, and the guard that outlives us to clean up |
//! | `redis`, `postgres`, `rabbitmq` | how each is started, asked and looked at |
//! | `pgbouncer` | a pooler in front of a PostgreSQL server |
//!
//! All calls block: make servers outside a runtime, or with `spawn_blocking`.
//!
//! Environment: `DELAYLINE_TEST_REDIS`, `DELAYLINE_TEST_POSTGRES` and `DELAYLINE_TEST_RABBITMQ` hold the URL of a server that
//! is already there and is used instead. `DELAYLINE_RELEASE_REDIS` and so on, with `DELAYLINE_RELEASE_PGBOUNCER`, choose a
//! release by its name, as `scripts/servers status --matrix` lists them.

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

/// The server of a kind for this process: started at the first call, the same for each. Tests are kept apart by namespaces.
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
