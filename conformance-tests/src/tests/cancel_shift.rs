//! CANCEL, continued: where a shift leads, what is out of range, which task a reference means, deleting a queue.

use std::fmt::Debug;
use std::time::Duration;

use delayline_core::{
    AdminOp, Bytes, Capabilities, Change, ChangeOutcome, ClaimedTask, DeadLetterOp, DeadLetterSelect, Disposition, Due,
    ErrorKind, NewTask, Page, Receipt, Result, ScheduleOutcome, Select, Shift, Support, TaskRef, Timestamp, every,
};
use tokio::time::sleep;

use super::cancel::{FAR, assert_due, change, change_one, due_of};
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

use ChangeOutcome::{Changed, NotFound};

pub async fn cancel_5_a_shift_counts_from_the_time_a_task_would_be_visible(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("shifted"));
    let at = |units: u32| Due::At(t.wall().saturating_add(t.units(units)));
    let (ms, five) = (Duration::from_millis(1), t.units(5));
    // What is shifted, by what, and where it lands, counted from where it stood.
    let mut cases: Vec<(Due, Vec<Shift>, i64)> = vec![
        (Due::After(t.units(10)), vec![Shift::Later(five)], 5),
        (Due::After(t.units(10)), vec![Shift::Sooner(five)], -5),
        (at(10), vec![Shift::Later(five)], 5),
        (at(10), vec![Shift::Sooner(five)], -5),
        (Due::After(t.units(10)), vec![Shift::Later(five), Shift::Later(five), Shift::Sooner(five)], 5),
        (Due::After(t.units(10)), vec![Shift::Later(Duration::ZERO)], 0),
    ]
    .into_iter()
    .map(|(due, shifts, units)| (due, shifts, units * t.units(1).as_millis() as i64))
    .collect();
    if t.caps().resolution <= ms {
        // Later is rounded up to the millisecond, sooner down.
        cases.push((Due::After(t.units(10)), vec![Shift::Later(ms * 3 / 2)], 2));
        cases.push((Due::After(t.units(10)), vec![Shift::Sooner(ms * 3 / 2)], -1));
    }
    let mut expected = Vec::new();
    for (i, (due, shifts, by_ms)) in cases.iter().enumerate() {
        let task: TaskRef = t.put(&backend, &queue, NewTask::new(*due, format!("{i}"))).await.into();
        for shift in shifts {
            assert_eq!(change_one(&backend, &queue, task.clone(), Change::shift(*shift)).await, Changed);
        }
        expected.push(Timestamp::from_unix_micros(due_of(&task).unix_micros() + by_ms * 1_000));
        if Need::Inspect.is_met(t.caps()) {
            let view = backend.find(&queue, &task.id).await.expect("an answer").expect("a task that waits");
            assert_eq!(view.visible_at, expected[i], "{due:?} by {shifts:?}");
        }
    }
    for task in t.drain(&backend, &queue, cases.len()).await {
        let i: usize = String::from_utf8_lossy(&task.payload).parse().expect("the number of its case");
        assert_due(t, task.due_at, expected[i], &format!("{:?}", cases[i]));
    }
}

