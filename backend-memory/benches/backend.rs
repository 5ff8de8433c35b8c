//! The whole backend through `Arc<dyn DelayBackend>`: `cargo bench -p delayline-memory --bench backend`.
//!
//! - schedule, cancel, and the full cycle (schedule, claim, complete) in batches of 1,000 at N pending tasks, due evenly
//!   over an hour of simulated time, with ids that the backend gives and with callers' keys;
//! - heap bytes for each pending task beside its payload;
//! - one million tasks due in one tick: how long until all are delivered, and the longest time that another thread
//!   waited for a single schedule meanwhile.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use delayline_core::{
    Change, Claim, DelayBackend, Disposition, NewTask, QueueName, Select, Subscription, SubscriptionOptions, TaskId,
    TaskRef,
};
use delayline_memory::{MemoryBackend, MemoryConfig};

#[allow(dead_code, unreachable_pub, reason = "each benchmark uses a part of it")]
mod support;

use support::{Counting, SimulatedClock, count, median, rate, sizes, table};

#[global_allocator]
static HEAP: Counting = Counting::new();

const SPREAD_MS: u64 = 3_600_000;
const BATCH: usize = 1_000;
const PAYLOAD_BYTES: usize = 100;
const RUNS: usize = 3;
const LEASE: Duration = Duration::from_secs(30);

struct Bench {
    clock: Arc<SimulatedClock>,
    backend: Arc<dyn DelayBackend>,
    subscription: Box<dyn Subscription>,
    queue: QueueName,
    rng: fastrand::Rng,
    named: bool,
    next: u64,
}

impl Bench {
    async fn new(named: bool, seed: u64) -> Self {
        let clock = Arc::new(SimulatedClock::default());
        let config = MemoryConfig::default().clock(clock.clone()).max_tasks(100_000_000).max_bytes(1 << 40);
        let backend: Arc<dyn DelayBackend> = Arc::new(MemoryBackend::with_config(config));
        let queue = QueueName::new("bench").unwrap();
        let subscription = backend.subscribe(&queue, SubscriptionOptions::default()).await.unwrap();
        Self { clock, backend, subscription, queue, rng: fastrand::Rng::with_seed(seed), named, next: 0 }
    }

    /// A batch of tasks, made beforehand: what is measured is the backend.
    fn batch(&mut self, size: usize) -> Vec<NewTask> {
        (0..size)
            .map(|_| {
                self.next += 1;
                let due = Duration::from_millis(1 + self.rng.u64(0..SPREAD_MS));
                let task = NewTask::new(due, Bytes::from(vec![7u8; PAYLOAD_BYTES]));
                if self.named { task.id(TaskId::new(format!("candidate-{:012}", self.next)).unwrap()) } else { task }
            })
            .collect()
    }

    async fn schedule(&self, batch: Vec<NewTask>) -> Vec<TaskRef> {
        let scheduled = self.backend.schedule(&self.queue, batch).await.unwrap();
        scheduled.into_iter().map(|one| one.unwrap().into()).collect()
    }
}

/// Schedules, cycles and cancels a second, bytes a task beside its payload, and the parts of a cycle in nanoseconds:
/// claim, complete, schedule.
async fn measure(pending: usize, named: bool, seed: u64) -> [f64; 7] {
    let mut bench = Bench::new(named, seed).await;
    let before = HEAP.live_bytes();
    let mut spent = Duration::ZERO;
    for _ in 0..pending / BATCH {
        let batch = bench.batch(BATCH);
        let began = clock();
        std::hint::black_box(bench.schedule(batch).await);
        spent += began.elapsed();
    }
    let schedules = pending as f64 / spent.as_secs_f64();
    let bytes = (HEAP.live_bytes() - before) as f64 / pending as f64 - PAYLOAD_BYTES as f64;

    // Time moves so that about a batch falls due in each step.
    let step = Duration::from_micros(SPREAD_MS * 1_000 * BATCH as u64 / pending as u64);
    let cycles = pending.clamp(500_000, 2_000_000);
    let (mut done, mut spent) = (0, [Duration::ZERO; 3]);
    while done < cycles {
        bench.clock.advance(step);
        let began = clock();
        let claimed = bench.subscription.claim(Claim::new(2 * BATCH, LEASE)).await.unwrap().deliveries;
        spent[0] += began.elapsed();
        let fired = claimed.len();
        let dispositions = claimed.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
        let batch = bench.batch(fired);
        let began = clock();
        assert!(bench.backend.settle(&bench.queue, dispositions).await.unwrap().iter().all(Result::is_ok));
        spent[1] += began.elapsed();
        let began = clock();
        std::hint::black_box(bench.backend.schedule(&bench.queue, batch).await.unwrap());
        spent[2] += began.elapsed();
        done += fired;
    }
    let cycled = done as f64 / spent.iter().sum::<Duration>().as_secs_f64();
    let parts = spent.map(|spent| spent.as_nanos() as f64 / done as f64);
    drop(bench);

    // Cancelling goes in an order of its own.
    let mut bench = Bench::new(named, seed).await;
    let mut refs = Vec::with_capacity(pending);
    for _ in 0..pending / BATCH {
        let batch = bench.batch(BATCH);
        refs.extend(bench.schedule(batch).await);
    }
    bench.rng.shuffle(&mut refs);
    let mut spent = Duration::ZERO;
    for chunk in refs.chunks(BATCH) {
        let select = Select::Tasks(chunk.to_vec());
        let began = clock();
        let changed = bench.backend.change(&bench.queue, select, Change::cancel()).await.unwrap();
        spent += began.elapsed();
        assert_eq!(changed.changed, chunk.len() as u64);
    }
    [schedules, cycled, pending as f64 / spent.as_secs_f64(), bytes, parts[0], parts[1], parts[2]]
}

