//! The ends of the range: no delay, the largest, one beyond; the shortest lease and the longest; time that jumps.

use std::collections::BTreeMap;
use std::time::Duration;

use delayline_core::{
    Change, ChangeOutcome, Claim, Disposition, Due, Error, ErrorKind, NewTask, Select, Shift, TaskRef, Timestamp,
};
use tokio::time::Instant;

use super::super::order::{number_of, numbered_one};
use super::takes::{claim_all, late_max, take_after};
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

const MS: Duration = Duration::from_millis(1);

/// What a real clock that the harness reads may be away from the backend's, and more.
const MINUTE: Duration = Duration::from_secs(60);

pub async fn time_2_beyond_the_largest_delay_is_an_error_and_never_clamped(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("range"));
    let (max, wall) = (t.caps().delay_max, t.wall());
    let slack = if t.is_virtual() { Duration::ZERO } else { MINUTE };
    let within = [Due::After(max), Due::At(wall.saturating_add(max.saturating_sub(slack)))];
    let beyond = [
        Due::After(max + MS),
        Due::After(max.saturating_mul(2)),
        Due::After(Duration::MAX),
        Due::At(wall.saturating_add(max + slack + MS)),
        Due::At(Timestamp::from_unix_micros(i64::MAX)),
    ];
    let refused = beyond.len();
    let batch = beyond.into_iter().chain(within).enumerate();
    let batch = batch.map(|(i, due)| numbered_one(i, due).id(t.id(format!("task-{i}")))).collect();
    let answers = backend.schedule(&queue, batch).await.unwrap();
    assert_eq!(answers.len(), refused + within.len());
    for (i, answer) in answers.iter().enumerate() {
        match answer {
            Err(e) => assert!(i < refused && e.kind() == ErrorKind::OutOfRange, "task {i}: {e}"),
            Ok(_) => assert!(i >= refused, "a due time beyond {max:?} was accepted: task {i}"),
        }
    }
    if Need::Inspect.is_met(t.caps()) {
        for i in 0..refused {
            let found = backend.find(&queue, &t.id(format!("task-{i}"))).await.unwrap();
            assert!(found.is_none(), "a task that was refused is there: {found:?}");
        }
    }
    let accepted: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
    for one in &accepted {
        let Some(due_at) = one.task.due_at else { continue };
        assert!(due_at >= wall.saturating_add(max.saturating_sub(slack + MS)), "a due time was clamped to {due_at}");
    }
    cancel(t, &queue, accepted.iter().map(TaskRef::from)).await;
}

pub async fn time_2_a_retry_or_snooze_out_of_range_leaves_the_lease(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("dispositions"));
    t.put(&backend, &queue, NewTask::new(Due::NOW, "held")).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    for after in [t.caps().delay_max + MS, Duration::MAX] {
        for disposition in [Disposition::Retry { after, reason: "far".into() }, Disposition::Snooze { after }] {
            let refused = t.settle(&backend, &queue, &held, disposition.clone()).await;
            assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::OutOfRange), "{disposition:?}");
        }
    }
    assert!(t.claim(&mut subscription, 1).await.is_empty(), "the lease was given up");
    t.complete(&backend, &queue, &[held]).await;
    t.history().drained(&queue);
}

