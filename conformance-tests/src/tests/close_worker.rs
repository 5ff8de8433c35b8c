//! CLOSE, continued: how consumers and workers end, and what becomes of the tasks that they hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use delayline_core::{
    CancellationToken, Context, DelayBackend, ErrorKind, HandlerOutcome, Queue, Worker, WorkerBuilder,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::cancel::FAR;
use super::front::{Front, Mood, Notifications};
use super::live::promptly;
use crate::history::{Op, What};
use crate::trial::{LONG_LEASE, Trial};

/// The longest that a worker may take beyond its deadline.
const BEYOND_DEADLINE: Duration = Duration::from_secs(3);

fn typed(backend: Arc<dyn DelayBackend>, t: &Trial, name: &str) -> Queue<u32> {
    Queue::new(backend, t.queue(name)).expect("a queue")
}

async fn fill(queue: &Queue<u32>, n: u32) {
    for number in 0..n {
        queue.schedule(&number).await.expect("a task that is accepted");
    }
}

/// A worker whose handlers tell that they have started, and never end.
fn stuck(queue: &Queue<u32>, stop: &CancellationToken) -> (WorkerBuilder, mpsc::Receiver<u32>) {
    let (tell, told) = mpsc::channel(100);
    let worker = Worker::builder().shutdown(stop.clone()).queue(queue, move |number, _| {
        let tell = tell.clone();
        async move {
            tell.send(number).await.expect("the test listens");
            std::future::pending::<()>().await;
        }
    });
    (worker, told)
}

/// Waits until so many handlers have started.
async fn started(t: &Trial, told: &mut mpsc::Receiver<u32>, n: u32) {
    for _ in 0..n {
        let next = timeout(t.patience(), told.recv()).await.expect("a handler starts");
        assert!(next.is_some());
    }
}

/// Checks that a queue holds `n` tasks that are due, none of which has cost an attempt; another client takes them.
async fn all_given_back(t: &Trial, queue: &Queue<u32>, n: usize) {
    let other = t.another().await;
    let mut subscription = t.subscribe(&other, queue.name()).await;
    let came = t.take_within(&mut subscription, n, LONG_LEASE, promptly(t)).await;
    let attempts: Vec<u32> = came.iter().map(|task| task.lease.attempt).collect();
    assert_eq!(attempts, vec![1; n], "given back at once, at the cost of no attempt");
    t.complete(&other, queue.name(), &came).await;
    t.drain(&other, queue.name(), 0).await;
}

pub async fn close_2_what_is_unfinished_at_the_deadline_is_given_back(t: &Trial) {
    let queue = typed(t.backend(), t, "unfinished");
    fill(&queue, 5).await;
    let stop = CancellationToken::new();
    let (worker, mut told) = stuck(&queue, &stop);
    let deadline = t.units(3);
    let worker = tokio::spawn(worker.shutdown_deadline(deadline).build().expect("a worker").run());
    started(t, &mut told, 5).await;
    let began = Instant::now();
    stop.cancel();
    let report = timeout(t.patience(), worker).await.expect("it ends").expect("no panic").expect("a report");
    let took = began.elapsed();
    assert!(took >= deadline && took <= deadline + BEYOND_DEADLINE + promptly(t), "it ended after {took:?}");
    assert_eq!((report.released, report.completed, report.unsettled), (5, 0, 0));
    all_given_back(t, &queue, 5).await;
}

pub async fn close_2_another_worker_takes_over(t: &Trial) {
    let (queue, same) = (typed(t.backend(), t, "handed-over"), typed(t.another().await, t, "handed-over"));
    fill(&queue, 5).await;
    let (stop, stop_too) = (CancellationToken::new(), CancellationToken::new());
    let (worker, mut told) = stuck(&queue, &stop);
    let first = tokio::spawn(worker.shutdown_deadline(t.units(1)).build().expect("a worker").run());
    started(t, &mut told, 5).await;
    let (tell, mut done) = mpsc::channel(100);
    let second = Worker::builder().shutdown(stop_too.clone()).queue(&same, move |_, context: Context| {
        let tell = tell.clone();
        async move { tell.send(context.attempt()).await.expect("the test listens") }
    });
    let second = tokio::spawn(second.build().expect("a worker").run());
    stop.cancel();
    for _ in 0..5 {
        let attempt = timeout(t.patience(), done.recv()).await.expect("it is taken over");
        assert_eq!(attempt, Some(1));
    }
    first.await.expect("no panic").expect("a report");
    stop_too.cancel();
    assert_eq!(second.await.expect("no panic").expect("a report").completed, 5);
    t.drain(&t.backend(), queue.name(), 0).await;
}

pub async fn close_3_handlers_are_told_and_may_finish(t: &Trial) {
    let queue = typed(t.backend(), t, "told");
    fill(&queue, 4).await;
    let (stop, (tell, mut told)) = (CancellationToken::new(), mpsc::channel(100));
    let unit = t.units(1);
    let worker = Worker::builder().shutdown(stop.clone()).queue(&queue, move |number, context: Context| {
        let tell = tell.clone();
        async move {
            tell.send(number).await.expect("the test listens");
            context.shutdown().cancelled().await;
            sleep(unit * number).await;
            HandlerOutcome::Complete
        }
    });
    let worker = tokio::spawn(worker.shutdown_deadline(t.patience()).build().expect("a worker").run());
    started(t, &mut told, 4).await;
    let began = Instant::now();
    stop.cancel();
    let report = timeout(t.patience(), worker).await.expect("it ends").expect("no panic").expect("a report");
    let took = began.elapsed();
    assert!(
        took >= 3 * unit && took <= 3 * unit + promptly(t),
        "it ended after {took:?}, the last handler after three"
    );
    assert_eq!((report.completed, report.released), (4, 0));
    t.drain(&t.backend(), queue.name(), 0).await;
}

