//! Redis, measured on a private server: `cargo bench -p delayline-redis --bench redis [-- part...]`, with the parts
//!
//! - `memory`: bytes of the server for each of a million pending tasks;
//! - `scripts`: the server's time for each task in each script, at batches of 1, 10, 100 and 1,000;
//! - `rates`: schedule in batches and by 64 callers, and 30,000 tasks due at one instant;
//! - `lateness`: at 200 tasks a second, beside a bare sleep to the same instants;
//! - `idle`: round trips, and commands within their scripts, while nothing is due;
//! - `deep`: claims at 100 thousand, a million and 10 million pending tasks. Not done unless named: it takes 4 GB.
//!
//! The server writes no append-only file, unless `DELAYLINE_BENCH_AOF=1`; then it is synced each second.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::sync::Arc;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use delayline_conformance::servers::{Kind, Redis, Release, Server};
use delayline_core::{
    Bytes, Change, Claim, Clock, Context, DelayBackend, Disposition, GroupName, Lease, NewTask, Queue, QueueName, Raw,
    Select, Subscription, SubscriptionOptions, SystemClock, Task, TaskId, TaskRef, Timestamp, Worker,
};
use delayline_redis::{RedisBackend, RedisConfig};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const BATCH: usize = 1_000;
const PAYLOAD_BYTES: usize = 100;
const LEASE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);
const PARTS: [&str; 5] = ["memory", "scripts", "rates", "lateness", "idle"];

struct Bench {
    server: Redis,
    backend: Arc<dyn DelayBackend>,
    queue: QueueName,
    rng: fastrand::Rng,
}

impl Bench {
    async fn new() -> Self {
        let aof = std::env::var("DELAYLINE_BENCH_AOF").is_ok_and(|on| on == "1");
        let arguments: &[&str] = if aof { &[] } else { &["--appendonly", "no"] };
        let server = Redis::start(&Release::chosen(Kind::Redis).unwrap(), arguments).unwrap();
        let config = RedisConfig::from_url(&server.url()).unwrap().response_timeout(Duration::from_secs(60));
        let backend = Arc::new(RedisBackend::connect(config).await.unwrap());
        Self { server, backend, queue: QueueName::new("bench").unwrap(), rng: fastrand::Rng::with_seed(1) }
    }

    /// A number from what `INFO` answers.
    fn info(&self, section: &str, field: &str) -> f64 {
        let info = self.server.ask(&format!("INFO {section}")).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap_or("0");
        line.trim().parse().unwrap()
    }

