//! A running worker: starts the loops of its queues, and ends them at shutdown or when it is dropped.

use std::fmt;
use std::future::Future;
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
use crate::{Disposition, ErrorKind, Result, SubscriptionOptions};

/// Time that stopped handlers may take to end; after that, the same time again for giving their tasks back.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Runs a handler for each due task of one or more queues.
///
/// - At most [`concurrency`](super::WorkerBuilder::concurrency) handlers run at once, each in its own spawned task. A
///   slow handler delays no other task, as long as a slot is free. The task of a handler that panics is retried. No
///   task is claimed before there is a free slot for it.
/// - While a handler runs, the worker renews the lease. [`Context`](super::Context) tells the handler if the lease is
///   lost or the task was cancelled.
/// - While a store can't be reached, or refuses what it answered before, the worker retries by itself. Other queues
///   continue.
/// - At shutdown, the worker claims no more tasks and lets handlers finish until the deadline. Then it stops them and
///   gives their tasks back.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use delayline_core::{Context, DelayBackend, Queue, Result, Worker};
/// # async fn example(backend: Arc<dyn DelayBackend>) -> Result<()> {
/// let exams = Queue::<String>::new(backend, "exams")?;
/// let stop = delayline_core::CancellationToken::new(); // cancelled on ctrl-c, say
/// let worker = Worker::builder()
///     .queue(&exams, |exam: String, context: Context| async move {
///         println!("submitting {exam}, {:?} late", context.lateness());
///         std::fs::write(exam, "done") // an `Err` is retried
///     })
///     .concurrency(64)
///     .shutdown(stop)
///     .build()?;
/// let report = worker.run().await?;
/// println!("{} completed", report.completed);
/// # Ok(()) }
/// ```
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) shared: Arc<Shared>,
    pub(super) concurrency: u32,
    pub(super) shutdown_deadline: Duration,
    pub(super) fail_fast: bool,
    pub(super) options: SubscriptionOptions,
}

impl Worker {
    /// Runs until it is shut down or, with [`until_empty`](super::WorkerBuilder::until_empty), until nothing is left.
    ///
    /// # Errors
    /// A refusal of a queue's first claim, such as [`Denied`](crate::ErrorKind::Denied); the error names the queue. A
    /// refusal later counts as an outage, unless [`fail_fast`](super::WorkerBuilder::fail_fast) is set.
    /// [`Closed`](crate::ErrorKind::Closed) once the backends of all queues are closed; with `until_empty`, once one is.
    /// The worker has then shut down in the same way.
    ///
    /// # Cancel safety
    /// If the call is dropped, the worker claims no more tasks, stops its handlers, and gives their tasks back in the
    /// background.
    pub async fn run(self) -> Result<WorkerReport> {
        let run = Run::start(self);
        let (ended, fetchers) = run.pump().await;
        // Concurrently, so that the deadline counts from the beginning of the shutdown.
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

/// A running worker. Dropping it stops everything that it spawned.
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

    /// Claims tasks and starts handlers, until the worker is to end.
    async fn pump(&self) -> (Result<()>, Vec<Fetcher>) {
        let Worker { lanes, shared, options, fail_fast, .. } = &self.worker;
        let fetcher = |lane: &Arc<Lane>| Fetcher::new(lane.line.clone(), options.clone(), *fail_fast);
        let mut fetchers: Vec<_> = lanes.iter().map(fetcher).collect();
        let ended = {
            let pump = |(lane, fetcher)| async move { (lane, Lane::pump(lane, fetcher).await) };
            let pumps: FuturesUnordered<_> = lanes.iter().zip(&mut fetchers).map(pump).collect();
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
                ended = first_to_end(pumps, lanes, shared.idle.is_some()) => ended,
            }
            // Claims that are under way are dropped here, which gives their tasks back.
        };
        // Also if it ends for another reason: no more handlers may start, and running ones must be told.
        shared.shutdown.cancel();
        (ended, fetchers)
    }

