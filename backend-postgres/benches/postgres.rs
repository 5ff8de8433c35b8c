//! Postgres, measured on a private server with its default durability: `cargo bench -p delayline-postgres --bench postgres
//! [-- part...]`, with the parts
//!
//! - `rates`: schedule in batches and by 64 callers, and 30,000 tasks due at one instant;
//! - `lateness`: at 200 tasks a second, beside a bare sleep to the same instants;
//! - `idle`: the server's transactions while nothing is due;
//! - `memory`: bytes of tables and indexes for each of a million pending tasks;
//! - `batches`: claim and settle in batches of 1 to 1,000, with the dead rows that a life leaves.
//!
//! `DELAYLINE_BENCH_FLUSH=off` sets `flush_claims` and `flush_completions` to off.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::sync::Arc;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use delayline_conformance::servers::{Kind, Postgres, Release, Server};
use delayline_core::{
    Bytes, Claim, Clock, Context, DelayBackend, Disposition, GroupName, Lease, NewTask, Queue, QueueName, Raw,
    Subscription, SubscriptionOptions, SystemClock, Task, TaskId, Timestamp, Worker,
};
use delayline_postgres::{PostgresBackend, PostgresConfig};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const BATCH: usize = 1_000;
const PAYLOAD_BYTES: usize = 100;
const LEASE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);
const PARTS: [&str; 5] = ["rates", "lateness", "idle", "memory", "batches"];

struct Bench {
    server: Postgres,
    backend: Arc<dyn DelayBackend>,
    queue: QueueName,
    rng: fastrand::Rng,
}

impl Bench {
    async fn new() -> Self {
        let server = Postgres::start(&Release::chosen(Kind::Postgres).unwrap(), &["shared_buffers=512MB"]).unwrap();
        let flush = std::env::var("DELAYLINE_BENCH_FLUSH").is_ok_and(|off| off == "off");
        let config = PostgresConfig::from_url(&server.url()).unwrap().response_timeout(Duration::from_secs(60));
        let config = config.flush_claims(!flush).flush_completions(!flush);
        let backend = Arc::new(PostgresBackend::connect(config).await.unwrap());
        Self { server, backend, queue: QueueName::new("bench").unwrap(), rng: fastrand::Rng::with_seed(1) }
    }

    /// A number that the server answers.
    fn number(&self, sql: &str) -> f64 {
        self.server.ask(sql).unwrap().parse().unwrap()
    }

    fn task(&mut self, shape: Shape, due: Duration) -> NewTask {
        let n = self.rng.u64(..);
        let task = NewTask::new(due, Bytes::from(vec![b'x'; PAYLOAD_BYTES]));
        match shape {
            Shape::Plain => task,
            Shape::Grouped => task.group(GroupName::new("exam-7").unwrap()),
            Shape::Named => task.id(TaskId::new(format!("candidate-{n:020}")).unwrap()),
        }
    }

    fn batch(&mut self, shape: Shape, size: usize, within: Duration) -> Vec<NewTask> {
        let within = within.as_millis() as u64;
        (0..size)
            .map(|_| {
                let due = if within == 0 { 0 } else { within + self.rng.u64(0..within) };
                self.task(shape, Duration::from_millis(due))
            })
            .collect()
    }

    async fn schedule(&self, batch: Vec<NewTask>) {
        let scheduled = self.backend.schedule(&self.queue, batch).await.unwrap();
        assert!(scheduled.iter().all(Result::is_ok));
    }

    /// That many tasks, due within hours to come.
    async fn fill(&mut self, shape: Shape, n: usize) {
        for _ in 0..n / BATCH {
            let batch = self.batch(shape, BATCH, HOUR);
            self.schedule(batch).await;
        }
    }

    async fn claim(&self, subscription: &mut Box<dyn Subscription>, max: usize) -> Vec<Lease> {
        let mut leases = Vec::new();
        while leases.len() < max {
            let claimed = subscription.claim(Claim::new(max - leases.len(), LEASE)).await.unwrap().deliveries;
            leases.extend(claimed.into_iter().map(|task| task.lease));
        }
        leases
    }
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Plain,
    Named,
    Grouped,
}

