//! How a worker ends: in good order, at its deadline, when it is dropped, and when the store does not answer.

#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use delayline_core::{CancellationToken, Context, ErrorKind, Page, Queue, Worker, WorkerBuilder};
use support::{DAY, Fault, Probe, SECOND, fill, settle_down};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// A worker whose handlers never end.
fn stuck(queue: &Queue<u32>, stop: &CancellationToken) -> WorkerBuilder {
    Worker::builder().shutdown(stop.clone()).queue(queue, |_, _| std::future::pending::<()>())
}

/// What is in the queue: each task's attempts, the running ones included, and whether it is due.
async fn attempts(queue: &Queue<u32>) -> Vec<u32> {
    let stats = queue.stats().await.unwrap();
    let list = queue.list(Page::first(100)).await.unwrap();
    assert_eq!((stats.due, stats.in_flight), (list.len() as u64, 0), "all are due, none in flight");
    list.iter().map(|view| view.attempt).collect()
}

#[tokio::test(start_paused = true)]
async fn close_2_what_is_unfinished_at_the_deadline_is_given_back_with_no_attempt_burnt() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..5).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(stuck(&queue, &stop).shutdown_deadline(10 * SECOND).build().unwrap().run());
    settle_down().await;
    assert_eq!(queue.stats().await.unwrap().in_flight, 5);
    let began = Instant::now();
    stop.cancel();
    let report = running.await.unwrap().unwrap();
    assert!(began.elapsed() >= 10 * SECOND && began.elapsed() < 11 * SECOND, "{:?}", began.elapsed());
    assert_eq!(report.released, 5);
    assert_eq!(attempts(&queue).await, [0; 5]);
    assert_eq!(probe.on.settle.batches(), [5], "in one call");
}

#[tokio::test(start_paused = true)]
async fn close_3_handlers_may_finish_and_are_told() {
    let queue = Probe::new().queue("q");
    fill(&queue, 0..3).await;
    let stop = CancellationToken::new();
    let worker = Worker::builder().shutdown(stop.clone()).queue(&queue, |n, context: Context| async move {
        context.shutdown().cancelled().await;
        tokio::time::sleep(n * SECOND).await;
    });
    let running = tokio::spawn(worker.build().unwrap().run());
    settle_down().await;
    fill(&queue, [9]).await;
    settle_down().await;
    let began = Instant::now();
    stop.cancel();
    let report = running.await.unwrap().unwrap();
    assert!(began.elapsed() >= 9 * SECOND && began.elapsed() < 10 * SECOND, "no longer than they took");
    assert_eq!((report.completed, report.released), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn close_4_claiming_stops_at_once_also_in_the_middle_of_a_wait() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    queue.schedule(&7).after(DAY).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(stuck(&queue, &stop).build().unwrap().run());
    settle_down().await;
    let (began, claims) = (Instant::now(), probe.on.claim.calls());
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_millis(1));
    assert_eq!(probe.on.claim.calls(), claims);
    assert_eq!(probe.on.subscriptions.load(Ordering::SeqCst), 0, "leak_5");
}

#[tokio::test(start_paused = true)]
async fn close_5_a_store_that_hangs_does_not_keep_a_worker_beyond_its_deadline() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..5).await;
    let stop = CancellationToken::new();
    let worker =
        Worker::builder().shutdown(stop.clone()).shutdown_deadline(10 * SECOND).queue(&queue, |n, _| async move {
            if n > 2 {
                std::future::pending::<()>().await;
            }
        });
    for method in [&probe.on.settle, &probe.on.extend] {
        method.always(Some(Fault::Hang));
    }
    let alive = Handle::current().metrics().num_alive_tasks();
    let running = tokio::spawn(worker.build().unwrap().run());
    settle_down().await;
    probe.on.claim.always(Some(Fault::Hang));
    let began = Instant::now();
    stop.cancel();
    let report = running.await.unwrap().unwrap();
    assert!(began.elapsed() <= 12 * SECOND + Duration::from_millis(10), "{:?}", began.elapsed());
    assert_eq!((report.completed, report.released, report.unsettled), (0, 0, 5));
    settle_down().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), alive, "leak_5: nothing goes on in the background");
}

