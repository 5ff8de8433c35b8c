//! Panics of the application's own code: whatever it is that panics, no task is left behind and no process ends.

#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

mod support;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Bytes, Codec, Context, Disposition, Error, ErrorKind, HandlerOutcome, Queue, Raw, Result, RetryPolicy, Worker,
    WorkerReport,
};
use futures_util::FutureExt;
use support::{Probe, SECOND, fill, settle_down};
use tokio::time::Instant;

fn no_policy() -> RetryPolicy {
    RetryPolicy::custom(|attempt| panic!("no wait for attempt {attempt}"))
}

/// Within what the default policy waits after the first attempt.
fn by_default(waited: Duration) -> bool {
    waited >= SECOND && waited <= 2 * SECOND + Duration::from_millis(5)
}

#[tokio::test(start_paused = true)]
async fn drop_3_a_policy_that_panics_while_a_delivery_is_dropped_by_a_panic_is_the_default_policy() {
    let queue = Probe::new().queue("q");
    fill(&queue, [7]).await;
    let mut consumer = queue.consumer().retry(no_policy()).open().await.unwrap();
    let delivery = consumer.next().await.unwrap();
    let dropped_at = Instant::now();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _held = delivery;
        panic!("in the middle of the work");
    }));
    assert!(panicked.is_err());
    let again = consumer.next().await.unwrap();
    assert!(by_default(dropped_at.elapsed()), "{:?}", dropped_at.elapsed());

    let retried_at = Instant::now();
    again.retry(None, "by the policy").await.unwrap();
    assert_eq!(consumer.next().await.unwrap().attempt(), 3);
    assert!(retried_at.elapsed() >= 2 * SECOND && retried_at.elapsed() < 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn in_a_worker_a_policy_that_panics_leaves_no_task_unsettled() {
    let queue = Probe::new().queue("q");
    fill(&queue, [7]).await;
    let began = Instant::now();
    let report = run(Worker::builder().retry(no_policy()).queue(&queue, move |_, context: Context| async move {
        if context.attempt() == 1 { Err("not yet") } else { Ok(()) }
    }));
    let report = report.await;
    assert_eq!((report.retried, report.completed, report.unsettled), (1, 1, 0));
    assert!(by_default(began.elapsed()), "rather than when the lease ends: {:?}", began.elapsed());

    let many = Worker::builder().retry(no_policy()).queue_batch(&queue, 10, |tasks| async move {
        tasks
            .iter()
            .map(|(_, c)| if c.attempt() == 1 { HandlerOutcome::retry("not yet") } else { HandlerOutcome::Complete })
            .collect()
    });
    fill(&queue, 0..3).await;
    let report = run(many).await;
    assert_eq!((report.retried, report.completed, report.unsettled), (3, 3, 0));
}

async fn run(worker: delayline_core::WorkerBuilder) -> WorkerReport {
    worker.until_empty(true).build().unwrap().run().await.unwrap()
}

/// Text, on some of which it panics, and some of which it refuses with an error whose own text panics.
struct Touchy;

#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("no text for this")
    }
}

impl std::error::Error for Unspeakable {}

impl Codec<String> for Touchy {
    fn encode(&self, value: &String) -> Result<Bytes> {
        Ok(value.clone().into())
    }

    fn decode(&self, payload: &Bytes) -> Result<String> {
        match &payload[..] {
            b"panic" => panic!("on the payload `panic`"),
            b"refuse" => Err(Error::new(ErrorKind::Codec, "refused").with_source(Unspeakable)),
            other => Ok(String::from_utf8_lossy(other).into_owned()),
        }
    }
}

async fn touchy() -> Queue<String> {
    let queue = Queue::with_codec(Probe::new(), "q", Touchy).unwrap();
    schedule_all(&queue).await;
    queue
}

async fn schedule_all(queue: &Queue<String>) {
    for text in ["a", "panic", "b", "refuse", "c"] {
        queue.schedule(&text.to_owned()).attempts_max(2).await.unwrap();
    }
}

