//! What nobody claimed costs no attempt, whoever stops consuming and whenever.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use delayline_conformance::servers::{self, Kind, Rabbit, Release, Server};
use delayline_core::{
    Attempts, Claim, ClaimedTask, DelayBackend, Disposition, Due, NewTask, QueueName, SubscriptionOptions,
};
use delayline_rabbitmq::{RabbitBackend, RabbitConfig};
use tokio::time::{Instant, sleep};

/// Longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn dup_12_what_was_on_its_way_to_a_subscription_that_closed_costs_no_attempt() {
    let url = tokio::task::spawn_blocking(|| servers::shared(Kind::RabbitMq).unwrap().lock().url()).await.unwrap();
    let config = RabbitConfig::from_url(&url).unwrap().namespace("attempts").levels(2);
    let backend: Arc<dyn DelayBackend> = Arc::new(RabbitBackend::connect(config).await.unwrap());
    let queue = QueueName::new("exams").unwrap();
    const ROUNDS: usize = 20;
    const TASKS: usize = 100;
    for _ in 0..ROUNDS {
        let mut subscription = backend.subscribe(&queue, SubscriptionOptions::default()).await.unwrap();
        // It asks for more than there is, and leaves while that comes.
        let claimed = subscription.claim(Claim::new(1_000, LEASE)).await.unwrap();
        let taken = claimed.deliveries.into_iter().map(|task| (task.lease, Disposition::Release)).collect();
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
        drop(subscription);
        coming.await.unwrap();
    }
    let mut subscription = backend.subscribe(&queue, SubscriptionOptions::default()).await.unwrap();
    let (mut came, ends) = (0, Instant::now() + PATIENCE);
    while came < ROUNDS * TASKS {
        assert!(Instant::now() < ends, "{came} tasks of {} came", ROUNDS * TASKS);
        let claimed = subscription.claim(Claim::new(1_000, LEASE)).await.unwrap();
        came += claimed.deliveries.len();
        for task in &claimed.deliveries {
            assert_eq!(task.lease.attempt, 1, "nobody had claimed it");
        }
        let done = claimed.deliveries.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
        for answer in backend.settle(&queue, done).await.unwrap() {
            answer.unwrap();
        }
        if claimed.next_due_in != Some(Duration::ZERO) {
            sleep(Duration::from_millis(5)).await;
        }
    }
    drop(subscription);
    backend.close().await.unwrap();
}

async fn take_one(backend: &Arc<dyn DelayBackend>, queue: &QueueName) -> ClaimedTask {
    let mut subscription = backend.subscribe(queue, SubscriptionOptions::default()).await.unwrap();
    let ends = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < ends, "the task did not come");
        // The connection may be about to be made anew.
        let claimed = subscription.claim(Claim::new(1, LEASE)).await.unwrap_or_default();
        if let Some(task) = claimed.deliveries.into_iter().next() {
            return task;
        }
        subscription.wait(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dup_13_a_lease_that_went_with_its_connection_has_cost_an_attempt() {
    let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
    let mut server = tokio::task::spawn_blocking(start).await.unwrap();
    let config = RabbitConfig::from_url(&server.url()).unwrap().namespace("cut").levels(2);
    let backend: Arc<dyn DelayBackend> = Arc::new(RabbitBackend::connect(config).await.unwrap());
    let queue = QueueName::new("exams").unwrap();
    let task = NewTask::new(Due::NOW, "x").attempts_max(Attempts::new(4).unwrap());
    backend.schedule(&queue, vec![task]).await.unwrap().remove(0).unwrap();
    for attempt in 1..=4 {
        let task = take_one(&backend, &queue).await;
        assert_eq!(task.lease.attempt, attempt, "each time it was delivered");
        server = tokio::task::spawn_blocking(move || {
            server.disconnect().unwrap();
            server
        })
        .await
        .unwrap();
    }
    let mut subscription = backend.subscribe(&queue, SubscriptionOptions::default()).await.unwrap();
    let ends = Instant::now() + PATIENCE;
    while subscription.claim(Claim::new(1, LEASE)).await.map_or(0, |claimed| claimed.dead_lettered) == 0 {
        assert!(Instant::now() < ends, "it is no dead letter");
        subscription.wait(Duration::from_millis(100)).await;
    }
    drop(subscription);
    backend.close().await.unwrap();
    tokio::task::spawn_blocking(|| drop(server)).await.unwrap();
}

/// Before RabbitMQ 4.3, the broker's setting alone counts.
#[tokio::test(flavor = "multi_thread")]
async fn dup_5_no_policy_takes_a_lease_from_who_has_it() {
    let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    if ["3.", "4.0", "4.1", "4.2"].iter().any(|old| server.version().starts_with(old)) {
        return tokio::task::spawn_blocking(|| drop(server)).await.unwrap();
    }
    server.control(&["set_policy", "short", ".*", r#"{"consumer-timeout":1000}"#]).unwrap();
    let config = RabbitConfig::from_url(&server.url()).unwrap().namespace("policy").levels(2);
    let backend: Arc<dyn DelayBackend> = Arc::new(RabbitBackend::connect(config).await.unwrap());
    let queue = QueueName::new("exams").unwrap();
    let tasks = (0..10).map(|_| NewTask::new(Due::NOW, "x")).collect();
    backend.schedule(&queue, tasks).await.unwrap().into_iter().for_each(|answer| drop(answer.unwrap()));
    let mut taken = Vec::new();
    while taken.len() < 10 {
        taken.push(take_one(&backend, &queue).await);
    }
    // What would come again comes within this.
    let mut subscription = backend.subscribe(&queue, SubscriptionOptions::default()).await.unwrap();
    let ends = Instant::now() + Duration::from_secs(5);
    while Instant::now() < ends {
        assert!(subscription.claim(Claim::new(1, LEASE)).await.unwrap().deliveries.is_empty(), "all are under lease");
        subscription.wait(Duration::from_millis(500)).await;
    }
    let done = taken.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
    backend.settle(&queue, done).await.unwrap().into_iter().for_each(|answer| answer.unwrap());
    drop(subscription);
    backend.close().await.unwrap();
    tokio::task::spawn_blocking(|| drop(server)).await.unwrap();
}
