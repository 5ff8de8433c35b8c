//! Running handlers: what becomes of their tasks, and of everybody else's.

#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use delayline_core::{
    Bytes, CancellationToken, Context, ErrorKind, HandlerOutcome, Page, Queue, Raw, RetryPolicy, Task, Worker,
    WorkerBuilder,
};
use parking_lot::Mutex;
use support::{DAY, Fault, Probe, SECOND, fill, settle_down};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// A handler that sends what it gets, and the receiver.
fn collector() -> (impl Fn(u32, Context) -> std::future::Ready<()> + Clone + Send + Sync, mpsc::Receiver<u32>) {
    let (sender, receiver) = mpsc::channel(1000);
    let handler = move |n, _| {
        sender.try_send(n).unwrap();
        std::future::ready(())
    };
    (handler, receiver)
}

/// Runs a worker beside `and`, then shuts it down.
async fn with_worker<T>(worker: WorkerBuilder, and: impl Future<Output = T>) -> (T, delayline_core::WorkerReport) {
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.shutdown(stop.clone()).build().unwrap().run());
    let result = and.await;
    stop.cancel();
    (result, running.await.unwrap().unwrap())
}

#[tokio::test(start_paused = true)]
async fn live_1_a_task_due_in_30_days_runs_then_and_idle_1_nothing_is_asked_beyond_fallback_polls() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    queue.schedule(&7).after(30 * DAY).await.unwrap();
    let (seen, mut saw) = mpsc::channel(1);
    let worker = Worker::builder().queue(&queue, move |n, context: Context| {
        let seen = seen.clone();
        async move { seen.send((n, context.lateness())).await.unwrap() }
    });
    let began = Instant::now();
    let ((n, lateness), report) = with_worker(worker, async { saw.recv().await.unwrap() }).await;
    assert_eq!((n, report.completed), (7, 1));
    assert!(began.elapsed() >= 30 * DAY && lateness < Duration::from_millis(5), "{lateness:?}");
    let fallback_polls = (30 * DAY).as_secs() / 30;
    let claims = probe.on.claim.calls() as u64;
    assert!(claims <= fallback_polls + 2, "{claims} claims in {fallback_polls} fallback polls");
    assert_eq!(probe.on.extend.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn live_5_a_slow_handler_delays_nobody() {
    let queue = Probe::new().queue("q");
    let (seen, mut saw) = mpsc::channel(100);
    let worker = Worker::builder().concurrency(2).queue(&queue, move |n, _| {
        let seen = seen.clone();
        async move {
            if n == 0 {
                std::future::pending::<()>().await;
            }
            seen.send(n).await.unwrap();
        }
    });
    let other_tasks = async {
        fill(&queue, 0..50).await;
        for n in 1..50 {
            assert_eq!(saw.recv().await, Some(n));
        }
    };
    let began = Instant::now();
    let ((), report) = with_worker(worker.shutdown_deadline(Duration::ZERO), other_tasks).await;
    assert!(began.elapsed() < 3 * SECOND);
    assert_eq!((report.completed, report.released), (49, 1));
}

#[tokio::test(start_paused = true)]
async fn what_handlers_return_is_done_and_counted() {
    let queue = Probe::new().queue("q");
    fill(&queue, 0..7).await;
    let raw = Queue::<Bytes>::with_codec(queue.backend().clone(), "q", Raw).unwrap();
    raw.schedule(&Bytes::from("no number")).await.unwrap();
    let settler = queue.clone();
    let worker = Worker::builder().retry(RetryPolicy::fixed(DAY)).queue(&queue, move |n, context: Context| {
        let queue = settler.clone();
        async move {
            match n {
                0 => Ok(HandlerOutcome::Complete),
                1 => Err("no space"),
                2 => Ok(HandlerOutcome::retry_after(2 * DAY, "later")),
                3 => Ok(HandlerOutcome::Snooze(3 * DAY)),
                4 => Ok(HandlerOutcome::dead_letter("hopeless")),
                5 => {
                    let disposition = (context.lease(), delayline_core::Disposition::Complete);
                    queue.backend().settle(queue.name(), vec![disposition]).await.unwrap().remove(0).unwrap();
                    Ok(HandlerOutcome::AlreadySettled)
                }
                _ => panic!("number {n}"),
            }
        }
    });
    let ((), report) = with_worker(worker, tokio::time::sleep(SECOND)).await;
    assert_eq!((report.completed, report.retried, report.snoozed, report.dead_lettered), (1, 3, 1, 1));
    assert_eq!((report.already_settled, report.undecodable, report.panicked), (1, 1, 1));
    assert_eq!((report.released, report.lease_lost, report.unsettled), (0, 0, 0));

    let left = queue.list(Page::first(10)).await.unwrap();
    let now = left[0].visible_at;
    let left: Vec<_> = left
        .iter()
        .map(|view| {
            let days = view.visible_at.saturating_since(now).as_secs() / DAY.as_secs();
            (queue.decode(&view.payload).unwrap(), days, view.attempt, view.last_failure.clone().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        left,
        [
            (1, 0, 1, "no space".into()),
            (6, 0, 1, "panicked: number 6".into()),
            (2, 1, 1, "later".into()),
            (3, 2, 0, String::new())
        ]
    );
    let dead = queue.dead_letters(None, 10).await.unwrap().letters;
    let mut reasons: Vec<_> = dead.iter().map(|d| d.reason.as_str()).collect();
    reasons.sort_unstable();
    assert!(reasons[0].starts_with("can't decode the payload as `u32`"), "{}", reasons[0]);
    assert_eq!(reasons[1], "hopeless");
}

#[tokio::test(start_paused = true)]
async fn the_retry_back_off_grows_until_the_attempts_are_used_up() {
    let queue = Probe::new().queue("q");
    queue.schedule(&7).attempts_max(5).await.unwrap();
    let policy = RetryPolicy::exponential(10 * SECOND, DAY).seeded(3);
    let runs = Arc::new(Mutex::new(Vec::new()));
    let noted = runs.clone();
    let worker = Worker::builder().retry(policy.clone()).until_empty(true).queue(&queue, move |_, context: Context| {
        noted.lock().push((context.attempt(), Instant::now()));
        async { Err::<(), _>("again") }
    });
    let report = worker.build().unwrap().run().await.unwrap();
    assert_eq!((report.retried, report.dead_lettered), (4, 1));
    let runs = runs.lock().clone();
    assert_eq!(runs.iter().map(|run| run.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for pair in runs.windows(2) {
        let (waited, delay) = (pair[1].1 - pair[0].1, policy.delay(pair[0].0));
        assert!(waited >= delay && waited < delay + Duration::from_millis(5), "{waited:?}, not {delay:?}");
    }
    assert_eq!(queue.stats().await.unwrap().dead, 1);
}

#[tokio::test(start_paused = true)]
async fn two_queues_share_one_slot_and_both_go_on() {
    let probe = Probe::new();
    let (a, b) = (probe.queue("a"), Probe::new().queue("b"));
    fill(&a, 0..20).await;
    fill(&b, 100..120).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |order: &Arc<Mutex<Vec<u32>>>| {
        let order = order.clone();
        move |n: u32, _| {
            order.lock().push(n);
            tokio::task::yield_now()
        }
    };
    let worker = Worker::builder().concurrency(1).until_empty(true);
    let worker = worker.queue(&a, note(&order)).queue(&b, note(&order)).build().unwrap();
    let began = Instant::now();
    assert_eq!(worker.run().await.unwrap().completed, 40);
    assert!(began.elapsed() < SECOND, "the one that is empty first keeps no slot while it waits");
    let order = order.lock();
    assert!(order[..20].iter().filter(|n| **n >= 100).count() >= 9, "in turns: {order:?}");
    assert!(probe.on.claim.batches().iter().all(|max| *max == 1), "bound_7: never more than there are slots");
}

#[tokio::test(start_paused = true)]
async fn live_6_a_store_that_hangs_does_not_hold_up_the_other_queue() {
    let (away, here) = (Probe::new(), Probe::new());
    away.on.claim.always(Some(Fault::Hang));
    let (handler, mut saw) = collector();
    let (a, b) = (away.queue("a"), here.queue("b"));
    let worker = Worker::builder().concurrency(2).queue(&a, handler.clone()).queue(&b, handler);
    let served = async {
        let mut latest = Duration::ZERO;
        for n in 0..200 {
            let began = Instant::now();
            fill(&b, [n]).await;
            assert_eq!(saw.recv().await, Some(n));
            latest = began.elapsed();
            tokio::time::sleep(SECOND).await;
        }
        latest
    };
    let (latest, report) = with_worker(worker, served).await;
    assert!(latest < Duration::from_millis(5), "once the store is known to be away: {latest:?}");
    assert_eq!(report.completed, 200);
}

#[tokio::test(start_paused = true)]
async fn bound_12_no_task_is_claimed_before_there_is_a_slot_for_it() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..100).await;
    let gate = Arc::new(Semaphore::new(0));
    let (opened, running) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    let most = running.clone();
    let worker = Worker::builder().concurrency(7).until_empty(true).queue(&queue, move |_, _| {
        let (gate, running) = (opened.clone(), running.clone());
        async move {
            running.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
        }
    });
    let running = tokio::spawn(worker.build().unwrap().run());
    settle_down().await;
    assert_eq!(most.load(Ordering::SeqCst), 7);
    assert_eq!(probe.on.claim.batches(), [7], "in one call, and then it waits for slots");
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.in_flight, stats.due), (7, 93));
    gate.add_permits(100);
    assert_eq!(running.await.unwrap().unwrap().completed, 100);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_extended_for_as_long_as_its_handler_runs() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..10).await;
    let worker =
        Worker::builder().lease(9 * SECOND).until_empty(true).queue(&queue, |n, context: Context| async move {
            let first = context.lease();
            tokio::time::sleep(600 * SECOND + n * Duration::from_millis(10)).await;
            assert!(context.lease().expires_at > first.expires_at && context.lease().fence == first.fence);
            assert!(!context.lost().is_cancelled());
        });
    let report = worker.build().unwrap().run().await.unwrap();
    assert_eq!((report.completed, report.lease_lost, report.panicked), (10, 0, 0));
    let batches = probe.on.extend.batches();
    assert!((195..=205).contains(&batches.len()), "at a third of the lease: {}", batches.len());
    assert!(batches[..190].iter().all(|items| *items == 10), "all in one call");
}