    /// Microseconds of the server in scripts since the statistics were reset.
    fn script_us(&self) -> f64 {
        let stats = self.server.ask("INFO commandstats").unwrap();
        let us = |line: &str| line.split("usec=").nth(1)?.split(',').next()?.parse::<f64>().ok();
        stats.lines().filter(|line| line.starts_with("cmdstat_eval")).filter_map(us).sum()
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

    async fn schedule(&self, batch: Vec<NewTask>) -> Vec<TaskRef> {
        let scheduled = self.backend.schedule(&self.queue, batch).await.unwrap();
        scheduled.into_iter().map(|one| one.unwrap().into()).collect()
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
    let mut table = table(&["1 M pending, payload of 100 bytes", "bytes a task", "of it payload"]);
    for (shape, name) in [
        (Shape::Plain, "ids that the backend gives"),
        (Shape::Named, "ids of one's own, 30 letters"),
        (Shape::Grouped, "in a group"),
    ] {
        let mut bench = Bench::new().await;
        bench.fill(shape, BATCH).await;
        let before = bench.info("memory", "used_memory");
        bench.fill(shape, 1_000_000).await;
        let bytes = (bench.info("memory", "used_memory") - before) / 1e6;
        table.add_row([name.to_owned(), format!("{bytes:.0}"), PAYLOAD_BYTES.to_string()]);
    }
    println!("{table}\n");
}

/// The server's microseconds for each task, by the size of the batch.
async fn scripts() {
    const SIZES: [usize; 4] = [1, 10, 100, 1_000];
    const NAMES: [&str; 7] = ["schedule", "claim", "extend", "complete", "retry", "move", "cancel"];
    let mut bench = Bench::new().await;
    bench.fill(Shape::Plain, 100_000).await;
    let mut subscription = bench.backend.subscribe(&bench.queue, SubscriptionOptions::default()).await.unwrap();
    let mut costs = [[0.0; SIZES.len()]; NAMES.len()];
    for (column, size) in SIZES.into_iter().enumerate() {
        let rounds = (20_000 / size).clamp(20, 2_000);
        let mut spent = [0.0; NAMES.len()];
        for _ in 0..rounds {
            let batch = bench.batch(Shape::Plain, size, Duration::ZERO);
            let mut step = |i: usize, bench: &Bench| {
                spent[i] += bench.script_us();
                bench.server.ask("CONFIG RESETSTAT").unwrap();
            };
            bench.server.ask("CONFIG RESETSTAT").unwrap();
            bench.schedule(batch).await;
            step(0, &bench);
            let leases = bench.claim(&mut subscription, size).await;
            step(1, &bench);
            bench.backend.extend(&bench.queue, leases.clone(), LEASE).await.unwrap();
            step(2, &bench);
            let (retried, completed) = leases.split_at(size / 2);
            settle(&bench, completed, Disposition::Complete).await;
            step(3, &bench);
            settle(&bench, retried, Disposition::Retry { after: Duration::ZERO, reason: "again".into() }).await;
            step(4, &bench);
            let again = bench.claim(&mut subscription, retried.len()).await;
            settle(&bench, &again, Disposition::Complete).await;
            let batch = bench.batch(Shape::Plain, size, HOUR);
            let refs = bench.schedule(batch).await;
            bench.server.ask("CONFIG RESETSTAT").unwrap();
            bench.backend.change(&bench.queue, Select::Tasks(refs.clone()), Change::move_to(HOUR)).await.unwrap();
            step(5, &bench);
            bench.backend.change(&bench.queue, Select::Tasks(refs), Change::cancel()).await.unwrap();
            step(6, &bench);
        }
        let tasks = (rounds * size) as f64;
        let half = (rounds * (size / 2)) as f64;
        for i in 0..NAMES.len() {
            let of = match i {
                3 => tasks - half,
                4 => half,
                _ => tasks,
            };
            costs[i][column] = spent[i] / of;
        }
    }
    let mut table = table(&["us of the server for each task, in a batch of", "1", "10", "100", "1,000"]);
    for (name, costs) in NAMES.iter().zip(costs) {
        let shown = costs.map(|us| if us.is_finite() && us > 0.0 { format!("{us:.1}") } else { "-".into() });
        table.add_row(std::iter::once((*name).to_owned()).chain(shown));
    }
    println!("{table}\n");
}

async fn settle(bench: &Bench, leases: &[Lease], disposition: Disposition) {
    let dispositions = leases.iter().map(|lease| (lease.clone(), disposition.clone())).collect();
    assert!(bench.backend.settle(&bench.queue, dispositions).await.unwrap().iter().all(Result::is_ok));
}

async fn rates() {
    let mut bench = Bench::new().await;
    let batches: Vec<_> = (0..200).map(|_| bench.batch(Shape::Plain, BATCH, HOUR)).collect();
    let began = clock();
    // Two at a time, so that the server has work while the client makes the next.
    let permits = Arc::new(Semaphore::new(2));
    join_all(batches.into_iter().map(|batch| async {
        let _permit = permits.acquire().await.unwrap();
        bench.schedule(batch).await;
    }))
    .await;
    let batched = 200_000.0 / began.elapsed().as_secs_f64();

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
    let single = 128_000.0 / began.elapsed().as_secs_f64();

    let herds = [herd().await, herd().await, herd().await];
    let mut table = table(&["", "here", "to reach"]);
    table.add_row(["schedule, batches of 1,000, a second", &rate(batched), "160 k"]);
    table.add_row(["schedule, 64 concurrent single callers, a second", &rate(single), "110 k"]);
    let herds = herds.map(|seconds| format!("{seconds:.2}")).join(", ");
    table.add_row(["30,000 due at one instant: the last one completed after, s", &herds, "0.6"]);
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
    table.add_row(["above it (to reach: 1 and 4)".to_owned(), above[0].clone(), above[1].clone(), above[2].clone()]);
    println!("{table}\n");
}

fn percentiles(us: &Mutex<Vec<i64>>) -> [i64; 3] {
    let mut us = us.lock().clone();
    us.sort_unstable();
    [us[us.len() / 2], us[us.len() * 99 / 100], us[us.len() - 1]]
}

async fn idle() {
    const SECONDS: u64 = 120;
    // What clients send; everything else is called by scripts.
    const SENT: [&str; 9] =
        ["eval", "evalsha", "script", "ping", "subscribe", "unsubscribe", "hello", "client", "select"];
    let mut bench = Bench::new().await;
    bench.fill(Shape::Plain, 1_000).await;
    let queue: Queue<Bytes> = Queue::with_codec(bench.backend.clone(), bench.queue.clone(), Raw).unwrap();
    let mut consumer = queue.consumer().open().await.unwrap();
    let consuming = tokio::spawn(async move { consumer.next().await.map(drop) });
    tokio::time::sleep(Duration::from_secs(2)).await;
    bench.server.ask("CONFIG RESETSTAT").unwrap();
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let stats = bench.server.ask("INFO commandstats").unwrap();
    consuming.abort();
    let (mut sent, mut within) = (0.0, 0.0);
    for line in stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
        let Some((name, counts)) = line.split_once(':') else { continue };
        let calls: f64 = counts.split(',').next().and_then(|calls| calls.strip_prefix("calls=")?.parse().ok()).unwrap();
        match name.split('|').next().unwrap() {
            // Our own question.
            "config" | "info" => {}
            name if SENT.contains(&name) => sent += calls,
            _ => within += calls,
        }
    }
    let a_second = |n: f64| n / SECONDS as f64;
    println!(
        "idle for {SECONDS} s, 1,000 pending: {sent} round trips, {:.3} a second (to reach: 0.1); {within} commands within \
         their scripts, {:.3} a second\n",
        a_second(sent),
        a_second(within)
    );
}

/// What a claim and its completion cost at growing numbers of pending tasks.
async fn deep() {
    let mut bench = Bench::new().await;
    let mut table = table(&["pending", "claim, us a task in 100", "complete", "schedule", "bytes a task"]);
    let (mut pending, empty) = (0, bench.info("memory", "used_memory"));
    for size in [100_000, 1_000_000, 10_000_000] {
        bench.fill(Shape::Plain, size - pending).await;
        pending = size;
        let bytes = (bench.info("memory", "used_memory") - empty) / size as f64;
        let mut subscription = bench.backend.subscribe(&bench.queue, SubscriptionOptions::default()).await.unwrap();
        let mut spent = [0.0; 3];
        for _ in 0..200 {
            let batch = bench.batch(Shape::Plain, 100, Duration::ZERO);
            bench.server.ask("CONFIG RESETSTAT").unwrap();
            bench.schedule(batch).await;
            spent[2] += bench.script_us();
            bench.server.ask("CONFIG RESETSTAT").unwrap();
            let leases = bench.claim(&mut subscription, 100).await;
            spent[0] += bench.script_us();
            bench.server.ask("CONFIG RESETSTAT").unwrap();
            settle(&bench, &leases, Disposition::Complete).await;
            spent[1] += bench.script_us();
        }
        let [claim, complete, schedule] = spent.map(|us| format!("{:.1}", us / 20_000.0));
        table.add_row([size.to_string(), claim, complete, schedule, format!("{bytes:.0}")]);
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
        println!("{}\n", Release::chosen(Kind::Redis).unwrap().version().unwrap());
        if does("memory") {
            memory().await;
        }
        if does("scripts") {
            scripts().await;
        }
        if does("rates") {
            rates().await;
        }
        if does("lateness") {
            lateness().await;
        }
        if does("idle") {
            idle().await;
        }
        if does("deep") {
            deep().await;
        }
    });
}
