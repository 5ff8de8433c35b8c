//! The Postgres backend of delayline: `SKIP LOCKED` with leases, exact order, groups and dead letters, without polling.
//!
//! To set it up, see [`PostgresConfig`]; to connect, [`PostgresBackend::connect`].
//!
//! | module | contents |
//! |---|---|
//! | `backend` | the implementation of `DelayBackend`; each method calls `ops` |
//! | `ops` | the trait's operations: `schedule`, `claim`, `settle`, `change`, `dead`, `admin`, `look`; helpers |
//! | `store` | state that a backend and its subscriptions share |
//! | `notify` | notifications by LISTEN and NOTIFY |
//! | `transport` | connections; calls that run to their end, within a time limit; the mapping of errors |
//! | `codec` | encoding of the columns |
//! | `config` | schema, connections, limits and timeouts; URL parsing; capabilities |
//! | `statements/*.sql`, `statements` | every statement; each is atomic |
//! | `start`, `migrate` | checks before the first call; creation and migration of the tables |
//! | `vacuum` | removes the dead rows that ended tasks leave behind |
//! | `namespaces` | lists and removes the namespaces (schemas) below a schema |
//! | `schema`, `limits` | the names of the backend's objects in a database; the backend's name and limits |
//!
//! Code shared with the other network backends is in `delayline-backend-kit`.
//!
//! TLS needs the Cargo feature `tls-ring` (default) or `tls-aws-lc-rs`. The driver, sqlx 0.9, uses ring's cryptography if
//! `tls-ring` is enabled, else AWS-LC's; it does not ask which provider the application has installed in rustls. Without
//! both, `sslmode=require`, `verify-ca` and `verify-full` are a [`Config`](delayline_core::ErrorKind::Config) error.

// Feature badges on docs.rs.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod codec;
mod config;
mod limits;
mod migrate;
mod namespaces;
mod notify;
mod ops;
mod schema;
mod start;
mod statements;
mod store;
mod transport;
mod vacuum;

#[cfg(test)]
mod tests;

pub use backend::PostgresBackend;
pub use config::PostgresConfig;
pub use config::tls::SslMode;
#[cfg(feature = "sqlx-0_9")]
pub use sqlx;