/// Seconds until a million tasks of one tick are delivered; then what single schedules of another thread take meanwhile,
/// and what they take with nothing else going on.
async fn herd() -> [f64; 7] {
    let mut bench = Bench::new(false, 1).await;
    let herd = (0..1_000_000).map(|_| NewTask::new(Duration::from_millis(500), "x")).collect();
    bench.schedule(herd).await;
    let stop = Arc::new(AtomicBool::new(false));
    let alone = single_schedules(&bench, Arc::new(AtomicBool::new(false)), 2_000);
    let alone = alone.join().unwrap();
    bench.clock.advance(Duration::from_millis(500));
    let other = single_schedules(&bench, stop.clone(), usize::MAX);
    let began = clock();
    let mut left = 1_000_000;
    while left > 0 {
        let claimed = bench.subscription.claim(Claim::new(4_096, LEASE)).await.unwrap().deliveries;
        left -= claimed.iter().filter(|task| task.payload == "x").count();
        let dispositions = claimed.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
        bench.backend.settle(&bench.queue, dispositions).await.unwrap();
    }
    let delivered = began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let meanwhile = other.join().unwrap();
    [delivered, meanwhile[0], meanwhile[1], meanwhile[2], alone[0], alone[1], alone[2]]
}

/// Schedules single tasks for later until told to stop; answers what one took, in milliseconds: the median, the 99th
/// percentile and the longest.
fn single_schedules(bench: &Bench, stop: Arc<AtomicBool>, most: usize) -> std::thread::JoinHandle<[f64; 3]> {
    let (backend, queue) = (bench.backend.clone(), bench.queue.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut took = Vec::new();
        for _ in 0..most {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let task = vec![NewTask::new(Duration::from_secs(3600), "later")];
            let began = clock();
            runtime.block_on(backend.schedule(&queue, task)).unwrap();
            took.push(began.elapsed().as_secs_f64() * 1e3);
            // About ten thousand a second, so that it measures and does not compete.
            spin(Duration::from_micros(100));
        }
        took.sort_by(f64::total_cmp);
        [0.5, 0.99, 1.0].map(|part| took[((took.len() - 1) as f64 * part) as usize])
    })
}

#[allow(clippy::disallowed_methods, reason = "a benchmark's own pace")]
fn spin(time: Duration) {
    std::thread::sleep(time);
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

/// Kinds of ids to measure with: `DELAYLINE_BENCH_IDS=generated` or `keys`, or both.
fn ids() -> Vec<bool> {
    match std::env::var("DELAYLINE_BENCH_IDS").as_deref() {
        Ok("generated") => vec![false],
        Ok("keys") => vec![true],
        _ => vec![false, true],
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    println!("a second, batches of {BATCH}, payload {PAYLOAD_BYTES} B, one thread, median of {RUNS} runs\n");
    let mut out = table(&[
        "pending",
        "ids",
        "schedule",
        "schedule + claim + complete",
        "of which ns",
        "cancel",
        "bytes a task beside payload",
    ]);
    for pending in sizes() {
        for named in ids() {
            let runs: Vec<_> = (0..RUNS as u64).map(|seed| runtime.block_on(measure(pending, named, seed))).collect();
            let of = |what: usize| median(runs.iter().map(|run| run[what]).collect());
            let ids = if named { "caller's keys" } else { "generated" };
            out.add_row([
                count(pending),
                ids.to_owned(),
                rate(of(0)),
                rate(of(1)),
                format!("{:.0} + {:.0} + {:.0}", of(6), of(4), of(5)),
                rate(of(2)),
                format!("{:.0}", of(3)),
            ]);
        }
    }
    println!("{out}\n");
    let runs: Vec<_> = (0..RUNS).map(|_| runtime.block_on(herd())).collect();
    let of = |what: usize| median(runs.iter().map(|run| run[what]).collect());
    println!(
        "1,000,000 due in one tick, claimed and completed in batches of 4,096: {:.0} ms. A single schedule of another \
         thread meanwhile, p50 / p99 / max: {:.2} / {:.1} / {:.1} ms; with nothing else going on: {:.3} / {:.2} / {:.1} ms",
        of(0) * 1e3,
        of(1),
        of(2),
        of(3),
        of(4),
        of(5),
        of(6)
    );
}
