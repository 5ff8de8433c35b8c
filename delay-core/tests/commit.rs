//! Calls of single items that are made at the same time: they travel together, and none notices another's fate.

#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use delayline_core::{Bytes, ErrorKind, Page, Queue, Raw, Result, ScheduleOutcome, Scheduled, Scheduling, Worker};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt, stream};
use support::{DAY, Fault, Probe, SECOND, fill, settle_down};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const MILLI: Duration = Duration::from_millis(1);

/// Calls that are all made before any is answered: each in a task of its own.
fn at_once(queue: &Queue<u32>, numbers: impl IntoIterator<Item = u32>) -> Vec<JoinHandle<Result<Scheduled>>> {
    let call = |n: u32| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.schedule(&n).id(format!("t{n}")).await })
    };
    numbers.into_iter().map(call).collect()
}

/// The same, where the first goes alone, the second is out as a batch of its own, and the others wait.
async fn in_turn(queue: &Queue<u32>, numbers: std::ops::Range<u32>) -> Vec<JoinHandle<Result<Scheduled>>> {
    let (first, rest) = (numbers.start, numbers.start + 2);
    let mut calls = at_once(queue, first..rest);
    settle_down().await;
    calls.extend(at_once(queue, rest..numbers.end));
    settle_down().await;
    calls
}

fn under_way(probe: &Probe) -> usize {
    probe.on.schedule.under_way.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn commit_1_64_calls_at_once_cost_two_round_trips_and_each_gets_its_own_answer() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    probe.on.schedule.takes(MILLI);
    queue.schedule(&0).id("t7").await.unwrap();
    let began = Instant::now();
    for (n, call) in at_once(&queue, 0..64).into_iter().enumerate() {
        let scheduled = call.await.unwrap().unwrap();
        assert_eq!(scheduled.id().as_key(), Some(format!("t{n}").as_str()));
        assert_eq!(scheduled.outcome == ScheduleOutcome::Existing, n == 7);
    }
    assert!(began.elapsed() <= 2 * MILLI, "{:?}", began.elapsed());
    assert_eq!(probe.on.schedule.batches(), [1, 1, 63], "t7 before, then one alone, then all others");
    let order: Vec<_> = queue.list(Page::first(100)).await.unwrap().iter().map(|v| v.task.id.to_string()).collect();
    assert_eq!(order[1..4], ["t0", "t1", "t2"], "order_1: as they came in");
}

#[tokio::test(start_paused = true)]
async fn commit_2_callers_that_go_on_and_on_share_each_round_trip() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    probe.on.schedule.takes(MILLI);
    let began = Instant::now();
    let caller = |_| {
        let queue = queue.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                queue.schedule(&n).await.unwrap();
            }
        })
    };
    for caller in (0..64).map(caller).collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert!(began.elapsed() < 110 * MILLI, "6,400 calls took {:?}; one after the other 6.4 s", began.elapsed());
    assert_eq!(queue.stats().await.unwrap().due, 6_400);
}

#[tokio::test(start_paused = true)]
async fn commit_3_a_lone_caller_is_alone() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    probe.on.schedule.takes(MILLI);
    let alive = Handle::current().metrics().num_alive_tasks();
    for n in 0..10 {
        let mut call = Box::pin(queue.schedule(&n).into_future());
        assert!((&mut call).now_or_never().is_none());
        assert_eq!(Handle::current().metrics().num_alive_tasks(), alive, "nothing is spawned for it");
        call.await.unwrap();
    }
    assert_eq!(probe.on.schedule.batches(), [1; 10]);
}

#[tokio::test(start_paused = true)]
async fn commit_4_a_caller_that_stops_polling_holds_up_nobody() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    probe.on.schedule.takes(MILLI);
    let mut first = Box::pin(queue.schedule(&1).into_future());
    let mut second = Box::pin(queue.schedule(&2).into_future());
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    // Neither is polled while others want their turn.
    let others = join_all(at_once(&queue, 10..20));
    for other in tokio::time::timeout(SECOND, others).await.expect("others go on") {
        other.unwrap().unwrap();
    }
    first.await.unwrap();
    second.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn drop_7_a_caller_that_leaves_before_its_item_was_sent_takes_it_along() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let gate = Arc::new(Semaphore::new(0));
    probe.on.schedule.always(Some(Fault::Gate(gate.clone())));
    let calls = in_turn(&queue, 0..10).await;
    for n in [3, 9, 5] {
        calls[n].abort();
    }
    settle_down().await;
    gate.add_permits(10);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.is_ok(), ![3, 9, 5].contains(&n));
    }
    assert_eq!(probe.on.schedule.batches(), [1, 1, 5]);
    assert_eq!(queue.stats().await.unwrap().due, 7);
}

