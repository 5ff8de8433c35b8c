//! DUP-12 and -13: what counts as an attempt, and what happens when there is none left.

use std::time::Duration;

use delayline_core::{Attempts, DeadLetterCause, Disposition, Due, LeaseHold, NewTask};
use tokio::time::sleep;

use super::crew::{assert_stale, letters, retry};
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

pub async fn dup_12_attempts_count_claims_but_not_releases(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("attempts"));
    t.put(&backend, &queue, NewTask::new(Due::NOW, "x").attempts_max(Attempts::new(5).unwrap())).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let (release, snooze) = (Disposition::Release, Disposition::Snooze { after: t.units(1) });
    // More than five claims, of which five count: the attempt that each one is told.
    let steps = [
        (1, Some(release.clone())),
        (1, Some(snooze.clone())),
        (1, Some(retry(Duration::ZERO))),
        (2, Some(snooze.clone())),
        (2, None),
        (3, Some(release.clone())),
        (3, Some(retry(t.units(1)))),
        (4, None),
        (5, Some(snooze)),
        (5, Some(release)),
    ];
    for (number, (attempt, disposition)) in steps.into_iter().enumerate() {
        let lease = if disposition.is_none() { t.units(1) } else { LONG_LEASE };
        let task =
            t.take_within(&mut subscription, 1, lease, t.patience()).await.pop().expect("an attempt that is left");
        assert_eq!((task.lease.attempt, task.attempts_max), (attempt, 5), "claim {number}");
        if let Some(disposition) = disposition {
            t.settle(&backend, &queue, &task, disposition).await.unwrap();
        }
    }
    let last = t.drain(&backend, &queue, 1).await;
    assert!(matches!(last.as_slice(), [one] if one.lease.attempt == 5), "{last:?}");
}

/// A task that is given back again and again is not dead-lettered for it.
pub async fn dup_12_a_task_with_one_attempt_can_be_released_without_end(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("one-attempt"));
    t.put(&backend, &queue, NewTask::new(Due::NOW, "x").attempts_max(Attempts::new(1).unwrap())).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    for i in 0..50 {
        let task = t.take(&mut subscription, 1).await.pop().expect("the one attempt, given back");
        assert_eq!(task.lease.attempt, 1);
        let disposition = if i % 2 == 0 { Disposition::Release } else { Disposition::Snooze { after: Duration::ZERO } };
        t.settle(&backend, &queue, &task, disposition).await.unwrap();
    }
    assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1);
}

/// A retry of the last attempt is a burial.
pub async fn dup_13_a_retry_of_the_last_attempt_dead_letters(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("retry"));
    let most = 4;
    let tasks = (1..=most).map(|n| {
        let attempts = Attempts::new(n).unwrap();
        NewTask::new(Due::NOW, format!("{n}")).id(t.id(format!("{n}"))).attempts_max(attempts)
    });
    t.put_all(&backend, &queue, tasks).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut last = Vec::new();
    for _ in 0..(1..=most).sum() {
        let task = t.take(&mut subscription, 1).await.pop().expect("an attempt that is left");
        assert!(task.lease.attempt <= task.attempts_max, "{task:?}");
        t.settle(&backend, &queue, &task, retry(Duration::ZERO)).await.unwrap();
        if task.lease.attempt == task.attempts_max {
            last.push(task);
        }
    }
    assert_eq!(last.len(), most as usize);
    let more = t.take_within(&mut subscription, 1, LONG_LEASE, t.units(2)).await;
    assert!(more.is_empty(), "an attempt too many: {more:?}");
    for task in &last {
        assert_stale(t, &backend, &queue, &task.lease).await;
    }
    if Need::DeadLetters.is_met(t.caps()) {
        let dead = letters(t, &backend, &queue, most as usize).await;
        assert_eq!(dead.len(), most as usize);
        for letter in dead {
            let attempts = letter.id.to_text().parse().unwrap();
            assert_eq!((letter.cause, letter.attempts), (DeadLetterCause::AttemptsUsedUp, attempts), "{letter:?}");
            assert_eq!(letter.reason.as_str(), "once more");
        }
    }
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// Leases that ended used the attempts up: the next claim dead-letters the task, and until then its last lease still settles.
pub async fn dup_13_attempts_used_up_by_leases_that_ended_dead_letter(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("leases"));
    let twice = Attempts::new(2).unwrap();
    let keys = ["met", "settled in time"];
    t.put_all(&backend, &queue, keys.map(|key| NewTask::new(Due::NOW, key).id(t.id(key)).attempts_max(twice))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut last = Vec::new();
    for attempt in 1..=2 {
        last = t.take_within(&mut subscription, 2, t.units(3), t.patience()).await;
        assert!(last.iter().all(|task| task.lease.attempt == attempt), "attempt {attempt}: {last:?}");
        // DUP-16: where its end is final, it is settled before.
        if attempt < 2 || t.caps().lease_hold == LeaseHold::Store {
            sleep(t.units(3)).await;
        }
    }
    let settled = last.iter().find(|task| task.lease.id == t.id("settled in time")).expect("both came twice");
    t.settle(&backend, &queue, settled, Disposition::Complete).await.expect("a lease that nobody took over");
    if t.caps().lease_hold != LeaseHold::Store {
        sleep(t.units(3)).await;
    }
    let more = t.take_within(&mut subscription, 1, LONG_LEASE, t.units(2)).await;
    assert!(more.is_empty(), "an attempt too many: {more:?}");
    let met = last.iter().find(|task| task.lease.id == t.id("met")).expect("both came twice");
    assert_stale(t, &backend, &queue, &met.lease).await;
    if Need::DeadLetters.is_met(t.caps()) {
        let dead = letters(t, &backend, &queue, 1).await;
        let told: Vec<_> = dead.iter().map(|letter| (letter.id.clone(), letter.cause, letter.attempts)).collect();
        assert_eq!(told, [(t.id("met"), DeadLetterCause::AttemptsUsedUp, 2)]);
    }
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}
