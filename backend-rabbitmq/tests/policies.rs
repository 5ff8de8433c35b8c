//! What an operator's policies take from our queues is not lost: it comes back, or is a dead letter by its own limits.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use delayline_conformance::servers::{Kind, Rabbit, Release, Server};
use delayline_core::{
    Attempts, Claim, ClaimedTask, DeadLetter, DeadLetterOp, DelayBackend, Disposition, NewTask, QueueName, Reason,
    Subscription, SubscriptionOptions,
};
use delayline_rabbitmq::{RabbitBackend, RabbitConfig};
use lapin::options::{BasicGetOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::time::{Instant, sleep, timeout};

/// Longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(90);
const LEASE: Duration = Duration::from_secs(300);

/// A broker with a policy on these queues of ours.
async fn broker(of: &str, policy: &str) -> Rabbit {
    let (of, policy) = (of.to_owned(), policy.to_owned());
    let start = move || {
        let server = Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
        server.control(&["set_policy", "--apply-to", "queues", "operators", &of, &policy]).unwrap();
        server
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

async fn stopped(server: Rabbit) {
    tokio::task::spawn_blocking(|| drop(server)).await.unwrap();
}

async fn backend(server: &Rabbit) -> Arc<dyn DelayBackend> {
    let config = RabbitConfig::from_url(&server.url()).unwrap().namespace("p").levels(2);
    Arc::new(RabbitBackend::connect(config).await.unwrap())
}

fn exams() -> QueueName {
    QueueName::new("exams").unwrap()
}

/// Schedules tasks with the numbers from 0 on as payload, each until it is accepted.
async fn schedule(backend: &Arc<dyn DelayBackend>, n: u32, after: Duration) {
    let ends = Instant::now() + PATIENCE;
    for number in 0..n {
        while let Err(e) = backend
            .schedule(&exams(), vec![NewTask::new(after, number.to_string())])
            .await
            .and_then(|mut one| one.remove(0))
        {
            assert!(e.retryable() && Instant::now() < ends, "{e}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn claim(subscription: &mut Box<dyn Subscription>, max: usize) -> (Vec<ClaimedTask>, u64) {
    // The connection may be about to be made anew.
    let claimed = subscription.claim(Claim::new(max, LEASE)).await.unwrap_or_default();
    if claimed.deliveries.is_empty() && claimed.dead_lettered == 0 {
        subscription.wait(Duration::from_millis(100)).await;
    }
    (claimed.deliveries, claimed.dead_lettered)
}

fn number(payload: &[u8]) -> u32 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

/// Completes tasks until all of these have come.
async fn receive(backend: &Arc<dyn DelayBackend>, n: u32) {
    let mut subscription = backend.subscribe(&exams(), SubscriptionOptions::default()).await.unwrap();
    let mut missing: BTreeSet<u32> = (0..n).collect();
    while !missing.is_empty() {
        let (tasks, dead_lettered) = claim(&mut subscription, 20).await;
        assert_eq!(dead_lettered, 0);
        let mut dispositions = Vec::new();
        for task in tasks {
            assert_eq!(task.lease.attempt, 1, "nobody has failed");
            missing.remove(&number(&task.payload));
            dispositions.push((task.lease, Disposition::Complete));
        }
        if !dispositions.is_empty() {
            backend.settle(&exams(), dispositions).await.unwrap().into_iter().for_each(|answer| answer.unwrap());
        }
    }
}

async fn letters(backend: &Arc<dyn DelayBackend>) -> Vec<DeadLetter> {
    backend.dead_letters(&exams(), DeadLetterOp::List { after: None, limit: 100 }).await.unwrap().letters
}

async fn operator(server: &Rabbit) -> (Connection, Channel) {
    let connection = Connection::connect(&server.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn loss_1_a_task_beyond_a_delivery_limit_ends_by_its_own_maximum() {
    let mut server = broker(".*", r#"{"delivery-limit":2}"#).await;
    let backend = backend(&server).await;
    let task = NewTask::new(Duration::ZERO, "0").attempts_max(Attempts::new(5).unwrap());
    backend.schedule(&exams(), vec![task]).await.unwrap().remove(0).unwrap();
    let mut subscription = backend.subscribe(&exams(), SubscriptionOptions::default()).await.unwrap();
    let (mut attempts, mut ends) = (Vec::new(), Instant::now() + PATIENCE);
    loop {
        assert!(Instant::now() < ends, "the task is lost after {attempts:?}");
        let (tasks, dead_lettered) = claim(&mut subscription, 1).await;
        if dead_lettered > 0 {
            break;
        }
        if let Some(task) = tasks.first() {
            attempts.push(task.lease.attempt);
            // Its holder dies.
            server = tokio::task::spawn_blocking(move || {
                server.disconnect().unwrap();
                server
            })
            .await
            .unwrap();
            ends = Instant::now() + PATIENCE;
        }
    }
    // RabbitMQ 3.10 does not say how many of them it counted.
    assert!(attempts.starts_with(&[1, 2, 3]) && attempts.ends_with(&[5]) && attempts.len() <= 11, "{attempts:?}");
    let letters = letters(&backend).await;
    assert_eq!(letters.iter().map(|letter| letter.attempts).collect::<Vec<_>>(), [5]);
    drop(subscription);
    backend.close().await.unwrap();
    stopped(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loss_1_what_is_beyond_a_length_of_ready_queue_and_gate_comes_later() {
    for (of, policy, after) in [
        (r"ready$", r#"{"max-length":5}"#, Duration::ZERO),
        (r"ready$", r#"{"max-length":5,"overflow":"drop-head"}"#, Duration::ZERO),
        (r"gate$", r#"{"max-length":5}"#, Duration::from_secs(2)),
        (r"gate$", r#"{"max-length":5,"overflow":"drop-head"}"#, Duration::from_secs(2)),
        (r"level\.", r#"{"max-length":5,"overflow":"drop-head"}"#, Duration::from_secs(8)),
        // With `drop-head` on all of them, strays included, there is no place for more than a few of each.
        (r"p\.", r#"{"max-length":5}"#, Duration::from_secs(2)),
        (r"ready$|gate$", r#"{"message-ttl":50}"#, Duration::from_secs(2)),
    ] {
        let server = broker(of, policy).await;
        let (one, other) = (backend(&server).await, backend(&server).await);
        let scheduling = {
            let one = one.clone();
            tokio::spawn(async move { schedule(&one, 100, after).await })
        };
        let received = timeout(PATIENCE, receive(&other, 100)).await;
        let queues = || server.control(&["list_queues", "name", "messages_ready", "messages_unacknowledged"]).unwrap();
        assert!(received.is_ok(), "with {policy} on {of} some did not come: {}", queues());
        scheduling.await.unwrap();
        assert!(letters(&other).await.is_empty(), "{of} {policy}");
        one.close().await.unwrap();
        other.close().await.unwrap();
        stopped(server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loss_1_dead_letters_that_were_listed_often_are_still_there() {
    let server = broker(".*", r#"{"delivery-limit":2}"#).await;
    let backend = backend(&server).await;
    schedule(&backend, 10, Duration::ZERO).await;
    let mut subscription = backend.subscribe(&exams(), SubscriptionOptions::default()).await.unwrap();
    let mut dead_lettered = 0;
    while dead_lettered < 10 {
        let (tasks, _) = claim(&mut subscription, 10).await;
        dead_lettered += tasks.len();
        let disposition = Disposition::DeadLetter { reason: Reason::new("done") };
        let dispositions: Vec<_> = tasks.into_iter().map(|task| (task.lease, disposition.clone())).collect();
        if !dispositions.is_empty() {
            backend.settle(&exams(), dispositions).await.unwrap().into_iter().for_each(|answer| answer.unwrap());
        }
    }
    // Nobody is there to look after strays but who lists.
    drop(subscription);
    let first: Vec<u32> = letters(&backend).await.iter().map(|letter| number(&letter.payload)).collect();
    assert_eq!(first.len(), 10);
    for time in 0..7 {
        let again: Vec<u32> = letters(&backend).await.iter().map(|letter| number(&letter.payload)).collect();
        assert_eq!(again, first, "listed {time} times");
    }
    backend.close().await.unwrap();
    stopped(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loss_1_names_of_queues_that_were_read_often_are_still_noted() {
    let server = broker(".*", r#"{"delivery-limit":1}"#).await;
    let backend = backend(&server).await;
    let _subscription = backend.subscribe(&exams(), SubscriptionOptions::default()).await.unwrap();
    let (connection, channel) = operator(&server).await;
    let mut read = BTreeMap::new();
    let ends = Instant::now() + PATIENCE;
    while read.get("exams") != Some(&6) {
        assert!(Instant::now() < ends, "{read:?}");
        let got = channel.basic_get("p.queues".into(), BasicGetOptions::default()).await.unwrap();
        let Some(got) = got else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        *read.entry(String::from_utf8(got.data.clone()).unwrap()).or_insert(0) += 1;
        channel.basic_nack(got.delivery_tag, BasicNackOptions { multiple: false, requeue: true }).await.unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
    drop(_subscription);
    backend.close().await.unwrap();
    let config = RabbitConfig::from_url(&server.url()).unwrap().namespace("p").levels(2);
    RabbitBackend::remove_namespace(config).await.unwrap();
    let (connection, channel) = operator(&server).await;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("p.q.exams.ready".into(), passive, FieldTable::default()).await.unwrap_err();
    connection.close(200, "done".into()).await.unwrap();
    stopped(server).await;
}
