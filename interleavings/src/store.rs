//! A memory backend that can be slow, as a server is, and that notes what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use delayline_core::{
    AdminOp, Capabilities, Change, Changed, Claim, Claimed, DeadLetterOp, DeadLetters, DelayBackend, Disposition,
    Lease, NewTask, Page, Queue, QueueName, QueueStats, Result, Scheduled, Select, Subscription, SubscriptionOptions,
    TaskId, TaskView, TestClock, Timestamp, async_trait, owned,
};
use delayline_memory::{MemoryBackend, MemoryConfig};
use tokio::sync::{Semaphore, watch};
use tokio::task::yield_now;

/// A memory backend on the clock of this execution.
pub fn memory() -> Arc<MemoryBackend> {
    let clock = TestClock::at(Timestamp::from_unix_millis(1_900_000_000_000));
    Arc::new(MemoryBackend::with_config(MemoryConfig::default().clock(Arc::new(clock)).seed(1)))
}

/// The queue of numbers that the scenarios use.
pub fn numbers(backend: Arc<dyn DelayBackend>) -> Queue<u32> {
    Queue::new(backend, "q").expect("a valid name")
}

/// Waits until nobody else can go on, timers aside.
pub async fn all_wait() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// The backend behind a way that takes steps in both directions; a claim under way is `owned`, as on a server.
#[derive(Debug)]
pub struct Remote {
    pub memory: Arc<MemoryBackend>,
    /// One permit is needed, and kept, by each call of `schedule`.
    pub gate: Semaphore,
    seen: Mutex<Seen>,
}

/// What arrived, in order.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The payloads of each call of `schedule`.
    pub scheduled: Vec<Vec<u32>>,
    /// The items of calls of `settle`, each with whether it took effect.
    pub settled: Vec<(Lease, Disposition, bool)>,
}

impl Remote {
    pub fn new() -> Arc<Self> {
        let remote = Self { memory: memory(), gate: Semaphore::new(1_000), seen: Mutex::default() };
        Arc::new(remote)
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("unpoisoned").clone()
    }

    fn note(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.seen.lock().expect("unpoisoned"));
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for Remote {
    fn capabilities(&self) -> &Capabilities {
        self.memory.capabilities()
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        let number = |task: &NewTask| serde_json::from_slice(&task.payload).expect("a number");
        self.note(|seen| seen.scheduled.push(tasks.iter().map(number).collect()));
        self.gate.acquire().await.expect("never closed").forget();
        yield_now().await;
        let answer = self.memory.schedule(queue, tasks).await;
        yield_now().await;
        answer
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        yield_now().await;
        let inner = Arc::new(tokio::sync::Mutex::new(self.memory.subscribe(queue, options).await?));
        let (memory, queue) = (self.memory.clone(), queue.clone());
        let (gives_back, given_back) = watch::channel(());
        Ok(Box::new(RemoteSubscription { inner, memory, queue, gives_back: Arc::new(gives_back), given_back }))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        yield_now().await;
        let asked = dispositions.clone();
        let answer = self.memory.settle(queue, dispositions).await;
        if let Ok(answers) = &answer {
            let items =
                asked.into_iter().zip(answers).map(|((lease, disposition), one)| (lease, disposition, one.is_ok()));
            self.note(|seen| seen.settled.extend(items));
        }
        yield_now().await;
        answer
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        yield_now().await;
        self.memory.extend(queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        yield_now().await;
        self.memory.change(queue, select, change).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        self.memory.find(queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        self.memory.list(queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.memory.dead_letters(queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.memory.stats(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.memory.queues().await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.memory.administer(queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        self.memory.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.memory.close().await
    }
}

#[derive(Debug)]
struct RemoteSubscription {
    inner: Arc<tokio::sync::Mutex<Box<dyn Subscription>>>,
    memory: Arc<MemoryBackend>,
    queue: QueueName,
    /// Rung once an orphan is back: the claim that took it may have heard of something in place of the next wait.
    gives_back: Arc<watch::Sender<()>>,
    given_back: watch::Receiver<()>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Subscription for RemoteSubscription {
    async fn claim(&mut self, claim: Claim) -> Result<Claimed> {
        self.given_back.borrow_and_update();
        let inner = self.inner.clone();
        let call = async move {
            yield_now().await;
            let claimed = inner.lock().await.claim(claim).await;
            yield_now().await;
            claimed
        };
        let (memory, queue, gives_back) = (self.memory.clone(), self.queue.clone(), self.gives_back.clone());
        let give_back = move |orphan: Claimed| async move {
            let all = orphan.deliveries.into_iter().map(|task| (task.lease, Disposition::Release)).collect();
            for answer in memory.settle(&queue, all).await.expect("an open backend") {
                answer.expect("a lease that nobody else has");
            }
            gives_back.send_replace(());
        };
        owned(call, give_back).await
    }

    async fn wait(&mut self, at_most: Duration) {
        tokio::select! {
            () = async { self.inner.lock().await.wait(at_most).await } => {}
            _ = self.given_back.changed() => {}
        }
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
