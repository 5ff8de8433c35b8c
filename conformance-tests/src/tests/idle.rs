//! IDLE: no polling.

use std::time::Duration;

use delayline_core::{AdminOp, CancellationToken, Consumer, Due, NewTask, Queue, QueueName, Worker};
use tokio::time::{Instant, sleep};

use super::cancel::FAR;
use crate::history::What;
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

/// How often one process may ask about one queue.
const ONCE_IN: Duration = Duration::from_secs(30);

/// For how long it is watched.
fn window(t: &Trial) -> Duration {
    Duration::from_secs(if t.is_virtual() { 300 } else { 3 })
}

/// How many recorded calls a queue has seen so far.
fn asked(t: &Trial, queue: &QueueName) -> usize {
    let of_queue = |what: &What| matches!(what, What::Invoked { queue: of, .. } if of == queue);
    let recording = t.recording();
    recording.events.iter().filter(|event| of_queue(&event.what)).count()
}

/// Checks how often a queue was asked about in a time: at its beginning and end, for one notification too many, and rarely.
fn assert_quiet(t: &Trial, queue: &QueueName, asked_before: usize, began: Instant, what: &str) {
    let (asked, passed) = (asked(t, queue) - asked_before, began.elapsed());
    let may = 3 + (passed.as_secs_f64() / ONCE_IN.as_secs_f64()) as usize;
    assert!(asked <= may, "{what}: asked {asked} times in {passed:?}, where {may} are enough");
    t.checked(1);
}

/// Notifications of what was done before may still be on their way, a few of them.
async fn come_to_rest(t: &Trial, consumer: &mut Consumer<u32>, queue: &QueueName, what: &str) {
    for _ in 0..10 {
        let before = asked(t, queue);
        assert!(consumer.next_within(t.units(2)).await.expect("an answer").is_none(), "{what}");
        // At the beginning and at the end.
        if asked(t, queue) - before <= 2 {
            return;
        }
    }
    panic!("{what}: asked about without end");
}

pub async fn idle_1_a_consumer_that_waits_asks_nothing(t: &Trial) {
    let backend = t.backend();
    for what in ["nothing", "a far task", "a task in flight", "dead letters"] {
        let queue = Queue::<u32>::new(backend.clone(), t.queue(&what.replace(' ', "-"))).expect("a queue");
        let mut holder = t.subscribe(&backend, queue.name()).await;
        let mut held = Vec::new();
        match what {
            "a far task" => drop(t.put(&backend, queue.name(), NewTask::new(FAR, "1")).await),
            "a task in flight" | "dead letters" => {
                t.put(&backend, queue.name(), NewTask::new(Due::NOW, "1")).await;
                held = t.take_within(&mut holder, 1, LONG_LEASE, t.patience()).await;
                assert_eq!(held.len(), 1);
                if what == "dead letters" {
                    let dead_letter = delayline_core::Disposition::DeadLetter { reason: "never".into() };
                    t.settle(&backend, queue.name(), &held.remove(0), dead_letter).await.expect("a live lease");
                }
            }
            _ => {}
        }
        let mut consumer = queue.consumer().open().await.expect("a consumer");
        come_to_rest(t, &mut consumer, queue.name(), what).await;
        let (before, began) = (asked(t, queue.name()), Instant::now());
        assert!(consumer.next_within(window(t)).await.expect("an answer").is_none(), "{what}");
        assert_quiet(t, queue.name(), before, began, what);
        t.complete(&backend, queue.name(), &held).await;
    }
}

pub async fn idle_1_a_worker_that_waits_asks_nothing(t: &Trial) {
    let queues: Vec<_> =
        (0..20).map(|i| Queue::<u32>::new(t.backend(), t.queue(&format!("{i}"))).expect("a queue")).collect();
    for queue in queues.iter().step_by(2) {
        queue.schedule(&1).after(FAR).await.expect("a task that is accepted");
    }
    let before: Vec<_> = queues.iter().map(|queue| asked(t, queue.name())).collect();
    let (began, stop) = (Instant::now(), CancellationToken::new());
    let worker = Worker::builder().shutdown(stop.clone());
    let worker = queues.iter().fold(worker, |worker, queue| worker.queue(queue, |_, _| async {}));
    let worker = tokio::spawn(worker.build().expect("a worker").run());
    sleep(window(t)).await;
    for (queue, before) in queues.iter().zip(before) {
        assert_quiet(t, queue.name(), before, began, "a worker of twenty queues");
    }
    stop.cancel();
    assert_eq!(worker.await.expect("no panic").expect("a report").completed, 0);
}

pub async fn idle_1_what_was_worked_off_is_asked_about_no_more(t: &Trial) {
    let queue = Queue::<u32>::new(t.backend(), t.queue("was-busy")).expect("a queue");
    let stop = CancellationToken::new();
    let worker = Worker::builder().shutdown(stop.clone()).lease(t.units(5)).queue(&queue, |_, _| async {});
    let worker = tokio::spawn(worker.build().expect("a worker").run());
    for i in 0..100 {
        queue.schedule(&i).await.expect("a task that is accepted");
    }
    // Long enough for all of them, and for what was noted of their leases.
    sleep(t.units(10)).await;
    let (before, began) = (asked(t, queue.name()), Instant::now());
    sleep(window(t)).await;
    assert_quiet(t, queue.name(), before, began, "a queue that was worked off");
    stop.cancel();
    assert_eq!(worker.await.expect("no panic").expect("a report").completed, 100);
}

pub async fn idle_2_a_paused_queue_is_not_polled(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("paused"));
    backend.administer(&queue, AdminOp::Pause).await.expect("a pause");
    t.put_all(&backend, &queue, (0..10).map(|_| NewTask::new(Due::NOW, "1"))).await;
    let typed = Queue::<u32>::new(backend.clone(), &queue).expect("a queue");
    let mut consumer = typed.consumer().open().await.expect("a consumer");
    let (before, began) = (asked(t, &queue), Instant::now());
    assert!(consumer.next_within(window(t)).await.expect("an answer").is_none());
    assert_quiet(t, &queue, before, began, "a paused queue with tasks that are due");
    if Need::Delete.is_met(t.caps()) {
        backend.administer(&queue, AdminOp::Delete).await.expect("a deletion");
    }
}

pub async fn idle_2_a_later_task_wakes_a_sleeper_once_at_most(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("later"));
    let typed = Queue::<u32>::new(backend.clone(), &queue).expect("a queue");
    let due = t.units(15);
    typed.schedule(&0).after(due).await.expect("a task that is accepted");
    let mut consumer = typed.consumer().open().await.expect("a consumer");
    let waiting = tokio::spawn(async move { consumer.next().await });
    let (before, began) = (asked(t, &queue), Instant::now());
    t.put_all(&backend, &queue, (0..50).map(|_| NewTask::new(FAR, "1"))).await;
    let sent = asked(t, &queue) - before;
    let first = waiting.await.expect("no panic").expect("a task");
    // Its claim, one more for what came, one at the due time, and a little for a clock that runs ahead of the store's.
    let asked = asked(t, &queue) - before - sent;
    assert!(asked <= 6, "asked {asked} times in {:?}", began.elapsed());
    first.complete().await.expect("a live lease");
}
