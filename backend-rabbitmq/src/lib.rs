//! The RabbitMQ backend of delayline: exact delays on stock brokers, without a plugin.

mod backend;
mod codec;
mod config;
mod consuming;
mod gate;
mod names;
mod namespaces;
mod ops;
mod shared;
mod start;
mod strays;
mod topology;
mod transport;
mod turn;
mod way;

// For its feature alone: the driver's TLS has no provider otherwise.
use rustls as _;

use codec::message;
use config::capabilities;
use consuming::{giving, line, lines, pump};
use ops::{change as tombstone, claim as intake, dead, settle};
use transport::{connection, driver, failure, greeting, publisher, runtime};

pub use backend::RabbitBackend;
pub use config::RabbitConfig;
pub use namespaces::HeldNamespace;