pub async fn cancel_5_a_shift_into_the_past_is_due_at_once(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("past"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let dues = [Due::After(FAR), Due::At(t.wall().saturating_add(FAR)), Due::NOW];
    for due in dues {
        for by in [2 * FAR, Duration::from_secs(400 * 365 * 86_400), Duration::MAX] {
            let task: TaskRef = t.put(&backend, &queue, NewTask::new(due, "x")).await.into();
            let outcome = change_one(&backend, &queue, task, Change::shift(Shift::Sooner(by))).await;
            assert_eq!(outcome, Changed, "{due:?} by {by:?}");
            let came = t.take_within(&mut subscription, 1, LONG_LEASE, t.patience() / 4).await;
            assert_eq!(came.len(), 1, "{due:?} sooner by {by:?} is due at once");
            t.complete(&backend, &queue, &came).await;
        }
    }
    // Between two that are due: it is delivered, however the store puts it.
    t.drain(&backend, &queue, 0).await;
}

pub async fn cancel_5_a_shift_counts_from_a_retry_and_from_the_end_of_a_lease(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("retried"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let task: TaskRef = t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await.into();
    let first = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    let retry = Disposition::Retry { after: t.units(10), reason: "not yet".into() };
    let (before, answer) = (t.wall(), t.settle(&backend, &queue, &first, retry).await);
    answer.expect("a live lease");
    let after = t.wall();
    assert_eq!(change_one(&backend, &queue, task.clone(), Change::shift(Shift::Sooner(t.units(6)))).await, Changed);
    let second = t.take_within(&mut subscription, 1, t.units(2), t.patience()).await.pop().expect("a retry");
    assert_between(t, &second, before.saturating_add(t.units(4)), after.saturating_add(t.units(4)));
    assert_eq!(second.lease.attempt, 2);
    sleep(t.units(3)).await;
    assert_eq!(change_one(&backend, &queue, task, Change::shift(Shift::Later(t.units(5)))).await, Changed);
    let third = t.take(&mut subscription, 1).await.pop().expect("a task whose lease has ended");
    assert_due(t, third.due_at, second.lease.expires_at.saturating_add(t.units(5)), "after the end of its lease");
    t.complete(&backend, &queue, &[third]).await;
    t.drain(&backend, &queue, 0).await;
}

fn assert_between(t: &Trial, task: &ClaimedTask, from: Timestamp, to: Timestamp) {
    let at = task.due_at;
    let inside = if at < from { from } else { at.min(to) };
    assert_due(t, at, inside, "a retry that was shifted");
}

pub async fn cancel_9_a_reference_means_that_very_task_and_an_id_whoever_has_it(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("replaced"));
    let named = |due: Duration| NewTask::new(due, "x").id(t.id("anna"));
    let old: TaskRef = t.put(&backend, &queue, named(FAR)).await.into();
    let new = t.put(&backend, &queue, named(FAR).replace()).await;
    assert_eq!(new.outcome, ScheduleOutcome::Replaced);
    if old.receipt != Receipt::NONE {
        let later = Change::shift(Shift::Later(FAR));
        assert_eq!(change_one(&backend, &queue, old.clone(), later).await, NotFound, "it was replaced");
    }
    if !t.caps().change_needs_receipt {
        let at_once = Change::move_to(Due::NOW);
        assert_eq!(change_one(&backend, &queue, t.id("anna"), at_once).await, Changed, "whoever has the id");
    } else {
        assert_eq!(change_one(&backend, &queue, &new, Change::move_to(Due::NOW)).await, Changed);
    }
    // The id was completed and given to a third: both references are of the past.
    assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1);
    let third = t.try_put(&backend, &queue, named(t.units(2)).replace()).await;
    if let Ok(third) = third.map(|s| s.outcome)
        && third == ScheduleOutcome::Created
    {
        for task in [old, new.task].into_iter().filter(|task| task.receipt != Receipt::NONE) {
            let far = Change::move_to(FAR);
            assert_eq!(change_one(&backend, &queue, task, far).await, NotFound, "it was completed");
        }
        assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1);
    }
}

pub async fn cancel_9_a_reference_to_a_task_that_was_redriven_finds_nothing(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("redriven"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let old: TaskRef = t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await.into();
    let taken = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    t.settle(&backend, &queue, &taken, Disposition::DeadLetter { reason: "never".into() }).await.expect("a live lease");
    let redrive = DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None };
    assert_eq!(backend.dead_letters(&queue, redrive).await.expect("an answer").affected, 1);
    if old.receipt != Receipt::NONE {
        assert_eq!(change_one(&backend, &queue, old.clone(), Change::move_to(FAR)).await, NotFound);
    }
    if !t.caps().change_needs_receipt {
        assert_eq!(change_one(&backend, &queue, old.id, Change::move_to(t.units(1))).await, Changed);
    }
    assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1);
}

pub async fn cancel_10_a_move_out_of_range_is_an_error_and_changes_nothing(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("moved"));
    let task: TaskRef = t.put(&backend, &queue, NewTask::new(t.units(2), "x")).await.into();
    let beyond = t.caps().delay_max + Duration::from_millis(1);
    // An instant is compared with the backend's own clock, which may show a little more by then.
    let instant = t.wall().saturating_add(t.caps().delay_max + Duration::from_secs(60));
    for due in [Due::After(beyond), Due::After(Duration::MAX), Due::At(instant)] {
        let moved = backend.change(&queue, Select::Tasks(vec![task.clone()]), Change::move_to(due)).await;
        assert_eq!(moved.expect_err("a move out of range").kind(), ErrorKind::OutOfRange, "{due:?}");
    }
    let came = t.drain(&backend, &queue, 1).await;
    assert_due(t, came[0].due_at, due_of(&task), "a task that was not moved");

    let task: TaskRef = t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await.into();
    let farthest = Change::move_to(t.caps().delay_max);
    assert_eq!(change_one(&backend, &queue, task, farthest).await, Changed, "the range itself is possible");
}

