//! The Postgres backend of delayline: `SKIP LOCKED` with leases, exact order, groups and dead letters, and no polling.
//!
//! | room | what is in it |
//! |---|---|
//! | `backend`, `intake` | the traits, thin: checks, batches cut into statements, answers put together |
//! | `schedule`, `settle`, `change`, `dead`, `look` | the rooms of the trait's methods |
//! | `shared` | what a backend and its intakes have in common, and how they run statements |
//! | `statements/*.sql`, `statements` | every statement, each atomic |
//! | `record` | what is in the columns |
//! | `vacuum` | what is left of rows that have ended |
//! | `config` | schema, connections, limits, time-outs; URLs |
//! | `pool`, `db` | connections, and calls on them that nothing cuts short and that end in time |
//! | `start`, `migrate` | what is checked before the first call; our tables, made and updated |
//! | `namespaces` | schemas below one of a database, to be listed and removed |
//! | `bells`, `ear` | wake-ups by LISTEN and NOTIFY, restored after every loss |
//! | `failure` | what the driver and the server say, as our errors |
//! | `schema` | the names of what is ours in a database |

mod backend;
mod bells;
mod change;
mod config;
mod db;
mod dead;
mod ear;
mod failure;
mod intake;
mod look;
mod migrate;
mod namespaces;
mod pool;
mod record;
mod schedule;
mod schema;
mod settle;
mod shared;
mod start;
mod statements;
mod vacuum;

// For its feature alone: the driver's TLS has no provider otherwise.
use rustls as _;

#[cfg(test)]
mod tests;

pub use backend::PostgresBackend;
pub use config::PostgresConfig;