pub async fn time_2_the_largest_retry_is_accepted(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("dispositions"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let after = t.caps().delay_max;
    for disposition in [Disposition::Retry { after, reason: "far".into() }, Disposition::Snooze { after }] {
        let scheduled = t.put(&backend, &queue, NewTask::new(Due::NOW, "held")).await;
        let held = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
        t.settle(&backend, &queue, &held, disposition).await.expect("the largest delay");
        assert!(t.claim(&mut subscription, 1).await.is_empty(), "the largest delay is over at once");
        if Need::Inspect.is_met(t.caps()) {
            let view = backend.find(&queue, scheduled.id()).await.unwrap().expect("a task that waits");
            assert!(view.visible_at >= t.wall().saturating_add(after.saturating_sub(MINUTE)), "{view:?}");
        }
        cancel(t, &queue, [TaskRef::from(&scheduled)]).await;
    }
}

pub async fn time_2_a_move_or_shift_out_of_range_leaves_the_task(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("changes"));
    let max = t.caps().delay_max;
    let began = Instant::now();
    let there = TaskRef::from(t.put(&backend, &queue, NewTask::new(t.units(2), "there")).await);
    let of = || Select::Tasks(vec![there.clone()]);
    for far in [Due::After(max + MS), Due::After(Duration::MAX), Due::At(Timestamp::from_unix_micros(i64::MAX))] {
        let moved = backend.change(&queue, of(), Change::move_to(far)).await;
        assert_eq!(kind_of(moved), Some(ErrorKind::OutOfRange), "a move to {far:?}");
    }
    for far in [max + MS, Duration::MAX] {
        let shifted = backend.change(&queue, of(), Change::shift(Shift::Later(far))).await.unwrap();
        let inner = shifted.outcomes.into_iter().map(kind_of).collect::<Vec<_>>();
        assert_eq!((inner.as_slice(), shifted.refused), ([Some(ErrorKind::OutOfRange)].as_slice(), 1), "{far:?} later");
    }
    let mut subscription = t.subscribe(&backend, &queue).await;
    let task = take_after(t, &mut subscription, began, t.units(2)).await;
    t.complete(&backend, &queue, &[task]).await;

    // The largest move is none too large, and any shift sooner is over at once at the worst.
    let there = TaskRef::from(t.put(&backend, &queue, NewTask::new(MINUTE, "there")).await);
    for change in [Change::move_to(max), Change::shift(Shift::Sooner(Duration::MAX))] {
        let changed = backend.change(&queue, Select::Tasks(vec![there.clone()]), change).await.unwrap();
        assert!(matches!(changed.outcomes[..], [Ok(ChangeOutcome::Changed)]), "{changed:?}");
    }
    let task = t.take(&mut subscription, 1).await;
    assert_eq!(task.len(), 1, "a task that was shifted into the past is due at once");
    t.complete(&backend, &queue, &task).await;
    t.history().drained(&queue);
}

pub async fn time_2_a_lease_out_of_range_is_refused(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("leases"));
    t.put(&backend, &queue, NewTask::new(Due::NOW, "there")).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let max = t.caps().lease_max;
    for lease in [Duration::ZERO, Duration::from_nanos(999_999), max + Duration::from_nanos(1), Duration::MAX] {
        let claimed = subscription.claim(Claim::new(1, lease)).await;
        assert_eq!(kind_of(claimed), Some(ErrorKind::OutOfRange), "a lease of {lease:?}");
    }
    let wall = t.wall();
    let held = t.take_within(&mut subscription, 1, max, t.patience()).await.pop().expect("no claim has taken it");
    assert_eq!(held.lease.attempt, 1, "no claim that was refused has counted");
    let ends = held.lease.expires_at;
    assert!(ends >= wall.saturating_add(max.saturating_sub(MINUTE)), "a lease of {max:?} from {wall} ends at {ends}");
    t.complete(&backend, &queue, &[held]).await;
    t.history().drained(&queue);
}

pub async fn time_2_an_extension_out_of_range_leaves_the_lease(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("extensions"));
    t.put(&backend, &queue, NewTask::new(Due::NOW, "held")).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    let max = t.caps().lease_max;
    for by in [Duration::ZERO, Duration::from_nanos(999_999), max + Duration::from_nanos(1), Duration::MAX] {
        let extended = backend.extend(&queue, vec![held.lease.clone()], by).await;
        assert_eq!(kind_of(extended), Some(ErrorKind::OutOfRange), "an extension by {by:?}");
    }
    assert!(t.claim(&mut subscription, 1).await.is_empty(), "the lease was given up");
    for by in [MS, max] {
        let extended = backend.extend(&queue, vec![held.lease.clone()], by).await.unwrap().remove(0).unwrap();
        assert!(extended.expires_at >= held.lease.expires_at, "an extension by {by:?} has shortened the lease");
    }
    t.complete(&backend, &queue, &[held]).await;
    t.history().drained(&queue);
}