async fn memory() {
    const SIZE: &str = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n \
                        ON n.oid = relnamespace WHERE nspname = 'delayline' AND relkind = 'r'";
    let mut table = table(&["1 M pending, payload of 100 bytes", "bytes a task", "of it payload"]);
    for (shape, name) in [
        (Shape::Plain, "ids that the backend gives"),
        (Shape::Named, "ids of one's own, 30 letters"),
        (Shape::Grouped, "in a group"),
    ] {
        let mut bench = Bench::new().await;
        let before = bench.number(SIZE);
        bench.fill(shape, 1_000_000).await;
        let bytes = (bench.number(SIZE) - before) / 1e6;
        table.add_row([name.to_owned(), format!("{bytes:.0}"), PAYLOAD_BYTES.to_string()]);
    }
    println!("{table}\n");
}

/// Tasks a second in one connection, by the size of the batch, and the dead rows that their lives leave.
async fn batches() {
    const SIZES: [usize; 4] = [1, 10, 100, 1_000];
    const NAMES: [&str; 3] = ["schedule", "claim", "complete"];
    const DEAD: &str = "SELECT n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'task'";
    let mut bench = Bench::new().await;
    bench.fill(Shape::Plain, 100_000).await;
    let mut subscription = bench.backend.subscribe(&bench.queue, SubscriptionOptions::default()).await.unwrap();
    let mut rates = [[0.0; SIZES.len()]; NAMES.len()];
    let (mut lives, before) = (0, bench.number(DEAD));
    for (column, size) in SIZES.into_iter().enumerate() {
        let rounds = (20_000 / size).clamp(20, 500);
        let mut spent = [Duration::ZERO; NAMES.len()];
        for _ in 0..rounds {
            let batch = bench.batch(Shape::Plain, size, Duration::ZERO);
            let began = clock();
            bench.schedule(batch).await;
            let scheduled = clock();
            let leases = bench.claim(&mut subscription, size).await;
            let claimed = clock();
            let dispositions = leases.iter().map(|lease| (lease.clone(), Disposition::Complete)).collect();
            assert!(bench.backend.settle(&bench.queue, dispositions).await.unwrap().iter().all(Result::is_ok));
            let steps = [scheduled - began, claimed - scheduled, claimed.elapsed()];
            spent.iter_mut().zip(steps).for_each(|(spent, step)| *spent += step);
        }
        let tasks = (rounds * size) as f64;
        lives += rounds * size;
        for (i, spent) in spent.into_iter().enumerate() {
            rates[i][column] = tasks / spent.as_secs_f64();
        }
    }
    // An idle session tells what it counted after ten seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let dead = (bench.number(DEAD) - before) / lives as f64;
    let mut table = table(&["tasks a second, one call at a time, in a batch of", "1", "10", "100", "1,000"]);
    for (name, rates) in NAMES.iter().zip(rates) {
        let shown = rates.map(|rate| format!("{rate:.0}"));
        table.add_row(std::iter::once((*name).to_owned()).chain(shown));
    }
    println!("{table}\n\ndead rows for each task's life: {dead:.2} (to reach: 2)\n");
}

async fn rates() {
    let mut bench = Bench::new().await;
    let batches: Vec<_> = (0..150).map(|_| bench.batch(Shape::Plain, BATCH, HOUR)).collect();
    let began = clock();
    // Two at a time, so that the server has work while the client makes the next.
    let permits = Arc::new(Semaphore::new(2));
    join_all(batches.into_iter().map(|batch| async {
        let _permit = permits.acquire().await.unwrap();
        bench.schedule(batch).await;
    }))
    .await;
    let batched = 150_000.0 / began.elapsed().as_secs_f64();

    let bench = Bench::new().await;
    let queue = Queue::with_codec(bench.backend.clone(), bench.queue.clone(), Raw).unwrap();
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let began = clock();
    let callers = (0..64).map(|_| {
        let (queue, payload) = (queue.clone(), payload.clone());
        tokio::spawn(async move {
            for _ in 0..2_000 {
                queue.schedule(&payload).after(HOUR).await.unwrap();
            }
        })
    });
    join_all(callers).await.into_iter().for_each(Result::unwrap);
    let single = 64_000.0 / began.elapsed().as_secs_f64();

    let herds = [herd().await, herd().await, herd().await];
    let mut table = table(&["", "here", "to reach"]);
    table.add_row(["schedule, batches of 1,000, a second", &rate(batched), "80 k"]);
    table.add_row(["schedule, 64 concurrent single callers, a second", &rate(single), "25 k"]);
    let herds = herds.map(|seconds| format!("{seconds:.2}")).join(", ");
    table.add_row(["30,000 due at one instant: the last one completed after, s", &herds, "1.0"]);
    println!("{table}\n");
}

