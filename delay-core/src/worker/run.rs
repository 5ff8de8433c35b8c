//! A worker that runs: it starts the loops of its queues, and ends them in good order or when it is dropped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tracing::Instrument;

use super::keeper::Keeper;
use super::lane::Lane;
use super::registry::Stopped;
use super::report::{WorkerReport, one_more};
use super::shared::Shared;
use crate::consume::fetch::Fetcher;
use crate::meter::{self, Event};
use crate::{Disposition, Result, SubscriptionOptions};

/// How long handlers that were stopped may take to end, and then how long giving their tasks back may take.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Runs a handler for each task of one or more queues, when it is due.
///
/// - At most [`concurrency`](super::WorkerBuilder::concurrency) handlers run at once, each in a task of its own; a slow one
///   delays nobody, and one that panics is retried. No task is claimed before there is a slot for it.
/// - While a handler runs, its lease is extended; [`Context`](super::Context) tells it when the task was lost or cancelled.
/// - While a store can't be reached, it tries again by itself; other queues go on.
/// - On shutdown it claims no more, lets handlers finish until the deadline, then stops them and gives their tasks back.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use delayline_core::{Context, DelayBackend, Queue, Result, Worker};
/// # async fn example(backend: Arc<dyn DelayBackend>) -> Result<()> {
/// let exams = Queue::<String>::new(backend, "exams")?;
/// let stop = delayline_core::CancellationToken::new(); // cancelled on ctrl-c, say
/// let worker = Worker::builder()
///     .queue(&exams, |exam: String, context: Context| async move {
///         println!("handing in {exam}, {:?} late", context.lateness());
///         std::fs::write(exam, "done") // an `Err` is retried
///     })
///     .concurrency(64)
///     .shutdown(stop)
///     .build()?;
/// let report = worker.run().await?;
/// println!("{} scheduled", report.completed);
/// # Ok(()) }
/// ```
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) shared: Arc<Shared>,
    pub(super) concurrency: u32,
    pub(super) shutdown_deadline: Duration,
    pub(super) options: SubscriptionOptions,
}

