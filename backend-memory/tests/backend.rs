//! The memory backend through the trait: what its own design promises beyond the common rules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use delayline_core::{
    AdminOp, Change, ChangeOutcome, Claim, Claimed, ClaimedTask, Clock, DeadLetterOp, DeadSelect, DelayBackend,
    ErrorKind, GroupName, Intake, IntakeOptions, NewTask, OperationId, Outcome, Page, QueueName, Result, Select, Shift,
    TaskId, TaskRef, TestClock, Timestamp, Verdict,
};
use delayline_memory::{MemoryBackend, MemoryConfig};

const LEASE: Duration = Duration::from_secs(30);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn q() -> QueueName {
    QueueName::new("exam").unwrap()
}

fn key(id: &str) -> TaskId {
    TaskId::new(id).unwrap()
}

async fn open(backend: &MemoryBackend) -> Box<dyn Intake> {
    backend.intake(&q(), IntakeOptions::default()).await.unwrap()
}

async fn put(backend: &MemoryBackend, task: NewTask) -> Result<TaskRef> {
    backend.schedule(&q(), vec![task]).await.unwrap().remove(0).map(TaskRef::from)
}

async fn claim(intake: &mut Box<dyn Intake>, max: usize) -> Claimed {
    intake.claim(Claim::new(max, LEASE)).await.unwrap()
}

async fn settle(backend: &MemoryBackend, task: ClaimedTask, verdict: Verdict) -> Result<()> {
    backend.settle(&q(), vec![(task.lease, verdict)]).await.unwrap().remove(0)
}

