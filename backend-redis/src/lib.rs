//! The Redis backend of delayline: a sorted set with leases, exact order, groups and dead letters, and no polling.
//!
//! | room | what is in it |
//! |---|---|
//! | `backend` | the trait, thin |
//! | `config` | limits, keys, time-outs; URLs; what the backend can do |
//! | `ops` | what the trait's methods do: `schedule`, `claim`, `settle`, `change`, `dead`, `look`, `admin` |
//! | `store` | what they have in common, and how they run scripts |
//! | `transport` | one multiplexed connection, scripts by their hash, their answers, and what the driver and the server say as our errors |
//! | `notify` | notifications by publish and subscribe |
//! | `codec` | what is in keys, values and arguments |
//! | `start` | what is checked before the first call |
//! | `namespaces` | namespaces below one of a server, to be listed and removed |
//! | `keys` | which keys there are |
//! | `scripts/*.lua` | every change of state, each atomic |
//!
//! What it has in common with other network backends is in `delayline-backend-kit`.
//!
//! TLS needs the Cargo feature `tls-ring` (on by default) or `tls-aws-lc-rs`. If both are on and the application has installed no provider
//! in rustls, ring's is installed before the first connection over TLS. Without both, `rediss://` is a
//! [`Config`](delayline_core::ErrorKind::Config) error.

mod backend;
mod codec;
mod config;
mod keys;
mod limits;
mod namespaces;
mod notify;
mod ops;
mod scripts;
mod start;
mod store;
mod transport;

#[cfg(test)]
mod tests;

pub use backend::RedisBackend;
pub use config::RedisConfig;