pub async fn cancel_10_a_shift_out_of_range_refuses_that_task_alone(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("shifted"));
    let near: TaskRef = t.put(&backend, &queue, NewTask::new(t.units(1), "near")).await.into();
    let far: TaskRef = t.put(&backend, &queue, NewTask::new(t.caps().delay_max - FAR, "far")).await.into();
    // From where the near one stands it is possible, and from the far one it is not.
    let later = Change::shift(Shift::Later(2 * FAR));
    let outcomes = change(&backend, &queue, vec![far.clone(), near.clone(), far.clone()], later).await;
    let [Err(first), Ok(Changed), Err(second)] = outcomes.as_slice() else {
        panic!("one of three can be shifted: {outcomes:?}");
    };
    assert_eq!((first.kind(), second.kind()), (ErrorKind::OutOfRange, ErrorKind::OutOfRange));
    for by in [t.caps().delay_max, Duration::MAX] {
        let outcomes = change(&backend, &queue, vec![far.clone()], Change::shift(Shift::Later(by))).await;
        assert!(outcomes[0].as_ref().is_err_and(|e| e.kind() == ErrorKind::OutOfRange), "{by:?}: {outcomes:?}");
    }
    // They are as they were: by what would bring a shifted one only back to where the others are, they come at once.
    let back = Change::shift(Shift::Sooner(2 * FAR));
    assert_eq!(change_one(&backend, &queue, near.clone(), back).await, Changed);
    let sooner = Change::shift(Shift::Sooner(t.caps().delay_max - FAR));
    assert_eq!(change_one(&backend, &queue, far.clone(), sooner).await, Changed);
    let came = t.drain(&backend, &queue, 2).await;
    assert_eq!(came.len(), 2, "the refused task stood where it had been");
    let near_came = came.iter().find(|task| task.lease.id == near.id).expect("the near one");
    assert_due(t, near_came.due_at, due_of(&near), "there and back");
}

pub async fn cancel_11_what_is_declared_absent_answers_unsupported(t: &Trial) {
    for need in Need::ALL {
        if need.is_met(t.caps()) {
            assert_is_there(t, need).await;
        } else {
            need.assert_as_declared(t).await;
        }
    }
    assert_sound(t.caps());
}

pub async fn cancel_11_every_operation_of_what_is_declared_is_there(t: &Trial) {
    let (backend, queue, caps) = (t.backend(), t.queue("every"), t.caps());
    let there: TaskRef = t.put(&backend, &queue, NewTask::new(FAR, "x").id(t.id("anna"))).await.into();
    for (change, declared) in every::changes(caps) {
        let one = Select::Tasks(vec![there.clone()]);
        assert_declared(t, declared, &change, backend.change(&queue, one, change.clone()).await);
        if declared != Support::Unsupported {
            let group = Select::Group("room".parse().expect("a short name"));
            assert_declared(t, caps.groups, &change, backend.change(&queue, group, change.clone()).await);
        }
    }
    for (op, declared) in every::dead_letter_ops(caps, &t.id("anna")) {
        assert_declared(t, declared, &op, backend.dead_letters(&queue, op.clone()).await);
    }
    for (op, declared) in every::admin_ops(caps) {
        assert_declared(t, declared, &op, backend.administer(&queue, op).await);
    }
}

/// Checks that an operation answers `Unsupported` exactly where what it belongs to is declared so.
fn assert_declared<T: Debug>(t: &Trial, declared: Support, operation: &impl Debug, answer: Result<T>) {
    let lacks = answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unsupported);
    assert_eq!(lacks, declared == Support::Unsupported, "{operation:?} is {declared:?} and answered {answer:?}");
    t.checked(1);
}