/// Whether a future is ready when it is polled once.
fn ready<F: Future>(future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(out) => Some(out),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn order_1_a_million_due_at_one_instant_come_out_in_the_order_they_were_handed_in() {
    let backend = MemoryBackend::new();
    let mut intake = open(&backend).await;
    let batch = (0..1_000_000u32).map(|i| NewTask::new(ms(500), i.to_be_bytes().to_vec())).collect();
    assert!(backend.schedule(&q(), batch).await.unwrap().iter().all(Result::is_ok));
    tokio::time::advance(ms(499)).await;
    assert!(claim(&mut intake, 1).await.deliveries.is_empty(), "never early");
    tokio::time::advance(ms(2)).await;
    let mut next = 0u32;
    while next < 1_000_000 {
        for task in claim(&mut intake, 10_000).await.deliveries {
            assert_eq!(task.payload, next.to_be_bytes().to_vec());
            next += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn order_2_both_clocks_are_merged_by_visibility_and_ties_by_sequence() {
    let clock = Arc::new(TestClock::at(Timestamp::from_unix_millis(1_900_000_000_000)));
    let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock.clone()));
    let mut intake = open(&backend).await;
    let at = |d| clock.wall().saturating_add(ms(d));
    for (name, task) in [
        ("b", NewTask::new(at(20), "")),
        ("c", NewTask::new(ms(20), "")),
        ("a", NewTask::new(ms(10), "")),
        ("d", NewTask::new(at(20), "")),
        ("e", NewTask::new(ms(30), "")),
    ] {
        put(&backend, task.id(key(name))).await.unwrap();
    }
    tokio::time::advance(ms(50)).await;
    let names: Vec<_> = claim(&mut intake, 9).await.deliveries.iter().map(|d| d.lease.id.to_string()).collect();
    assert_eq!(names.concat(), "abcde");
}

#[tokio::test(start_paused = true)]
async fn bound_5_full_at_its_limits_and_room_again_afterwards() {
    let backend =
        MemoryBackend::with_config(MemoryConfig::default().max_tasks(10).max_bytes(10_000).payload_bytes_max(9_000));
    let mut intake = open(&backend).await;
    // Several rounds: what is counted wrongly once adds up.
    for round in 0..3 {
        let batch = (0..12).map(|_| NewTask::new(ms(0), "x").id(key("k")).replace()).collect();
        assert_eq!(backend.schedule(&q(), batch).await.unwrap().iter().filter(|r| r.is_ok()).count(), 12);
        let batch = (0..12).map(|i| NewTask::new(ms(0), "x").id(key(&format!("{i}")))).collect();
        let results = backend.schedule(&q(), batch).await.unwrap();
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 9, "round {round}");
        assert_eq!(results[11].as_ref().unwrap_err().kind(), ErrorKind::Full);
        let again = put(&backend, NewTask::new(ms(0), "x").id(key("3"))).await;
        assert!(again.is_ok(), "repeating a schedule is no question of room");

        // One is buried and counts on, one is cancelled, the rest completed.
        backend.change(&q(), Select::Tasks(vec![key("0").into()]), Change::cancel()).await.unwrap();
        let mut claimed = claim(&mut intake, 20).await.deliveries;
        assert_eq!(claimed.len(), 9);
        settle(&backend, claimed.remove(0), Verdict::Bury { reason: "poison".into() }).await.unwrap();
        for task in claimed {
            settle(&backend, task, Verdict::Complete).await.unwrap();
        }
        assert_eq!(backend.stats(&q()).await.unwrap().dead, 1);
        backend.dead_letters(&q(), DeadLetterOp::Purge { select: DeadSelect::All }).await.unwrap();

        let large = put(&backend, NewTask::new(ms(0), vec![7u8; 9_000])).await.unwrap();
        assert_eq!(put(&backend, NewTask::new(ms(0), vec![7u8; 1_000])).await.unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(put(&backend, NewTask::new(ms(0), vec![7u8; 9_001])).await.unwrap_err().kind(), ErrorKind::TooLarge);
        backend.change(&q(), Select::Tasks(vec![large]), Change::cancel()).await.unwrap();
    }
    backend.administer(&q(), AdminOp::Delete).await.unwrap();
    assert!(put(&backend, NewTask::new(ms(0), vec![7u8; 9_000])).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn bound_6_a_queue_too_many_is_refused_and_empty_ones_do_not_count() {
    let backend = MemoryBackend::with_config(MemoryConfig::default().max_queues(2));
    for i in 0..5 {
        let queue = QueueName::new(format!("q{i}")).unwrap();
        backend.intake(&queue, IntakeOptions::default()).await.unwrap();
    }
    let queue = |i: u32| QueueName::new(format!("q{i}")).unwrap();
    for i in 0..2 {
        assert!(backend.schedule(&queue(i), vec![NewTask::new(ms(1), "")]).await.is_ok());
    }
    let refused = backend.schedule(&queue(2), vec![NewTask::new(ms(1), "")]).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(backend.queues().await.unwrap(), [queue(0), queue(1)]);
}

#[tokio::test(start_paused = true)]
async fn time_2_the_range_is_34_years_and_a_millisecond_more_is_an_error() {
    let backend = MemoryBackend::new();
    let max = backend.capabilities().delay_max;
    assert!(max > Duration::from_secs(34 * 365 * 86_400));
    assert!(put(&backend, NewTask::new(max, "")).await.is_ok());
    let years_200 = Duration::from_secs(200 * 365 * 86_400);
    for task in [
        NewTask::new(max + ms(1), ""),
        NewTask::new(Duration::MAX, ""),
        NewTask::new(Timestamp::from(std::time::SystemTime::UNIX_EPOCH + years_200), ""),
        NewTask::new(Timestamp::from_unix_micros(i64::MAX), ""),
    ] {
        assert_eq!(put(&backend, task).await.unwrap_err().kind(), ErrorKind::OutOfRange);
    }
    for long_ago in [Timestamp::UNIX_EPOCH, Timestamp::from_unix_micros(i64::MIN)] {
        put(&backend, NewTask::new(long_ago, "")).await.unwrap();
    }
    let mut intake = open(&backend).await;
    assert_eq!(claim(&mut intake, 5).await.deliveries.len(), 2, "the past is due at once");
    tokio::time::advance(max - ms(10)).await;
    assert!(claim(&mut intake, 5).await.deliveries.len() <= 2, "only those whose lease ended");
    tokio::time::advance(ms(20)).await;
    let far: Vec<_> = claim(&mut intake, 5).await.deliveries;
    assert_eq!(far.iter().filter(|d| d.lease.attempt == 1).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn time_3_a_wall_clock_set_back_makes_nothing_early_and_a_delay_does_not_care() {
    let clock = Arc::new(TestClock::at("2030-06-01T09:00:00Z".parse().unwrap()));
    let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock.clone()));
    let mut intake = open(&backend).await;
    put(&backend, NewTask::new(clock.wall().saturating_add(ms(60_000)), "at").id(key("at"))).await.unwrap();
    put(&backend, NewTask::new(ms(60_000), "after").id(key("after"))).await.unwrap();
    clock.step_forward(Duration::from_secs(86_400 * 365 * 10));
    let claimed = claim(&mut intake, 0).await;
    assert_eq!(claimed.next_due_in, Some(Duration::ZERO));
    clock.step_back(Duration::from_secs(86_400 * 365 * 10 + 3600));
    assert!(claim(&mut intake, 9).await.deliveries.is_empty(), "re-checked at hand-out");
    tokio::time::advance(ms(60_001)).await;
    let names = |c: Claimed| c.deliveries.iter().map(|d| d.lease.id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(claim(&mut intake, 9).await), ["after"]);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(names(claim(&mut intake, 9).await), ["after", "at"]);
}

#[tokio::test(start_paused = true)]
async fn live_9_a_wall_clock_set_forward_is_noticed_within_30_seconds() {
    let clock = Arc::new(TestClock::at("2030-06-01T09:00:00Z".parse().unwrap()));
    let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock.clone()));
    let mut intake = open(&backend).await;
    // A sleeper that only knows of a delayed task learns of the one that waits for the wall clock.
    put(&backend, NewTask::new(Duration::from_secs(600), "")).await.unwrap();
    let wait = claim(&mut intake, 1).await.next_due_in.unwrap();
    assert!(wait > Duration::from_secs(590));
    put(&backend, NewTask::new(clock.wall().saturating_add(Duration::from_secs(3600)), "")).await.unwrap();
    assert!(ready(intake.wait(wait)).is_some(), "told at once that it must look at the wall clock too");
    let wait = claim(&mut intake, 1).await.next_due_in.unwrap();
    assert!(wait <= Duration::from_secs(30));
    clock.step_forward(Duration::from_secs(7200));
    tokio::time::advance(wait).await;
    assert_eq!(claim(&mut intake, 1).await.deliveries.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn live_4_a_hint_between_claim_and_wait_is_not_lost() {
    let backend = MemoryBackend::new();
    let mut intake = open(&backend).await;
    let far = put(&backend, NewTask::new(ms(10_000), "")).await.unwrap();
    let look = |intake: &mut Box<dyn Intake>| {
        let claimed = ready(intake.claim(Claim::new(1, LEASE))).unwrap().unwrap();
        (claimed.deliveries.len(), claimed.next_due_in)
    };
    assert_eq!(look(&mut intake).0, 0);
    assert!(ready(intake.wait(ms(9_000))).is_none(), "nothing has happened");

    put(&backend, NewTask::new(ms(5_000), "")).await.unwrap();
    assert!(ready(intake.wait(ms(9_000))).is_some(), "an earlier task");
    look(&mut intake);
    put(&backend, NewTask::new(ms(4_900), "")).await.unwrap();
    look(&mut intake);
    assert!(ready(intake.wait(ms(4_000))).is_none(), "a claim has seen it since");
    put(&backend, NewTask::new(ms(7_000), "")).await.unwrap();
    assert!(ready(intake.wait(ms(4_000))).is_none(), "a later task wakes nobody");

    let sooner = Change::shift(Shift::Sooner(ms(9_000)));
    backend.change(&q(), Select::Tasks(vec![far]), sooner).await.unwrap();
    assert!(ready(intake.wait(ms(4_000))).is_some(), "a task moved to the front");
    backend.administer(&q(), AdminOp::Pause).await.unwrap();
    assert_eq!(look(&mut intake), (0, None));
    assert!(ready(intake.wait(ms(4_000))).is_none());
    backend.administer(&q(), AdminOp::Resume).await.unwrap();
    assert!(ready(intake.wait(ms(4_000))).is_some(), "resumed");

    tokio::time::advance(ms(1_000)).await;
    let mut other = open(&backend).await;
    let task = claim(&mut other, 1).await.deliveries.remove(0);
    assert_eq!(look(&mut intake).0, 0);
    settle(&backend, task, Verdict::Release).await.unwrap();
    assert!(ready(intake.wait(ms(4_000))).is_some(), "a task given back by another intake");
    assert_eq!(look(&mut intake).0, 1);
}

#[tokio::test(start_paused = true)]
async fn live_10_one_stalled_intake_keeps_nothing_from_another() {
    let backend = MemoryBackend::new();
    let mut stalled = open(&backend).await;
    claim(&mut stalled, 1).await;
    let mut awake = open(&backend).await;
    for _ in 0..100 {
        assert!(claim(&mut awake, 9).await.deliveries.is_empty());
        put(&backend, NewTask::new(ms(0), "")).await.unwrap();
        assert!(ready(awake.wait(ms(1_000))).is_some());
        let task = claim(&mut awake, 9).await.deliveries.remove(0);
        settle(&backend, task, Verdict::Complete).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn close_1_wakes_who_waits_and_answers_closed() {
    let backend = Arc::new(MemoryBackend::new());
    let mut intake = open(&backend).await;
    put(&backend, NewTask::new(ms(1_000), "")).await.unwrap();
    claim(&mut intake, 1).await;
    let waiting = tokio::spawn(async move {
        intake.wait(Duration::from_secs(86_400)).await;
        intake.claim(Claim::new(1, LEASE)).await
    });
    tokio::task::yield_now().await;
    backend.close().await.unwrap();
    backend.close().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    let closed = |e: delayline_core::Error| assert_eq!(e.kind(), ErrorKind::Closed);
    closed(backend.schedule(&q(), vec![]).await.unwrap_err());
    closed(backend.settle(&q(), vec![]).await.unwrap_err());
    closed(backend.intake(&q(), IntakeOptions::default()).await.unwrap_err());
    closed(backend.stats(&q()).await.unwrap_err());
    closed(backend.queues().await.unwrap_err());
    closed(backend.find(&q(), &key("x")).await.unwrap_err());
    closed(backend.administer(&q(), AdminOp::Delete).await.unwrap_err());
    closed(backend.ping().await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn dup_6_the_fence_rises_with_every_claim_also_when_an_id_or_queue_is_used_again() {
    let clock = Arc::new(TestClock::at("2030-06-01T09:00:00Z".parse().unwrap()));
    let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock.clone()));
    let mut last = 0;
    for _ in 0..100 {
        clock.step_back(ms(5));
        put(&backend, NewTask::new(ms(0), "").id(key("k"))).await.unwrap();
        // The queue is empty and unused after each round, and so forgotten.
        let mut intake = open(&backend).await;
        let task = claim(&mut intake, 1).await.deliveries.remove(0);
        assert!(task.lease.fence > last);
        last = task.lease.fence;
        settle(&backend, task, Verdict::Complete).await.unwrap();
        drop(intake);
        assert_eq!(backend.queues().await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn dup_4_a_stale_lease_changes_nothing_and_an_expired_one_nobody_took_still_settles() {
    let backend = MemoryBackend::new();
    let mut intake = open(&backend).await;
    put(&backend, NewTask::new(ms(0), "")).await.unwrap();
    let first = claim(&mut intake, 1).await.deliveries.remove(0);
    tokio::time::advance(LEASE).await;
    let second = claim(&mut intake, 1).await.deliveries.remove(0);
    assert_eq!((second.lease.attempt, &second.lease.id), (2, &first.lease.id));
    let stale = backend.extend(&q(), vec![first.lease.clone()], LEASE).await.unwrap();
    assert_eq!(stale[0].as_ref().unwrap_err().kind(), ErrorKind::LeaseLost);
    for verdict in [Verdict::Complete, Verdict::Release, Verdict::Bury { reason: "".into() }] {
        assert_eq!(settle(&backend, first.clone(), verdict).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    }
    tokio::time::advance(LEASE * 2).await;
    settle(&backend, second.clone(), Verdict::Complete).await.unwrap();
    assert_eq!(settle(&backend, second, Verdict::Complete).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert!(claim(&mut intake, 1).await.deliveries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn cancel_3_in_flight_is_marked_told_at_the_extension_and_never_redelivered() {
    let backend = MemoryBackend::new();
    let mut intake = open(&backend).await;
    for verdict in [None, Some(Verdict::Release), Some(Verdict::Retry { after: ms(0), reason: "again".into() })] {
        let task = put(&backend, NewTask::new(ms(0), "")).await.unwrap();
        let claimed = claim(&mut intake, 1).await.deliveries.remove(0);
        let cancel = Select::Tasks(vec![task.clone()]);
        let changed = backend.change(&q(), cancel.clone(), Change::cancel()).await.unwrap();
        assert_eq!(changed.outcomes[0].as_ref().unwrap(), &ChangeOutcome::InFlight);
        let extended = backend.extend(&q(), vec![claimed.lease.clone()], LEASE).await.unwrap().remove(0).unwrap();
        assert!(extended.cancelled);
        match verdict {
            Some(verdict) => settle(&backend, claimed, verdict).await.unwrap(),
            None => tokio::time::advance(LEASE).await,
        }
        assert!(claim(&mut intake, 1).await.deliveries.is_empty());
        let changed = backend.change(&q(), cancel, Change::cancel()).await.unwrap();
        assert_eq!(changed.outcomes[0].as_ref().unwrap(), &ChangeOutcome::NotFound);
    }
}

#[tokio::test(start_paused = true)]
async fn cancel_7_a_repeated_operation_changes_each_task_once_also_when_it_was_dropped_half_way() {
    let backend = MemoryBackend::new();
    let room = GroupName::new("room").unwrap();
    let batch = (0..10_000).map(|_| NewTask::new(Duration::from_secs(3600), "").group(room.clone())).collect();
    backend.schedule(&q(), batch).await.unwrap();
    let shift = Change::shift(Shift::Later(Duration::from_secs(600))).operation(OperationId::random());
    let dropped = ready(backend.change(&q(), Select::Group(room.clone()), shift.clone()));
    assert!(dropped.is_none(), "10,000 take more than one piece");
    let half = backend.list(&q(), Page::first(1)).await.unwrap()[0].visible_at;
    put(&backend, NewTask::new(Duration::from_secs(3600), "later").group(room.clone())).await.unwrap();
    for _ in 0..2 {
        let changed = backend.change(&q(), Select::Group(room.clone()), shift.clone()).await.unwrap();
        assert_eq!((changed.changed, changed.in_flight, changed.refused), (10_000, 0, 0));
    }
    let first = &backend.list(&q(), Page::first(2)).await.unwrap();
    assert_eq!(first[0].payload, "later", "what came after the change began is left alone");
    assert_eq!(first[1].visible_at.saturating_since(half), Duration::from_secs(600));
    tokio::time::advance(Duration::from_secs(4200)).await;
    assert_eq!(backend.stats(&q()).await.unwrap().due, 10_001, "none was shifted twice");

    let other = Change::cancel().operation(shift.operation.unwrap());
    let reused = backend.change(&q(), Select::Group(room.clone()), other).await;
    assert!(reused.is_ok(), "forgotten after its window");
}

#[tokio::test(start_paused = true)]
async fn cancel_8_an_operation_id_names_one_change() {
    let backend = MemoryBackend::new();
    let task = put(&backend, NewTask::new(Duration::from_secs(60), "")).await.unwrap();
    let select = || Select::Tasks(vec![task.clone()]);
    let id = OperationId::random();
    let shift = Change::shift(Shift::Later(ms(500))).operation(id);
    let first = backend.change(&q(), select(), shift.clone()).await.unwrap();
    let again = backend.change(&q(), select(), shift).await.unwrap();
    assert_eq!((first.changed, again.changed, again.outcomes.len()), (1, 1, 1));
    let view = backend.find(&q(), &task.id).await.unwrap().unwrap();
    assert_eq!(view.visible_at.saturating_since(task.due_at.unwrap()), ms(500));
    let misused = backend.change(&q(), select(), Change::cancel().operation(id)).await;
    assert_eq!(misused.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn loss_8_dead_letters_are_redriven_at_a_rate_and_page_by_page() {
    let backend = MemoryBackend::new();
    let mut intake = open(&backend).await;
    let batch = (0..3_000).map(|i| NewTask::new(ms(0), format!("{i}"))).collect();
    backend.schedule(&q(), batch).await.unwrap();
    for task in claim(&mut intake, 5_000).await.deliveries {
        settle(&backend, task, Verdict::Bury { reason: "poison".into() }).await.unwrap();
    }
    let (mut seen, mut after) = (0, None);
    loop {
        let page = backend.dead_letters(&q(), DeadLetterOp::List { after, limit: 700 }).await.unwrap();
        for letter in &page.letters {
            assert_eq!((letter.payload.to_vec(), letter.reason.as_str()), (format!("{seen}").into_bytes(), "poison"));
            seen += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, 3_000);
    for (rate, kind) in [(0.0, ErrorKind::Invalid), (f64::NAN, ErrorKind::Invalid), (1e-9, ErrorKind::OutOfRange)] {
        let op = DeadLetterOp::Redrive { select: DeadSelect::All, rate: Some(rate) };
        assert_eq!(backend.dead_letters(&q(), op).await.unwrap_err().kind(), kind);
    }
    let op = DeadLetterOp::Redrive { select: DeadSelect::All, rate: Some(1_000.0) };
    assert_eq!(backend.dead_letters(&q(), op).await.unwrap().affected, 3_000);
    tokio::time::advance(ms(1_500)).await;
    let claimed = claim(&mut intake, 5_000).await.deliveries;
    assert!((1_500..=1_502).contains(&claimed.len()), "{}", claimed.len());
    assert_eq!((claimed[0].lease.attempt, claimed[7].payload.to_vec()), (1, b"7".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn drop_1_a_schedule_or_settle_dropped_anywhere_did_each_item_or_not() {
    let total = 20_000;
    for polls in 0.. {
        let backend = MemoryBackend::new();
        let mut intake = open(&backend).await;
        let batch = (0..total).map(|i| NewTask::new(ms(0), format!("{i}"))).collect();
        let queue = q();
        let mut schedule = Box::pin(backend.schedule(&queue, batch));
        let mut done = false;
        for _ in 0..=polls {
            done |= schedule.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        }
        drop(schedule);
        let mut leases = vec![];
        loop {
            let claimed = claim(&mut intake, 10_000).await.deliveries;
            if claimed.is_empty() {
                break;
            }
            for task in claimed {
                assert_eq!(task.payload, format!("{}", leases.len()), "accepted from the front, none twice");
                leases.push((task.lease, Verdict::Complete));
            }
        }
        assert_eq!(done, leases.len() == total);
        let ended = leases.len();
        let mut settling = Box::pin(backend.settle(&queue, leases));
        let mut settled = false;
        for _ in 0..=polls {
            settled |= settled || settling.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        }
        drop(settling);
        let left = backend.stats(&queue).await.unwrap().in_flight;
        assert_eq!(settled, left == 0);
        assert!(left < ended as u64);
        if done {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dup_9_an_id_in_use_is_kept_or_replaced_and_a_replaced_lease_is_lost() {
    let backend = MemoryBackend::new();
    let mut intake = open(&backend).await;
    let debounce = |text: &'static str| NewTask::new(ms(1_000), text).id(key("room")).replace();
    for text in ["a", "b", "c"] {
        put(&backend, debounce(text)).await.unwrap();
        tokio::time::advance(ms(600)).await;
        assert!(claim(&mut intake, 1).await.deliveries.is_empty());
    }
    let kept = backend.schedule(&q(), vec![NewTask::new(ms(5), "d").id(key("room"))]).await.unwrap().remove(0).unwrap();
    assert_eq!(kept.outcome, Outcome::Existing);
    tokio::time::advance(ms(400)).await;
    let task = claim(&mut intake, 9).await.deliveries.remove(0);
    assert_eq!(task.payload, "c");
    put(&backend, debounce("e")).await.unwrap();
    assert_eq!(settle(&backend, task, Verdict::Complete).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    tokio::time::advance(ms(1_000)).await;
    assert_eq!(claim(&mut intake, 9).await.deliveries.remove(0).payload, "e");
}

#[tokio::test(start_paused = true)]
async fn dup_10_the_id_of_a_task_cancelled_in_flight_is_free_at_once() {
    for lease_ended in [false, true] {
        let backend = MemoryBackend::new();
        let mut intake = open(&backend).await;
        put(&backend, NewTask::new(ms(0), "old").id(key("k"))).await.unwrap();
        let old = claim(&mut intake, 1).await.deliveries.remove(0);
        backend.change(&q(), Select::Tasks(vec![key("k").into()]), Change::cancel()).await.unwrap();
        if lease_ended {
            tokio::time::advance(LEASE).await;
        }
        let new =
            backend.schedule(&q(), vec![NewTask::new(ms(0), "new").id(key("k"))]).await.unwrap().remove(0).unwrap();
        assert_eq!(new.outcome, Outcome::Created);
        assert_eq!(settle(&backend, old, Verdict::Complete).await.unwrap_err().kind(), ErrorKind::LeaseLost);
        assert_eq!(claim(&mut intake, 9).await.deliveries.remove(0).payload, "new");
    }
}

#[tokio::test(start_paused = true)]
async fn dup_5_a_lease_of_another_queue_settles_nothing() {
    let clock = Arc::new(TestClock::at("2030-06-01T09:00:00Z".parse().unwrap()));
    let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock));
    let mut leases = vec![];
    let queues = ["a", "b"].map(|name| QueueName::new(name).unwrap());
    for queue in &queues {
        backend.schedule(queue, vec![NewTask::new(ms(0), "")]).await.unwrap();
        let mut intake = backend.intake(queue, IntakeOptions::default()).await.unwrap();
        leases.push(claim(&mut intake, 1).await.deliveries.remove(0).lease);
    }
    assert_eq!((leases[0].fence, &leases[0].receipt), (leases[1].fence, &leases[1].receipt), "alike but for their ids");
    let lost = backend.settle(&queues[1], vec![(leases[0].clone(), Verdict::Complete)]).await.unwrap().remove(0);
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::LeaseLost);
}

#[tokio::test(start_paused = true)]
async fn live_2_after_a_step_of_the_wall_clock_an_earlier_delay_still_wakes() {
    for forward in [true, false] {
        let clock = Arc::new(TestClock::at("2030-06-01T09:00:00Z".parse().unwrap()));
        let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock.clone()));
        let mut intake = open(&backend).await;
        put(&backend, NewTask::new(Duration::from_secs(600), "")).await.unwrap();
        claim(&mut intake, 1).await;
        let hour = Duration::from_secs(3600);
        if forward {
            clock.step_forward(hour)
        } else {
            clock.step_back(hour)
        }
        put(&backend, NewTask::new(ms(5_000), "")).await.unwrap();
        assert!(ready(intake.wait(Duration::from_secs(600))).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn cancel_8_an_operation_id_given_to_another_selection_is_refused_and_keeps_its_progress() {
    let backend = MemoryBackend::new();
    let room = |name: &str| GroupName::new(name).unwrap();
    for name in ["a", "b"] {
        let batch = (0..5_000).map(|_| NewTask::new(Duration::from_secs(60), "").group(room(name))).collect();
        backend.schedule(&q(), batch).await.unwrap();
    }
    let shift = Change::shift(Shift::Later(Duration::from_secs(60))).operation(OperationId::random());
    assert!(ready(backend.change(&q(), Select::Group(room("a")), shift.clone())).is_none());
    for other in [Select::Group(room("b")), Select::Tasks(vec![key("x").into()])] {
        let refused = backend.change(&q(), other, shift.clone()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let changed = backend.change(&q(), Select::Group(room("a")), shift).await.unwrap();
    assert_eq!(changed.changed, 5_000);
    tokio::time::advance(Duration::from_secs(119)).await;
    assert_eq!(backend.stats(&q()).await.unwrap().due, 5_000, "room b at once, room a each a minute later");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(backend.stats(&q()).await.unwrap().due, 10_000, "none twice");
}

#[tokio::test(start_paused = true)]
async fn clear_9_a_task_that_stays_is_listed_also_when_the_end_of_a_page_moves_meanwhile() {
    let backend = MemoryBackend::new();
    let mut intake = open(&backend).await;
    for (name, wait) in [("a", 0), ("b", 0), ("c", 10_000)] {
        put(&backend, NewTask::new(ms(wait), "").id(key(name))).await.unwrap();
    }
    // So many that a listing takes more than one piece.
    let fillers = (0..40_000).map(|_| NewTask::new(Duration::from_secs(3600), "")).collect();
    backend.schedule(&q(), fillers).await.unwrap();
    let queue = q();
    let mut first = Box::pin(backend.list(&queue, Page::first(2)));
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(claim(&mut intake, 2).await.deliveries.len(), 2);
    let first = first.await.unwrap();
    assert_eq!(first.len(), 2);
    let next = backend.list(&queue, Page::after(&first[1], 1)).await.unwrap();
    assert_eq!(next[0].task.id, key("c"));
}

#[tokio::test(start_paused = true)]
async fn an_id_that_differs_only_in_its_version_is_another_id() {
    let backend = MemoryBackend::new();
    let given = put(&backend, NewTask::new(ms(60_000), "")).await.unwrap().id.to_string();
    assert_eq!(&given[14..15], "7");
    let other = key(&format!("{}4{}", &given[..14], &given[15..]));
    assert_eq!(backend.find(&q(), &other).await.unwrap(), None);
    assert!(backend.find(&q(), &key(&given)).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn bound_11_a_whole_batch_can_be_changed_under_an_operation_id() {
    let backend = MemoryBackend::new();
    let all = vec![TaskRef::from(key("nobody")); backend.capabilities().batch_max];
    let cancel = Change::cancel().operation(OperationId::random());
    assert_eq!(backend.change(&q(), Select::Tasks(all), cancel).await.unwrap().not_found, 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn bound_5_a_replacement_of_equal_size_fits_where_burials_went_beyond_the_limit() {
    let backend = MemoryBackend::with_config(MemoryConfig::default().max_bytes(289));
    let mut intake = open(&backend).await;
    put(&backend, NewTask::new(ms(0), "")).await.unwrap();
    let keyed = || NewTask::new(ms(60_000), "").id(key("a")).replace();
    put(&backend, keyed()).await.unwrap();
    let task = claim(&mut intake, 1).await.deliveries.remove(0);
    settle(&backend, task, Verdict::Bury { reason: "poison".into() }).await.unwrap();
    put(&backend, keyed()).await.unwrap();
    assert_eq!(put(&backend, NewTask::new(ms(0), "")).await.unwrap_err().kind(), ErrorKind::Full);
}
