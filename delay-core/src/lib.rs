//! The core of delayline: tasks that are scheduled now and run at their due time, on the store that you already run.
//!
//! Here are the trait that every store implements, [`DelayBackend`], and what applications use over it: [`Queue`] to
//! schedule, change and look at tasks, [`Worker`] to run them, [`Consumer`] to pull them. A backend is a crate of its own.
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
//! // An exam of 90 minutes begins: it is scheduled when they are over, whatever becomes of its candidate's browser.
//! exams.schedule(&"anna".into()).after(Duration::from_secs(90 * 60)).id("exam-7/anna").group("exam-7").await?;
//! // Ten minutes more, for all who sit it.
//! exams.shift_group(&"exam-7".parse()?, delayline_core::Shift::Later(Duration::from_secs(600))).await?;
//!
//! let stop = CancellationToken::new();
//! let worker = Worker::builder()
//!     .queue(&exams, {
//!         let stop = stop.clone();
//!         move |candidate: String, context: Context| {
//!             println!("{candidate} is scheduled, {:?} late", context.lateness());
//!             stop.cancel(); // a worker runs until it is shut down; this one has done what the example is for
//!             async { Ok::<(), std::io::Error>(()) } // an `Err` would be tried again, a second later at first
//!         }
//!     })
//!     .shutdown(stop)
//!     .build()?;
//! assert_eq!(worker.run().await?.completed, 1);
//! # Ok(()) }
//! ```
//!
//! A task is run at least once, under one lease at a time. What is promised beyond that, and what a backend does not have,
//! its [`Capabilities`] and `docs/semantics.md` say.
//!
//! | module | what is in it |
//! |---|---|
//! | `queue` | [`Queue`], [`Schedule`], [`Task`]: the typed way in |
//! | `consume` | the loop that fetches what is due, [`Consumer`], [`Delivery`], [`RetryPolicy`], patient settling |
//! | `worker` | [`Worker`], [`Context`], [`HandlerOutcome`]: slots, leases kept alive, shutdown |
//! | `client` | what those three stand on: the way to the store, and calls that run at the same time and travel as one |
//! | `caught` | running the application's own code, whose panics must not get through |
//! | `trace` | [`TraceContext`]: one trace from whoever schedules to the handler |
//! | `codec` | [`Codec`], [`Json`], [`Raw`] |
//! | [`testing`] | for the tests of applications |
//! | `backend`, `owned` | for backend authors: [`DelayBackend`], [`Subscription`], [`owned()`] |
//! | `task`, `lease`, `change`, `admin`, `capabilities` | the types that the trait speaks in |
//! | [`meter`] | what is counted and timed, with the Cargo feature `metrics` |
//! | `names`, [`limits`], `error`, `time` | what is valid once it exists, and [`Error`], [`Clock`] |

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