#[tokio::test(start_paused = true)]
async fn a_handler_learns_that_its_task_was_cancelled() {
    let queue = Probe::new().queue("q");
    let worker =
        Worker::builder().lease(9 * SECOND).until_empty(true).queue(&queue, |_, context: Context| async move {
            context.cancelled().cancelled().await;
            Err::<(), _>("whatever")
        });
    let task = queue.schedule(&7).await.unwrap();
    let running = tokio::spawn(worker.build().unwrap().run());
    settle_down().await;
    let began = Instant::now();
    assert_eq!(queue.cancel(&task).await.unwrap(), delayline_core::ChangeOutcome::InFlight);
    running.await.unwrap().unwrap();
    assert!(began.elapsed() <= 3 * SECOND + Duration::from_millis(10), "{:?}", began.elapsed());
    assert!(queue.find(task.id()).await.unwrap().is_none(), "it is not delivered again");
}

#[tokio::test(start_paused = true)]
async fn dup_15_a_handler_learns_that_its_lease_is_lost() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, [7]).await;
    let lost_after = Arc::new(Mutex::new(Vec::new()));
    let noted = lost_after.clone();
    let worker = || {
        let noted = noted.clone();
        Worker::builder().lease(9 * SECOND).queue(&queue, move |_, context: Context| {
            let (noted, began) = (noted.clone(), Instant::now());
            async move {
                context.lost().cancelled().await;
                noted.lock().push(began.elapsed());
                HandlerOutcome::dead_letter("lost")
            }
        })
    };
    // Somebody else replaced the task: the next extension learns it.
    let replaced = async {
        settle_down().await;
        let id = queue.list(Page::first(1)).await.unwrap()[0].task.id.clone();
        queue.schedule(&8).id(id).replace().after(DAY).await.unwrap();
        tokio::time::sleep(20 * SECOND).await;
    };
    let ((), report) = with_worker(worker(), replaced).await;
    assert_eq!((report.lease_lost, report.dead_lettered), (1, 0));
    // The store can't be reached: it is lost when it ends by this process's clock.
    queue.delete().await.unwrap();
    fill(&queue, [7]).await;
    let cut_off = async {
        settle_down().await;
        probe.on.extend.always(Some(Fault::Fail(ErrorKind::Unavailable)));
        probe.on.claim.always(Some(Fault::Fail(ErrorKind::Unavailable)));
        tokio::time::sleep(20 * SECOND).await;
    };
    let ((), report) = with_worker(worker(), cut_off).await;
    assert_eq!((report.lease_lost, report.dead_lettered), (0, 1), "nobody took it over, so it still settled");
    // ... or hangs.
    queue.delete().await.unwrap();
    fill(&queue, [7]).await;
    probe.on.extend.always(Some(Fault::Hang));
    probe.on.claim.always(None);
    with_worker(worker(), tokio::time::sleep(8 * SECOND + SECOND / 2)).await;
    let lost_after = lost_after.lock();
    let about = |n: usize, wanted: Duration| {
        let off = lost_after[n].abs_diff(wanted);
        assert!(off < Duration::from_millis(20), "{n}: {:?}, not {wanted:?}", lost_after[n]);
    };
    about(0, 3 * SECOND);
    about(1, 9 * SECOND);
    about(2, 9 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_settled_while_its_extension_is_under_way_is_not_lost() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, [7]).await;
    let gate = Arc::new(Semaphore::new(0));
    probe.on.extend.plan([Fault::Gate(gate.clone())]);
    let lost = Arc::new(Mutex::new(None));
    let noted = lost.clone();
    let worker = Worker::builder().lease(9 * SECOND).queue(&queue, move |_, context: Context| {
        *noted.lock() = Some(context.lost().clone());
        tokio::time::sleep(4 * SECOND)
    });
    let settled_first = async {
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(queue.stats().await.unwrap().in_flight, 0);
        gate.add_permits(1);
        settle_down().await;
    };
    let ((), report) = with_worker(worker, settled_first).await;
    assert_eq!((report.completed, report.lease_lost), (1, 0));
    assert!(!lost.lock().as_ref().unwrap().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_backend_without_extension_is_not_asked_again() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, [7]).await;
    probe.on.extend.always(Some(Fault::Fail(ErrorKind::Unsupported)));
    let worker = Worker::builder().lease(9 * SECOND).queue(&queue, |_, context: Context| async move {
        context.lost().cancelled().await;
    });
    let ((), report) = with_worker(worker, tokio::time::sleep(8 * SECOND)).await;
    assert_eq!((probe.on.extend.calls(), report.completed), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn settling_waits_out_an_outage_and_a_refused_disposition_becomes_a_retry() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..3).await;
    probe.on.settle.plan((0..3).map(|_| Fault::Fail(ErrorKind::Unavailable)));
    let worker = Worker::builder().queue(&queue, |n, context: Context| async move {
        if n == 2 && context.attempt() == 1 { HandlerOutcome::Snooze(100_000 * DAY) } else { HandlerOutcome::Complete }
    });
    let ((), report) = with_worker(worker, tokio::time::sleep(20 * SECOND)).await;
    assert_eq!((report.completed, report.retried, report.unsettled), (3, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn dup_14_a_completion_whose_answer_was_lost_is_neither_done_nor_lost() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, [7]).await;
    probe.on.settle.plan([Fault::Lost(ErrorKind::Ambiguous)]);
    let (handler, _saw) = collector();
    let ((), report) = with_worker(Worker::builder().queue(&queue, handler), tokio::time::sleep(SECOND)).await;
    assert_eq!((report.completed, report.lease_lost, report.unsettled), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_handler_gets_what_is_due_at_once_and_answers_for_each() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..10).await;
    let raw = Queue::<Bytes>::with_codec(probe.clone(), "q", Raw).unwrap();
    raw.schedule(&Bytes::from("no number")).await.unwrap();
    fill(&queue, 10..12).await;
    let batches = Arc::new(Mutex::new(Vec::new()));
    let noted = batches.clone();
    let worker = Worker::builder().concurrency(1).until_empty(true).queue_batch(&queue, 8, move |tasks| {
        let numbers: Vec<u32> = tasks.iter().map(|(n, _)| *n).collect();
        let first_attempts = tasks.iter().all(|(_, context)| context.attempt() == 1);
        noted.lock().push(numbers.clone());
        async move {
            match numbers.as_slice() {
                // One answer is missing.
                [0, ..] => numbers.iter().map(|_| HandlerOutcome::Complete).skip(1).collect(),
                [8, ..] if first_attempts => panic!("all of them"),
                _ => numbers.iter().map(|_| HandlerOutcome::Complete).collect(),
            }
        }
    });
    let report = worker.build().unwrap().run().await.unwrap();
    let mut batches = batches.lock().clone();
    assert_eq!(batches[..2], [vec![0, 1, 2, 3, 4, 5, 6, 7], vec![8, 9, 10, 11]]);
    let mut again: Vec<u32> = batches.drain(2..).flatten().collect();
    again.sort_unstable();
    assert_eq!(again, [7, 8, 9, 10, 11]);
    assert_eq!((report.completed, report.retried, report.panicked, report.undecodable), (12, 5, 4, 1));
}

