//! The Postgres backend of delayline: `SKIP LOCKED` with leases, exact order, groups and dead letters, and no polling.
//!
//! | room | what is in it |
//! |---|---|
//! | `config` | schema, connections, limits, time-outs; URLs |
//! | `pool`, `db` | connections, and calls on them that nothing cuts short and that end in time |
//! | `start`, `migrate` | what is checked before the first call; our tables, made and updated |
//! | `bells`, `ear` | wake-ups by LISTEN and NOTIFY, restored after every loss |
//! | `failure` | what the driver and the server say, as our errors |
//! | `schema` | the names of what is ours in a database |

mod bells;
mod config;
mod db;
mod ear;
mod failure;
mod migrate;
mod pool;
mod schema;
mod start;

// For its feature alone: the driver's TLS has no provider otherwise.
use rustls as _;

#[cfg(test)]
mod tests;

pub use config::PostgresConfig;