pub async fn time_2_the_shortest_and_the_longest_lease_last_as_long_as_they_say(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("lengths"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    // Run out to their ends where that takes no time.
    let longest = if t.is_virtual() { t.caps().lease_max } else { t.units(3) };
    for lease in [MS, 2 * MS, t.units(1), longest] {
        t.put(&backend, &queue, NewTask::new(Due::NOW, "held")).await;
        let began = Instant::now();
        let held = t.take_within(&mut subscription, 1, lease, t.patience()).await;
        assert_eq!(held.len(), 1);
        // A consumer would look in between, which is no part of this.
        tokio::time::sleep_until(began + lease.saturating_sub(MS)).await;
        let again = take_after(t, &mut subscription, began, lease).await;
        assert_eq!(again.lease.attempt, 2, "the end of a lease counts its attempt");
        t.complete(&backend, &queue, &[again]).await;
    }
    t.history().drained(&queue);
}

pub async fn time_2_every_delay_up_to_the_largest_is_kept_to_the_millisecond(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("powers"));
    let max = t.caps().delay_max;
    // Where levels of a wheel begin and numbers overflow.
    let around = |power: u32| [-1, 0, 1].map(|off| Duration::from_millis((1_u64 << power).saturating_add_signed(off)));
    let mut delays: Vec<Duration> = (0..60).flat_map(around).filter(|delay| *delay <= max).collect();
    delays.extend([max, max - MS]);
    if !t.is_virtual() {
        // Those that would come during the test are what other tests are about.
        delays.retain(|delay| *delay > Duration::from_secs(3600));
    }
    let wall = t.wall();
    let tasks = delays.iter().enumerate().map(|(i, delay)| numbered_one(i, *delay));
    let before = Instant::now();
    let scheduled = t.put_all(&backend, &queue, tasks).await;
    let latest = t.wall().saturating_add(late_max(t) + t.units(1));
    for (delay, one) in delays.iter().zip(&scheduled) {
        let Some(due_at) = one.task.due_at else { continue };
        // No delay at all may be shown as the millisecond that has begun.
        let shown = wall.saturating_sub(t.units(1)).saturating_add(*delay)..=latest.saturating_add(*delay);
        assert!(shown.contains(&due_at), "after {delay:?} is shown as {due_at}, not within {shown:?}");
    }
    t.checked(delays.len() as u64);
    if !t.is_virtual() {
        return cancel(t, &queue, scheduled.iter().map(TaskRef::from)).await;
    }
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut left: BTreeMap<Duration, usize> = BTreeMap::new();
    delays.iter().for_each(|delay| *left.entry(*delay).or_default() += 1);
    while let Some((next, _)) = left.first_key_value() {
        // In one leap, and the last milliseconds as a consumer that waits.
        tokio::time::sleep_until(before + next.saturating_sub(5 * MS)).await;
        let taken = t.take_some(&mut subscription, 100, LONG_LEASE, MINUTE).await;
        assert!(!taken.is_empty(), "a task due after {next:?} did not come");
        let elapsed = before.elapsed();
        t.complete(&backend, &queue, &taken).await;
        for delay in taken.iter().map(|task| delays[number_of(task)]) {
            let on_time = delay..=delay + late_max(t);
            assert!(on_time.contains(&elapsed), "a task due after {delay:?} came after {elapsed:?}");
            let count = left.get_mut(&delay).filter(|count| **count > 0).expect("a task that has not come before");
            *count -= 1;
        }
        left.retain(|_, count| *count > 0);
    }
    t.history().drained(&queue);
}