impl Worker {
    /// Runs until it is shut down, or until nothing is left where it was told to end then.
    ///
    /// # Errors
    /// What will not pass, such as [`Closed`](crate::ErrorKind::Closed) or [`Denied`](crate::ErrorKind::Denied) from one
    /// of its backends; it has then shut down in the same way.
    ///
    /// # Cancel safety
    /// Dropped, it claims no more, stops its handlers and gives their tasks back in the background.
    pub async fn run(self) -> Result<WorkerReport> {
        let run = Run::start(self);
        let (ended, fetchers) = run.pump().await;
        // At the same time, so that the deadline counts from the beginning of the shutdown.
        join(close(fetchers), run.finish()).await;
        let report = run.worker.shared.counts.report();
        tracing::info!(?report, "the worker has ended");
        ended.map(|()| report)
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("queues", &self.lanes.iter().map(|lane| &lane.line.name).collect::<Vec<_>>())
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// A worker that runs. Dropped, it stops everything that it has spawned.
struct Run {
    worker: Worker,
    runtime: Handle,
    keepers: Vec<AbortHandle>,
}

impl Run {
    fn start(worker: Worker) -> Self {
        let keep = |lane: &Arc<Lane>| {
            let (line, registry) = (lane.line.clone(), lane.registry.clone());
            let keeper = Keeper { line, registry, lease: worker.shared.lease };
            tokio::spawn(keeper.run().in_current_span()).abort_handle()
        };
        let keepers = worker.lanes.iter().map(keep).collect();
        Self { worker, runtime: Handle::current(), keepers }
    }

    /// Fetches tasks and starts handlers, until that is to end.
    async fn pump(&self) -> (Result<()>, Vec<Fetcher>) {
        let Worker { lanes, shared, options, .. } = &self.worker;
        let mut fetchers: Vec<_> = lanes.iter().map(|lane| Fetcher::new(lane.line.clone(), options.clone())).collect();
        let ended = {
            let mut pumps: FuturesUnordered<_> =
                lanes.iter().zip(&mut fetchers).map(|(lane, fetcher)| lane.pump(fetcher)).collect();
            let nothing_left = async {
                match &shared.idle {
                    Some(idle) => idle.done.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shared.shutdown.cancelled() => Ok(()),
                () = nothing_left => Ok(()),
                Some(ended) = pumps.next() => ended,
            }
            // Claims under way are dropped here, which gives back what they took.
        };
        // Also where it ends for another reason: no handler is to be started, and those that run are to be told.
        shared.shutdown.cancel();
        (ended, fetchers)
    }

    /// Lets handlers finish until the deadline, then stops them and gives their tasks back.
    async fn finish(&self) {
        let Worker { shared, shutdown_deadline, .. } = &self.worker;
        if !self.all_ended_within(*shutdown_deadline).await {
            if let Some(given_back) = self.stop() {
                // It fails only when the runtime shuts down.
                let _ = given_back.await;
            }
            // What was settling had as long as that.
            shared.give_up.cancel();
        }
    }

    async fn all_ended_within(&self, patience: Duration) -> bool {
        timeout(patience, self.worker.shared.slots.acquire_many(self.worker.concurrency)).await.is_ok()
    }

    /// Stops all handlers, and gives back in the background what they worked on; that ends within twice the
    /// `STOP_PATIENCE`.
    fn stop(&self) -> Option<JoinHandle<()>> {
        let lanes = &self.worker.lanes;
        let stopped: Vec<_> = lanes.iter().map(|lane| (lane.clone(), lane.registry.stop_all())).collect();
        let (slots, concurrency) = (self.worker.shared.slots.clone(), self.worker.concurrency);
        // Not by the slots alone: a handler that was stopped may have let go of its slot by now.
        let nothing_stopped = stopped.iter().all(|(_, tasks)| tasks.is_empty());
        if nothing_stopped && slots.available_permits() == concurrency as usize {
            return None;
        }
        Some(self.runtime.spawn(async move {
            // Until the last handler has let go: its slot is free only after it was dropped.
            let all_ended = timeout(STOP_PATIENCE, slots.acquire_many(concurrency)).await.is_ok();
            let _ = timeout(STOP_PATIENCE, give_back(stopped, all_ended)).await;
        }))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.keepers.iter().for_each(AbortHandle::abort);
        self.worker.shared.shutdown.cancel();
        self.stop();
    }
}

/// Closes subscriptions in good order; what takes too long is only dropped.
async fn close(fetchers: Vec<Fetcher>) {
    let closed = timeout(STOP_PATIENCE, join_all(fetchers.into_iter().map(Fetcher::close))).await;
    for e in closed.into_iter().flatten().filter_map(Result::err) {
        tracing::debug!(error = %e, "a subscription could not be closed in good order");
    }
}

/// Releases tasks whose handlers were stopped. One that is still running, because it does not yield, keeps its task until
/// the lease ends: given back now, it would run twice at once.
async fn give_back(stopped: Vec<(Arc<Lane>, Vec<Stopped>)>, all_ended: bool) {
    let release = |(lane, tasks): (Arc<Lane>, Vec<Stopped>)| async move {
        // The runtime says that a task has ended a moment after it was dropped, so it is asked only where some have not.
        let ended = |task: &Stopped| all_ended || task.has_ended();
        let (ended, running): (Vec<_>, Vec<_>) = tasks.into_iter().partition(ended);
        if !running.is_empty() {
            tracing::warn!(queue = %lane.line.name, count = running.len(), "handlers that do not yield can't be stopped");
        }
        let dispositions = ended.into_iter().map(|task| (task.lease.lease, Disposition::Release)).collect();
        for answer in lane.line.settle(dispositions).await {
            match answer {
                Ok(()) => {
                    meter::count(lane.line.name.as_str(), Event::Released, 1);
                    one_more(&lane.shared.counts.released);
                }
                Err(e) => tracing::warn!(queue = %lane.line.name, error = %e, "a task could not be given back"),
            }
        }
    };
    join_all(stopped.into_iter().map(release)).await;
}
