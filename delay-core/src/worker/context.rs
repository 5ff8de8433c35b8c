//! What a handler knows of its task beside the payload.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consume::received::received_getters;
use crate::queue::line::Line;
use crate::{ClaimedTask, Lease};

/// One task in a worker's hands, and how things stand with it.
///
/// Its lease is extended automatically for as long as the handler runs. Three tokens tell a handler that it may stop:
///
/// ```
/// # use delayline_core::{Context, Handled};
/// # async fn next_page() -> bool { true }
/// async fn export(exam: String, context: Context) -> Handled {
///     while next_page().await {
///         if context.cancelled().is_cancelled() || context.lost().is_cancelled() {
///             return Handled::Complete; // nobody waits for the result any more
///         }
///         if context.shutdown().is_cancelled() {
///             return Handled::retry("the worker shuts down"); // or finish within the deadline
///         }
///     }
///     Handled::Complete
/// }
/// ```
#[derive(Clone)]
pub struct Context {
    in_flight: Arc<InFlight>,
    shutdown: CancellationToken,
}

impl Context {
    pub(super) fn new(in_flight: Arc<InFlight>, shutdown: CancellationToken) -> Self {
        Self { in_flight, shutdown }
    }

    received_getters!();

    /// The lease as it was last given or extended.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.in_flight.lease.lock().lease.clone()
    }

    /// Cancelled when the lease was lost, or ended because it could not be extended: the task may be running elsewhere,
    /// and what this handler returns will most likely count no more.
    #[must_use]
    pub fn lost(&self) -> &CancellationToken {
        &self.in_flight.lost
    }

    /// Cancelled when an extension of the lease learnt that the task was cancelled: it is not delivered again, whatever
    /// the handler returns.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.in_flight.cancelled
    }

    /// Cancelled when the worker shuts down: the handler may go on until the shutdown deadline.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    fn task(&self) -> &ClaimedTask {
        &self.in_flight.task
    }

    fn line(&self) -> &Line {
        &self.in_flight.line
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("queue", self.queue())
            .field("lease", &self.lease())
            .field("due_at", &self.due_at())
            .finish_non_exhaustive()
    }
}

/// A claimed task while its handler runs.
pub(super) struct InFlight {
    pub(super) line: Arc<Line>,
    /// As it was claimed, without its payload.
    pub(super) task: ClaimedTask,
    pub(super) lease: Mutex<CurrentLease>,
    pub(super) lost: CancellationToken,
    pub(super) cancelled: CancellationToken,
}

/// A lease, and when it ends on this process's clock, at the earliest.
#[derive(Clone)]
pub(super) struct CurrentLease {
    pub(super) lease: Lease,
    pub(super) ends: Instant,
}

impl InFlight {
    pub(super) fn new(line: Arc<Line>, task: ClaimedTask, ends: Instant) -> Self {
        let lease = Mutex::new(CurrentLease { lease: task.lease.clone(), ends });
        Self { line, task, lease, lost: CancellationToken::new(), cancelled: CancellationToken::new() }
    }
}
