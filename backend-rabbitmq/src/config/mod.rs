//! The configuration of a RabbitMQ backend, and its capabilities.

mod capabilities;
mod settings;
pub(crate) mod tls;
mod url;

pub(crate) use self::capabilities::of as capabilities;
pub use self::settings::RabbitConfig;
