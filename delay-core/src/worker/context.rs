//! What a handler knows of its task beside the payload.

use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::client::line::Line;
use crate::consume::received::received_getters;
use crate::meter::Flight;
use crate::{ClaimedTask, Lease};

/// One task in a worker's hands, and how things stand with it.
///
/// Its lease is extended automatically for as long as the handler runs. Three tokens tell a handler that it may stop:
///
/// ```
/// # use delayline_core::{Context, HandlerOutcome};
/// # async fn next_page() -> bool { true }
/// async fn export(exam: String, context: Context) -> HandlerOutcome {
///     while next_page().await {
///         if context.cancelled().is_cancelled() || context.lost().is_cancelled() {
///             return HandlerOutcome::Complete; // nobody waits for the result any more
///         }
///         if context.shutdown().is_cancelled() {
///             return HandlerOutcome::retry("the worker shuts down"); // or finish within the deadline
///         }
///     }
///     HandlerOutcome::Complete
/// }
/// ```
#[derive(Clone)]
pub struct Context {
    in_flight: Arc<InFlight>,
}

impl Context {
    pub(super) fn new(in_flight: Arc<InFlight>) -> Self {
        Self { in_flight }
    }

    received_getters!();

    /// The lease as it was last given or extended.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.in_flight.current_lease().lease
    }

    /// Cancelled when the lease was lost, or ended because it could not be extended: the task may be running elsewhere,
    /// and what this handler returns will most likely count no more.
    #[must_use]
    pub fn lost(&self) -> &CancellationToken {
        self.in_flight.lost.token()
    }

    /// Cancelled when an extension of the lease learnt that the task was cancelled: it is not delivered again, whatever
    /// the handler returns.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        self.in_flight.cancelled.token()
    }

    /// Cancelled when the worker shuts down: the handler may go on until the shutdown deadline.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.in_flight.shared.shutdown
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
    pub(super) shared: Arc<Shared>,
    /// As it was claimed, without its payload.
    pub(super) task: ClaimedTask,
    pub(super) lease: Mutex<CurrentLease>,
    lost: Signal,
    cancelled: Signal,
    _flight: Flight,
}

/// A lease, and when it ends on this process's clock, at the earliest.
#[derive(Clone)]
pub(super) struct CurrentLease {
    pub(super) lease: Lease,
    pub(super) ends: Instant,
}

impl InFlight {
    pub(super) fn new(line: Arc<Line>, shared: Arc<Shared>, task: ClaimedTask, ends: Instant) -> Self {
        let lease = Mutex::new(CurrentLease { lease: task.lease.clone(), ends });
        let _flight = Flight::new(line.name.as_str());
        Self { line, shared, task, lease, lost: Signal::default(), cancelled: Signal::default(), _flight }
    }

    pub(super) fn current_lease(&self) -> CurrentLease {
        self.lease.lock().clone()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.0.get().is_some_and(CancellationToken::is_cancelled)
    }

    pub(super) fn tell_lost(&self) {
        self.lost.token().cancel();
    }

    pub(super) fn tell_cancelled(&self) {
        self.cancelled.token().cancel();
    }
}

/// A token that is made when it is first asked for: most handlers never do.
#[derive(Default)]
struct Signal(OnceLock<CancellationToken>);

impl Signal {
    fn token(&self) -> &CancellationToken {
        self.0.get_or_init(CancellationToken::new)
    }
}
