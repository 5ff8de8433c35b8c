//! The Postgres backend of delayline: `SKIP LOCKED` with leases, exact order, groups and dead letters, and no polling.
//!
//! | room | what is in it |
//! |---|---|
//! | `backend` | the trait, thin: each method hands on to its room in `ops` |
//! | `ops` | `schedule`, `claim`, `settle`, `change`, `dead`, `admin`, `look`: the trait's methods; and what they have in common |
//! | `store` | what a backend and its intakes share |
//! | `notify` | notifications by LISTEN and NOTIFY |
//! | `transport` | connections, calls on them that nothing cuts short and that end in time, what failures mean |
//! | `codec` | what is in the columns |
//! | `config` | schema, connections, limits, time-outs; URLs; capabilities |
//! | `statements/*.sql`, `statements` | every statement, each atomic |
//! | `start`, `migrate` | what is checked before the first call; our tables, made and updated |
//! | `vacuum` | what is left of rows that have ended |
//! | `namespaces` | schemas below one of a database, to be listed and removed |
//! | `schema`, `limits` | the names of what is ours in a database; our name and limits |
//!
//! What it has in common with other network backends is in `delayline-backend-kit`.
//!
//! TLS needs the Cargo feature `tls-ring` (on by default) or `tls-aws-lc-rs`. The driver, sqlx 0.9, uses ring's cryptography if `tls-ring` is
//! on, else AWS-LC's; it does not ask which provider the application has installed in rustls. Without both, `sslmode=require`,
//! `verify-ca` and `verify-full` are a [`Config`](delayline_core::ErrorKind::Config) error.

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
