//! Consuming a queue: the loop that claims tasks, the consumer, and settling.

mod consumer;
mod delivery;
pub(crate) mod fetch;
pub(crate) mod received;
pub(crate) mod retry;
pub(crate) mod settle;
pub(crate) mod undecoded;

pub(crate) use self::consumer::LEASE_DEFAULT;
pub use self::consumer::{Consumer, ConsumerBuilder};
pub use self::delivery::Delivery;
pub(crate) use self::delivery::refused;
pub use self::retry::RetryPolicy;