#[tokio::test(start_paused = true)]
async fn drop_8_a_caller_that_leaves_after_its_item_was_sent_is_not_noticed() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let gate = Arc::new(Semaphore::new(0));
    probe.on.schedule.always(Some(Fault::Gate(gate.clone())));
    let calls = in_turn(&queue, 0..10).await;
    gate.add_permits(2);
    settle_down().await;
    assert_eq!(probe.on.schedule.batches(), [1, 1, 8]);
    calls[2].abort();
    calls[9].abort();
    settle_down().await;
    gate.add_permits(1);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.is_ok(), ![2, 9].contains(&n));
    }
    assert_eq!(queue.stats().await.unwrap().due, 10);
}

#[tokio::test(start_paused = true)]
async fn leak_6_when_all_callers_have_left_nothing_stays_behind() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let alive = Handle::current().metrics().num_alive_tasks();
    probe.on.schedule.always(Some(Fault::Hang));
    for round in 0..3 {
        let calls = in_turn(&queue, 0..10).await;
        assert_eq!(under_way(&probe), 2, "{round}");
        // Those of the batch that is out leave one by one, then those that wait, or the other way round.
        let order: Vec<usize> = if round == 0 { (0..10).collect() } else { (0..10).rev().collect() };
        for n in order {
            calls[n].abort();
            settle_down().await;
        }
        assert_eq!(under_way(&probe), 0, "{round}");
        assert_eq!(Handle::current().metrics().num_alive_tasks(), alive, "{round}");
    }
    probe.on.schedule.always(None);
    for call in at_once(&queue, 0..10) {
        call.await.unwrap().unwrap();
    }
    settle_down().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), alive);
}

#[tokio::test(start_paused = true)]
async fn drop_8_a_caller_that_leaves_with_its_answer_unread_harms_no_later_batch() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    probe.on.schedule.takes(MILLI);
    let mut first = Box::pin(queue.schedule(&1).into_future());
    let mut second = Box::pin(queue.schedule(&2).into_future());
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    tokio::time::sleep(2 * MILLI).await;
    drop((first, second));
    for call in at_once(&queue, 0..10) {
        call.await.unwrap().unwrap();
    }
    assert_eq!(probe.on.schedule.batches(), [1, 1, 1, 9]);
}

#[tokio::test(start_paused = true)]
async fn commit_6_an_error_of_a_batch_is_everyone_s_and_that_of_an_item_is_its_own() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    probe.on.schedule.takes(MILLI);
    probe.on.schedule.plan([Fault::Fail(ErrorKind::Busy), Fault::Fail(ErrorKind::Denied)]);
    let kinds: Vec<_> =
        join_all(at_once(&queue, 0..5)).await.into_iter().map(|c| c.unwrap().unwrap_err().kind()).collect();
    let denied = ErrorKind::Denied;
    assert_eq!(kinds, [ErrorKind::Busy, denied, denied, denied, denied]);

    let call = |n: u32| {
        let queue = queue.clone();
        let due = if n == 3 { 100_000 * DAY } else { DAY };
        tokio::spawn(async move { queue.schedule(&n).after(due).await })
    };
    let kinds = join_all((0..5).map(call)).await.into_iter().map(|c| c.unwrap().err().map(|e| e.kind()));
    assert_eq!(kinds.collect::<Vec<_>>(), [None, None, None, Some(ErrorKind::OutOfRange), None]);
}

