//! LEAK, measured at the allocator: after the work everything is back at its baseline.
//!
//! One test in one process, because tests that run beside each other share the allocator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use delayline_core::{
    Change, Claim, DelayBackend, Disposition, Due, Lease, NewTask, QueueName, Select, Subscription,
    SubscriptionOptions, TaskRef,
};
use delayline_memory::MemoryBackend;

static BLOCKS: AtomicI64 = AtomicI64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; the counters are beside the point of safety.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BLOCKS.fetch_sub(1, Ordering::Relaxed);
        BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is allocated now: blocks, bytes.
fn live() -> (i64, i64) {
    (BLOCKS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed))
}

/// What a run leaves may differ by this from what the run before it left: places where a structure keeps a little for the
/// next task. It does not grow with the number of tasks.
const SLACK_BLOCKS: i64 = 100;
const SLACK_BYTES: i64 = 64 * 1024;

fn assert_back(before: (i64, i64), what: &str) {
    let after = live();
    let (blocks, bytes) = (after.0 - before.0, after.1 - before.1);
    println!("{what}: {blocks:+} blocks, {bytes:+} bytes");
    assert!(blocks <= SLACK_BLOCKS && bytes <= SLACK_BYTES, "{what} left {blocks} blocks, {bytes} bytes");
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn leak_2_the_heap_is_back_at_its_baseline() {
    let backend = MemoryBackend::new();
    let queue = QueueName::new("exam").unwrap();
    let mut subscription = backend.subscribe(&queue, SubscriptionOptions::default()).await.unwrap();
    // What is allocated once (levels, tables, the runtime's timers) is there after a first round.
    run(&backend, &queue, &mut *subscription, 1_000).await;
    let before = live();

    run(&backend, &queue, &mut *subscription, 30_000).await;
    assert_back(before, "30,000 tasks scheduled, taken and completed");

    run(&backend, &queue, &mut *subscription, 1_000_000).await;
    assert_back(before, "a burst of 1,000,000");

    cancelled(&backend, &queue, 1_000_000).await;
    assert_back(before, "1,000,000 cancelled long before they are due");

    for _ in 0..200_000 {
        let debounced = NewTask::new(Duration::from_secs(86_400), "again").id("one".try_into().unwrap()).replace();
        backend.schedule(&queue, vec![debounced]).await.unwrap().remove(0).unwrap();
    }
    assert_back(before, "one task replaced 200,000 times");

    let one = backend.schedule(&queue, vec![NewTask::new(Duration::from_secs(86_400 * 365), "far")]).await.unwrap();
    let before_takes = live();
    timed_out(&mut *subscription, 1_000_000).await;
    assert_back(before_takes, "1,000,000 takes that timed out");
    dropped(&mut *subscription, 1_000_000).await;
    assert_back(before_takes, "1,000,000 takes that were dropped");
    let one = Select::Tasks(vec![one[0].as_ref().unwrap().into()]);
    assert_eq!(backend.change(&queue, one, Change::cancel()).await.unwrap().changed, 1);

    let before_queues = live();
    queues_and_subscriptions(&backend, 10_000).await;
    assert_back(before_queues, "10,000 queues and subscriptions opened and left");
    drop(subscription);
    drop(backend);
}

/// Schedules tasks over a minute, half of them by name and in groups, takes and completes them.
async fn run(backend: &MemoryBackend, queue: &QueueName, subscription: &mut dyn Subscription, tasks: u64) {
    for chunk in 0..tasks.div_ceil(10_000) {
        let batch = (chunk * 10_000..tasks.min((chunk + 1) * 10_000)).map(|i| {
            let task = NewTask::new(Duration::from_millis(i * 7 % 60_000), format!("candidate {i}").repeat(8));
            if i % 2 == 0 {
                return task;
            }
            task.id(format!("key-{i}").try_into().unwrap()).group(format!("room-{}", i % 100).try_into().unwrap())
        });
        for scheduled in backend.schedule(queue, batch.collect()).await.unwrap() {
            scheduled.unwrap();
        }
    }
    let mut done = 0;
    while done < tasks {
        let claimed = subscription.claim(Claim::new(1_000, Duration::from_secs(30))).await.unwrap();
        if claimed.deliveries.is_empty() {
            subscription.wait(claimed.next_due_in.expect("tasks are left")).await;
            continue;
        }
        done += claimed.deliveries.len() as u64;
        let dispositions: Vec<(Lease, Disposition)> =
            claimed.deliveries.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
        for settled in backend.settle(queue, dispositions).await.unwrap() {
            settled.unwrap();
        }
    }
    assert_eq!(done, tasks);
}

async fn cancelled(backend: &MemoryBackend, queue: &QueueName, tasks: u64) {
    let far = Due::After(Duration::from_secs(86_400 * 30));
    let batch = (0..tasks).map(|i| NewTask::new(far, format!("session {i}"))).collect();
    let refs: Vec<TaskRef> =
        backend.schedule(queue, batch).await.unwrap().into_iter().map(|s| s.unwrap().into()).collect();
    let changed = backend.change(queue, Select::Tasks(refs), Change::cancel()).await.unwrap();
    assert_eq!(changed.changed, tasks);
}

async fn timed_out(subscription: &mut dyn Subscription, takes: u64) {
    for _ in 0..takes {
        let claimed = subscription.claim(Claim::new(1, Duration::from_secs(30))).await.unwrap();
        assert!(claimed.deliveries.is_empty());
        subscription.wait(Duration::from_millis(1)).await;
    }
}

/// Takes that somebody gives up while they wait.
async fn dropped(subscription: &mut dyn Subscription, takes: u64) {
    for _ in 0..takes {
        let mut take = Box::pin(async {
            subscription.claim(Claim::new(1, Duration::from_secs(30))).await.unwrap();
            subscription.wait(Duration::from_secs(3600)).await;
        });
        assert!(
            std::future::Future::poll(take.as_mut(), &mut std::task::Context::from_waker(std::task::Waker::noop()))
                .is_pending()
        );
    }
}

async fn queues_and_subscriptions(backend: &MemoryBackend, queues: u64) {
    for i in 0..queues {
        let queue = QueueName::new(format!("once-{i}")).unwrap();
        let mut subscription = backend.subscribe(&queue, SubscriptionOptions::default()).await.unwrap();
        run(backend, &queue, &mut *subscription, 1).await;
    }
    assert_eq!(backend.queues().await.unwrap().len(), 1, "queues that are empty and unused are forgotten");
}