pub async fn close_4_a_worker_that_is_shut_down_claims_no_more(t: &Trial) {
    for known in [None, Some(FAR)] {
        let queue = typed(t.backend(), t, if known.is_some() { "far" } else { "empty" });
        if let Some(known) = known {
            queue.schedule(&1).after(known).await.expect("a task that is accepted");
        }
        let stop = CancellationToken::new();
        let (worker, _told) = stuck(&queue, &stop);
        let worker = tokio::spawn(worker.build().expect("a worker").run());
        sleep(t.units(2)).await;
        let began = Instant::now();
        stop.cancel();
        worker.await.expect("no panic").expect("a report");
        assert!(began.elapsed() <= promptly(t), "ended {:?} after it was told to, in a wait", began.elapsed());
        queue.schedule(&2).await.expect("a task that is accepted");
        let claims = claims(t, &queue);
        sleep(t.units(2)).await;
        assert_eq!(self::claims(t, &queue), claims, "a claim by a worker that has ended");
        // Nobody keeps what comes afterwards.
        let mut subscription = t.subscribe(queue.backend(), queue.name()).await;
        let came = t.take_within(&mut subscription, 1, LONG_LEASE, promptly(t)).await;
        assert_eq!(came.len(), 1);
        t.complete(queue.backend(), queue.name(), &came).await;
    }
}

/// How many claims were made of a queue so far.
fn claims(t: &Trial, queue: &Queue<u32>) -> usize {
    let recording = t.recording();
    let is_claim =
        |what: &What| matches!(what, What::Invoked { queue: of, op: Op::Claim { .. }, .. } if of == queue.name());
    recording.events.iter().filter(|event| is_claim(&event.what)).count()
}

pub async fn close_5_a_store_that_hangs_does_not_keep_a_worker(t: &Trial) {
    let front = Front::new(t.backend(), Notifications::Passed, t.caps().fallback_poll_interval);
    let queue = typed(front.clone(), t, "hangs");
    fill(&queue, 5).await;
    let stop = CancellationToken::new();
    let (worker, mut told) = stuck(&queue, &stop);
    let deadline = t.units(2);
    let worker = worker.lease(t.units(15)).shutdown_deadline(deadline);
    let worker = tokio::spawn(worker.build().expect("a worker").run());
    started(t, &mut told, 5).await;
    front.set(Mood::Hangs);
    let began = Instant::now();
    stop.cancel();
    let report = timeout(t.patience(), worker).await.expect("it ends").expect("no panic").expect("a report");
    let took = began.elapsed();
    assert!(took <= deadline + BEYOND_DEADLINE + promptly(t), "it ended after {took:?}");
    assert_eq!((report.released, report.unsettled), (0, 5));
    // Their leases end by themselves.
    let came = t.drain(&t.backend(), queue.name(), 5).await;
    assert_eq!(came.iter().map(|task| task.lease.attempt).collect::<Vec<_>>(), [2; 5]);
}

pub async fn close_6_a_task_whose_handler_was_not_started_is_given_back(t: &Trial) {
    let queue = typed(t.backend(), t, "not-started");
    fill(&queue, 5).await;
    let (stop, began) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let (stopping, counted) = (stop.clone(), began.clone());
    let worker = Worker::builder().shutdown(stop.clone()).queue(&queue, move |_, _| {
        // The first one that runs shuts the worker down; the others may have been claimed by the same call.
        counted.fetch_add(1, Ordering::SeqCst);
        stopping.cancel();
        async {}
    });
    let report = worker.build().expect("a worker").run().await.expect("a report");
    let ran = began.load(Ordering::SeqCst);
    assert!(ran >= 1 && report.completed == ran as u64 && report.unsettled == 0, "{ran} ran: {report:?}");
    all_given_back(t, &queue, 5 - ran).await;
}

pub async fn close_8_a_closed_backend_ends_its_workers_and_consumers(t: &Trial) {
    let backend = t.backend();
    let (queue, far) = (typed(backend.clone(), t, "ends"), typed(backend.clone(), t, "far"));
    far.schedule(&1).after(FAR).await.expect("a task that is accepted");
    let stop = CancellationToken::new();
    let (worker, _told) = stuck(&queue, &stop);
    let worker = tokio::spawn(worker.build().expect("a worker").run());
    let mut consumer = far.consumer().open().await.expect("a consumer");
    let consumer = tokio::spawn(async move { consumer.next().await.map(drop) });
    sleep(t.units(2)).await;
    let began = Instant::now();
    backend.close().await.expect("a close");
    let ended = timeout(t.patience(), worker).await.expect("it ends").expect("no panic");
    assert_eq!(ended.expect_err("a worker without its store").kind(), ErrorKind::Closed);
    let ended = timeout(t.patience(), consumer).await.expect("it ends").expect("no panic");
    assert_eq!(ended.expect_err("a consumer without its store").kind(), ErrorKind::Closed);
    assert!(began.elapsed() <= promptly(t), "they ended {:?} after the close", began.elapsed());
    let late = queue.schedule(&1).await;
    assert_eq!(late.expect_err("a queue without its store").kind(), ErrorKind::Closed);
    t.checked(3);
}