pub async fn time_10_a_jump_over_many_ticks_hands_out_everything_once(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("jumps"));
    let mut rng = t.rng();
    let (farthest, slack) = if t.is_virtual() { (t.caps().delay_max, late_max(t)) } else { (t.units(8), t.units(1)) };
    // As many near as far, measured by the power of two; in the microseconds that histories tell apart.
    let mut any = move || Duration::from_micros((farthest.as_micros() as f64 * (rng.f64() * -40.0).exp2()) as u64);
    let delays: Vec<Duration> = (0..t.size(2_000, 200)).map(|_| any()).collect();
    let before = Instant::now();
    t.put_all(&backend, &queue, delays.iter().enumerate().map(|(i, delay)| numbered_one(i, *delay))).await;
    let accepted = Instant::now();
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut came = vec![false; delays.len()];
    let mut jumps: Vec<Duration> = (0..t.size(60, 10)).map(|_| any()).collect();
    jumps.sort_unstable();
    jumps.push(farthest + slack);
    for jump in jumps {
        tokio::time::sleep_until(accepted + jump).await;
        let reached = accepted.elapsed();
        let (taken, _) = claim_all(t, &backend, &queue, &mut subscription).await;
        let now = before.elapsed();
        for i in taken.iter().map(number_of) {
            assert!(delays[i] <= now, "a task due after {:?} came after {now:?}", delays[i]);
            assert!(!std::mem::replace(&mut came[i], true), "a task came twice");
        }
        let left_behind = (0..delays.len()).find(|i| !came[*i] && delays[*i] + slack <= reached);
        assert!(
            left_behind.is_none(),
            "a task due after {:?} did not come after {reached:?}",
            left_behind.map(|i| delays[i])
        );
    }
    t.history().drained(&queue);
}

pub async fn time_10_a_wall_clock_that_jumps_either_way_loses_nothing(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("wall"));
    let mut rng = t.rng();
    let farthest_ms = t.caps().delay_max.as_millis() as f64;
    let mut any = move || Duration::from_millis((farthest_ms * (rng.f64() * -40.0).exp2() * 0.999) as u64);
    let start = t.wall();
    let due = |delay: Duration| Timestamp::from_unix_millis(start.saturating_add(delay).unix_millis_ceil());
    let due: Vec<Timestamp> = (0..t.size(500, 200)).map(|_| due(any())).collect();
    t.put_all(&backend, &queue, due.iter().enumerate().map(|(i, at)| numbered_one(i, *at))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut came = vec![false; due.len()];
    let epoch = start.saturating_since(Timestamp::UNIX_EPOCH) + MINUTE;
    let mut jumps: Vec<Shift> =
        (0..t.size(40, 15)).map(|i| if i % 3 == 0 { Shift::Sooner(any()) } else { Shift::Later(any()) }).collect();
    // To before 1970 and back, and in the end to where all are due.
    jumps.splice(
        10..10,
        [Shift::Sooner(epoch + t.caps().delay_max * 20), Shift::Later(epoch + t.caps().delay_max * 20)],
    );
    for jump in jumps {
        if !t.step_wall(jump) {
            return;
        }
        let reached = t.wall().saturating_sub(MS);
        let (taken, _) = claim_all(t, &backend, &queue, &mut subscription).await;
        let now = t.wall();
        for i in taken.iter().map(number_of) {
            assert!(due[i] <= now, "a task due at {} came at {now}", due[i]);
            assert!(!std::mem::replace(&mut came[i], true), "a task came twice");
        }
        let left_behind = (0..due.len()).find(|i| !came[*i] && due[*i] <= reached);
        assert!(left_behind.is_none(), "a task due at {:?} did not come at {reached}", left_behind.map(|i| due[i]));
    }
    let last = due.iter().max().copied().unwrap_or_default();
    assert!(t.step_wall(Shift::Later(last.saturating_since(t.wall()) + MS)));
    let missing = came.iter().filter(|came| !**came).count();
    assert_eq!(
        claim_all(t, &backend, &queue, &mut subscription).await.0.len(),
        missing,
        "(the last of those due, all the others)"
    );
    t.history().drained(&queue);
}

/// Cancels what would lie in the store for years, where that can be done.
async fn cancel(t: &Trial, queue: &delayline_core::QueueName, tasks: impl IntoIterator<Item = TaskRef>) {
    if Need::Cancel.is_met(t.caps()) {
        let tasks: Vec<TaskRef> = tasks.into_iter().collect();
        for some in tasks.chunks(t.caps().batch_max) {
            let changed = t.backend().change(queue, Select::Tasks(some.to_vec()), Change::cancel()).await.unwrap();
            assert_eq!(changed.changed, some.len() as u64, "{changed:?}");
        }
    }
}

fn kind_of<T>(answer: Result<T, Error>) -> Option<ErrorKind> {
    answer.err().map(|e| e.kind())
}
