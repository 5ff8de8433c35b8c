//! The RabbitMQ backend of delayline: exact delays on stock brokers, without a plugin.
//!
//! To set it up, see [`RabbitConfig`]; to connect, [`RabbitBackend::connect`].
//!
//! | module | contents |
//! |---|---|
//! | `backend` | the implementation of `DelayBackend`; each method calls `ops` |
//! | `config` | limits, names and timeouts; URL parsing; capabilities |
//! | `ops` | the trait's operations: `schedule`, `claim`, `settle`, `change`, `dead`, `admin` |
//! | `store` | the parts of an open backend, among them `time`, `counters` and `outbox` |
//! | `transport` | two connections, workarounds for the driver, publishing, the mapping of errors |
//! | `codec` | encoding of the properties and headers of messages |
//! | `topology` | queues, exchanges and bindings; `names` has their names, `turn` is the lock for their creation |
//! | `way` | the route of a message through the levels |
//! | `gate` | holds the tasks that are due soon, and publishes each at its millisecond |
//! | `consuming` | the consumption of a queue by a process: a line, and the pump that drives it |
//! | `strays` | reroutes messages that were unroutable, or that a policy removed from their queue |
//! | `start` | checks before the first call |
//! | `namespaces` | holds, lists and removes the namespaces within a namespace |
//!
//! There is no `notify`: the broker pushes due tasks. Code shared with the other network backends is in
//! `delayline-backend-kit`.
//!
//! TLS needs the Cargo feature `tls-ring` (on by default) or `tls-aws-lc-rs`. If both are on and the application has
//! installed no provider in rustls, ring's is installed before the first connection over TLS. Without both, `amqps://` is a
//! [`Config`](delayline_core::ErrorKind::Config) error.

// Feature badges on docs.rs.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod codec;
mod config;
mod consuming;
mod counters;
mod gate;
mod limits;
mod names;
mod namespaces;
mod ops;
mod outbox;
mod start;
mod store;
mod strays;
mod time;
mod topology;
mod transport;
mod turn;
mod way;

#[cfg(test)]
mod tests;

pub use backend::RabbitBackend;
pub use config::RabbitConfig;
pub use namespaces::HeldNamespace;