    /// Lets handlers finish until the deadline, then stops them and gives their tasks back.
    async fn finish(&self) {
        let Worker { shared, shutdown_deadline, .. } = &self.worker;
        if !self.all_ended_within(*shutdown_deadline).await {
            if let Some(given_back) = self.stop() {
                // This fails only when the runtime shuts down.
                let _ = given_back.await;
            }
            // Settlings that are still under way had the same time.
            shared.give_up.cancel();
        }
    }

    async fn all_ended_within(&self, patience: Duration) -> bool {
        timeout(patience, self.worker.shared.slots.acquire_many(self.worker.concurrency)).await.is_ok()
    }

    /// Stops all handlers, and gives their tasks back in the background. That takes at most twice `STOP_PATIENCE`.
    fn stop(&self) -> Option<JoinHandle<()>> {
        let lanes = &self.worker.lanes;
        let stopped: Vec<_> = lanes.iter().map(|lane| (lane.clone(), lane.registry.stop_all())).collect();
        let (slots, concurrency) = (self.worker.shared.slots.clone(), self.worker.concurrency);
        // The slots alone do not tell: a handler that was stopped may have released its slot by now.
        let nothing_stopped = stopped.iter().all(|(_, tasks)| tasks.is_empty());
        if nothing_stopped && slots.available_permits() == concurrency as usize {
            return None;
        }
        Some(self.runtime.spawn(async move {
            // Wait for the last handler: a slot is free only after its handler was dropped.
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

/// Waits for what ends the worker: an error of one queue, or that the backends of all queues are closed. A closed backend
/// leaves the queues of other backends alone, unless the worker waits for all of them to be empty.
async fn first_to_end<'l, P>(mut pumps: FuturesUnordered<P>, lanes: &'l [Arc<Lane>], until_empty: bool) -> Result<()>
where
    P: Future<Output = (&'l Arc<Lane>, Result<()>)>,
{
    let mut closed: Vec<&Arc<Lane>> = Vec::new();
    while let Some((lane, ended)) = pumps.next().await {
        let e = match ended {
            Err(e) if e.kind() == ErrorKind::Closed && !until_empty => e,
            ended => return ended,
        };
        closed.push(lane);
        let same = |lane: &Arc<Lane>, other: &Arc<Lane>| Arc::ptr_eq(&lane.line.backend, &other.line.backend);
        // Not only those that have noticed it: a queue whose handlers take all slots does not claim.
        if lanes.iter().all(|lane| closed.iter().any(|of| same(lane, of))) {
            return Err(e);
        }
        tracing::warn!(queue = %lane.line.name, error = %e, "the queue has ended; those of other backends continue");
    }
    std::future::pending().await
}

/// Closes subscriptions. Those that take too long are dropped.
async fn close(fetchers: Vec<Fetcher>) {
    let closed = timeout(STOP_PATIENCE, join_all(fetchers.into_iter().map(Fetcher::close))).await;
    for e in closed.into_iter().flatten().filter_map(Result::err) {
        tracing::debug!(error = %e, "could not close a subscription");
    }
}

/// Releases the tasks of stopped handlers. A handler that is still running because it does not yield keeps its task
/// until the lease ends: if the task were given back now, it would run twice at once.
async fn give_back(stopped: Vec<(Arc<Lane>, Vec<Stopped>)>, all_ended: bool) {
    let release = |(lane, tasks): (Arc<Lane>, Vec<Stopped>)| async move {
        // The runtime reports that a task has ended a moment after it was dropped, so ask only if some have not ended.
        let ended = |task: &Stopped| all_ended || task.has_ended();
        let (ended, running): (Vec<_>, Vec<_>) = tasks.into_iter().partition(ended);
        if !running.is_empty() {
            tracing::warn!(queue = %lane.line.name, count = running.len(), "could not stop handlers that do not yield");
        }
        let dispositions = ended.into_iter().map(|task| (task.lease.lease, Disposition::Release)).collect();
        for answer in lane.line.settle(dispositions).await {
            match answer {
                Ok(()) => {
                    meter::count(lane.line.name.as_str(), Event::Released, 1);
                    one_more(&lane.shared.counts.released);
                }
                Err(e) => tracing::warn!(queue = %lane.line.name, error = %e, "could not give a task back"),
            }
        }
    };
    join_all(stopped.into_iter().map(release)).await;
}