/// Seconds from the instant at which 30,000 tasks are due until the last of them has been completed.
async fn herd() -> f64 {
    const HERD: usize = 30_000;
    let bench = Bench::new().await;
    let queue = Queue::with_codec(bench.backend.clone(), bench.queue.clone(), Raw).unwrap();
    let clock = SystemClock::new();
    let due = Timestamp::from_unix_millis(clock.wall().unix_millis_floor() + 3_000);
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let tasks = (0..HERD).map(|_| Task::new(payload.clone()).at(due));
    assert!(queue.schedule_all(tasks).await.unwrap().iter().all(Result::is_ok));
    assert!(clock.wall() < due, "scheduling took longer than they had time");
    let worker = Worker::builder().queue(&queue, |_: Bytes, _: Context| async {}).concurrency(1_000).until_empty(true);
    let done = worker.build().unwrap().run().await.unwrap();
    assert_eq!(done.completed, HERD as u64);
    (clock.wall().unix_micros() - due.unix_micros()) as f64 / 1e6
}

/// Above a bare sleep to the same instants.
async fn lateness() {
    const TASKS: usize = 2_000;
    let bench = Bench::new().await;
    let queue = Queue::with_codec(bench.backend.clone(), bench.queue.clone(), Raw).unwrap();
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
    let first = SystemClock::new().wall().unix_millis_floor() + 1_000;
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
    let (late, bare) = (percentiles(&late), percentiles(&bare));
    let mut table = table(&["lateness at 200 a second, ms", "p50", "p99", "most"]);
    let ms = |us: i64| format!("{:.2}", us as f64 / 1e3);
    table.add_row(["tasks".to_owned(), ms(late[0]), ms(late[1]), ms(late[2])]);
    table.add_row(["a bare sleep".to_owned(), ms(bare[0]), ms(bare[1]), ms(bare[2])]);
    let above = [0, 1, 2].map(|i| ms(late[i] - bare[i]));
    table.add_row(["above it (to reach: 2 and 6)".to_owned(), above[0].clone(), above[1].clone(), above[2].clone()]);
    println!("{table}\n");
}

fn percentiles(us: &Mutex<Vec<i64>>) -> [i64; 3] {
    let mut us = us.lock().clone();
    us.sort_unstable();
    [us[us.len() / 2], us[us.len() * 99 / 100], us[us.len() - 1]]
}

async fn idle() {
    const SECONDS: u64 = 65;
    const TRANSACTIONS: &str = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'delayline'";
    let mut bench = Bench::new().await;
    bench.fill(Shape::Plain, 1_000).await;
    let queue: Queue<Bytes> = Queue::with_codec(bench.backend.clone(), bench.queue.clone(), Raw).unwrap();
    let mut consumer = queue.consumer().open().await.unwrap();
    let consuming = tokio::spawn(async move { consumer.next().await.map(drop) });
    // Until the sessions have told what they did before; autovacuum is left out, which is not of our making.
    bench.server.ask("ALTER SYSTEM SET autovacuum = off").unwrap();
    bench.server.ask("SELECT pg_reload_conf()").unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let before = bench.number(TRANSACTIONS);
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let after = bench.number(TRANSACTIONS);
    consuming.abort();
    // One is our own question.
    let transactions = (after - before - 1.0) / SECONDS as f64;
    println!("idle, 1,000 pending: {transactions:.2} transactions a second (to reach: 0.1)\n");
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
    format!("{:.0} k", per_second / 1e3)
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
        println!("{}\n", Release::chosen(Kind::Postgres).unwrap().version().unwrap());
        if does("rates") {
            rates().await;
        }
        if does("lateness") {
            lateness().await;
        }
        if does("idle") {
            idle().await;
        }
        if does("memory") {
            memory().await;
        }
        if does("batches") {
            batches().await;
        }
    });
}