#[tokio::test(start_paused = true)]
async fn close_6_a_task_whose_handler_was_not_started_is_given_back() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..5).await;
    let stop = CancellationToken::new();
    let started = Arc::new(AtomicUsize::new(0));
    let (counted, stopping) = (started.clone(), stop.clone());
    let worker = Worker::builder().shutdown(stop.clone()).queue(&queue, move |_, _| {
        // The first handler that runs shuts the worker down; the others were claimed in the same call.
        counted.fetch_add(1, Ordering::SeqCst);
        stopping.cancel();
        async {}
    });
    let report = worker.build().unwrap().run().await.unwrap();
    assert_eq!((started.load(Ordering::SeqCst), report.completed, report.released), (1, 1, 4));
    assert_eq!(attempts(&queue).await, [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn drop_5_a_worker_that_is_dropped_gives_its_tasks_back_and_leaves_nothing() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..5).await;
    let (stop, alive) = (CancellationToken::new(), Handle::current().metrics().num_alive_tasks());
    for _ in 0..3 {
        let mut run = Box::pin(stuck(&queue, &stop).build().unwrap().run());
        let polled_for_a_while = tokio::time::timeout(100 * SECOND, &mut run).await;
        assert!(polled_for_a_while.is_err());
        assert_eq!(queue.stats().await.unwrap().in_flight, 5);
        drop(run);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(attempts(&queue).await, [0; 5]);
        assert_eq!(probe.on.subscriptions.load(Ordering::SeqCst), 0);
        assert_eq!(Handle::current().metrics().num_alive_tasks(), alive, "leak_5");
    }
}

#[tokio::test(start_paused = true)]
async fn drop_6_a_worker_that_is_dropped_in_the_middle_of_a_claim_or_a_settling_loses_nothing() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..2).await;
    let alive = Handle::current().metrics().num_alive_tasks();
    let gate = Arc::new(Semaphore::new(0));
    probe.on.claim.plan([Fault::Gate(gate.clone())]);
    let worker = || Worker::builder().queue(&queue, |_, _| async {}).build().unwrap();
    assert!(tokio::time::timeout(SECOND, worker().run()).await.is_err());
    assert_eq!(attempts(&queue).await, [0; 2]);

    probe.on.settle.always(Some(Fault::Gate(gate.clone())));
    assert!(tokio::time::timeout(SECOND, worker().run()).await.is_err());
    assert_eq!(queue.stats().await.unwrap().in_flight, 2);
    gate.add_permits(10);
    settle_down().await;
    assert!(queue.list(Page::first(1)).await.unwrap().is_empty(), "they were done, and so completed");
    assert_eq!(Handle::current().metrics().num_alive_tasks(), alive, "leak_5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_7_a_handler_that_does_not_yield_keeps_its_task_until_the_lease_ends() {
    let queue = Probe::new().queue("q");
    fill(&queue, [7]).await;
    let stop = CancellationToken::new();
    let (release, blocked) = std::sync::mpsc::sync_channel::<()>(0);
    let (blocked, started) = (parking_lot::Mutex::new(blocked), Arc::new(tokio::sync::Notify::new()));
    let starting = started.clone();
    let worker =
        Worker::builder().shutdown(stop.clone()).shutdown_deadline(Duration::ZERO).queue(&queue, move |_, _| {
            starting.notify_one();
            let _ = blocked.lock().recv();
            async {}
        });
    let running = tokio::spawn(worker.build().unwrap().run());
    started.notified().await;
    stop.cancel();
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.completed, report.released, report.unsettled), (0, 0, 1));
    assert_eq!(queue.stats().await.unwrap().in_flight, 1, "given back now, it would run twice at once");
    drop(release);
}

#[tokio::test(start_paused = true)]
async fn drop_5_a_worker_that_is_dropped_while_it_shuts_down_gives_its_tasks_back() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..5).await;
    let (stop, gate) = (CancellationToken::new(), Arc::new(Semaphore::new(0)));
    let mut run = Box::pin(stuck(&queue, &stop).shutdown_deadline(SECOND).build().unwrap().run());
    assert!(tokio::time::timeout(SECOND, &mut run).await.is_err());
    probe.on.settle.plan([Fault::Gate(gate.clone())]);
    stop.cancel();
    assert!(tokio::time::timeout(SECOND + SECOND / 2, &mut run).await.is_err(), "it is giving them back");
    drop(run);
    gate.add_permits(1);
    settle_down().await;
    assert_eq!(attempts(&queue).await, [0; 5]);
}

#[tokio::test(start_paused = true)]
async fn leak_5_a_token_that_outlives_many_workers_keeps_nothing_of_them() {
    let queue = Probe::new().queue("q");
    let stop = CancellationToken::new();
    let handler = Arc::new(());
    for _ in 0..50 {
        let held = handler.clone();
        let worker = Worker::builder().shutdown(stop.clone()).until_empty(true).queue(&queue, move |_, _| {
            let _held = held.clone();
            async {}
        });
        fill(&queue, 0..3).await;
        assert_eq!(worker.build().unwrap().run().await.unwrap().completed, 3);
    }
    settle_down().await;
    assert_eq!(Arc::strong_count(&handler), 1);
    assert!(!stop.is_cancelled(), "a worker's end is not its owner's");
}

#[tokio::test(start_paused = true)]
async fn close_8_a_backend_that_is_closed_ends_its_workers() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let stop = CancellationToken::new();
    let running = tokio::spawn(stuck(&queue, &stop).build().unwrap().run());
    settle_down().await;
    queue.backend().close().await.unwrap();
    assert_eq!(running.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
}