#[tokio::test(start_paused = true)]
async fn until_empty_waits_for_what_handlers_schedule_and_for_what_is_due_later() {
    let probe = Probe::new();
    let (a, b) = (probe.queue("a"), probe.queue("b"));
    let to_b = b.clone();
    let (handler, mut saw) = collector();
    let worker = Worker::builder().until_empty(true).queue(&b, handler).queue(&a, move |n, _| {
        let b = to_b.clone();
        async move {
            tokio::time::sleep(SECOND).await;
            b.schedule(&(n + 1)).after(DAY).await.map(|_| ())
        }
    });
    a.schedule(&1).after(DAY).await.unwrap();
    let report = worker.build().unwrap().run().await.unwrap();
    assert_eq!((report.completed, saw.recv().await), (2, Some(2)));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_will_not_pass_ends_the_worker_in_good_order() {
    let probe = Probe::new();
    let (a, b) = (probe.queue("a"), Probe::new().queue("b"));
    fill(&b, [1]).await;
    let finished = Arc::new(AtomicUsize::new(0));
    let counted = finished.clone();
    let (handler, _saw) = collector();
    let worker = Worker::builder().fail_fast(true).queue(&a, handler).queue(&b, move |_, _| {
        let finished = counted.clone();
        async move {
            tokio::time::sleep(10 * SECOND).await;
            finished.fetch_add(1, Ordering::SeqCst);
        }
    });
    let running = tokio::spawn(worker.build().unwrap().run());
    settle_down().await;
    probe.on.claim.always(Some(Fault::Fail(ErrorKind::Denied)));
    a.schedule(&1).await.unwrap();
    assert_eq!(running.await.unwrap().unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!((finished.load(Ordering::SeqCst), b.stats().await.unwrap().in_flight), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn live_3_a_refusal_ends_neither_the_worker_nor_its_other_queues() {
    let probe = Probe::new();
    let (a, b) = (probe.queue("a"), Probe::new().queue("b"));
    fill(&a, [1]).await;
    let ((of_a, mut from_a), (of_b, mut from_b)) = (collector(), collector());
    let worker = Worker::builder().queue(&a, of_a).queue(&b, of_b).build().unwrap();
    let running = tokio::spawn(worker.run());
    assert_eq!(from_a.recv().await, Some(1));
    for kind in [ErrorKind::Denied, ErrorKind::Corrupt] {
        probe.on.claim.always(Some(Fault::Fail(kind)));
        fill(&a, [2]).await;
        settle_down().await;
        fill(&b, [3]).await;
        assert_eq!(from_b.recv().await, Some(3));
        assert!(from_a.try_recv().is_err());
        probe.on.claim.always(None);
        assert_eq!(from_a.recv().await, Some(2));
    }
    running.abort();

    // The first claim of a queue tells what is wrong for good.
    probe.on.claim.always(Some(Fault::Fail(ErrorKind::Denied)));
    let (handler, _) = collector();
    let e = Worker::builder().queue(&b, handler.clone()).queue(&a, handler).build().unwrap().run().await.unwrap_err();
    assert!(e.kind() == ErrorKind::Denied && e.message().contains("`a`"), "{e}");
}

#[tokio::test(start_paused = true)]
async fn close_8_a_closed_backend_ends_its_own_queues_and_the_worker_with_the_last() {
    let (a, b) = (Probe::new().queue("a"), Probe::new().queue("b"));
    let ((of_a, _), (of_b, mut from_b)) = (collector(), collector());
    let running = tokio::spawn(Worker::builder().queue(&a, of_a).queue(&b, of_b).build().unwrap().run());
    settle_down().await;
    a.backend().close().await.unwrap();
    settle_down().await;
    fill(&b, [1]).await;
    assert_eq!(from_b.recv().await, Some(1));
    settle_down().await;
    assert!(!running.is_finished());
    b.backend().close().await.unwrap();
    assert_eq!(running.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn clear_5_a_worker_that_can_not_be_says_why() {
    let queue = Probe::new().queue("q");
    let (handler, _) = collector();
    let with_queue = || Worker::builder().queue(&queue, handler.clone());
    for (worker, kind) in [
        (Worker::builder(), ErrorKind::Config),
        (with_queue().concurrency(0), ErrorKind::OutOfRange),
        (with_queue().concurrency(1_000_000), ErrorKind::OutOfRange),
        (with_queue().lease(Duration::ZERO), ErrorKind::OutOfRange),
        (with_queue().queue_batch(&queue, 0, |_| async { Vec::new() }), ErrorKind::Config),
    ] {
        let e = worker.build().unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
    }
}

#[tokio::test(start_paused = true)]
async fn live_7_a_worker_that_starts_while_its_store_is_away_begins_when_it_is_back() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, [7]).await;
    probe.on.subscription.plan((0..20).map(|_| Fault::Fail(ErrorKind::Unavailable)));
    let (handler, mut saw) = collector();
    let (n, _) = with_worker(Worker::builder().queue(&queue, handler), async { saw.recv().await }).await;
    assert_eq!((n, probe.on.subscription.calls()), (Some(7), 21));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_short_tasks_on_two_threads_are_each_run_once() {
    let queue = Probe::new().queue("q");
    let tasks = (0..20_000).map(Task::new);
    queue.schedule_all(tasks).await.unwrap();
    let ran: Arc<Vec<AtomicUsize>> = Arc::new((0..20_000).map(|_| AtomicUsize::new(0)).collect());
    let counted = ran.clone();
    let worker = Worker::builder().concurrency(64).until_empty(true).queue(&queue, move |n, _| {
        counted[n as usize].fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now()
    });
    assert_eq!(worker.build().unwrap().run().await.unwrap().completed, 20_000);
    assert!(ran.iter().all(|count| count.load(Ordering::Relaxed) == 1));
}
