//! Describing a worker.

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

/// Handlers that may run at once, at most.
const CONCURRENCY_MAX: usize = 100_000;
const CONCURRENCY_DEFAULT: usize = 16;
const SHUTDOWN_DEADLINE_DEFAULT: Duration = Duration::from_secs(25);

impl Worker {
    /// Begins to describe one.
    pub fn builder() -> WorkerBuilder {
        WorkerBuilder::new()
    }
}

/// How a worker is to be. Made by [`Worker::builder`].
#[must_use = "a worker is made by `build`"]
pub struct WorkerBuilder {
    lanes: Vec<LaneSpec>,
    concurrency: usize,
    lease: Duration,
    retry: RetryPolicy,
    shutdown: CancellationToken,
    shutdown_deadline: Duration,
    until_empty: bool,
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
            options: SubscriptionOptions::default(),
        }
    }

    /// Runs the tasks of a queue, each by a call of `handler` in a task of its own. May be called for several queues,
    /// also on several backends.
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

    /// Runs the tasks of a queue, as many as are due by one call of `handler`, at most `max` and
    /// [`Capabilities::batch_max`](crate::Capabilities). A call takes one slot of the worker's concurrency.
    ///
    /// The handler returns one answer for each task, in order; a task without one is retried.
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

    /// How many handlers may run at once, over all queues: 1 to 100,000, 16 unless told. Tasks are claimed only when
    /// there is a free slot for them.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers;
        self
    }

    /// How long a task is the worker's: 1 ms to [`Capabilities::lease_max`](crate::Capabilities), 30 s unless told. It is
    /// extended for as long as the handler runs, each time a third of it has passed; so this is how long a task waits
    /// when its worker dies.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// When a task that failed is tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Shuts the worker down when this is cancelled.
    pub fn shutdown(mut self, token: CancellationToken) -> Self {
        self.shutdown = token;
        self
    }

    /// How long handlers may go on after the shutdown began, 25 s unless told. What is unfinished then is given back, for
    /// which at most 2 s more are taken.
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Self {
        self.shutdown_deadline = deadline;
        self
    }

    /// Whether the worker ends when nothing is left: no handler runs, and no queue has a task that is due or will be. A
    /// paused queue counts as empty. A backend that can't count its tasks (`Capabilities::stats`) does not see those that
    /// will be due: on one, the worker ends when nothing is due.
    pub fn until_empty(mut self, until_empty: bool) -> Self {
        self.until_empty = until_empty;
        self
    }

    /// A name, shown where a store can show one.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.consumer = Some(name.into());
        self
    }

    /// Checks the description. Nothing is sent before the worker runs.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for a worker without a queue or a batch of 0;
    /// [`OutOfRange`](ErrorKind::OutOfRange) for the concurrency, or a lease that a backend can't give.
    pub fn build(self) -> Result<Worker> {
        if self.lanes.is_empty() {
            return Err(Error::new(ErrorKind::Config, "a worker needs a queue"));
        }
        if !(1..=CONCURRENCY_MAX).contains(&self.concurrency) {
            let message = format!("a concurrency of {}; 1 to {CONCURRENCY_MAX} are possible", self.concurrency);
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        for lane in &self.lanes {
            if matches!(lane.handler, Handler::Many { max: 0, .. }) {
                return Err(Error::new(ErrorKind::Config, format!("a batch of 0 tasks of `{}`", lane.line.name)));
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
