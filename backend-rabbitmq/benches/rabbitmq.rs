//! The backend, measured on a private broker: `cargo bench -p delayline-rabbitmq --bench rabbitmq [-- part...]`, with the parts
//!
//! - `rates`: schedule in batches and by 64 callers, complete in batches, and 30,000 tasks due at one instant;
//! - `lateness`: at 200 tasks a second, beside a bare sleep to the same instants, due within a second and through the levels;
//! - `idle`: the broker's time while 1,000 tasks are pending and none is due;
//! - `connect`: how long a client takes to start, where all queues are to be made and where they are there.
//!
//! `DELAYLINE_RELEASE_RABBITMQ` chooses the release.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use delayline_conformance::servers::{Kind, Rabbit, Release, Server};
use delayline_core::{
    Bytes, Claim, Clock, Context, DelayBackend, Disposition, Due, NewTask, Queue, QueueName, Raw, SubscriptionOptions,
    SystemClock, Task, Timestamp, Worker,
};
use delayline_rabbitmq::{RabbitBackend, RabbitConfig};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const BATCH: usize = 1_000;
const PAYLOAD_BYTES: usize = 100;
const HOUR: Duration = Duration::from_secs(3_600);
const PARTS: [&str; 4] = ["rates", "lateness", "idle", "connect"];

struct Bench {
    server: Rabbit,
    backend: Arc<dyn DelayBackend>,
    queue: QueueName,
}

impl Bench {
    async fn new() -> Self {
        let server = tokio::task::spawn_blocking(|| Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]));
        let server = server.await.unwrap().unwrap();
        let config = RabbitConfig::from_url(&server.url()).unwrap().response_timeout(Duration::from_secs(60));
        let backend = Arc::new(RabbitBackend::connect(config).await.unwrap());
        Self { server, backend, queue: QueueName::new("bench").unwrap() }
    }

    fn queue(&self) -> Queue<Bytes> {
        Queue::with_codec(self.backend.clone(), self.queue.clone(), Raw).unwrap()
    }

    async fn schedule(&self, count: usize) {
        let mut rng = fastrand::Rng::with_seed(1);
        let task = |due: u64| NewTask::new(HOUR + Duration::from_millis(due), vec![b'x'; PAYLOAD_BYTES]);
        let batch = (0..count).map(|_| task(rng.u64(0..3_600_000))).collect();
        assert!(self.backend.schedule(&self.queue, batch).await.unwrap().iter().all(Result::is_ok));
    }

    /// The broker's CPU time so far.
    fn cpu(&self) -> Duration {
        let text = self.server.control(&["eval", "element(1,erlang:statistics(runtime))."]).unwrap();
        Duration::from_millis(text.trim().parse().unwrap())
    }
}

async fn rates() {
    const BATCHES: usize = 50;
    const CALLS: usize = 20_000;
    let bench = Bench::new().await;
    bench.schedule(BATCH).await;
    let start = clock();
    for _ in 0..BATCHES {
        bench.schedule(BATCH).await;
    }
    let batched = (BATCHES * BATCH) as f64 / start.elapsed().as_secs_f64();
    let queue = bench.queue();
    let start = clock();
    let callers = (0..64).map(|_| {
        let queue = queue.clone();
        tokio::spawn(async move {
            let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
            for _ in 0..CALLS / 64 {
                queue.schedule(&payload).after(HOUR).await.unwrap();
            }
        })
    });
    join_all(callers).await;
    let single = (CALLS / 64 * 64) as f64 / start.elapsed().as_secs_f64();
    drop(bench);
    let completed = completed().await;
    let mut herds = Vec::new();
    for _ in 0..3 {
        herds.push(format!("{:.2}", herd().await));
    }
    let mut table = table(&["", "here", "to reach"]);
    table.add_row(["schedule, batches of 1,000, a second", &rate(batched), "15 k"]);
    table.add_row(["schedule, 64 concurrent single callers, a second", &rate(single), "8 k"]);
    table.add_row(["complete, batches of 1,000 of 30,000 that are held, a second", &rate(completed), "-"]);
    table.add_row(["30,000 due at one instant: the last one completed after, s", &herds.join(", "), "4"]);
    println!("{table}\n");
}

/// How many tasks a second are completed by one who holds 30,000.
async fn completed() -> f64 {
    const HELD: usize = 30_000;
    let bench = Bench::new().await;
    for _ in 0..HELD / BATCH {
        let batch = (0..BATCH).map(|_| NewTask::new(Due::NOW, vec![b'x'; PAYLOAD_BYTES])).collect();
        assert!(bench.backend.schedule(&bench.queue, batch).await.unwrap().iter().all(Result::is_ok));
    }
    let mut subscription = bench.backend.subscribe(&bench.queue, SubscriptionOptions::default()).await.unwrap();
    let mut held = Vec::new();
    while held.len() < HELD {
        let claimed = subscription.claim(Claim::new(BATCH, Duration::from_secs(600))).await.unwrap();
        if claimed.deliveries.is_empty() {
            subscription.wait(claimed.next_due_in.unwrap_or(Duration::from_secs(1))).await;
        }
        held.extend(claimed.deliveries.into_iter().map(|task| (task.lease, Disposition::Complete)));
    }
    let start = clock();
    for batch in held.chunks(BATCH) {
        assert!(bench.backend.settle(&bench.queue, batch.to_vec()).await.unwrap().iter().all(Result::is_ok));
    }
    HELD as f64 / start.elapsed().as_secs_f64()
}

