//! The RabbitMQ backend of delayline: exact delays on stock brokers, without a plugin.

mod capabilities;
mod config;
mod connection;
mod failure;
mod gate;
mod message;
mod names;
mod publisher;
mod shared;
mod tombstone;
mod topology;

// For its feature alone: the driver's TLS has no provider otherwise.
use rustls as _;

pub use config::RabbitConfig;
