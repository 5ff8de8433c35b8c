//! The Redis backend of delayline: a sorted set with leases, exact order, groups and dead letters, and no polling.
//!
//! | room | what is in it |
//! |---|---|
//! | `backend`, `intake` | the traits, thin: checks, batches cut into calls, answers put together |
//! | `config` | limits, keys, time-outs; URLs |
//! | `connection` | one multiplexed connection, rebuilt when it is broken or silent; scripts by their hash |
//! | `bells` | wake-ups by publish and subscribe, restored after every reconnect |
//! | `failure` | what the driver and the server say, as our errors |
//! | `start` | what is checked before the first call |
//! | `keys`, `record` | which keys there are, and what is in their values |
//! | `scripts/*.lua` | every change of state, each atomic |

mod bells;
mod config;
mod connection;
mod failure;
mod start;

#[cfg(test)]
mod tests;

pub use config::RedisConfig;
