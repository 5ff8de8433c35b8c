//! What an operator, a crash or a broker in need does to tasks that wait: nothing is lost, and work goes on unaided.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use delayline_conformance::proxy::{Link, Proxy};
use delayline_conformance::servers::{self, Kind, Rabbit, Release, Server};
use delayline_core::{
    Bytes, Claim, DelayBackend, Disposition, ErrorKind, Queue, QueueName, Raw, SubscriptionOptions, Task,
};
use delayline_rabbitmq::{RabbitBackend, RabbitConfig};
use lapin::options::{BasicPublishOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{Instant, timeout};

/// Longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of a namespace with few levels, whose messages are through them by two seconds before they are due.
async fn client(url: &str, namespace: &str) -> Queue<Bytes> {
    client_with(url, namespace, Duration::from_secs(1)).await
}

async fn client_with(url: &str, namespace: &str, heartbeat: Duration) -> Queue<Bytes> {
    let config = RabbitConfig::from_url(url).unwrap().namespace(namespace).levels(3).heartbeat(heartbeat);
    let config = config.response_timeout(Duration::from_secs(5));
    let backend: Arc<dyn DelayBackend> = Arc::new(RabbitBackend::connect(config).await.unwrap());
    Queue::with_codec(backend, QueueName::new("exams").unwrap(), Raw).unwrap()
}

async fn shared_url() -> String {
    tokio::task::spawn_blocking(|| servers::shared(Kind::RabbitMq).unwrap().lock().url()).await.unwrap()
}

async fn schedule(queue: &Queue<Bytes>, names: impl IntoIterator<Item = String>, after: Duration) {
    let tasks = names.into_iter().map(|name| Task::new(Bytes::from(name)).after(after));
    for answer in queue.schedule_all(tasks).await.unwrap() {
        answer.unwrap();
    }
}

/// Receives and completes until all of these have come. What comes twice is not counted.
async fn receive(queue: &Queue<Bytes>, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut missing: BTreeSet<String> = names.into_iter().collect();
    let mut came = Vec::new();
    let began = Instant::now();
    let mut consumer = loop {
        // A broker that was away is asked again after a pause of up to two seconds.
        match queue.consumer().open().await {
            Ok(consumer) => break consumer,
            Err(e) => assert!(e.retryable() && began.elapsed() < PATIENCE, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    while !missing.is_empty() {
        let Ok(delivery) = timeout(PATIENCE, consumer.next()).await else { panic!("{missing:?} did not come") };
        let delivery = delivery.unwrap();
        let name = String::from_utf8(delivery.payload().to_vec()).unwrap();
        // Where the connection was cut in between, it comes again, and counts once.
        let _ = delivery.complete().await;
        if missing.remove(&name) {
            came.push(name);
        }
    }
    consumer.close().await.unwrap();
    came
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n:03}")).collect()
}

/// A bare connection, for what an operator does.
async fn operator(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_1_a_task_whose_way_was_unbound_arrives() {
    let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let queue = client(&server.url(), "unbound").await;
    // Makes the queues.
    schedule(&queue, names("first", 1), Duration::ZERO).await;
    receive(&queue, names("first", 1)).await;
    let (_connection, channel) = operator(&server.url()).await;
    for (exchange, unbound, key) in
        [("unbound.level.1", "unbound.level.0.0", "1>0:0"), ("unbound.gates", "unbound.q.exams.gate", "exams")]
    {
        let is_bound = || {
            let bindings = server.control(&["list_bindings", "source_name", "routing_key"]).unwrap();
            bindings.lines().any(|line| line.split_whitespace().eq([exchange, key]))
        };
        assert!(is_bound(), "{exchange} {key}");
        channel.queue_unbind(unbound.into(), exchange.into(), key.into(), FieldTable::default()).await.unwrap();
        assert!(!is_bound(), "{exchange} {key}");
        // Through both of these.
        schedule(&queue, names(key, 20), Duration::from_millis(8_500)).await;
        receive(&queue, names(key, 20)).await;
        assert!(is_bound(), "{exchange} {key} is bound again");
    }
    queue.backend().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_3_queues_that_an_operator_deleted_come_back() {
    let url = shared_url().await;
    let queue = client(&url, "faults-deleted").await;
    schedule(&queue, names("first", 1), Duration::ZERO).await;
    let receiving = {
        let queue = queue.clone();
        tokio::spawn(async move { receive(&queue, names("first", 1).into_iter().chain(names("last", 1))).await })
    };
    let (_connection, channel) = operator(&url).await;
    for part in ["gate", "ready", "dead"] {
        let name = format!("faults-deleted.q.exams.{part}");
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        schedule(&queue, names(part, 1), Duration::from_millis(300)).await;
    }
    channel.queue_delete("faults-deleted.level.0.0".into(), QueueDeleteOptions::default()).await.unwrap();
    channel.exchange_delete("faults-deleted.level.2".into(), ExchangeDeleteOptions::default()).await.unwrap();
    // Through each slot of the levels.
    schedule(&queue, names("last", 1).into_iter().chain(names("more", 3)), Duration::from_millis(8_500)).await;
    receiving.await.unwrap();
    queue.backend().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_7_foreign_messages_are_quarantined() {
    let url = shared_url().await;
    let queue = client(&url, "faults-foreign").await;
    schedule(&queue, names("first", 1), Duration::ZERO).await;
    let (_connection, channel) = operator(&url).await;
    for part in ["gate", "ready", "dead"] {
        let name = format!("faults-foreign.q.exams.{part}");
        let none = BasicPublishOptions::default();
        channel.basic_publish("".into(), name.as_str().into(), none, b"?", BasicProperties::default()).await.unwrap();
    }
    schedule(&queue, names("last", 1), Duration::from_millis(300)).await;
    receive(&queue, names("first", 1).into_iter().chain(names("last", 1))).await;
    assert!(queue.dead_letters(None, 10).await.unwrap().letters.is_empty());
    // They are where an operator finds them.
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let kept = channel.queue_declare("faults-foreign.set-aside".into(), options, FieldTable::default()).await.unwrap();
    assert_eq!(kept.message_count(), 3);
    queue.backend().close().await.unwrap();
}

/// A process that holds the gate of a queue, and nothing else.
struct Holder(Child);

impl Holder {
    async fn start(url: &str, namespace: &str, heartbeat: Duration) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["a_process_that_holds_a_gate", "--exact", "--nocapture"]);
        command.env("DELAYLINE_HOLDER", format!("{url} {namespace} {}", heartbeat.as_secs())).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = tokio::process::ChildStdout::from_std(child.stdout.take().unwrap()).unwrap();
        let holder = Self(child);
        let mut lines = BufReader::new(out).lines();
        while let Some(line) = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
            if line.contains("holding") {
                return holder;
            }
        }
        panic!("the holder ended");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Also one that was stopped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test but what [`Holder`] runs: does nothing unless it is told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_holds_a_gate() {
    let Ok(told) = std::env::var("DELAYLINE_HOLDER") else { return };
    let told: Vec<&str> = told.split(' ').collect();
    let queue = client_with(told[0], told[1], Duration::from_secs(told[2].parse().unwrap())).await;
    let mut consumer = queue.consumer().open().await.unwrap();
    // It came through the gate, which is therefore ours.
    schedule(&queue, names("mine", 1), Duration::from_millis(300)).await;
    consumer.next().await.unwrap().complete().await.unwrap();
    println!("holding");
    std::future::pending().await
}

/// What `signal` does to the process that holds the gate, just before what it holds is due: how long after its due time the
/// first of it came.
async fn holder_gets(signal: &str, namespace: &str, heartbeat: Duration) -> Duration {
    const COUNT: usize = 50;
    const AHEAD: Duration = Duration::from_millis(2_500);
    let url = shared_url().await;
    let queue = client(&url, namespace).await;
    let holder = Holder::start(&url, namespace, heartbeat).await;
    let mut consumer = queue.consumer().open().await.unwrap();
    schedule(&queue, names("held", COUNT), AHEAD).await;
    let due = Instant::now() + AHEAD;
    tokio::time::sleep_until(due - Duration::from_millis(500)).await;
    holder.signal(signal);
    let mut came = Vec::new();
    let mut first = None;
    while came.len() < COUNT {
        let delivery = timeout(PATIENCE, consumer.next()).await.expect("a task within patience").unwrap();
        first.get_or_insert_with(|| Instant::now().saturating_duration_since(due));
        came.push(String::from_utf8(delivery.payload().to_vec()).unwrap());
        delivery.complete().await.unwrap();
    }
    assert_eq!(came, names("held", COUNT), "each once, in order");
    consumer.close().await.unwrap();
    queue.backend().close().await.unwrap();
    first.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_1_another_process_follows_a_gate_whose_process_was_killed() {
    // Nobody waits for its heartbeats: they would take a minute.
    let late = holder_gets("-KILL", "faults-killed", Duration::from_secs(30)).await;
    println!("a holder was killed 0.5 s before its tasks were due: the first came {late:?} late");
    assert!(late < Duration::from_secs(10), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_1_another_process_follows_a_gate_whose_process_stands_still() {
    let late = holder_gets("-STOP", "faults-stopped", Duration::from_secs(1)).await;
    println!("a holder was stopped 0.5 s before its tasks were due: the first came {late:?} late");
    // Two heartbeats of a second, and what a busy machine takes.
    assert!(late < Duration::from_secs(15), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_10_a_subscription_that_stalls_keeps_nothing() {
    const COUNT: usize = 300;
    let url = shared_url().await;
    let (stalled, other) = (client(&url, "faults-stalled").await, client(&url, "faults-stalled").await);
    let mut subscription = stalled.backend().subscribe(stalled.name(), SubscriptionOptions::default()).await.unwrap();
    schedule(&stalled, names("first", 1), Duration::ZERO).await;
    // It has asked for a thousand, got one, and never comes back.
    let mut taken = Vec::new();
    while taken.is_empty() {
        taken = subscription.claim(Claim::new(1_000, Duration::from_secs(60))).await.unwrap().deliveries;
        if taken.is_empty() {
            subscription.wait(Duration::from_secs(5)).await;
        }
    }
    schedule(&other, names("due", COUNT), Duration::from_secs(1)).await;
    let due = Instant::now() + Duration::from_secs(1);
    receive(&other, names("due", COUNT)).await;
    let late = Instant::now().saturating_duration_since(due);
    println!("beside a subscription that stalls, {COUNT} tasks were done {late:?} after they were due");
    // Its lease, which is what would free them otherwise, is a minute.
    assert!(late < Duration::from_secs(20), "{late:?}");
    drop(subscription);
    stalled.backend().close().await.unwrap();
    other.backend().close().await.unwrap();
}

/// A broker ends the channel of who holds a message for longer than its `consumer_timeout`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_2_a_lease_that_the_broker_ends_is_lost_and_its_task_comes_again() {
    let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    for setting in ["consumer_timeout, 8000", "channel_tick_interval, 1000"] {
        server.control(&["eval", &format!("application:set_env(rabbit, {setting}).")]).unwrap();
    }
    let queue = client(&server.url(), "timeout").await;
    let mut consumer = queue.consumer().lease(Duration::from_secs(600)).open().await.unwrap();
    schedule(&queue, names("held", 1), Duration::ZERO).await;
    let held = timeout(PATIENCE, consumer.next()).await.unwrap().unwrap();
    let again = timeout(PATIENCE, consumer.next()).await.expect("it comes again").unwrap();
    assert_eq!((held.attempt(), again.attempt()), (1, 2));
    assert_eq!(held.complete().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    again.complete().await.unwrap();
    // Work goes on.
    schedule(&queue, names("more", 20), Duration::from_secs(1)).await;
    consumer.close().await.unwrap();
    receive(&queue, names("more", 20)).await;
    queue.backend().close().await.unwrap();
}

/// What concerns a whole broker: on one of its own, one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_1_nothing_is_lost_by_a_broker_in_need() {
    let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    // How soon a queue tries again to dead-letter what found no way: three minutes, unless this is set.
    server
        .control(&["eval", "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000)."])
        .unwrap();
    unconnected_levels_keep_what_they_have(&server).await;
    a_missing_exchange_is_made_again(&server).await;
    closed_connections(&server).await;
    alarm(&server, "memory", ["set_vm_memory_high_watermark", "0.000001"], ["set_vm_memory_high_watermark", "0.6"])
        .await;
    alarm(&server, "disk", ["set_disk_free_limit", "1000000GB"], ["set_disk_free_limit", "50MB"]).await;
}

/// At-least-once dead-lettering is in effect: without it, the broker would drop what has expired.
async fn unconnected_levels_keep_what_they_have(server: &Rabbit) {
    let queue = client(&server.url(), "unconnected").await;
    schedule(&queue, names("kept", 20), Duration::from_secs(5)).await;
    let (_connection, channel) = operator(&server.url()).await;
    channel.exchange_delete("unconnected.gates".into(), ExchangeDeleteOptions::default()).await.unwrap();
    // Well after they have expired.
    tokio::time::sleep(Duration::from_secs(7)).await;
    // Makes the exchange again, as each client does when it starts.
    let again = client(&server.url(), "unconnected").await;
    receive(&again, names("kept", 20)).await;
    again.backend().close().await.unwrap();
    queue.backend().close().await.unwrap();
}

/// Nothing strays where an exchange is missing, and nobody publishes to that of the lowest level: it is looked for.
async fn a_missing_exchange_is_made_again(server: &Rabbit) {
    let config = RabbitConfig::from_url(&server.url()).unwrap().namespace("missing").levels(1);
    let config = config.fallback_poll_interval(Duration::from_secs(1));
    let backend: Arc<dyn DelayBackend> = Arc::new(RabbitBackend::connect(config).await.unwrap());
    let queue = Queue::with_codec(backend, QueueName::new("exams").unwrap(), Raw).unwrap();
    schedule(&queue, names("kept", 20), Duration::from_secs(5)).await;
    let (_connection, channel) = operator(&server.url()).await;
    for exchange in ["missing.level.0", "missing.gates"] {
        channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.unwrap();
    }
    receive(&queue, names("kept", 20)).await;
    queue.backend().close().await.unwrap();
}

async fn closed_connections(server: &Rabbit) {
    let queue = client(&server.url(), "closed").await;
    schedule(&queue, names("before", 20), Duration::from_secs(2)).await;
    let receiving = {
        let queue = queue.clone();
        let all = names("before", 20).into_iter().chain(names("after", 20));
        tokio::spawn(async move { receive(&queue, all).await })
    };
    server.control(&["close_all_connections", "cut by the test"]).unwrap();
    // The first call may be the one that finds the connection cut.
    let _ = queue.schedule(&Bytes::from_static(b"lost")).await;
    schedule(&queue, names("after", 20), Duration::from_secs(2)).await;
    receiving.await.unwrap();
    queue.backend().close().await.unwrap();
}

/// A broker that is short of memory or disk takes no tasks, says so in bounded time, and lets those be completed that it gave
/// out.
async fn alarm(server: &Rabbit, of: &str, on: [&str; 2], off: [&str; 2]) {
    let queue = client(&server.url(), &format!("alarm-{of}")).await;
    let backend = queue.backend();
    schedule(&queue, names("out", 1), Duration::ZERO).await;
    let mut subscription = backend.subscribe(queue.name(), SubscriptionOptions::default()).await.unwrap();
    let mut taken = Vec::new();
    while taken.is_empty() {
        taken = subscription.claim(Claim::new(1, Duration::from_secs(60))).await.unwrap().deliveries;
        if taken.is_empty() {
            subscription.wait(Duration::from_secs(5)).await;
        }
    }
    server.control(&on).unwrap();
    let began = Instant::now();
    let refused = loop {
        // It is told of the alarm with the first message after it.
        match queue.schedule(&Bytes::from_static(b"too much")).after(Duration::from_secs(3_600)).await {
            Ok(_) => assert!(began.elapsed() < PATIENCE, "the alarm was not raised"),
            Err(e) => break e,
        }
    };
    assert!(matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::Ambiguous), "{refused}");
    let began = Instant::now();
    let refused = queue.schedule(&Bytes::from_static(b"too much")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(began.elapsed() < Duration::from_secs(10), "refused after {:?}", began.elapsed());
    let lease = taken.pop().unwrap().lease;
    let settled = backend.settle(queue.name(), vec![(lease, Disposition::Complete)]).await.unwrap();
    assert!(settled[0].is_ok(), "{settled:?}");
    server.control(&off).unwrap();
    let began = Instant::now();
    while queue.schedule(&Bytes::from_static(b"last-000")).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "the alarm went, and scheduling did not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(subscription);
    receive(&queue, names("last", 1)).await;
    backend.close().await.unwrap();
}

/// A connection on which nothing comes any more, as behind a firewall that forgot it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_3_a_client_notices_that_its_broker_went_silent() {
    let url = shared_url().await;
    let address = url.rsplit('@').next().and_then(|rest| rest.split('/').next()).unwrap();
    let proxy = Proxy::start(address.parse().unwrap()).await.unwrap();
    let direct = client(&url, "silent").await;
    // No call is given up before the test is, so that it is the heartbeats that are missed.
    let config = RabbitConfig::from_url(&proxy.url(&url)).unwrap().namespace("silent").levels(3);
    let config = config.heartbeat(Duration::from_secs(1)).response_timeout(2 * PATIENCE);
    let backend: Arc<dyn DelayBackend> = Arc::new(RabbitBackend::connect(config).await.unwrap());
    let behind = Queue::with_codec(backend, QueueName::new("exams").unwrap(), Raw).unwrap();
    schedule(&behind, names("first", 1), Duration::ZERO).await;
    receive(&behind, names("first", 1)).await;
    let waiting = {
        let behind = behind.clone();
        tokio::spawn(async move { receive(&behind, names("last", 1)).await })
    };
    let accepted = proxy.accepted();
    proxy.set(Link::HALF_OPEN);
    let began = Instant::now();
    while proxy.accepted() == accepted {
        assert!(began.elapsed() < PATIENCE, "it still waits for heartbeats");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = timeout(PATIENCE, behind.schedule(&Bytes::from_static(b"refused"))).await.expect("an answer");
    assert!(refused.unwrap_err().retryable());
    proxy.set(Link::GOOD);
    schedule(&direct, names("last", 1), Duration::ZERO).await;
    waiting.await.unwrap();
    for queue in [direct, behind] {
        queue.backend().close().await.unwrap();
    }
}

/// Killed with tasks in the levels, at the gate and in the ready queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_4_a_broker_that_was_killed_brings_back_what_it_accepted() {
    let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
    let mut server = tokio::task::spawn_blocking(start).await.unwrap();
    let queue = client(&server.url(), "kill").await;
    let mut consumer = queue.consumer().open().await.unwrap();
    schedule(&queue, names("levels", 50), Duration::from_secs(12)).await;
    schedule(&queue, names("gate", 50), Duration::from_secs(3)).await;
    schedule(&queue, names("ready", 50), Duration::ZERO).await;
    // Under a lease, which ends with the broker.
    let held = timeout(PATIENCE, consumer.next()).await.unwrap().unwrap();
    tokio::task::block_in_place(|| server.kill().and_then(|()| server.start())).unwrap();
    assert!(held.complete().await.is_err(), "its lease was lost with the connection");
    consumer.close().await.unwrap();
    let all = names("levels", 50).into_iter().chain(names("gate", 50)).chain(names("ready", 50));
    receive(&queue, all).await;
    queue.backend().close().await.unwrap();
}