/// Seconds from the instant at which 30,000 tasks are due until the last of them has been completed.
async fn herd() -> f64 {
    const HERD: usize = 30_000;
    let bench = Bench::new().await;
    let queue = bench.queue();
    let clock = SystemClock::new();
    let due = Timestamp::from_unix_millis(clock.wall().unix_millis_floor() + 15_000);
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let (count, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let token = CancellationToken::new();
    let worker = {
        let (count, all) = (count.clone(), all.clone());
        let handler = move |_: Bytes, _: Context| {
            if count.fetch_add(1, Ordering::Relaxed) + 1 == HERD {
                all.notify_one();
            }
            async {}
        };
        Worker::builder().queue(&queue, handler).concurrency(1_000).shutdown(token.clone()).build().unwrap()
    };
    let running = tokio::spawn(worker.run());
    let tasks = (0..HERD).map(|_| Task::new(payload.clone()).at(due));
    assert!(queue.schedule_all(tasks).await.unwrap().iter().all(Result::is_ok));
    assert!(clock.wall() < due, "scheduling took longer than they had time");
    all.notified().await;
    // The last ones are settled within the shutdown.
    token.cancel();
    let done = running.await.unwrap().unwrap();
    assert_eq!(done.completed, HERD as u64);
    (clock.wall().unix_micros() - due.unix_micros()) as f64 / 1e6
}

/// Above a bare sleep to the same instants.
async fn lateness() {
    let mut table = table(&["lateness at 200 a second, ms", "p50", "p99", "most"]);
    for (name, ahead) in [("due in 1 s", 1_000), ("due in 20 s", 20_000)] {
        let (late, bare) = late_by(ahead).await;
        let ms = |us: i64| format!("{:.2}", us as f64 / 1e3);
        table.add_row([name.to_owned(), ms(late[0]), ms(late[1]), ms(late[2])]);
        table.add_row(["a bare sleep".to_owned(), ms(bare[0]), ms(bare[1]), ms(bare[2])]);
        let above = [0, 1, 2].map(|i| ms(late[i] - bare[i]));
        table.add_row([
            "above it (to reach: 3 and 12)".to_owned(),
            above[0].clone(),
            above[1].clone(),
            above[2].clone(),
        ]);
    }
    println!("{table}\n");
}

async fn late_by(ahead_ms: i64) -> ([i64; 3], [i64; 3]) {
    const TASKS: usize = 2_000;
    let bench = Bench::new().await;
    let queue = bench.queue();
    let (late, bare) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let token = CancellationToken::new();
    let worker = {
        let late = late.clone();
        let handler = move |payload: Bytes, _: Context| {
            let due: i64 = std::str::from_utf8(&payload).unwrap().trim().parse().unwrap();
            late.lock().push(SystemClock::new().wall().unix_micros() - due);
            async {}
        };
        Worker::builder().queue(&queue, handler).concurrency(64).shutdown(token.clone()).build().unwrap()
    };
    let running = tokio::spawn(worker.run());
    let started = tokio::time::Instant::now();
    let first = SystemClock::new().wall().unix_millis_floor() + ahead_ms;
    let mut sleepers = Vec::new();
    for i in 0..TASKS {
        let due = Timestamp::from_unix_millis(first + 5 * i as i64);
        let payload = Bytes::from(format!("{:<PAYLOAD_BYTES$}", due.unix_micros()));
        let bare = bare.clone();
        sleepers.push(tokio::spawn(async move {
            let clock = SystemClock::new();
            let ahead = due.unix_micros() - clock.wall().unix_micros();
            tokio::time::sleep(Duration::from_micros(ahead.max(0) as u64)).await;
            bare.lock().push(clock.wall().unix_micros() - due.unix_micros());
        }));
        queue.schedule(&payload).at(due).await.unwrap();
        tokio::time::sleep_until(started + Duration::from_millis(5 * i as u64)).await;
    }
    join_all(sleepers).await;
    while late.lock().len() < TASKS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    token.cancel();
    running.await.unwrap().unwrap();
    (percentiles(&late), percentiles(&bare))
}

fn percentiles(us: &Mutex<Vec<i64>>) -> [i64; 3] {
    let mut us = us.lock().clone();
    us.sort_unstable();
    [us[us.len() / 2], us[us.len() * 99 / 100], us[us.len() - 1]]
}

async fn idle() {
    const SECONDS: u32 = 30;
    let bench = Bench::new().await;
    bench.schedule(BATCH).await;
    let mut consumer = bench.queue().consumer().open().await.unwrap();
    let consuming = tokio::spawn(async move { consumer.next().await.map(drop) });
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = bench.cpu();
    tokio::time::sleep(Duration::from_secs(SECONDS.into())).await;
    let busy = bench.cpu() - before;
    consuming.abort();
    println!("idle, 1,000 pending: the broker works {:?} a second\n", busy / SECONDS);
}

async fn connect() {
    let bench = Bench::new().await;
    let ms = async |namespace: &str| {
        let config = RabbitConfig::from_url(&bench.server.url()).unwrap().namespace(namespace);
        let start = clock();
        RabbitBackend::connect(config).await.unwrap().close().await.unwrap();
        format!("{:.0}", start.elapsed().as_secs_f64() * 1e3)
    };
    let mut table = table(&["a client starts and closes, ms", "the queues are made", "they are there"]);
    for namespace in ["first", "second", "third"] {
        table.add_row([namespace.to_owned(), ms(namespace).await, ms(namespace).await]);
    }
    println!("{table}\n");
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn rate(per_second: f64) -> String {
    format!("{:.1} k", per_second / 1e3)
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let does =
        |part: &str| if named.is_empty() { PARTS.contains(&part) } else { named.iter().any(|name| name == part) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        println!("{}\n", Release::chosen(Kind::RabbitMq).unwrap().version().unwrap());
        if does("rates") {
            rates().await;
        }
        if does("lateness") {
            lateness().await;
        }
        if does("idle") {
            idle().await;
        }
        if does("connect") {
            connect().await;
        }
    });
}