#[tokio::test(start_paused = true)]
async fn bound_8_a_batch_has_a_limit_of_items_and_of_bytes() {
    let probe = Probe::with(|caps| caps.batch_max = 10);
    let queue = probe.queue("q");
    probe.on.schedule.takes(MILLI);
    join_all(at_once(&queue, 0..25)).await;
    assert_eq!(probe.on.schedule.batches(), [1, 10, 10, 4]);

    let probe = Probe::new();
    let queue = Queue::<Bytes>::with_codec(probe.clone(), "q", Raw).unwrap();
    probe.on.schedule.takes(MILLI);
    let large = Bytes::from(vec![7; 1 << 20]);
    join_all((0..40).map(|_| queue.schedule(&large).into_future())).await;
    assert_eq!(probe.on.schedule.batches(), [1, 15, 15, 9]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_backend_is_an_error_for_those_whose_call_it_was() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let gate = Arc::new(Semaphore::new(0));
    probe.on.schedule.plan([Fault::Gate(gate.clone()), Fault::Gate(gate.clone()), Fault::Panic]);
    let calls = in_turn(&queue, 0..5).await;
    gate.add_permits(2);
    let kinds: Vec<_> = join_all(calls).await.into_iter().map(|c| c.unwrap().err().map(|e| e.kind())).collect();
    let unknown = Some(ErrorKind::Ambiguous);
    assert_eq!(kinds, [None, None, unknown, unknown, unknown]);
    for call in at_once(&queue, 5..10) {
        call.await.unwrap().unwrap();
    }

    // With more waiting behind it, they learn that theirs was never sent.
    let probe = Probe::with(|caps| caps.batch_max = 2);
    let queue = probe.queue("q");
    probe.on.schedule.plan([Fault::Gate(gate.clone()), Fault::Gate(gate.clone()), Fault::Panic]);
    let calls = in_turn(&queue, 0..6).await;
    gate.add_permits(2);
    let kinds: Vec<_> = join_all(calls).await.into_iter().map(|c| c.unwrap().err().map(|e| e.kind())).collect();
    let not_sent = Some(ErrorKind::Unavailable);
    assert_eq!(kinds, [None, None, unknown, unknown, not_sent, not_sent]);
    for call in at_once(&queue, 5..10) {
        call.await.unwrap().unwrap();
    }
}

/// Calls with payloads of so many bytes, polled once: what they answered at once.
fn polled<'q>(
    queue: &'q Queue<Bytes>,
    payloads: impl IntoIterator<Item = usize>,
) -> Vec<(Scheduling<'q>, Option<Result<Scheduled>>)> {
    let call = |bytes| {
        let mut call = queue.schedule(&Bytes::from(vec![7; bytes])).into_future();
        let answer = (&mut call).now_or_never();
        (call, answer)
    };
    payloads.into_iter().map(call).collect()
}

fn refused(answer: &Option<Result<Scheduled>>) -> bool {
    answer.as_ref().is_some_and(|answer| answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Busy))
}

#[tokio::test(start_paused = true)]
async fn bound_16_what_waits_is_bounded_in_bytes_and_more_is_busy_at_once() {
    // With what each task costs beside its payload.
    const EACH: usize = 100 + 64;
    let probe = Probe::new();
    let queue = Queue::<Bytes>::with_codec(probe.clone(), "q", Raw).unwrap().joined_bytes_max(6 * EACH);
    let gate = Arc::new(Semaphore::new(0));
    probe.on.schedule.always(Some(Fault::Gate(gate.clone())));
    // One alone, one out in a call of its own, and the others wait.
    let mut out = polled(&queue, [100, 100]);
    settle_down().await;
    let mut calls = polled(&queue, [100; 8]);
    assert_eq!(
        calls.iter().map(|(_, answer)| refused(answer)).collect::<Vec<_>>(),
        [[false; 6].as_slice(), &[true; 2]].concat()
    );
    let e = calls.pop().unwrap().1.unwrap().unwrap_err();
    for part in ["984 bytes", "`q`", "has 164", "`joined_bytes_max` is 984", "raise the limit"] {
        assert!(e.message().contains(part), "{part} in {e}");
    }
    assert!(e.retryable());
    // Who leaves makes room.
    drop(calls.remove(2));
    assert!(polled(&queue, [101]).iter().all(|(_, answer)| refused(answer)));
    calls.extend(polled(&queue, [100]));
    out.extend(calls.into_iter().filter(|(_, answer)| !refused(answer)));
    gate.add_permits(3);
    for (call, _) in out {
        call.await.unwrap();
    }
    assert_eq!(probe.on.schedule.batches(), [1, 1, 6]);
    assert_eq!(queue.stats().await.unwrap().due, 8, "what was refused was not sent");
}

