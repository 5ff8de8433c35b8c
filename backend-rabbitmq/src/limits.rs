//! Names and figures that several rooms need.

/// The backend's name, in its capabilities and its metrics.
pub(crate) const NAME: &str = "rabbitmq";

/// The same for people.
pub(crate) const TITLE: &str = "RabbitMQ";

/// The most queues for each level.
pub(crate) const PARALLEL_MAX: u16 = 16;

/// The most levels: a TTL has 32 bits of milliseconds.
pub(crate) const LEVELS_MAX: u32 = 21;

/// How long a message stays in the lowest level, in milliseconds; twice as long in each higher one.
pub(crate) const LEVEL_MS: u64 = 2_048;

/// What is due so many milliseconds from now goes to the ready queue, and is not delivered before: most of what is due at
/// once, its time being rounded up.
pub(crate) const SOON_MS: i64 = 1;