/// Checks that what is declared is there: a plain call does not answer `Unsupported`.
async fn assert_is_there(t: &Trial, need: Need) {
    let (backend, queue) = (t.backend(), t.queue(need.field()));
    let there: TaskRef = t.put(&backend, &queue, NewTask::new(FAR, "x").id(t.id("anna"))).await.into();
    let one = || Select::Tasks(vec![there.clone()]);
    let group = Select::Group("room".parse().expect("a short name"));
    let answer = match need {
        Need::Extend => {
            let mut subscription = t.subscribe(&backend, &queue).await;
            t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await;
            let taken = t.take(&mut subscription, 1).await;
            let leases = taken.iter().map(|task| task.lease.clone()).collect();
            let extended = backend.extend(&queue, leases, t.units(1)).await;
            t.complete(&backend, &queue, &taken).await;
            extended.and_then(|mut answers| answers.remove(0)).map(drop)
        }
        Need::Cancel => backend.change(&queue, one(), Change::cancel()).await.map(drop),
        Need::Reschedule => backend.change(&queue, one(), Change::move_to(2 * FAR)).await.map(drop),
        Need::Groups if Need::Cancel.is_met(t.caps()) => {
            backend.change(&queue, group, Change::cancel()).await.map(drop)
        }
        Need::Groups => backend.change(&queue, group, Change::move_to(FAR)).await.map(drop),
        Need::Replace => t.try_put(&backend, &queue, NewTask::new(FAR, "y").id(t.id("anna")).replace()).await.map(drop),
        Need::UniqueIds => {
            let again = t.try_put(&backend, &queue, NewTask::new(FAR, "y").id(t.id("anna"))).await;
            again.map(|again| assert_eq!(again.outcome, ScheduleOutcome::Existing))
        }
        Need::Inspect => match backend.find(&queue, &there.id).await {
            Ok(found) => {
                assert_eq!(found.map(|view| view.payload), Some(Bytes::from("x")));
                backend.list(&queue, Page::first(1)).await.map(drop)
            }
            Err(e) => Err(e),
        },
        Need::DeadLetters => {
            let list = DeadLetterOp::List { after: None, limit: 1 };
            backend.dead_letters(&queue, list).await.map(drop)
        }
        Need::Pause => {
            backend.administer(&queue, AdminOp::Pause).await.expect("declared as definite");
            backend.administer(&queue, AdminOp::Resume).await
        }
        Need::Delete => backend.administer(&queue, AdminOp::Delete).await,
        Need::Stats => {
            backend.stats(&queue).await.expect("declared as definite");
            backend.queues().await.map(|queues| assert!(queues.contains(&queue), "a queue that holds a task"))
        }
        // Asked of a change, in CANCEL-7.
        Need::Operations => Ok(()),
    };
    assert!(answer.is_ok(), "`{}` is declared as definite and answered {answer:?}", need.field());
}

/// Checks that the declared limits leave room for use.
fn assert_sound(caps: &Capabilities) {
    let Capabilities { resolution, delay_max, lease_max, payload_bytes_max, batch_max, fallback_poll_interval, .. } =
        caps;
    assert!(
        !resolution.is_zero() && !delay_max.is_zero() && !lease_max.is_zero() && !fallback_poll_interval.is_zero(),
        "{caps:?}"
    );
    assert!(*payload_bytes_max > 0 && *batch_max > 0 && !caps.name.is_empty(), "{caps:?}");
    assert!(!caps.groups_atomic || caps.groups != Support::Unsupported, "{caps:?}");
}

pub async fn cancel_12_deleting_a_queue_removes_all_that_is_in_it(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("deleted"));
    let untouched = t.queue("untouched");
    t.put(&backend, &untouched, NewTask::new(t.units(1), "x")).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    t.put_all(&backend, &queue, (0..2).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let (dead_lettered, held) = {
        let mut taken = t.take(&mut subscription, 2).await;
        (taken.remove(0), taken.remove(0))
    };
    t.settle(&backend, &queue, &dead_lettered, Disposition::DeadLetter { reason: "never".into() })
        .await
        .expect("a live lease");
    let due: TaskRef = t.put(&backend, &queue, NewTask::new(Due::NOW, "due").id(t.id("due"))).await.into();
    t.put_all(&backend, &queue, (1..t.size(5_000, 500) as u64).map(|ms| NewTask::new(Duration::from_millis(ms), "x")))
        .await;
    if Need::Pause.is_met(t.caps()) {
        backend.administer(&queue, AdminOp::Pause).await.expect("a pause");
    }
    for _ in 0..2 {
        other.administer(&queue, AdminOp::Delete).await.expect("a deletion, and again");
    }
    for disposition in [Disposition::Release, Disposition::Complete] {
        let lost = t.settle(&backend, &queue, &held, disposition).await.expect_err("a lease that is lost");
        assert_eq!(lost.kind(), ErrorKind::LeaseLost);
    }
    if Need::Cancel.is_met(t.caps()) {
        assert_eq!(change_one(&backend, &queue, due, Change::cancel()).await, NotFound);
    }
    if Need::DeadLetters.is_met(t.caps()) {
        let redrive = DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None };
        assert_eq!(backend.dead_letters(&queue, redrive).await.expect("an answer").affected, 0);
    }
    if Need::Inspect.is_met(t.caps()) {
        assert!(backend.list(&queue, Page::first(10)).await.expect("a listing").is_empty());
    }
    // Its pause has ended with it, its ids are free, and subscriptions that were open before go on.
    let again = t.put(&backend, &queue, NewTask::new(Due::NOW, "again").id(t.id("due"))).await;
    assert_eq!(again.outcome, ScheduleOutcome::Created);
    let came = t.take(&mut subscription, 1).await;
    assert_eq!(came.iter().map(|task| &task.payload[..]).collect::<Vec<_>>(), [b"again"]);
    t.complete(&backend, &queue, &came).await;
    sleep(Duration::from_millis(t.size(5_000, 500) as u64)).await;
    t.drain(&backend, &queue, 0).await;
    assert_eq!(t.drain(&backend, &untouched, 1).await.len(), 1, "another queue");
}
