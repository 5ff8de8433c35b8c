//! Gates on a real broker.

use std::sync::Arc;
use std::time::Duration;

use delayline_conformance::servers::{self, Kind as Server};
use delayline_core::{Action, Due, NewTask, QueueName, Shift, TaskId, TaskRef};
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicGetOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::time::timeout;

use crate::codec::message::Message;
use crate::codec::receipt::receipt;
use crate::config::RabbitConfig;
use crate::gate::Gate;
use crate::ops::change::{due_at_ms, request};
use crate::store::Store;

/// Longer than a defect would let a test wait in vain, and than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    store: Arc<Store>,
    queue: QueueName,
    ready: Option<(Channel, Consumer)>,
}

/// A namespace of one's own, with few levels.
async fn bench(namespace: &str, set: impl FnOnce(RabbitConfig) -> RabbitConfig) -> Bench {
    let server = tokio::task::spawn_blocking(|| servers::shared(Server::RabbitMq).unwrap()).await.unwrap();
    let url = server.lock().url();
    let config =
        RabbitConfig::from_url(&url).unwrap().namespace(namespace).levels(3).margin(Duration::from_millis(500));
    let store = Arc::new(Store::new(set(config)));
    let queue = QueueName::new("exam.hand-in").unwrap();
    store.topology.ensure(&queue).await.unwrap();
    Bench { store, queue, ready: None }
}

impl Bench {
    fn task(&self, number: u128, after: Duration) -> Message {
        let id = TaskId::new(format!("task-{number}")).unwrap();
        let due_ms = due_at_ms(&self.store, Due::After(after)).unwrap();
        Message::new(NewTask::new(after, "payload"), id, number, due_ms, self.store.counters.sequences(1), None)
    }

    async fn send(&self, messages: &[Message]) {
        let out = messages.iter().map(|message| self.store.outbox.route(&self.queue, message)).collect();
        for answer in self.store.outbox.publish(&self.queue, out).await {
            answer.unwrap();
        }
    }

    async fn change(&self, task: &Message, action: Action) {
        let mut reference = TaskRef::from(&task.id);
        reference.receipt = receipt(task.due_ms, task.number);
        let changed = request(&self.store, &self.queue, vec![reference], action).await.unwrap();
        assert_eq!((changed.requested, changed.refused), (1, 0));
    }

    /// The next in the ready queue, and how many milliseconds after its due time it came.
    async fn next(&mut self) -> (Message, i64) {
        if self.ready.is_none() {
            let channel = self.store.consuming.channel().await.unwrap();
            let name = self.store.names.ready(&self.queue);
            let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
            let consumer = channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await.unwrap();
            self.ready = Some((channel, consumer));
        }
        let (_, consumer) = self.ready.as_mut().unwrap();
        let delivery = timeout(PATIENCE, consumer.next()).await.expect("a task within patience").unwrap().unwrap();
        let message = Message::read(&delivery.properties, delivery.data.into()).unwrap();
        let late_ms = self.store.time.now_ms() - message.due_ms;
        assert!(late_ms >= 0, "task {} came {} ms early", message.number, -late_ms);
        (message, late_ms)
    }

