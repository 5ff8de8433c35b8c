//! What nobody claimed costs no attempt, whoever stops consuming and whenever.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use delayline_conformance::servers::{self, Kind};
use delayline_core::{Claim, DelayBackend, Due, IntakeOptions, NewTask, QueueName, Verdict};
use delayline_rabbitmq::{RabbitBackend, RabbitConfig};
use tokio::time::{Instant, sleep};

/// Longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn dup_12_what_was_on_its_way_to_an_intake_that_closed_costs_no_attempt() {
    let url = tokio::task::spawn_blocking(|| servers::shared(Kind::RabbitMq).unwrap().lock().url()).await.unwrap();
    let config = RabbitConfig::from_url(&url).unwrap().name_space("attempts").levels(2);
    let backend: Arc<dyn DelayBackend> = Arc::new(RabbitBackend::connect(config).await.unwrap());
    let queue = QueueName::new("exams").unwrap();
    const ROUNDS: usize = 20;
    const TASKS: usize = 100;
    for _ in 0..ROUNDS {
        let mut intake = backend.intake(&queue, IntakeOptions::default()).await.unwrap();
        // It asks for more than there is, and leaves while that comes.
        let claimed = intake.claim(Claim::new(1_000, LEASE)).await.unwrap();
        let taken = claimed.deliveries.into_iter().map(|task| (task.lease, Verdict::Release)).collect();
        let coming = {
            let (backend, queue) = (backend.clone(), queue.clone());
            tokio::spawn(async move {
                for _ in 0..TASKS {
                    for answer in backend.schedule(&queue, vec![NewTask::new(Due::NOW, "x")]).await.unwrap() {
                        answer.unwrap();
                    }
                }
            })
        };
        for answer in backend.settle(&queue, taken).await.unwrap() {
            answer.unwrap();
        }
        drop(intake);
        coming.await.unwrap();
    }
    let mut intake = backend.intake(&queue, IntakeOptions::default()).await.unwrap();
    let (mut came, ends) = (0, Instant::now() + PATIENCE);
    while came < ROUNDS * TASKS {
        assert!(Instant::now() < ends, "{came} tasks of {} came", ROUNDS * TASKS);
        let claimed = intake.claim(Claim::new(1_000, LEASE)).await.unwrap();
        came += claimed.deliveries.len();
        for task in &claimed.deliveries {
            assert_eq!(task.lease.attempt, 1, "nobody had claimed it");
        }
        let done = claimed.deliveries.into_iter().map(|task| (task.lease, Verdict::Complete)).collect();
        for answer in backend.settle(&queue, done).await.unwrap() {
            answer.unwrap();
        }
        if claimed.next_due_in != Some(Duration::ZERO) {
            sleep(Duration::from_millis(5)).await;
        }
    }
    drop(intake);
    backend.close().await.unwrap();
}
