//! The Redis backend of delayline: sorted sets with leases, exact order, groups and dead letters, without polling.
//!
//! To set it up, see [`RedisConfig`]; to connect, [`RedisBackend::connect`].
//!
//! | module | contents |
//! |---|---|
//! | `backend` | the implementation of `DelayBackend`; each method calls `ops` |
//! | `config` | limits, key prefix and timeouts; URL parsing; capabilities |
//! | `ops` | the trait's operations: `schedule`, `claim`, `settle`, `change`, `dead`, `look`, `admin` |
//! | `store` | state shared by the operations; runs scripts |
//! | `transport` | the multiplexed connection, scripts by hash, their replies, the mapping of errors |
//! | `notify` | notifications by publish and subscribe |
//! | `codec` | encoding of values and script arguments |
//! | `start` | checks before the first call |
//! | `namespaces` | lists and removes the namespaces below a key prefix |
//! | `keys` | the names of the keys |
//! | `scripts/*.lua` | every change of state; each script is atomic |
//!
//! Code shared with the other network backends is in `delayline-backend-kit`.
//!
//! TLS needs the Cargo feature `tls-ring` (default) or `tls-aws-lc-rs`. If both are enabled and the application has
//! installed no provider in rustls, the backend installs ring's before its first connection over TLS. Without both,
//! `rediss://` is a [`Config`](delayline_core::ErrorKind::Config) error.

// Feature badges on docs.rs.
#![cfg_attr(docsrs, feature(doc_cfg))]

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
