//! What each call costs on a Redis at `REDIS` (its data is deleted): time at several batch sizes, and memory for each pending
//! task.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::time::Duration;

use delayline_core::{
    AdminOp, Attempts, Claim, DelayBackend, Due, GroupName, IntakeOptions, NewTask, QueueName, TaskId, Verdict,
};
use delayline_redis::{RedisBackend, RedisConfig};
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = std::env::var("REDIS").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());
    let pending: usize = std::env::args().nth(1).map_or(1_000_000, |n| n.parse().unwrap());
    let backend = RedisBackend::connect(RedisConfig::from_url(&url).unwrap().key_prefix("cost")).await.unwrap();
    let queue = QueueName::new("cost").unwrap();
    let client = redis::Client::open(url).unwrap();
    let mut bare = client.get_multiplexed_async_connection().await.unwrap();
    let payload = vec![b'x'; 100];
    let _ = Attempts::default();
    for kind in ["uuid", "key", "group"] {
        backend.administer(&queue, AdminOp::Delete).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (before, cpu) = (used(&mut bare).await, cpu_us(&mut bare).await);
        let began = Instant::now();
        let mut made = 0;
        while made < pending {
            let batch: Vec<NewTask> = (made..made + 1000)
                .map(|i| {
                    let task = NewTask::new(
                        Duration::from_millis(3_600_000 + (i as u64 * 7919) % 86_400_000),
                        payload.clone(),
                    );
                    match kind {
                        "key" => task.id(TaskId::new(format!("exam-7/candidate-{i:07}")).unwrap()),
                        "group" => task.group(GroupName::new(format!("exam-{:04}", i % 1000)).unwrap()),
                        _ => task,
                    }
                })
                .collect();
            made += batch.len();
            assert!(backend.schedule(&queue, batch).await.unwrap().iter().all(Result::is_ok));
        }
        let took = began.elapsed();
        let server = (cpu_us(&mut bare).await - cpu) / made as f64;
        let each = (used(&mut bare).await - before) as f64 / made as f64;
        println!(
            "{kind:>6}: {each:.0} bytes a pending task; {:.0} scheduled/s, {server:.2} us of the server's time each",
            made as f64 / took.as_secs_f64()
        );
        if kind == "uuid" {
            cycles(&backend, &queue, &mut bare, made).await;
        }
    }
    backend.administer(&queue, AdminOp::Delete).await.unwrap();
    println!("with nothing else pending:");
    cycles(&backend, &queue, &mut bare, 0).await;
    backend.administer(&queue, AdminOp::Delete).await.unwrap();
    backend.close().await.unwrap();
}

async fn cycles(
    backend: &RedisBackend,
    queue: &QueueName,
    bare: &mut redis::aio::MultiplexedConnection,
    pending: usize,
) {
    let mut intake = backend.intake(queue, IntakeOptions::default()).await.unwrap();
    for batch in [1, 10, 100, 1000] {
        let rounds = (20_000 / batch).clamp(20, 2_000);
        let mut times = [Duration::ZERO; 3];
        let mut cpus = [0.0; 3];
        for _ in 0..rounds {
            let tasks = (0..batch).map(|_| NewTask::new(Due::NOW, vec![b'x'; 100])).collect();
            let start = (Instant::now(), cpu_us(bare).await);
            backend.schedule(queue, tasks).await.unwrap();
            let a = (Instant::now(), cpu_us(bare).await);
            let claimed = intake.claim(Claim::new(batch, Duration::from_secs(30))).await.unwrap();
            assert_eq!(claimed.deliveries.len(), batch);
            let b = (Instant::now(), cpu_us(bare).await);
            let verdicts = claimed.deliveries.into_iter().map(|task| (task.lease, Verdict::Complete)).collect();
            assert!(backend.settle(queue, verdicts).await.unwrap().iter().all(Result::is_ok));
            let c = (Instant::now(), cpu_us(bare).await);
            for (i, (from, to)) in [(start, a), (a, b), (b, c)].into_iter().enumerate() {
                times[i] += to.0 - from.0;
                cpus[i] += to.1 - from.1;
            }
        }
        let n = (rounds * batch) as f64;
        let us = |i: usize| times[i].as_secs_f64() * 1e6 / n;
        println!(
            "  {pending} pending, batch {batch:>4}: us a task (server's script time): schedule {:.2} ({:.2}), claim {:.2} ({:.2}), complete {:.2} ({:.2})",
            us(0),
            cpus[0] / n,
            us(1),
            cpus[1] / n,
            us(2),
            cpus[2] / n,
        );
    }
    intake.close().await.unwrap();
}

/// Time spent in scripts so far.
async fn cpu_us(bare: &mut redis::aio::MultiplexedConnection) -> f64 {
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(bare).await.unwrap();
    info.lines()
        .filter(|line| line.starts_with("cmdstat_eval"))
        .filter_map(|line| line.split("usec=").nth(1)?.split(',').next()?.parse::<f64>().ok())
        .sum()
}

async fn used(bare: &mut redis::aio::MultiplexedConnection) -> i64 {
    let info: String = redis::cmd("INFO").arg("memory").query_async(bare).await.unwrap();
    info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok()).unwrap()
}
