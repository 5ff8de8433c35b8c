//! Namespaces within a namespace: noted, held, listed, removed without a trace.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use delayline_conformance::servers::{Kind, Rabbit, Release, Server};
use delayline_core::{DelayBackend, Due, ErrorKind, NewTask, QueueName};
use delayline_rabbitmq::{HeldNamespace, RabbitBackend, RabbitConfig};
use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep};

/// Longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(server: &Rabbit, namespace: &str) -> RabbitConfig {
    RabbitConfig::from_url(&server.url()).unwrap().levels(2).namespace(namespace)
}

/// All queues and exchanges of the broker.
fn all(server: &Rabbit) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for what in ["list_queues", "list_exchanges"] {
        all.extend(server.control(&[what, "name"]).unwrap().lines().map(|name| format!("{what} {name}")));
    }
    all
}

async fn listed(server: &Rabbit) -> Vec<(String, bool)> {
    RabbitBackend::namespaces(config(server, "outer")).await.unwrap()
}

async fn until_listed(server: &Rabbit, wanted: &[(&str, bool)]) {
    let ends = Instant::now() + PATIENCE;
    loop {
        let listed = listed(server).await;
        if listed.iter().map(|(sub, held)| (sub.as_str(), *held)).eq(wanted.iter().copied()) {
            return;
        }
        assert!(Instant::now() < ends, "{listed:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn hold(server: &Rabbit, sub: &str) -> HeldNamespace {
    RabbitBackend::hold_namespace(config(server, &format!("outer.{sub}"))).await.unwrap()
}

/// Makes some queues there.
async fn use_it(server: &Rabbit, namespace: &str) {
    let backend = RabbitBackend::connect(config(server, namespace)).await.unwrap();
    let queue = QueueName::new("exams").unwrap();
    backend.schedule(&queue, vec![NewTask::new(Due::NOW, "x")]).await.unwrap().remove(0).unwrap();
    backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leak_8_namespaces_are_removed_without_a_trace_whoever_held_them() {
    let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
    let server = Arc::new(tokio::task::spawn_blocking(start).await.unwrap());
    // One that is no business of theirs, though its name begins alike.
    use_it(&server, "outer").await;
    let before = all(&server);
    assert_eq!(listed(&server).await, []);
    assert_eq!(all(&server), before, "looking makes nothing");

    // Several at the same time lose no note.
    let subs: Vec<String> = (0..6).map(|n| format!("sub-{n}")).collect();
    let held = join_all(subs.iter().map(|sub| hold(&server, sub))).await;
    let wanted: Vec<(&str, bool)> = subs.iter().map(|sub| (sub.as_str(), true)).collect();
    until_listed(&server, &wanted).await;
    join_all(["outer.sub-0", "outer.sub-1", "outer.sub-5"].map(|namespace| use_it(&server, namespace))).await;
    // What is in use is nobody else's.
    let e = RabbitBackend::hold_namespace(config(&server, "outer.sub-0")).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Busy && e.to_string().contains("outer.sub-0"), "{e}");
    let e = RabbitBackend::forget_namespace(config(&server, "outer"), "sub-0").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Busy, "{e}");

    // Their connections are cut, and they hold them again.
    server.control(&["close_all_connections", "cut by the test"]).unwrap();
    until_listed(&server, &wanted).await;

    // The last one's owner is gone without a word.
    let mut held = held;
    drop(held.pop());
    let mut left = wanted.clone();
    left[5].1 = false;
    until_listed(&server, &left).await;
    try_join_all(held.into_iter().map(HeldNamespace::remove)).await.unwrap();
    until_listed(&server, &[("sub-5", false)]).await;
    for _ in 0..2 {
        // Also by who is in another one himself, and again.
        RabbitBackend::forget_namespace(config(&server, "outer.sub-7"), "sub-5").await.unwrap();
    }
    assert_eq!(listed(&server).await, []);
    assert_eq!(all(&server), before);
    let server = Arc::into_inner(server).unwrap();
    tokio::task::spawn_blocking(|| drop(server)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_2_what_is_not_within_another_can_not_be_held() {
    for (name, says) in
        [("outer", "not within another"), ("outer.q", "`q` is reserved"), ("outer.a_b", "after the dot")]
    {
        let config = RabbitConfig::from_url("amqp://127.0.0.1:1").unwrap().namespace(name);
        let e = RabbitBackend::hold_namespace(config).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Config && e.to_string().contains(says), "{e}");
    }
}
