//! Running handlers for due tasks, from several queues and with bounded concurrency; renewing leases; shutting down.
//!
//! Responsibilities
//! - [`pump`]: one loop for each queue, inside [`Worker::run`] itself, claims tasks and spawns their handlers.
//! - [`work`]: the spawned task runs the handler, then settles its task. It holds one slot until that is done.
//! - [`registry`]: decides who settles a task: the spawned task or the shutdown. The keeper never does.
//! - [`keeper`]: one spawned task for each queue extends leases.
//! - [`run`]: owns all of these, and ends them at shutdown or when [`Worker::run`] is dropped.
//!
//! They share [`lane`], one queue of a worker, and [`shared`], which all its queues have in common.

mod builder;
mod context;
mod handler;
mod idle;
mod keeper;
mod lane;
mod outcome;
mod pump;
mod registry;
mod report;
mod run;
mod shared;
mod work;

pub use self::builder::WorkerBuilder;
pub use self::context::Context;
pub use self::outcome::HandlerOutcome;
pub use self::report::WorkerReport;
pub use self::run::Worker;
