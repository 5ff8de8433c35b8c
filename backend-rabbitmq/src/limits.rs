//! Names and limits that several modules need.

/// The backend's name in capabilities and metrics.
pub(crate) const NAME: &str = "rabbitmq";

/// The name for messages.
pub(crate) const TITLE: &str = "RabbitMQ";

/// Maximum number of queues of each level.
pub(crate) const PARALLEL_MAX: u16 = 16;

/// Maximum number of levels: a TTL has 32 bits of milliseconds.
pub(crate) const LEVELS_MAX: u32 = 21;

/// Time that a message stays in the lowest level, in milliseconds. It doubles with each level.
pub(crate) const LEVEL_MS: u64 = 2_048;

/// A task that is due in this many milliseconds goes to the ready queue at once, and is held there until it is due.
/// Most tasks without a delay are such tasks, because their due times are rounded up.
pub(crate) const SOON_MS: i64 = 1;
