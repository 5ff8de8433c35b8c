//! How a RabbitMQ backend is set up, and what it can do then.

pub(crate) mod capabilities;
mod settings;

pub use self::settings::RabbitConfig;
pub(crate) use self::settings::{LEVEL_MS, LEVELS_MAX, PARALLEL_MAX, bad};
