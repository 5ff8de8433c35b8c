//! The RabbitMQ backend of delayline: exact delays on stock brokers, without a plugin.

mod backend;
mod capabilities;
mod config;
mod connection;
mod dead;
mod driver;
mod failure;
mod gate;
mod giving;
mod greeting;
mod intake;
mod line;
mod lines;
mod message;
mod names;
mod namespaces;
mod publisher;
mod pump;
mod runtime;
mod settle;
mod shared;
mod start;
mod strays;
mod tombstone;
mod topology;
mod turn;
mod way;

// For its feature alone: the driver's TLS has no provider otherwise.
use rustls as _;

pub use backend::RabbitBackend;
pub use config::RabbitConfig;
pub use namespaces::HeldNamespace;