#[tokio::test(start_paused = true)]
async fn bound_16_a_call_beyond_the_limit_goes_through_when_nothing_else_waits() {
    let probe = Probe::new();
    let queue = Queue::<Bytes>::with_codec(probe.clone(), "q", Raw).unwrap().joined_bytes_max(1);
    let gate = Arc::new(Semaphore::new(0));
    probe.on.schedule.always(Some(Fault::Gate(gate.clone())));
    let mut calls = polled(&queue, [0, 5_000]);
    assert!(polled(&queue, [0]).iter().all(|(_, answer)| refused(answer)), "now it waits itself");
    settle_down().await;
    calls.extend(polled(&queue, [5_000]));
    assert!(calls.iter().all(|(_, answer)| answer.is_none()));
    gate.add_permits(3);
    for (call, _) in calls {
        call.await.unwrap();
    }
    assert_eq!(probe.on.schedule.batches(), [1, 1, 1]);

    // The limit of a queue of which nothing was said.
    let queue = Queue::<Bytes>::with_codec(probe.clone(), "q", Raw).unwrap();
    let _out = polled(&queue, [0, 0]);
    settle_down().await;
    let large = Bytes::from(vec![7; 1 << 20]);
    let mut calls: Vec<_> = (0..65).map(|_| queue.schedule(&large).into_future()).collect();
    let answers: Vec<_> = calls.iter_mut().map(|call| call.now_or_never()).collect();
    assert_eq!(answers.iter().take_while(|answer| !refused(answer)).count(), 63, "64 MiB, less what each costs beside");
    assert!(answers[63..].iter().all(refused));
}

#[tokio::test(start_paused = true)]
async fn bound_16_settlings_beyond_the_limit_are_made_later() {
    let probe = Probe::new();
    let queue = probe.queue("q").joined_bytes_max(1_000);
    fill(&queue, 0..64).await;
    probe.on.settle.takes(MILLI);
    let deliveries = queue.consumer().open().await.unwrap().next_batch(64).await.unwrap();
    for answer in join_all(deliveries.into_iter().map(|delivery| delivery.complete())).await {
        answer.unwrap();
    }
    assert!(probe.on.settle.batches().iter().all(|batch| *batch <= 1_000 / 128), "{:?}", probe.on.settle.batches());
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.in_flight, stats.scheduled), (0, 0));
}

#[test]
fn close_9_a_runtime_that_shuts_down_answers_callers_on_another_one() {
    let new_runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (here, there) = (new_runtime(), new_runtime());
    let probe = Probe::new();
    let queue = probe.queue("q");
    probe.on.schedule.always(Some(Fault::Hang));
    // The task that carries the calls is spawned there.
    there.block_on(async {
        at_once(&queue, 0..3);
        settle_down().await;
    });
    let waiting = here.spawn({
        let queue = queue.clone();
        async move { queue.schedule(&7).await }
    });
    here.block_on(settle_down());
    drop(there);
    let e = here.block_on(waiting).unwrap().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "it was not sent");
    probe.on.schedule.always(None);
    here.block_on(async { queue.schedule(&7).await }).unwrap();
}

