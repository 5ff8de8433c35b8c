//! Pulling: what comes, when it comes, and what a dropped call leaves behind.

#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Bytes, Disposition, ErrorKind, Queue, Raw, RetryPolicy};
use futures_util::{FutureExt, StreamExt};
use support::{DAY, Fault, Probe, SECOND, fill, settle_down};
use tokio::sync::Semaphore;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn live_1_a_task_that_is_due_in_30_days_comes_then_and_asks_once_per_fallback_poll() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    queue.schedule(&7).after(30 * DAY).await.unwrap();
    let began = Instant::now();
    let mut consumer = queue.consumer().open().await.unwrap();
    let delivery = consumer.next().await.unwrap();
    assert_eq!((*delivery.payload(), delivery.attempt()), (7, 1));
    assert!(began.elapsed() >= 30 * DAY && began.elapsed() < 30 * DAY + Duration::from_millis(5));
    assert!(delivery.lateness() < Duration::from_millis(5), "{:?}", delivery.lateness());
    let fallback_polls = (30 * DAY).as_secs() / 30;
    let claims = probe.on.claim.calls() as u64;
    assert!(claims <= fallback_polls + 2, "idle_1: {claims} claims in {fallback_polls} fallback polls");
    delivery.complete().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn live_2_an_earlier_task_wakes_a_sleeper_at_once() {
    let queue = Probe::new().queue("q");
    queue.schedule(&1).after(DAY).await.unwrap();
    let mut consumer = queue.consumer().open().await.unwrap();
    let sleeper = tokio::spawn(async move { *consumer.next().await.unwrap().payload() });
    settle_down().await;
    let began = Instant::now();
    queue.schedule(&2).after(SECOND).await.unwrap();
    assert_eq!(sleeper.await.unwrap(), 2);
    assert!(began.elapsed() < SECOND + Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn drop_2_a_dropped_next_loses_nothing_and_costs_no_attempt() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    // While it waits ...
    assert!(consumer.next().now_or_never().is_none());
    fill(&queue, [7]).await;
    // ... and while it claims.
    let gate = Arc::new(Semaphore::new(0));
    probe.on.claim.plan([Fault::Gate(gate)]);
    assert!(consumer.next().now_or_never().is_none());
    assert_eq!(probe.on.claim.under_way.load(std::sync::atomic::Ordering::SeqCst), 0);
    let delivery = consumer.next().await.unwrap();
    assert_eq!((*delivery.payload(), delivery.attempt()), (7, 1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_one_and_never_for_more() {
    let queue = Probe::new().queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    assert!(consumer.next_batch(0).await.unwrap().is_empty());
    assert!(consumer.try_next_batch(10).await.unwrap().is_empty());
    fill(&queue, 0..15).await;
    assert_eq!(consumer.next_batch(10).await.unwrap().len(), 10);
    assert_eq!(consumer.next_batch(10).await.unwrap().len(), 5);
    queue.schedule(&1).after(SECOND).await.unwrap();
    queue.schedule(&2).after(2 * SECOND).await.unwrap();
    // None of the 15 was settled, and each delivery that was dropped comes again after a second or two.
    let again = consumer.next_batch(10).await.unwrap();
    assert!(!again.is_empty() && again.len() < 17);
}

#[tokio::test(start_paused = true)]
async fn next_within_waits_that_long_and_leaves_nothing() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    let began = Instant::now();
    for _ in 0..100 {
        assert!(consumer.next_within(SECOND).await.unwrap().is_none());
    }
    assert!(began.elapsed() >= 100 * SECOND && began.elapsed() < 101 * SECOND);
    assert!(consumer.next_within(Duration::ZERO).await.unwrap().is_none());
    let soon = queue.schedule(&7).after(SECOND).await.unwrap();
    assert_eq!(consumer.next_within(2 * SECOND).await.unwrap().unwrap().id(), soon.id());
    assert!(consumer.next_within(Duration::MAX).now_or_never().is_none());
    consumer.close().await.unwrap();
    assert_eq!(probe.on.subscriptions.load(std::sync::atomic::Ordering::SeqCst), 0, "leak_1");
}

#[tokio::test(start_paused = true)]
async fn drop_3_a_delivery_that_is_dropped_costs_one_attempt_and_comes_again_by_the_policy() {
    let queue = Probe::new().queue("q");
    fill(&queue, [7]).await;
    let policy = RetryPolicy::exponential(10 * SECOND, 100 * SECOND).seeded(1);
    let mut consumer = queue.consumer().retry(policy.clone()).open().await.unwrap();
    for attempt in 1..6 {
        let delivery = consumer.next().await.unwrap();
        assert_eq!(delivery.attempt(), attempt);
        let dropped_at = Instant::now();
        drop(delivery);
        settle_down().await;
        let view = queue.list(delayline_core::Page::first(1)).await.unwrap().remove(0);
        assert_eq!(view.last_failure.as_deref(), Some("dropped unsettled by its consumer"));
        let again = consumer.next().await.unwrap();
        let waited = dropped_at.elapsed();
        let delay = policy.delay(attempt);
        assert!(waited >= delay && waited < delay + Duration::from_millis(5), "{attempt}: {waited:?}, not {delay:?}");
        again.release().await.unwrap();
    }
}

#[test]
fn drop_3_outside_a_runtime_the_lease_of_a_dropped_delivery_simply_ends() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let probe = Probe::new();
    let queue = probe.queue("q");
    let delivery = runtime.block_on(async {
        fill(&queue, [7]).await;
        queue.consumer().open().await.unwrap().next().await.unwrap()
    });
    drop(delivery);
    runtime.block_on(settle_down());
    assert_eq!(probe.on.settle.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_disposition_does_what_it_says() {
    let queue = Probe::new().queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    fill(&queue, [7]).await;

    consumer.next().await.unwrap().release().await.unwrap();
    let now = Instant::now();
    consumer.next().await.unwrap().snooze(DAY).await.unwrap();
    let delivery = consumer.next().await.unwrap();
    assert_eq!((delivery.attempt(), now.elapsed().as_secs()), (1, DAY.as_secs()), "neither cost an attempt");
    delivery.retry(Some(2 * DAY), "not yet").await.unwrap();
    let delivery = consumer.next().await.unwrap();
    assert_eq!((delivery.attempt(), now.elapsed().as_secs()), (2, 3 * DAY.as_secs()));
    let fence = delivery.fence();
    delivery.retry(None, "again").await.unwrap();
    let delivery = consumer.next().await.unwrap();
    assert!(delivery.fence() > fence);
    delivery.complete().await.unwrap();
    assert!(consumer.next_within(400 * DAY).await.unwrap().is_none());
    assert_eq!(queue.stats().await.unwrap().dead, 0);
}

#[tokio::test(start_paused = true)]
async fn dup_4_a_lease_that_went_to_somebody_else_settles_nothing() {
    let queue = Probe::new().queue("q");
    let mut consumer = queue.consumer().lease(SECOND).open().await.unwrap();
    fill(&queue, [7]).await;
    let first = consumer.next().await.unwrap();
    let second = consumer.next().await.unwrap();
    assert_eq!((second.attempt(), first.id()), (2, second.id()));
    assert_eq!(first.complete().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    settle_down().await;
    second.complete().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_can_be_extended_and_tells_of_a_cancel() {
    let queue = Probe::new().queue("q");
    let mut consumer = queue.consumer().lease(SECOND).open().await.unwrap();
    fill(&queue, [7]).await;
    let mut delivery = consumer.next().await.unwrap();
    for _ in 0..10 {
        delivery.extend(SECOND).await.unwrap();
        assert!(consumer.next_within(SECOND / 2).await.unwrap().is_none());
    }
    queue.cancel(delivery.id()).await.unwrap();
    assert!(!delivery.lease().cancelled);
    delivery.extend(SECOND).await.unwrap();
    assert!(delivery.lease().cancelled);
    assert_eq!(delivery.extend(Duration::ZERO).await.unwrap_err().kind(), ErrorKind::OutOfRange);
    delivery.complete().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn loss_10_a_payload_that_can_not_be_decoded_is_dead_lettered_and_never_surfaces() {
    let probe = Probe::new();
    let raw = Queue::<Bytes>::with_codec(probe.clone(), "q", Raw).unwrap();
    let queue = probe.queue("q");
    for payload in ["1", "\"one\"", "2", "{", ""] {
        raw.schedule(&Bytes::from(payload)).await.unwrap();
    }
    let mut consumer = queue.consumer().open().await.unwrap();
    let batch = consumer.next_batch(10).await.unwrap();
    assert_eq!(batch.iter().map(|d| *d.payload()).collect::<Vec<_>>(), [1, 2]);
    // With nothing else to deliver, the others are dead letters by the time that it says so.
    raw.schedule(&Bytes::from("?")).await.unwrap();
    assert!(consumer.try_next_batch(10).await.unwrap().is_empty());
    let dead = queue.dead_letters(None, 10).await.unwrap().letters;
    let payloads: Vec<_> = dead.iter().map(|d| d.payload.clone()).collect();
    assert_eq!(payloads, ["\"one\"", "{", "", "?"]);
    assert!(dead[0].reason.as_str().contains("invalid type: string \"one\", expected u32"), "{}", dead[0].reason);
}

#[tokio::test(start_paused = true)]
async fn live_3_while_the_store_is_away_a_consumer_tries_again_and_heals() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    fill(&queue, [7]).await;
    probe.on.claim.plan([Fault::Fail(ErrorKind::Unavailable)]);
    assert_eq!(consumer.try_next_batch(1).await.unwrap_err().kind(), ErrorKind::Unavailable, "it does not wait");

    probe.on.claim.always(Some(Fault::Fail(ErrorKind::Unavailable)));
    let waiting = tokio::spawn(async move { *consumer.next().await.unwrap().payload() });
    tokio::time::sleep(600 * SECOND).await;
    let claims = probe.on.claim.calls();
    assert!((120..=300).contains(&claims), "50 ms to 5 s apart: {claims}");
    probe.on.claim.always(None);
    let healed = Instant::now();
    assert_eq!(waiting.await.unwrap(), 7);
    assert!(healed.elapsed() <= 5 * SECOND, "{:?}", healed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn live_3_a_claim_that_hangs_is_an_outage_too() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    fill(&queue, [7]).await;
    probe.on.claim.plan([Fault::Hang]);
    let mut consumer = queue.consumer().open().await.unwrap();
    assert_eq!(*consumer.next().await.unwrap().payload(), 7);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_will_not_pass_is_answered() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    probe.on.claim.plan([Fault::Fail(ErrorKind::Denied)]);
    let e = consumer.next().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.message().contains("`q`"), "{e}");
    probe.on.subscription.plan([Fault::Fail(ErrorKind::Unavailable)]);
    assert_eq!(queue.consumer().open().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(queue.consumer().lease(Duration::ZERO).open().await.unwrap_err().kind(), ErrorKind::OutOfRange);

    let mut stream = std::pin::pin!(consumer.into_stream());
    fill(&queue, [1, 2]).await;
    assert_eq!(*stream.next().await.unwrap().unwrap().payload(), 1);
    assert_eq!(*stream.next().await.unwrap().unwrap().payload(), 2);
    queue.backend().close().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn live_3_a_refusal_after_the_start_is_an_outage() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    fill(&queue, [0]).await;
    consumer.next().await.unwrap().complete().await.unwrap();
    for (kind, n) in
        [ErrorKind::Denied, ErrorKind::Incompatible, ErrorKind::Config, ErrorKind::Corrupt].into_iter().zip(1..)
    {
        fill(&queue, [n]).await;
        probe.on.claim.plan([Fault::Fail(kind), Fault::Fail(kind), Fault::Fail(kind)]);
        let delivery = consumer.next().await.unwrap();
        assert_eq!(*delivery.payload(), n);
        probe.on.settle.plan([Fault::Fail(kind), Fault::FailItems(kind)]);
        delivery.complete().await.unwrap();
    }
    // Until the lease ends, and no longer.
    fill(&queue, [9]).await;
    let delivery = consumer.next().await.unwrap();
    probe.on.settle.always(Some(Fault::Fail(ErrorKind::Denied)));
    let began = tokio::time::Instant::now();
    assert_eq!(delivery.complete().await.unwrap_err().kind(), ErrorKind::Denied);
    assert!(
        began.elapsed() > Duration::from_secs(20) && began.elapsed() <= Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    probe.on.settle.always(None);

    let mut fails_fast = probe.queue("other").consumer().fail_fast(true).open().await.unwrap();
    assert!(fails_fast.try_next_batch(1).await.unwrap().is_empty());
    probe.on.claim.plan([Fault::Fail(ErrorKind::Denied)]);
    assert_eq!(fails_fast.next().await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn idle_3_a_backend_that_notifies_for_nothing_is_not_spun_on() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    // Every wait returns at once.
    probe.on.wait.always(Some(Fault::Fail(ErrorKind::Busy)));
    let mut consumer = queue.consumer().open().await.unwrap();
    assert!(consumer.next_within(60 * SECOND).await.unwrap().is_none());
    let claims = probe.on.claim.calls();
    assert!(claims < 60 * 41, "{claims}");
}

#[tokio::test(start_paused = true)]
async fn settling_is_repeated_until_it_works() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    fill(&queue, [7]).await;
    let delivery = consumer.next().await.unwrap();
    probe.on.settle.plan([
        Fault::Fail(ErrorKind::Unavailable),
        Fault::FailItems(ErrorKind::Busy),
        Fault::Fail(ErrorKind::Unavailable),
    ]);
    delivery.complete().await.unwrap();
    assert_eq!(probe.on.settle.calls(), 4);
    assert_eq!(queue.stats().await.unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn settling_is_not_repeated_beyond_the_lease() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let mut consumer = queue.consumer().lease(20 * SECOND).open().await.unwrap();
    fill(&queue, [7]).await;
    let delivery = consumer.next().await.unwrap();
    probe.on.settle.always(Some(Fault::Fail(ErrorKind::Unavailable)));
    let began = Instant::now();
    assert_eq!(delivery.complete().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(began.elapsed() > 10 * SECOND && began.elapsed() <= 20 * SECOND, "{:?}", began.elapsed());

    let delivery = consumer.next().await.unwrap();
    probe.on.settle.always(Some(Fault::Hang));
    let began = Instant::now();
    assert_eq!(delivery.complete().await.unwrap_err().kind(), ErrorKind::Ambiguous, "an answer comes, or this does");
    assert!(began.elapsed() <= 21 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn dup_14_a_complete_whose_answer_was_lost_is_no_lost_lease() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    fill(&queue, [7]).await;
    let delivery = consumer.next().await.unwrap();
    probe.on.settle.plan([Fault::Lost(ErrorKind::Ambiguous)]);
    let e = delivery.complete().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Ambiguous, "the repetition met a lease that is gone");
    assert_eq!(probe.on.settle.calls(), 2);

    fill(&queue, [8]).await;
    let delivery = consumer.next().await.unwrap();
    probe.on.settle.always(Some(Fault::FailItems(ErrorKind::Ambiguous)));
    assert_eq!(delivery.complete().await.unwrap_err().kind(), ErrorKind::Ambiguous);
    assert!(probe.on.settle.calls() < 10, "a store that can't tell is not asked until the lease ends");
}

#[tokio::test(start_paused = true)]
async fn drop_4_a_settling_that_is_dropped_goes_on() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    fill(&queue, [1, 2]).await;
    let gate = Arc::new(Semaphore::new(0));
    probe.on.settle.plan([Fault::Gate(gate.clone())]);
    let (first, second) = (consumer.next().await.unwrap(), consumer.next().await.unwrap());
    let mut completing = Box::pin(first.complete());
    assert!((&mut completing).now_or_never().is_none());
    drop(completing);
    // Never polled, it has not been said.
    drop(second.complete());
    gate.add_permits(1);
    settle_down().await;
    let again = consumer.next().await.unwrap();
    assert_eq!((*again.payload(), again.attempt()), (2, 2));
    again.complete().await.unwrap();
    assert_eq!(queue.list(delayline_core::Page::first(9)).await.unwrap().len(), 0, "the first was completed");
}

#[tokio::test(start_paused = true)]
async fn a_disposition_that_is_refused_says_so_and_the_task_is_retried() {
    let queue = Probe::new().queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    fill(&queue, [7]).await;
    let delivery = consumer.next().await.unwrap();
    assert_eq!(delivery.snooze(100_000 * DAY).await.unwrap_err().kind(), ErrorKind::OutOfRange);
    let began = Instant::now();
    assert_eq!(consumer.next().await.unwrap().attempt(), 2);
    assert!(began.elapsed() < 3 * SECOND, "by the policy, rather than when the lease ends");
}

#[tokio::test(start_paused = true)]
async fn many_are_settled_in_one_call_with_an_answer_for_each() {
    let probe = Probe::new();
    let (queue, other) = (probe.queue("q"), probe.queue("other"));
    let mut consumer = queue.consumer().lease(5 * SECOND).open().await.unwrap();
    fill(&queue, 0..5).await;
    fill(&other, [9]).await;
    let mut deliveries = consumer.next_batch(10).await.unwrap();
    tokio::time::sleep(6 * SECOND).await;
    let taken_over = consumer.next().await.unwrap();
    assert_eq!(*taken_over.payload(), 0);
    deliveries.push(other.consumer().open().await.unwrap().next().await.unwrap());
    let dispositions = deliveries.into_iter().enumerate().map(|(n, delivery)| match n {
        1 => (delivery, Disposition::Snooze { after: 100_000 * DAY }),
        _ => (delivery, Disposition::Complete),
    });
    let answers = consumer.settle_all(dispositions.collect()).await.unwrap();
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(|e| e.kind())).collect();
    let (lost, range, invalid) = (ErrorKind::LeaseLost, ErrorKind::OutOfRange, ErrorKind::Invalid);
    assert_eq!(kinds, [Some(lost), Some(range), None, None, None, Some(invalid)]);
    assert_eq!(probe.on.settle.batches()[0], 5);
    settle_down().await;
    assert_eq!(other.stats().await.unwrap().scheduled, 1, "the other queue's is retried");
    assert!(consumer.settle_all(Vec::new()).await.unwrap().is_empty());

    fill(&queue, [1, 2]).await;
    let rest = consumer.next_batch(10).await.unwrap();
    queue.backend().close().await.unwrap();
    let all = rest.into_iter().map(|delivery| (delivery, Disposition::Complete)).collect();
    assert_eq!(consumer.settle_all(all).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_after_a_long_outage_is_asked_for_again() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let mut consumer = queue.consumer().lease(600 * SECOND).open().await.unwrap();
    fill(&queue, [7]).await;
    let delivery = consumer.next().await.unwrap();
    probe.on.settle.plan((0..20).map(|_| Fault::Fail(ErrorKind::Unavailable)));
    probe.on.settle.plan([Fault::Fail(ErrorKind::Ambiguous)]);
    delivery.complete().await.unwrap();
    assert_eq!(probe.on.settle.calls(), 22);
}
