//! How a RabbitMQ backend is set up, and what it can do then.

mod capabilities;
mod settings;
pub(crate) mod tls;
mod url;

pub(crate) use self::capabilities::of as capabilities;
pub use self::settings::RabbitConfig;
