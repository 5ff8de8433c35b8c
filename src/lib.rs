//! Delayed tasks: hand one in now, have it run at its due time, on the store that you already run.
//!
//! ```
//! use std::time::Duration;
//! use delayline::{Queue, connect};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> delayline::Result<()> {
//! let backend = connect("memory:").await?;
//! let hand_ins: Queue<String> = Queue::new(backend, "exam.hand-in")?;
//! hand_ins.schedule(&"candidate 17".to_owned()).after(Duration::from_millis(20)).id("exam-1/17").await?;
//!
//! let mut consumer = hand_ins.consumer().open().await?;
//! let task = consumer.next().await?;
//! assert_eq!(task.payload(), "candidate 17");
//! task.complete().await?;
//! # Ok(()) }
//! ```
//!
//! What it promises is written down and numbered in `docs/semantics.md`; what a store can't do, its
//! [`Capabilities`] say. Backends are Cargo features: `memory` (on by default), `redis`, `postgres` and `rabbitmq`; `full` is
//! all of them. `metrics` counts what happens: [`meter`].
//!
//! TLS (`rediss://`, `amqps://`, `sslmode=require` of Postgres) is one more feature: `tls-ring` (on by default) with ring's
//! cryptography, `tls-aws-lc-rs` with AWS-LC's. Certificates are checked by the system's list with either. Both may be on: a provider that
//! the application has installed in rustls stays; if there is none, ring's is installed before the first connection over TLS. With
//! neither, such URLs are a [`Config`](ErrorKind::Config) error.

mod connect;

/// The README's example, compiled and run with the tests.
#[cfg(all(doctest, feature = "memory"))]
#[doc = include_str!("../README.md")]
struct Readme;

pub use connect::connect;
pub use delayline_core::*;

/// The in-memory backend, for what a URL can't say, such as another clock.
#[cfg(feature = "memory")]
pub mod memory {
    pub use delayline_memory::{MemoryBackend, MemoryConfig};
}

/// The Redis backend, for what a URL can't say, such as certificates.
#[cfg(feature = "redis")]
pub mod redis {
    pub use delayline_redis::{RedisBackend, RedisConfig};
}

/// The Postgres backend, for what a URL can't say, such as scheduling inside a transaction of the application's.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use delayline_postgres::{PostgresBackend, PostgresConfig};
}

/// The RabbitMQ backend, for what a URL can't say, such as certificates.
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq {
    pub use delayline_rabbitmq::{HeldNamespace, RabbitBackend, RabbitConfig};
}
