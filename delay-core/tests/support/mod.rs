//! What the tests of the caller's side share: a memory backend behind a probe that counts, fails, hangs and takes time.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use delayline_core::{
    AdminOp, Capabilities, Change, Changed, Claim, Claimed, DeadLetterOp, DeadLetters, DelayBackend, Disposition,
    Error, ErrorKind, Lease, NewTask, Page, Queue, QueueName, QueueStats, Result, Scheduled, Select, Subscription,
    SubscriptionOptions, TaskId, TaskView, async_trait,
};
use delayline_memory::MemoryBackend;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub const SECOND: Duration = Duration::from_secs(1);
pub const DAY: Duration = Duration::from_secs(86_400);

/// What is done to one call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Fails, and has no effect.
    Fail(ErrorKind),
    /// Takes effect, and then its answer is lost.
    Lost(ErrorKind),
    /// Each item fails, and has no effect.
    FailItems(ErrorKind),
    /// Never answers, and has no effect.
    Hang,
    /// Waits for a permit, then goes on.
    Gate(Arc<Semaphore>),
    Panic,
}

/// One method of the backend: what is to be done to its calls, and how it was called.
#[derive(Debug, Default)]
pub struct Method {
    planned: Mutex<VecDeque<Fault>>,
    always: Mutex<Option<Fault>>,
    latency: Mutex<Duration>,
    batches: Mutex<Vec<usize>>,
    pub under_way: AtomicUsize,
}

impl Method {
    /// The next calls, one after the other.
    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.planned.lock().extend(faults);
    }

    /// All calls from now on that have no plan.
    pub fn always(&self, fault: Option<Fault>) {
        *self.always.lock() = fault;
    }

    /// How long each call takes before it reaches the store.
    pub fn takes(&self, latency: Duration) {
        *self.latency.lock() = latency;
    }

    pub fn calls(&self) -> usize {
        self.batches.lock().len()
    }

    /// The number of items in each call so far.
    pub fn batches(&self) -> Vec<usize> {
        self.batches.lock().clone()
    }

    async fn pass(&self, items: usize) -> Result<Option<Fault>> {
        self.batches.lock().push(items);
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let _gone = Gone(&self.under_way);
        let latency = *self.latency.lock();
        if latency > Duration::ZERO {
            tokio::time::sleep(latency).await;
        }
        let fault = self.planned.lock().pop_front().or_else(|| self.always.lock().clone());
        match fault {
            Some(Fault::Fail(kind)) => Err(Error::new(kind, "as planned")),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Panic) => panic!("as planned"),
            Some(Fault::Gate(gate)) => {
                gate.acquire().await.expect("an open gate").forget();
                Ok(None)
            }
            other => Ok(other),
        }
    }
}

struct Gone<'a>(&'a AtomicUsize);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn after<T>(fault: Option<Fault>, answer: Result<Vec<Result<T>>>) -> Result<Vec<Result<T>>> {
    match fault {
        Some(Fault::Lost(kind)) => Err(Error::new(kind, "lost, as planned")),
        Some(Fault::FailItems(kind)) => {
            answer.map(|items| items.into_iter().map(|_| Err(Error::new(kind, "an item, as planned"))).collect())
        }
        _ => answer,
    }
}

#[derive(Debug, Default)]
pub struct Methods {
    pub schedule: Method,
    pub settle: Method,
    pub extend: Method,
    pub change: Method,
    pub subscription: Method,
    pub claim: Method,
    pub wait: Method,
    /// Subscriptions that are open.
    pub subscriptions: AtomicUsize,
}

/// A memory backend whose calls can be watched and disturbed.
#[derive(Debug)]
pub struct Probe {
    inner: MemoryBackend,
    caps: Capabilities,
    pub on: Arc<Methods>,
}

impl Probe {
    pub fn new() -> Arc<Self> {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Capabilities)) -> Arc<Self> {
        let inner = MemoryBackend::new();
        let mut caps = inner.capabilities().clone();
        change(&mut caps);
        Arc::new(Self { inner, caps, on: Arc::default() })
    }

    pub fn queue(self: &Arc<Self>, name: &str) -> Queue<u32> {
        Queue::new(self.clone(), name).unwrap()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for Probe {
    fn capabilities(&self) -> &Capabilities {
        &self.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.caps.check_batch(tasks.len())?;
        let fault = self.on.schedule.pass(tasks.len()).await?;
        let tasks = if matches!(fault, Some(Fault::FailItems(_))) {
            return after(fault, Ok(tasks.iter().map(|_| Err(Error::lease_lost())).collect()));
        } else {
            tasks
        };
        after(fault, self.inner.schedule(queue, tasks).await)
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        self.on.subscription.pass(1).await?;
        let inner = self.inner.subscribe(queue, options).await?;
        self.on.subscriptions.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(ProbedSubscription { inner: Some(inner), on: self.on.clone() }))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        self.caps.check_batch(dispositions.len())?;
        let fault = self.on.settle.pass(dispositions.len()).await?;
        if matches!(fault, Some(Fault::FailItems(_))) {
            return after(fault, Ok(dispositions.iter().map(|_| Ok(())).collect()));
        }
        after(fault, self.inner.settle(queue, dispositions).await)
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        let fault = self.on.extend.pass(leases.len()).await?;
        after(fault, self.inner.extend(queue, leases, by).await)
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        let tasks = if let Select::Tasks(tasks) = &select { tasks.len() } else { 0 };
        self.caps.check_batch(tasks)?;
        match self.on.change.pass(tasks).await? {
            Some(Fault::Lost(kind)) => {
                self.inner.change(queue, select, change).await?;
                Err(Error::new(kind, "lost, as planned"))
            }
            _ => self.inner.change(queue, select, change).await,
        }
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        self.inner.find(queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        self.inner.list(queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.inner.dead_letters(queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.inner.stats(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.inner.queues().await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.inner.administer(queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[derive(Debug)]
struct ProbedSubscription {
    inner: Option<Box<dyn Subscription>>,
    on: Arc<Methods>,
}

impl ProbedSubscription {
    fn inner(&mut self) -> &mut Box<dyn Subscription> {
        self.inner.as_mut().expect("a subscription that is not closed")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Subscription for ProbedSubscription {
    async fn claim(&mut self, claim: Claim) -> Result<Claimed> {
        self.on.clone().claim.pass(claim.max).await?;
        self.inner().claim(claim).await
    }

    async fn wait(&mut self, at_most: Duration) {
        if self.on.clone().wait.pass(0).await.is_ok() {
            self.inner().wait(at_most).await;
        }
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        match self.inner.take() {
            Some(inner) => inner.close().await,
            None => Ok(()),
        }
    }
}

impl Drop for ProbedSubscription {
    fn drop(&mut self) {
        self.on.subscriptions.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Schedules numbers, due now.
pub async fn fill(queue: &Queue<u32>, numbers: impl IntoIterator<Item = u32>) {
    let tasks = numbers.into_iter().map(delayline_core::Task::new);
    for answer in queue.schedule_all(tasks).await.unwrap() {
        answer.unwrap();
    }
}

/// Lets every task of a runtime of one thread run until it waits.
pub async fn settle_down() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