async fn reasons_of_the_dead(queue: &Queue<String>) -> Vec<String> {
    let dead = queue.dead_letters(None, 10).await.unwrap().letters;
    dead.iter().map(|dead| dead.reason.as_str().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn loss_10_a_consumer_retries_what_its_codec_panics_on_and_the_rest_is_not_held_up() {
    let queue = touchy().await;
    let mut consumer = queue.consumer().open().await.unwrap();
    let batch = consumer.next_batch(10).await.unwrap();
    assert_eq!(batch.iter().map(|delivery| delivery.payload().as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    for delivery in batch {
        delivery.complete().await.unwrap();
    }
    assert!(consumer.next_within(5 * SECOND).await.unwrap().is_none(), "it never surfaces");
    assert_eq!(reasons_of_the_dead(&queue).await, ["refused", "panicked: on the payload `panic`"]);
    assert_eq!(queue.stats().await.unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn loss_10_a_worker_retries_what_its_codec_panics_on_and_the_rest_is_not_held_up() {
    let queue = touchy().await;
    let report = run(Worker::builder().queue(&queue, |_, _| async {})).await;
    assert_eq!((report.completed, report.undecodable, report.unsettled), (3, 1, 0));
    assert_eq!((report.panicked, report.retried, report.dead_lettered), (2, 1, 1));
    assert_eq!(reasons_of_the_dead(&queue).await, ["refused", "panicked: on the payload `panic`"]);

    let queue = touchy().await;
    let many = |tasks: Vec<(String, Context)>| async move { tasks.iter().map(|_| HandlerOutcome::Complete).collect() };
    let report = run(Worker::builder().queue_batch(&queue, 10, many)).await;
    assert_eq!((report.completed, report.undecodable, report.unsettled), (3, 1, 0), "those beside it are no matter");
    assert_eq!((report.panicked, report.retried, report.dead_lettered), (2, 1, 1));
    assert_eq!(reasons_of_the_dead(&queue).await, ["refused", "panicked: on the payload `panic`"]);
}

/// Panics when it is dropped, unless that is in the middle of another panic.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped")
        }
    }
}

struct AsFragile;

impl Codec<Fragile> for AsFragile {
    fn encode(&self, _: &Fragile) -> Result<Bytes> {
        Ok(Bytes::new())
    }

    fn decode(&self, _: &Bytes) -> Result<Fragile> {
        Ok(Fragile)
    }
}

#[tokio::test(start_paused = true)]
async fn drop_3_a_payload_whose_drop_panics_takes_no_task_with_it() {
    let probe = Probe::new();
    let raw = Queue::<Bytes>::with_codec(probe.clone(), "q", Raw).unwrap();
    let queue = Queue::<Fragile>::with_codec(probe, "q", AsFragile).unwrap();
    for _ in 0..3 {
        raw.schedule(&Bytes::new()).await.unwrap();
    }
    let mut consumer = queue.consumer().open().await.unwrap();
    let all: Vec<_> = consumer.next_batch(3).await.unwrap().into_iter().map(|d| (d, Disposition::Complete)).collect();
    assert!(catch_unwind(AssertUnwindSafe(|| consumer.settle_all(all).now_or_never())).is_err());
    settle_down().await;
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.scheduled, stats.in_flight), (3, 0), "each is retried: nothing was said of it yet");

    let report = Worker::builder().until_empty(true).queue(&queue, |_: Fragile, context: Context| async move {
        assert_eq!(context.attempt(), 2);
    });
    let report = tokio::time::timeout(5 * SECOND, report.build().unwrap().run()).await;
    assert!(report.is_err(), "each panics at each attempt");
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.scheduled, stats.in_flight), (3, 0));
}

/// A handler whose future panics when it is stopped.
struct Stubborn(Arc<tokio::sync::Semaphore>);

impl Drop for Stubborn {
    fn drop(&mut self) {
        self.0.add_permits(1);
        panic!("stopped")
    }
}

#[tokio::test(start_paused = true)]
async fn close_2_a_handler_that_panics_when_it_is_stopped_is_given_back_too() {
    let queue = Probe::new().queue("q");
    fill(&queue, [7]).await;
    let stopped = Arc::new(tokio::sync::Semaphore::new(0));
    let handler = {
        let stopped = stopped.clone();
        move |_, _| {
            let stubborn = Stubborn(stopped.clone());
            async move {
                let _held = stubborn;
                std::future::pending::<()>().await;
            }
        }
    };
    let stop = delayline_core::CancellationToken::new();
    let worker = Worker::builder().shutdown(stop.clone()).shutdown_deadline(SECOND).queue(&queue, handler);
    let running = tokio::spawn(worker.build().unwrap().run());
    settle_down().await;
    stop.cancel();
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.released, report.unsettled, stopped.available_permits()), (1, 0, 1));
    assert_eq!(queue.stats().await.unwrap().due, 1);
}