#[tokio::test(start_paused = true)]
async fn live_8_a_call_that_hangs_holds_up_the_others_for_a_while_only() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    probe.on.schedule.plan([Fault::Hang, Fault::Hang]);
    let calls = in_turn(&queue, 0..5).await;
    let began = Instant::now();
    let mut answers = calls.into_iter().skip(1);
    assert_eq!(answers.next().unwrap().await.unwrap().unwrap_err().kind(), ErrorKind::Ambiguous);
    for call in answers {
        call.await.unwrap().unwrap();
    }
    assert!(began.elapsed() <= 31 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn live_8_a_call_that_goes_by_itself_is_given_up_too() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    probe.on.schedule.plan([Fault::Hang]);
    let (began, alive) = (Instant::now(), Handle::current().metrics().num_alive_tasks());
    let e = queue.schedule(&1).await.unwrap_err();
    assert_eq!((e.kind(), began.elapsed().as_secs()), (ErrorKind::Ambiguous, 30));
    assert_eq!(under_way(&probe), 0, "it was dropped");
    probe.on.schedule.takes(MILLI);
    let mut next = Box::pin(queue.schedule(&2).into_future());
    assert!((&mut next).now_or_never().is_none());
    assert_eq!(Handle::current().metrics().num_alive_tasks(), alive, "the next one is alone again");
    next.await.unwrap();
}

#[test]
fn outside_a_runtime_a_call_goes_by_itself() {
    let queue = Queue::<u32>::new(Arc::new(delayline_memory::MemoryBackend::new()), "q").unwrap();
    queue.schedule(&7).into_future().now_or_never().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn commit_5_settlings_at_once_travel_together() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..64).await;
    probe.on.settle.takes(MILLI);
    let deliveries = queue.consumer().open().await.unwrap().next_batch(64).await.unwrap();
    let settle = deliveries.into_iter().enumerate().map(|(n, delivery)| async move {
        if n % 2 == 0 { delivery.complete().await } else { delivery.snooze(DAY).await }
    });
    let began = Instant::now();
    join_all(settle).await.into_iter().for_each(|answer| answer.unwrap());
    assert!(began.elapsed() <= 2 * MILLI, "{:?}", began.elapsed());
    assert_eq!(probe.on.settle.batches(), [1, 63]);
    assert_eq!(queue.stats().await.unwrap().scheduled, 32);

    // Those that are dropped too, and those of a worker.
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, 0..64).await;
    probe.on.settle.takes(MILLI);
    drop(queue.consumer().open().await.unwrap().next_batch(64).await.unwrap());
    tokio::time::sleep(2 * MILLI).await;
    assert_eq!(queue.stats().await.unwrap().scheduled, 64);
    assert_eq!(probe.on.settle.batches(), [1, 63]);
    queue.delete().await.unwrap();
    fill(&queue, 0..64).await;
    let worker = Worker::builder().concurrency(64).until_empty(true).queue(&queue, |_, _| tokio::time::sleep(DAY));
    assert_eq!(worker.build().unwrap().run().await.unwrap().completed, 64);
    assert_eq!(probe.on.settle.batches(), [1, 63, 1, 63]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_1_on_two_threads_with_callers_that_leave_every_accepted_task_is_there() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    probe.on.schedule.takes(Duration::from_micros(300));
    let caller = |c: u32| {
        let queue = queue.clone();
        async move {
            let mut rng = fastrand::Rng::with_seed(u64::from(c));
            let mut accepted = Vec::new();
            for n in c * 1000..c * 1000 + 100 {
                let patience = Duration::from_micros(rng.u64(0..5_000));
                let call = queue.schedule(&n).after(DAY).into_future();
                if let Ok(answer) = tokio::time::timeout(patience, call).await {
                    accepted.push(answer.unwrap().task.id);
                }
            }
            accepted
        }
    };
    let callers: Vec<_> = (0..32).map(|c| tokio::spawn(caller(c))).collect();
    let accepted: Vec<_> =
        stream::iter(callers).then(|c| async { c.await.unwrap() }).collect::<Vec<_>>().await.concat();
    assert!(accepted.len() > 300 && accepted.len() < 3_200, "some left, some did not: {}", accepted.len());
    let mut there = HashSet::new();
    let mut page = queue.list(Page::first(1000)).await.unwrap();
    while let Some(last) = page.last() {
        let next = Page::after(last, 1000);
        there.extend(page.into_iter().map(|view| view.task.id));
        page = queue.list(next).await.unwrap();
    }
    assert!(accepted.iter().all(|id| there.contains(id)));
    assert!(there.len() <= 3_200);
    let sent: usize = probe.on.schedule.batches().iter().sum();
    assert!(there.len() <= sent && sent <= 3_200, "none was sent twice");
}
