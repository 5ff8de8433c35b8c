//! The RabbitMQ backend of delayline: exact delays on stock brokers, without a plugin.
//!
//! Nothing here listens for notifications: the broker pushes what is due, and a line (`consuming/`) wakes its intakes.

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
mod shared;
mod start;
mod strays;
mod time;
mod topology;
mod transport;
mod turn;
mod way;

#[cfg(test)]
mod tests;

// For its feature alone: the driver's TLS has no provider otherwise.
use rustls as _;

pub use backend::RabbitBackend;
pub use config::RabbitConfig;
pub use namespaces::HeldNamespace;
