//! A queue that was made just now: what it accepts outlives the broker at once, and no task waits for that.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use delayline_conformance::servers::{self, Kind, Rabbit, Release, Server};
use delayline_core::{
    Claim, DeadLetterOp, DelayBackend, Disposition, ErrorKind, NewTask, QueueName, SubscriptionOptions,
};
use delayline_rabbitmq::{RabbitBackend, RabbitConfig};
use tokio::time::{Instant, timeout};

/// Longer than a busy machine needs, and than the three minutes after which a broker tries again to let a message out of a
/// level: the first time, the gate may not have been up yet.
const PATIENCE: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_millis(50);
/// Longer than making a queue and a claim take, shorter than a broker waits before it writes down by itself what it has made.
const EXPIRES: Duration = Duration::from_millis(500);
const ROUNDS: usize = 3;

async fn backend(url: &str, namespace: &str) -> Arc<dyn DelayBackend> {
    let config = RabbitConfig::from_url(url).unwrap().namespace(namespace).levels(4);
    let began = Instant::now();
    loop {
        match RabbitBackend::connect(config.clone()).await {
            Ok(backend) => return Arc::new(backend),
            // It has just been started.
            Err(e) => assert!(e.kind() == ErrorKind::Unavailable && began.elapsed() < PATIENCE, "{e}"),
        }
    }
}

/// The ids of so many tasks, which are completed.
async fn take(backend: &Arc<dyn DelayBackend>, queue: &QueueName, n: usize) -> BTreeSet<String> {
    let mut subscription = backend.subscribe(queue, SubscriptionOptions::default()).await.unwrap();
    let mut came = BTreeSet::new();
    while came.len() < n {
        let claimed = timeout(PATIENCE, subscription.claim(Claim::new(100, PATIENCE))).await.expect("an answer");
        // The broker may have been asked before all of it was up.
        let claimed = claimed.unwrap_or_default();
        assert_eq!(claimed.dead_lettered, 0, "a task expired before it was seen");
        came.extend(claimed.deliveries.iter().map(|task| task.lease.id.to_string()));
        let done: Vec<_> = claimed.deliveries.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
        if done.is_empty() {
            timeout(PATIENCE, subscription.wait(PATIENCE * 2)).await.unwrap_or_else(|_| panic!("{came:?} came"));
        } else {
            backend.settle(queue, done).await.unwrap().into_iter().for_each(|answer| answer.unwrap());
        }
    }
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn time_8_the_first_task_of_a_queue_does_not_expire_while_the_queue_is_made() {
    let url = tokio::task::spawn_blocking(|| servers::shared(Kind::RabbitMq).unwrap().lock().url()).await.unwrap();
    let backend = backend(&url, "new-queue").await;
    for (name, after) in [("at-once", Duration::ZERO), ("soon", SOON)] {
        let queue = QueueName::new(name).unwrap();
        let task = NewTask::new(after, "x").id("first".parse().unwrap()).expires(after + EXPIRES);
        backend.schedule(&queue, vec![task]).await.unwrap().remove(0).unwrap();
        // Whoever comes now finds it.
        assert_eq!(take(&backend, &queue, 1).await, BTreeSet::from(["first".to_owned()]), "{name}");
        let letters = backend.dead_letters(&queue, DeadLetterOp::List { after: None, limit: 10 }).await.unwrap();
        assert!(letters.letters.is_empty(), "{letters:?}");
    }
    backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn loss_4_what_a_new_queue_accepted_survives_a_kill_at_once() {
    let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
    let mut server = tokio::task::spawn_blocking(start).await.unwrap();
    let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    for round in 0..rounds {
        // Every other time the namespace is new as well.
        let namespace = format!("killed-{}", round / 2);
        let queue = QueueName::new(format!("exams-{round}")).unwrap();
        let first = backend(&server.url(), &namespace).await;
        // To the ready queue, to the gate, into the levels, which nothing leaves before the broker is up again.
        let tasks: Vec<NewTask> = [0, 3, 16]
            .iter()
            .flat_map(|s| {
                (0..10).map(move |n| NewTask::new(Duration::from_secs(*s), "x").id(format!("{s}-{n}").parse().unwrap()))
            })
            .collect();
        let all: BTreeSet<String> = tasks.iter().map(|task| task.id.as_ref().unwrap().to_string()).collect();
        for answer in first.schedule(&queue, tasks).await.unwrap() {
            answer.unwrap();
        }
        server = tokio::task::spawn_blocking(move || {
            server.kill().and_then(|()| server.start()).unwrap();
            server
        })
        .await
        .unwrap();
        let second = backend(&server.url(), &namespace).await;
        assert_eq!(take(&second, &queue, all.len()).await, all, "round {round}");
        second.close().await.unwrap();
        first.close().await.unwrap();
    }
    tokio::task::spawn_blocking(|| drop(server)).await.unwrap();
}
