//! The RabbitMQ backend of delayline: exact delays on stock brokers, without a plugin.
//!
//! | room | what is in it |
//! |---|---|
//! | `backend` | the trait, thin |
//! | `config` | limits, names, time-outs; URLs; what the backend can do |
//! | `ops` | what the trait's methods do: `schedule`, `claim`, `settle`, `change`, `dead`, `admin` |
//! | `store` | the parts of an open backend; `time`, `counters` and `outbox` are some of them |
//! | `transport` | two connections, what the driver has to be kept from, publishing, and what the driver and the broker say as our errors |
//! | `codec` | what is ours in a message's properties and headers |
//! | `topology` | queues, exchanges and bindings; `names` are theirs, and `turn` is whose it is to make them |
//! | `way` | which way a message takes through the levels |
//! | `gate` | what is due soon, held and published at its millisecond |
//! | `consuming` | what a process takes from a queue: a line, and the pump that moves it |
//! | `strays` | what found no way or was let go of, put on its way again |
//! | `start` | what is checked before the first call |
//! | `namespaces` | namespaces within one, to be held, listed and removed |
//!
//! There is no `notify`: the broker pushes what is due. What it has in common with other network backends is in
//! `delayline-backend-kit`.
//!
//! TLS needs the Cargo feature `tls-ring` (on by default) or `tls-aws-lc-rs`. If both are on and the application has installed no provider
//! in rustls, ring's is installed before the first connection over TLS. Without both, `amqps://` is a
//! [`Config`](delayline_core::ErrorKind::Config) error.

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
