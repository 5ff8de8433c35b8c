//! The core of delayline, a library for delayed tasks: schedule a task now, and it runs at its due time, on a store
//! that you already run.
//!
//! This crate contains the trait that every store implements, [`DelayBackend`], and what applications use on top of it:
//! [`Queue`] schedules, changes and inspects tasks, [`Worker`] runs them, and [`Consumer`] pulls them. Each backend is
//! a separate crate.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use delayline_core::{CancellationToken, Context, Queue, Worker};
//! use delayline_memory::MemoryBackend;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> delayline_core::Result<()> {
//! let exams = Queue::<String>::new(Arc::new(MemoryBackend::new()), "exams.hand-in")?;
//!
//! // An exam takes 90 minutes. The task submits it when they are over, even if the candidate's browser is gone.
//! exams.schedule(&"anna".into()).after(Duration::from_secs(90 * 60)).id("exam-7/anna").group("exam-7").await?;
//! // Everyone who sits this exam gets ten minutes more.
//! exams.shift_group(&"exam-7".parse()?, delayline_core::Shift::Later(Duration::from_secs(600))).await?;
//!
//! let stop = CancellationToken::new();
//! let worker = Worker::builder()
//!     .queue(&exams, {
//!         let stop = stop.clone();
//!         move |candidate: String, context: Context| {
//!             println!("submitting the exam of {candidate}, {:?} late", context.lateness());
//!             stop.cancel(); // a worker runs until it is shut down; this example ends after one task
//!             async { Ok::<(), std::io::Error>(()) } // an `Err` would be retried, first after a second or two
//!         }
//!     })
//!     .shutdown(stop)
//!     .build()?;
//! assert_eq!(worker.run().await?.completed, 1);
//! # Ok(()) }
//! ```
//!
//! A task runs at least once, under one lease at a time. `docs/semantics.md` numbers all promises. Each backend reports
//! through [`Capabilities`] which of them it supports, and its limits.
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
//! # Modules
//!
//! | module | what is in it |
//! |---|---|
//! | `queue` | [`Queue`], [`Schedule`], [`Task`]: the typed API to schedule, change and inspect tasks |
//! | `consume` | the loop that claims due tasks, [`Consumer`], [`Delivery`], [`RetryPolicy`], settling with retries |
//! | `worker` | [`Worker`], [`Context`], [`HandlerOutcome`]: concurrency slots, lease renewal, shutdown |
//! | `client` | what these three share: the calls to the store, and group commit of calls made at the same time |
//! | `caught` | calls into application code, with its panics caught |
//! | `trace` | [`TraceContext`]: carries a trace from the caller that schedules to the handler |
//! | `codec` | [`Codec`], [`Json`], [`Raw`] |
//! | [`testing`] | helpers for the tests of applications |
//! | `backend`, `owned` | for backend authors: [`DelayBackend`], [`Subscription`], [`owned()`] |
//! | `task`, `lease`, `change`, `admin`, `capabilities` | the parameter and result types of the trait |
//! | [`meter`] | counters and timings, with the Cargo feature `metrics` |
//! | `names`, [`limits`], `error`, `time` | validated names and ids, limits, [`Error`], [`Clock`] |

// Feature badges on docs.rs.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod admin;
mod backend;
mod capabilities;
mod caught;
mod change;
mod client;
mod codec;
mod consume;
mod error;
#[doc(hidden)]
pub mod every;
#[cfg(delayline_interleaved)]
pub mod faults;
mod hidden;
mod lease;
pub mod limits;
pub mod meter;
mod names;
mod owned;
mod queue;
mod sync;
mod task;
pub mod testing;
mod time;
mod trace;
mod worker;

pub use admin::{
    AdminOp, Cursor, DeadLetter, DeadLetterCause, DeadLetterOp, DeadLetterSelect, DeadLetters, DueWithin, Page,
    QueueStats,
};
pub use async_trait::async_trait;
pub use backend::{DelayBackend, Subscription, SubscriptionOptions};
pub use bytes::Bytes;
pub use capabilities::{Capabilities, Durability, LeaseHold, Order, Support};
pub use change::{Action, Change, ChangeOutcome, Changed, Select, Shift};
pub use codec::{Codec, Json, Raw};
pub use consume::{Consumer, ConsumerBuilder, Delivery, RetryPolicy};
pub use error::{Error, ErrorKind, Result};
pub use futures_core::Stream;
pub use lease::{Claim, Claimed, ClaimedTask, Disposition, Lease, Reason};
pub use names::{GroupName, OperationId, QueueName, TaskId};
pub use owned::owned;
pub use queue::{Queue, Schedule, Scheduling, Task};
pub use task::{
    Attempts, Headers, NewTask, OnConflict, Receipt, ScheduleOutcome, Scheduled, TaskRef, TaskState, TaskView,
};
pub use testing::TestClock;
pub use time::{Clock, Due, SystemClock, Timestamp};
pub use tokio_util::sync::CancellationToken;
pub use trace::{TRACEPARENT, TRACESTATE, TraceContext};
pub use uuid::Uuid;
pub use worker::{Context, HandlerOutcome, Worker, WorkerBuilder, WorkerReport};
