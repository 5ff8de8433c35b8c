//! The Redis backend of delayline: a sorted set with leases, exact order, groups and dead letters, and no polling.
//!
//! | room | what is in it |
//! |---|---|
//! | `backend`, `intake` | the traits, thin: checks, batches cut into calls, answers put together |
//! | `change`, `look`, `dead` | the larger methods of `backend`: changes, what only reads, dead letters |
//! | `shared` | what a backend and its intakes have in common, and how they run scripts |
//! | `config` | limits, keys, time-outs; URLs |
//! | `connection` | one multiplexed connection, rebuilt when it is broken or silent; scripts by their hash |
//! | `bells` | wake-ups by publish and subscribe, restored after every reconnect |
//! | `failure` | what the driver and the server say, as our errors |
//! | `start` | what is checked before the first call |
//! | `namespaces` | namespaces below one of a server, to be listed and removed |
//! | `keys`, `record`, `reply` | which keys there are, what is in their values, what scripts answer |
//! | `scripts/*.lua` | every change of state, each atomic |

mod answers;
mod backend;
mod bells;
mod change;
mod config;
mod connection;
mod dead;
mod failure;
mod intake;
mod keys;
mod look;
mod namespaces;
mod record;
mod reply;
mod scripts;
mod shared;
mod start;

// For its feature alone: the driver's TLS has no provider otherwise.
use rustls as _;

#[cfg(test)]
mod tests;

pub use backend::RedisBackend;
pub use config::RedisConfig;
