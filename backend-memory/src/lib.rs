//! The in-memory backend of delayline: a hierarchical hashed timing wheel with exact order, leases, groups and dead
//! letters. Use it for tests, which can control its clock, and for applications of a single process.
//!
//! To set it up, see [`MemoryConfig`].
//!
//! ```
//! use std::time::Duration;
//! use delayline_core::{Claim, DelayBackend, SubscriptionOptions, NewTask, QueueName, Disposition};
//! use delayline_memory::MemoryBackend;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> delayline_core::Result<()> {
//! let backend = MemoryBackend::new();
//! let queue = QueueName::new("exam.hand-in")?;
//! backend.schedule(&queue, vec![NewTask::new(Duration::from_millis(5), "candidate 17")]).await?;
//!
//! let mut subscription = backend.subscribe(&queue, SubscriptionOptions::default()).await?;
//! let task = loop {
//!     let mut claimed = subscription.claim(Claim::new(1, Duration::from_secs(30))).await?;
//!     match claimed.deliveries.pop() {
//!         Some(task) => break task,
//!         None => subscription.wait(claimed.next_due_in.unwrap_or(Duration::MAX)).await,
//!     }
//! };
//! assert_eq!(task.payload, "candidate 17");
//! backend.settle(&queue, vec![(task.lease, Disposition::Complete)]).await?;
//! # Ok(()) }
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `backend` | the implementation of `DelayBackend`; each method calls `ops` |
//! | `config` | limits and clock; URL parsing; capabilities |
//! | `ops` | the trait's operations: checks, then bounded pieces of work under a queue's lock |
//! | `notify` | wakes the subscriptions of a queue |
//! | `queues` | all queues, and their locks |
//! | `room` | the limits of all queues together, and what they hold |
//! | `store` | one queue as a synchronous state machine that is given the time |
//! | `wheel` | the timing wheel, which contains keys only |
//! | `arena` | storage with stable indices that frees unused memory |
//! | `payloads` | small payloads, packed by size |
//! | `now` | one reading of both clocks, and the comparison of their times |
//! | `operations` | changes with operation ids, which may be repeated |

mod arena;
mod backend;
mod config;
mod notify;
mod now;
mod operations;
mod ops;
mod payloads;
mod queues;
mod room;
mod store;
mod sync;
mod wheel;

pub use backend::MemoryBackend;
pub use config::MemoryConfig;
