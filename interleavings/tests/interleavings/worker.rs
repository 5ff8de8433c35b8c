//! The worker: its shutdown against fetching, handling and settling; leases that are kept; the end when nothing is left.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::faults::Fault;
use delayline_core::{CancellationToken, Context, Disposition, HandlerOutcome, Queue, Worker, WorkerReport};
use interleavings::store::{Remote, all_wait, numbers};
use interleavings::{explore, finds};
use tokio::task::yield_now;

const TASKS: u32 = 4;
const SECOND: Duration = Duration::from_secs(1);

async fn filled() -> (Arc<Remote>, Queue<u32>) {
    let remote = Remote::new();
    let queue = numbers(remote.clone());
    for number in 0..TASKS {
        queue.schedule(&number).await.unwrap();
    }
    (remote, queue)
}

/// A worker whose handlers take some steps; of the last task, it never ends by itself.
fn worker(queue: &Queue<u32>, stop: &CancellationToken, deadline: Duration) -> Worker {
    let handler = |number: u32, _: Context| async move {
        for _ in 0..number {
            yield_now().await;
        }
        if number == TASKS - 1 {
            std::future::pending::<()>().await;
        }
    };
    Worker::builder()
        .queue(queue, handler)
        .concurrency(2)
        .shutdown(stop.clone())
        .shutdown_deadline(deadline)
        .build()
        .unwrap()
}

/// Every task that was claimed was settled once; those that were not completed are there, with no attempt used.
async fn check(remote: &Remote, queue: &Queue<u32>) -> usize {
    // A claim that was under way gives back what it took by itself.
    all_wait().await;
    let settled = remote.seen().settled;
    let mut leases = HashSet::new();
    for (lease, disposition, took_effect) in &settled {
        assert!(took_effect, "{disposition:?} of {lease:?} came too late, or was the second");
        assert!(leases.insert((lease.id.clone(), lease.fence)), "{lease:?} was settled twice");
        assert!(matches!(disposition, Disposition::Complete | Disposition::Release), "{disposition:?}");
    }
    let completed = settled.iter().filter(|(_, disposition, _)| matches!(disposition, Disposition::Complete)).count();
    let mut consumer = queue.consumer().open().await.unwrap();
    let left = consumer.try_next_batch(TASKS as usize).await.unwrap();
    assert!(left.iter().all(|delivery| delivery.attempt() == 1), "given back, which costs no attempt");
    assert_eq!(completed + left.len(), TASKS as usize, "each is completed, or there: {settled:?}");
    for delivery in left {
        delivery.complete().await.unwrap();
    }
    completed
}

fn counted(report: &WorkerReport) -> u64 {
    assert_eq!((report.lease_lost, report.unsettled, report.retried), (0, 0, 0), "{report:?}");
    report.completed
}

/// It is told to stop at any step, and stops what runs at once.
async fn stopped() {
    let (remote, queue) = filled().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker(&queue, &stop, Duration::ZERO).run());
    let began = tokio::time::now();
    for _ in 0..20 {
        yield_now().await;
    }
    stop.cancel();
    let report = running.await.unwrap().unwrap();
    assert!(tokio::time::now() - began < SECOND, "it took {:?} to end", tokio::time::now() - began);
    let completed = check(&remote, &queue).await;
    assert_eq!(counted(&report), completed as u64);
}

#[test]
fn close_2_a_shutdown_at_any_step_settles_each_task_once() {
    explore(stopped);
}

#[test]
fn a_task_that_is_settled_twice_is_found() {
    finds(Some(Fault::TakenTwice), stopped);
}

/// The handlers may finish until a deadline, which only the last one needs.
async fn stopped_with_patience() {
    let (remote, queue) = filled().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker(&queue, &stop, SECOND * 10).run());
    for _ in 0..20 {
        yield_now().await;
    }
    stop.cancel();
    let report = running.await.unwrap().unwrap();
    assert!(tokio::time::now() < SECOND * 11, "it ended at {:?}", tokio::time::now());
    let completed = check(&remote, &queue).await;
    assert_eq!(counted(&report), completed as u64);
}

#[test]
fn close_3_handlers_may_finish_and_the_rest_is_given_back() {
    explore(stopped_with_patience);
}

/// The future of `run` is dropped at any step.
async fn dropped() {
    let (remote, queue) = filled().await;
    let mut running = Box::pin(worker(&queue, &CancellationToken::new(), SECOND).run());
    tokio::select! {
        biased;
        () = async { for _ in 0..20 { yield_now().await } } => {}
        ended = &mut running => panic!("{ended:?}"),
    }
    drop(running);
    // Giving back may take twice a second.
    tokio::time::sleep(SECOND * 3).await;
    check(&remote, &queue).await;
}

#[test]
fn drop_5_a_worker_dropped_at_any_step_gives_everything_back() {
    explore(dropped);
}

/// Handlers that run for this many seconds, some for many times their lease.
async fn long_handlers() {
    let remote = Remote::new();
    let queue = numbers(remote.clone());
    // Where the keeper of leases wakes and finds the first gone, the second begins.
    queue.schedule(&15).await.unwrap();
    queue.schedule(&100).after(SECOND * 20).await.unwrap();
    let handler = |seconds: u32, context: Context| async move {
        tokio::select! {
            biased;
            () = context.lost().cancelled() => HandlerOutcome::retry("lost"),
            () = tokio::time::sleep(SECOND * seconds) => HandlerOutcome::Complete,
        }
    };
    let worker = Worker::builder().queue(&queue, handler).lease(SECOND * 30).until_empty(true);
    let report = worker.build().unwrap().run().await.unwrap();
    assert_eq!((report.completed, report.lease_lost, report.retried), (2, 0, 0), "{report:?}");
    assert_eq!(tokio::time::now(), SECOND * 120);
}

#[test]
fn dup_7_the_leases_of_long_handlers_are_kept() {
    explore(long_handlers);
}

#[test]
fn a_keeper_that_is_not_told_is_found() {
    finds(Some(Fault::KeeperNotTold), long_handlers);
}

/// Handlers schedule more, into the other queue, and the worker ends when all of it is done.
async fn until_empty() {
    let remote = Remote::new();
    let [left, right] = ["left", "right"].map(|name| Queue::<u32>::new(remote.clone(), name).unwrap());
    left.schedule(&2).await.unwrap();
    let into = |queue: &Queue<u32>| {
        let queue = queue.clone();
        move |number: u32, _: Context| {
            let queue = queue.clone();
            async move {
                if number > 0 {
                    queue.schedule(&(number - 1)).await.unwrap();
                }
            }
        }
    };
    let worker = Worker::builder().queue(&left, into(&right)).queue(&right, into(&left)).until_empty(true);
    let report = worker.concurrency(2).build().unwrap().run().await.unwrap();
    assert_eq!(report.completed, 3);
    assert_eq!(tokio::time::now(), Duration::ZERO, "it slept although nothing was left");
}

#[test]
fn a_worker_ends_when_nothing_is_left_and_not_before() {
    explore(until_empty);
}
