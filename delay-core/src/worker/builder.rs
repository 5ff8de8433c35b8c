//! The builder of a worker.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::handler::Handler;
use super::idle::Idle;
use super::lane::Lane;
use super::outcome::HandlerOutcome;
use super::report::Counts;
use super::run::Worker;
use super::shared::Shared;
use crate::client::line::Line;
use crate::consume::LEASE_DEFAULT;
use crate::{Error, ErrorKind, Queue, Result, RetryPolicy, SubscriptionOptions};

/// Maximum number of handlers that run at once.
const CONCURRENCY_MAX: usize = 100_000;
const CONCURRENCY_DEFAULT: usize = 16;
const SHUTDOWN_DEADLINE_DEFAULT: Duration = Duration::from_secs(25);

impl Worker {
    /// Starts to build a worker.
    pub fn builder() -> WorkerBuilder {
        WorkerBuilder::new()
    }
}

/// Builder of a [`Worker`]. Made by [`Worker::builder`].
#[must_use = "a worker is made by `build`"]
pub struct WorkerBuilder {
    lanes: Vec<LaneSpec>,
    concurrency: usize,
    lease: Duration,
    retry: RetryPolicy,
    shutdown: CancellationToken,
    shutdown_deadline: Duration,
    until_empty: bool,
    fail_fast: bool,
    options: SubscriptionOptions,
}

struct LaneSpec {
    line: Arc<Line>,
    handler: Handler,
}

impl WorkerBuilder {
    fn new() -> Self {
        Self {
            lanes: Vec::new(),
            concurrency: CONCURRENCY_DEFAULT,
            lease: LEASE_DEFAULT,
            retry: RetryPolicy::default(),
            shutdown: CancellationToken::new(),
            shutdown_deadline: SHUTDOWN_DEADLINE_DEFAULT,
            until_empty: false,
            fail_fast: false,
            options: SubscriptionOptions::default(),
        }
    }

    /// Adds a queue. For each of its tasks, the worker spawns a task that calls `handler`. May be called for several
    /// queues, also on several backends.
    pub fn queue<T, H, F>(mut self, queue: &Queue<T>, handler: H) -> Self
    where
        T: Send + 'static,
        H: Fn(T, Context) -> F + Send + Sync + 'static,
        F: Future<Output: Into<HandlerOutcome>> + Send + 'static,
    {
        let handler = Handler::one(queue.clone(), handler);
        self.lanes.push(LaneSpec { line: queue.line().clone(), handler });
        self
    }

    /// Adds a queue whose tasks are handled in batches. Each call of `handler` gets the tasks that are due, at most
    /// `max` and [`Capabilities::batch_max`](crate::Capabilities), and takes one slot of the worker's concurrency.
    ///
    /// The handler returns one outcome for each task, in order. A task without an outcome is retried.
    pub fn queue_batch<T, H, F>(mut self, queue: &Queue<T>, max: usize, handler: H) -> Self
    where
        T: Send + 'static,
        H: Fn(Vec<(T, Context)>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<HandlerOutcome>> + Send + 'static,
    {
        let handler = Handler::many(queue.clone(), max, handler);
        self.lanes.push(LaneSpec { line: queue.line().clone(), handler });
        self
    }

    /// Maximum number of handlers that run at once, over all queues. Tasks are claimed only when there is a free slot
    /// for them. Default: 16. Range: 1 to 100,000.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers;
        self
    }

    /// Lease duration. While a handler runs, the worker renews the lease each time a third of it has passed. The
    /// duration is therefore how long a task waits if its worker dies. Default: 30 s. Range: 1 ms to
    /// [`Capabilities::lease_max`](crate::Capabilities).
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Retry policy for tasks whose attempt failed. Default: [`RetryPolicy::default`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Token that shuts the worker down when it is cancelled. Default: a token that is never cancelled.
    pub fn shutdown(mut self, token: CancellationToken) -> Self {
        self.shutdown = token;
        self
    }

    /// Time that handlers may continue after the shutdown began. After it, the worker stops the handlers that still
    /// run, and gives their tasks back, for which it takes at most 2 s more. Default: 25 s.
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Self {
        self.shutdown_deadline = deadline;
        self
    }

    /// Whether the worker ends when nothing is left: no handler runs, and no queue has a task that is due or scheduled.
    /// A paused queue counts as empty. A backend that can't count its tasks (`Capabilities::stats`) does not see its
    /// scheduled tasks; on such a backend, the worker ends when nothing is due. Default: `false`.
    pub fn until_empty(mut self, until_empty: bool) -> Self {
        self.until_empty = until_empty;
        self
    }

    /// Whether a refusal ends the worker at any time: `Denied`, `Incompatible`, `Config`, `Corrupt`. Default: `false`, so
    /// that only a queue's first claim does; later, the worker retries as in an outage, and its other queues continue.
    pub fn fail_fast(mut self, fail_fast: bool) -> Self {
        self.fail_fast = fail_fast;
        self
    }

    /// Name of the worker, shown where a store has a place for it. Default: none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.consumer = Some(name.into());
        self
    }

    /// Checks the settings and creates the worker. Nothing is sent before the worker runs.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for a worker without a queue, or a batch size of 0.
    /// [`OutOfRange`](ErrorKind::OutOfRange) for the concurrency, or for a lease duration that a backend does not
    /// support.
    pub fn build(self) -> Result<Worker> {
        if self.lanes.is_empty() {
            return Err(Error::new(ErrorKind::Config, "a worker needs a queue: call `queue` or `queue_batch`"));
        }
        if !(1..=CONCURRENCY_MAX).contains(&self.concurrency) {
            let message = format!("expected a concurrency of 1 to {CONCURRENCY_MAX}, got {}", self.concurrency);
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        for lane in &self.lanes {
            if matches!(lane.handler, Handler::Many { max: 0, .. }) {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("the batch size of `{}` is 0; expected 1 or more", lane.line.name),
                ));
            }
            lane.line.backend.capabilities().check_lease(self.lease)?;
        }
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(self.concurrency)),
            lease: self.lease,
            retry: self.retry,
            shutdown: self.shutdown.child_token(),
            give_up: CancellationToken::new(),
            counts: Counts::default(),
            idle: self.until_empty.then(|| Idle::new(self.lanes.len())),
        });
        let lane = |(number, spec): (usize, LaneSpec)| {
            let LaneSpec { line, handler } = spec;
            Arc::new(Lane { number, line, handler, registry: Arc::default(), shared: shared.clone() })
        };
        Ok(Worker {
            lanes: self.lanes.into_iter().enumerate().map(lane).collect(),
            shared,
            concurrency: u32::try_from(self.concurrency).unwrap_or(u32::MAX),
            shutdown_deadline: self.shutdown_deadline,
            fail_fast: self.fail_fast,
            options: self.options,
        })
    }
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("queues", &self.lanes.iter().map(|lane| &lane.line.name).collect::<Vec<_>>())
            .field("concurrency", &self.concurrency)
            .field("lease", &self.lease)
            .field("retry", &self.retry)
            .field("shutdown_deadline", &self.shutdown_deadline)
            .finish_non_exhaustive()
    }
}
