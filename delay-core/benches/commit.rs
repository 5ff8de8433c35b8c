//! What group commit gains on a store that takes a millisecond, and what it costs on one that takes none; and how many
//! tasks a second a worker runs. Each figure stands beside the bare thing in the same run.
//!
//! `cargo bench -p delayline-core --bench commit [-- slow|lone|many|worker]`

#![allow(clippy::unwrap_used, reason = "a program to measure with")]

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    AdminOp, Bytes, Capabilities, Change, Changed, DeadLetterOp, DeadLetters, DelayBackend, Disposition, Lease,
    NewTask, Page, Queue, QueueName, QueueStats, Raw, Result, Scheduled, Select, Subscription, SubscriptionOptions,
    Task, TaskId, TaskView, Worker, async_trait,
};
use delayline_memory::MemoryBackend;
use tokio::time::Instant;

fn main() {
    let one = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let two = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |part: &str| asked.is_empty() || asked.iter().any(|arg| arg == part);

    if wanted("slow") {
        println!("slow: a store whose every call takes 1 ms and more, calls a second");
        for (callers, each) in [(1, 400), (64, 400), (512, 200)] {
            let joined = two.block_on(calls(queue(Arc::new(Slow(MemoryBackend::new()))), callers, each));
            println!("  {callers:>4} callers: {joined:>9.0}");
        }
    }
    if wanted("lone") {
        println!("lone: memory, one call after the other, ns a call");
        for _ in 0..ROUNDS {
            let bare = 1e9 / one.block_on(bare_calls(Arc::new(MemoryBackend::new()), 1, 300_000));
            let joined = 1e9 / one.block_on(calls(queue(Arc::new(MemoryBackend::new())), 1, 300_000));
            println!("  bare {bare:>5.0}, Queue::schedule {joined:>5.0}");
        }
    }
    if wanted("many") {
        println!("many: memory, 64 callers on two threads, calls a second");
        for _ in 0..ROUNDS {
            let bare = two.block_on(bare_calls(Arc::new(MemoryBackend::new()), 64, 10_000));
            let joined = two.block_on(calls(queue(Arc::new(MemoryBackend::new())), 64, 10_000));
            println!("  bare {bare:>9.0}, Queue::schedule {joined:>9.0}");
        }
    }
    if wanted("worker") {
        println!("worker: memory, handlers that do nothing, tasks a second");
        for concurrency in [1, 16, 256, 2_048] {
            let one = one.block_on(worked(concurrency, 200_000));
            let two = two.block_on(worked(concurrency, 200_000));
            println!("  concurrency {concurrency:>4}: one thread {one:>9.0}, two threads {two:>9.0}");
        }
        let batches = two.block_on(worked_in_batches(512, 4, 1_000_000));
        println!("  batches of 512, concurrency 4: two threads {batches:>9.0}");
    }
}

const ROUNDS: usize = 5;

fn queue(backend: Arc<dyn DelayBackend>) -> Queue<Bytes> {
    Queue::with_codec(backend, "q", Raw).unwrap()
}

/// A payload of 100 bytes, due in an hour.
fn payload() -> Bytes {
    Bytes::from_static(&[7; 100])
}

const HOUR: Duration = Duration::from_secs(3600);

async fn calls(queue: Queue<Bytes>, callers: u32, each: u32) -> f64 {
    let caller = |_| {
        let queue = queue.clone();
        async move {
            for _ in 0..each {
                queue.schedule(&payload()).after(HOUR).await.unwrap();
            }
        }
    };
    per_second(callers * each, (0..callers).map(caller)).await
}

async fn bare_calls(backend: Arc<dyn DelayBackend>, callers: u32, each: u32) -> f64 {
    let name = QueueName::new("q").unwrap();
    let caller = |_| {
        let (backend, name) = (backend.clone(), name.clone());
        async move {
            for _ in 0..each {
                tokio::task::consume_budget().await;
                backend.schedule(&name, vec![NewTask::new(HOUR, payload())]).await.unwrap().remove(0).unwrap();
            }
        }
    };
    per_second(callers * each, (0..callers).map(caller)).await
}

async fn per_second(count: u32, work: impl Iterator<Item = impl Future<Output = ()> + Send + 'static>) -> f64 {
    let began = Instant::now();
    for task in work.map(tokio::spawn).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

async fn full(tasks: u32) -> Queue<Bytes> {
    let queue = queue(Arc::new(MemoryBackend::new()));
    for answer in queue.schedule_all((0..tasks).map(|_| Task::new(payload()))).await.unwrap() {
        answer.unwrap();
    }
    queue
}

async fn worked(concurrency: usize, tasks: u32) -> f64 {
    let queue = full(tasks).await;
    let worker = Worker::builder().concurrency(concurrency).until_empty(true).queue(&queue, |_, _| async {});
    ran(worker.build().unwrap(), tasks).await
}

async fn worked_in_batches(max: usize, concurrency: usize, tasks: u32) -> f64 {
    let queue = full(tasks).await;
    let worker = Worker::builder().concurrency(concurrency).until_empty(true).queue_batch(&queue, max, |tasks| {
        let answers = tasks.iter().map(|_| ().into()).collect();
        std::future::ready(answers)
    });
    ran(worker.build().unwrap(), tasks).await
}

async fn ran(worker: Worker, tasks: u32) -> f64 {
    let began = Instant::now();
    assert_eq!(tokio::spawn(worker.run()).await.unwrap().unwrap().completed, u64::from(tasks));
    f64::from(tasks) / began.elapsed().as_secs_f64()
}

/// A store that takes its time.
#[derive(Debug)]
struct Slow(MemoryBackend);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for Slow {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.0.schedule(queue, tasks).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        self.0.subscribe(queue, options).await
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.0.settle(queue, dispositions).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.0.extend(queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        self.0.change(queue, select, change).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        self.0.find(queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        self.0.list(queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.0.dead_letters(queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.0.stats(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.0.queues().await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.0.administer(queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
