//! What a handler knows about its task, besides the payload.

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

/// The task that a handler runs: its data, its lease, and signals to stop.
///
/// The worker renews the lease for as long as the handler runs. Three tokens tell a handler that it may stop:
///
/// ```
/// # use std::time::Duration;
/// # use delayline_core::{Context, HandlerOutcome};
/// # async fn next_page() -> bool { true }
/// async fn export(exam: String, context: Context) -> HandlerOutcome {
///     while next_page().await {
///         if context.cancelled().is_cancelled() {
///             return HandlerOutcome::Complete; // nobody waits for the result any longer
///         }
///         if context.lost().is_cancelled() {
///             return HandlerOutcome::retry("the lease was lost"); // never `Complete`: nobody else may have finished it
///         }
///         if context.shutdown().is_cancelled() {
///             return HandlerOutcome::Snooze(Duration::ZERO); // costs no attempt; or finish before the deadline
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

    /// The lease, as it was last given or extended.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.in_flight.current_lease().lease
    }

    /// Token that is cancelled when the lease is lost, or has ended because it could not be extended. The task may then
    /// be running elsewhere, and the outcome of this handler most likely has no effect.
    #[must_use]
    pub fn lost(&self) -> &CancellationToken {
        self.in_flight.lost.token()
    }

    /// Token that is cancelled when an extension of the lease finds that the task was cancelled. The task is not
    /// delivered again, whatever the handler returns.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        self.in_flight.cancelled.token()
    }

    /// Token that is cancelled when the worker shuts down. The handler may continue until the shutdown deadline.
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
    /// The task without its payload.
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

/// A token that is created on first use: most handlers never use it.
#[derive(Default)]
struct Signal(OnceLock<CancellationToken>);

impl Signal {
    fn token(&self) -> &CancellationToken {
        self.0.get_or_init(CancellationToken::new)
    }
}
