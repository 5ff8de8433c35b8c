//! What a worker costs: `cargo bench -p delayline-core --bench worker`.
//!
//! A million tasks that are due now, a handler that does nothing, 64 at once, on the memory backend and two threads:
//! tasks a second, and allocations for each task. Beside it the bare thing: the same tasks claimed and completed through
//! the trait in batches of 64, with no worker.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use delayline_core::{
    Bytes, Claim, DelayBackend, Disposition, NewTask, Queue, QueueName, Raw, SubscriptionOptions, Worker,
};
use delayline_memory::MemoryBackend;

struct Counting(AtomicU64);

// SAFETY: every call is passed on to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting(AtomicU64::new(0));

const TASKS: u64 = 1_000_000;
const CONCURRENCY: usize = 64;
const RUNS: usize = 5;

async fn filled(name: &QueueName) -> Arc<dyn DelayBackend> {
    let backend: Arc<dyn DelayBackend> = Arc::new(MemoryBackend::new());
    for _ in 0..TASKS / 10_000 {
        let batch = (0..10_000).map(|_| NewTask::new(Duration::ZERO, Bytes::from_static(b"candidate"))).collect();
        assert!(backend.schedule(name, batch).await.unwrap().iter().all(Result::is_ok));
    }
    backend
}

async fn by_worker(backend: Arc<dyn DelayBackend>, name: &QueueName) {
    let queue = Queue::with_codec(backend, name.clone(), Raw).unwrap();
    let worker = Worker::builder().queue(&queue, |_: Bytes, _| async {}).concurrency(CONCURRENCY).until_empty(true);
    assert_eq!(worker.build().unwrap().run().await.unwrap().completed, TASKS);
}

async fn by_hand(backend: Arc<dyn DelayBackend>, name: &QueueName) {
    let mut subscription = backend.subscribe(name, SubscriptionOptions::default()).await.unwrap();
    let mut done = 0;
    while done < TASKS {
        let tasks = subscription.claim(Claim::new(CONCURRENCY, Duration::from_secs(30))).await.unwrap().deliveries;
        done += tasks.len() as u64;
        let dispositions = tasks.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
        assert!(backend.settle(name, dispositions).await.unwrap().iter().all(Result::is_ok));
    }
}

/// Tasks a second, and allocations a task.
fn measure<F: Future<Output = ()>>(way: impl Fn(Arc<dyn DelayBackend>, &'static QueueName) -> F) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // One name for the whole run of the program.
    let name: &'static QueueName = Box::leak(Box::new(QueueName::new("bench").unwrap()));
    let backend = runtime.block_on(filled(name));
    let (allocations, began) = (HEAP.0.load(Ordering::Relaxed), clock());
    runtime.block_on(way(backend, name));
    let spent = began.elapsed().as_secs_f64();
    (TASKS as f64 / spent, (HEAP.0.load(Ordering::Relaxed) - allocations) as f64 / TASKS as f64)
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

fn main() {
    let (mut worker, mut hand) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        worker.push(measure(by_worker));
        hand.push(measure(by_hand));
    }
    for (name, mut runs) in [("worker", worker), ("by hand, batches of 64", hand)] {
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (rate, allocations) = runs[RUNS / 2];
        println!("{name}: {:.0} k tasks a second, {allocations:.1} allocations a task (median of {RUNS})", rate / 1e3);
    }
}
