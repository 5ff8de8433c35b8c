//! What all queues of a worker share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::idle::Idle;
use super::report::Counts;
use crate::RetryPolicy;

/// What all queues of a worker share.
pub(super) struct Shared {
    /// One permit for each handler that may run at once. A permit is held until the handler's tasks are settled.
    pub(super) slots: Arc<Semaphore>,
    pub(super) lease: Duration,
    pub(super) retry: RetryPolicy,
    /// Tells the handlers that the worker is shutting down.
    pub(super) shutdown: CancellationToken,
    /// Cancels settlings that are still under way when their time is up.
    pub(super) give_up: CancellationToken,
    pub(super) counts: Counts,
    /// Set if the worker ends when nothing is left.
    pub(super) idle: Option<Idle>,
}
