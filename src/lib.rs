//! Delayed tasks: schedule a task now, and it runs at its due time, on a store that you already run.
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
//! `docs/semantics.md` numbers all promises. Each backend reports through [`Capabilities`] which of them it supports,
//! and its limits.
//!
//! Backends are Cargo features: `memory` (enabled by default), `redis`, `postgres` and `rabbitmq`; `full` enables all
//! four. The feature `metrics` counts and times what happens: see [`meter`].
//!
//! TLS (`rediss://`, `amqps://`, Postgres' `sslmode=require`) needs one more feature: `tls-ring` (default) with ring's
//! cryptography, or `tls-aws-lc-rs` with AWS-LC's. Certificates are checked against the system's list,
//! on Postgres only with `sslmode=verify-ca` or `verify-full`. If both features are enabled, Redis and RabbitMQ use the
//! provider that the application has installed in rustls, else ring's. With neither feature, such URLs are a
//! [`Config`](ErrorKind::Config) error.
//!
//! # Five types for one task
//!
//! | type | made by | received by | use it to |
//! |---|---|---|---|
//! | [`Task`] | the application | [`Queue::schedule_all`] | schedule many typed tasks at once |
//! | [`NewTask`] | [`Queue`], by encoding a [`Task`] | [`DelayBackend::schedule`] | write or call a backend directly |
//! | [`ClaimedTask`] | [`Subscription::claim`] | [`Consumer`], [`Worker`] | write or call a backend directly |
//! | [`TaskView`] | [`DelayBackend::find`] and `list` | the application | inspect a task without claiming it |
//! | [`Delivery`] | [`Consumer`] | the application | process and settle one typed task |
//!
//! To schedule a single task, use [`Queue::schedule`]. A handler of a [`Worker`] gets the payload and a [`Context`]
//! instead of a [`Delivery`].
//!
//! The types that only backends and their direct callers need are in [`backend`].
//!
//! [`ClaimedTask`]: backend::ClaimedTask
//! [`Subscription::claim`]: backend::Subscription::claim

// Feature badges on docs.rs.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connect;

/// The README's example, compiled and run with the tests.
#[cfg(all(doctest, feature = "memory"))]
#[doc = include_str!("../README.md")]
struct Readme;

pub use connect::connect;
pub use delayline_core::{
    Action, Attempts, Bytes, CancellationToken, Capabilities, Change, ChangeOutcome, Changed, Clock, Codec, Consumer,
    ConsumerBuilder, Context, Cursor, DeadLetter, DeadLetterCause, DeadLetterSelect, DeadLetters, DelayBackend,
    Delivery, Disposition, Due, DueWithin, Durability, Error, ErrorKind, GroupName, HandlerOutcome, Headers, Json,
    Lease, LeaseHold, NewTask, OnConflict, OperationId, Order, Page, Queue, QueueName, QueueStats, Raw, Reason,
    Receipt, Result, RetryPolicy, Schedule, ScheduleOutcome, Scheduled, Scheduling, Select, Shift, Stream, Support,
    SystemClock, TRACEPARENT, TRACESTATE, Task, TaskId, TaskRef, TaskState, TaskView, TestClock, Timestamp,
    TraceContext, Uuid, Worker, WorkerBuilder, WorkerReport,
};
pub use delayline_core::{limits, meter, testing};

/// The store's side of [`DelayBackend`]: what a backend implements, and what most applications do not need.
///
/// A new backend depends on `delayline-core`, which exports all of these names at its root.
pub mod backend {
    pub use delayline_core::{
        AdminOp, Claim, Claimed, ClaimedTask, DeadLetterOp, DelayBackend, NewTask, Subscription, SubscriptionOptions,
        async_trait, owned,
    };
}

/// The in-memory backend, for settings that a URL can't express, such as a custom clock.
#[cfg(feature = "memory")]
pub mod memory {
    pub use delayline_memory::{MemoryBackend, MemoryConfig};
}

/// The Redis backend, for settings that a URL can't express, such as certificates.
#[cfg(feature = "redis")]
pub mod redis {
    pub use delayline_redis::{RedisBackend, RedisConfig};
}

/// The Postgres backend, for what a URL can't express, such as scheduling inside the application's transaction.
#[cfg(feature = "postgres")]
pub mod postgres {
    #[cfg(feature = "sqlx-0_9")]
    pub use delayline_postgres::sqlx;
    pub use delayline_postgres::{PostgresBackend, PostgresConfig, SslMode};
}

/// The RabbitMQ backend, for settings that a URL can't express, such as certificates.
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq {
    pub use delayline_rabbitmq::{HeldNamespace, RabbitBackend, RabbitConfig};
}