    /// The numbers of the next so many.
    async fn numbers(&mut self, count: usize) -> Vec<u128> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            numbers.push(self.next().await.0.number);
        }
        numbers
    }

    /// Asserts that nothing but a task that is sent now is to come.
    async fn nothing_else(&mut self) {
        let last = self.task(999_999, Duration::from_millis(1));
        self.send(std::slice::from_ref(&last)).await;
        assert_eq!(self.numbers(1).await, [last.number]);
    }

    fn gate(&self) -> Gate {
        Gate::start(self.store.clone(), self.queue.clone())
    }

    async fn end(self) {
        drop(self.ready);
        self.store.lifecycle.close();
        self.store.publishing.close().await;
        self.store.consuming.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_1_tasks_come_in_order_and_none_early_through_levels_and_gate() {
    let mut bench = bench("gate-order", |config| config).await;
    let gate = bench.gate();
    let mut rng = fastrand::Rng::with_seed(3);
    let mut tasks: Vec<Message> =
        (1..=300).map(|n| bench.task(n, Duration::from_millis(rng.u64(2_000..8_000)))).collect();
    bench.send(&tasks).await;
    tasks.sort_by_key(|task| (task.due_ms, task.seq));
    let expected: Vec<u128> = tasks.iter().map(|task| task.number).collect();
    assert_eq!(bench.numbers(300).await, expected);
    bench.nothing_else().await;
    gate.close().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_11_tombstones_reach_tasks_in_the_levels_and_at_the_gate() {
    let mut bench = bench("gate-tombstones", |config| config).await;
    let gate = bench.gate();
    let tasks: Vec<Message> = [4_000, 4_000, 4_000, 1_500, 1_500, 5_500]
        .into_iter()
        .zip(1..)
        .map(|(ms, n)| bench.task(n, Duration::from_millis(ms)))
        .collect();
    bench.send(&tasks).await;
    bench.change(&tasks[0], Action::Cancel).await;
    bench.change(&tasks[1], Action::MoveTo(Due::After(Duration::from_secs(9)))).await;
    bench.change(&tasks[3], Action::Cancel).await;
    bench.change(&tasks[5], Action::Shift(Shift::Later(Duration::from_secs(1)))).await;
    let mut came = Vec::new();
    for _ in 0..4 {
        came.push(bench.next().await.0);
    }
    assert_eq!(came.iter().map(|task| task.number).collect::<Vec<_>>(), [5, 3, 6, 2]);
    assert_eq!(came[2].due_ms, tasks[5].due_ms + 1_000);
    bench.nothing_else().await;
    gate.close().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_2_what_the_levels_can_not_hold_at_one_go_goes_round_again() {
    let mut bench = bench("gate-round", |config| config.levels(1).margin(Duration::from_millis(50))).await;
    let gate = bench.gate();
    let task = bench.task(1, Duration::from_secs(9));
    bench.send(std::slice::from_ref(&task)).await;
    bench.nothing_else().await;
    assert_eq!(bench.next().await.0, task);
    gate.close().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_1_a_gate_whose_connection_is_cut_is_followed_by_the_next() {
    let mut first = bench("gate-follow", |config| config).await;
    let second = bench("gate-follow", |config| config).await;
    let (one, two) = (first.gate(), second.gate());
    let tasks: Vec<Message> = (1..=200).map(|n| second.task(n, Duration::from_millis(900 + n as u64))).collect();
    second.send(&tasks).await;
    // Nothing is due yet: whoever is cut off holds all of it.
    first.store.consuming.close().await;
    drop(one);
    let mut heir = Bench { ready: None, ..second };
    assert_eq!(heir.numbers(200).await, (1..=200).collect::<Vec<_>>());
    heir.nothing_else().await;
    two.close().await;
    first.ready = None;
    first.end().await;
    heir.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_1_a_gate_that_lost_its_channel_goes_on() {
    let mut bench = bench("gate-again", |config| config).await;
    let gate = bench.gate();
    let tasks: Vec<Message> = (1..=100).map(|n| bench.task(n, Duration::from_millis(1_000 + n as u64))).collect();
    bench.send(&tasks).await;
    let connection = bench.store.consuming.connection().await.unwrap();
    connection.close(200, "cut by the test".into()).await.unwrap();
    assert_eq!(bench.numbers(100).await, (1..=100).collect::<Vec<_>>());
    gate.close().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bound_15_a_gate_holds_no_more_bytes_than_it_may() {
    let mut bench = bench("gate-bytes", |config| config.hold_bytes_max(4_000)).await;
    let tasks: Vec<Message> = (1..=100).map(|n| bench.task(n, Duration::from_millis(100 + 10 * n as u64))).collect();
    bench.send(&tasks).await;
    let gate = bench.gate();
    // With so little room the order is the broker's, which is that of sending here.
    assert_eq!(bench.numbers(100).await, (1..=100).collect::<Vec<_>>());
    bench.nothing_else().await;
    gate.close().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_7_a_foreign_message_is_quarantined_and_holds_nothing_up() {
    let mut bench = bench("gate-foreign", |config| config).await;
    let task = bench.task(1, Duration::from_millis(200));
    let mut foreign = bench.store.outbox.to_queue(bench.store.names.gate(&bench.queue), &task);
    foreign.properties = lapin::BasicProperties::default();
    for answer in bench.store.outbox.publish(&bench.queue, vec![foreign]).await {
        answer.unwrap();
    }
    bench.send(std::slice::from_ref(&task)).await;
    let gate = bench.gate();
    assert_eq!(bench.next().await.0, task);
    let channel = bench.store.consuming.channel().await.unwrap();
    let quarantined =
        channel.basic_get(bench.store.names.quarantined().into(), BasicGetOptions::default()).await.unwrap();
    assert!(quarantined.is_some());
    drop(channel);
    gate.close().await;
    bench.end().await;
}
