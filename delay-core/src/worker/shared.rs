//! What the queues of a worker have in common.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::idle::Idle;
use super::report::Counts;
use crate::RetryPolicy;

/// What the queues of a worker share.
pub(super) struct Shared {
    /// One for each handler that may run at once; held until its tasks are settled.
    pub(super) slots: Arc<Semaphore>,
    pub(super) lease: Duration,
    pub(super) retry: RetryPolicy,
    /// Tells the handlers that the worker shuts down.
    pub(super) shutdown: CancellationToken,
    /// Ends what is still settling when the time for that is up.
    pub(super) give_up: CancellationToken,
    pub(super) counts: Counts,
    /// Where the worker is to end when nothing is left.
    pub(super) idle: Option<Idle>,
}
