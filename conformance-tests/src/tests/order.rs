//! ORDER: by (visible at, sequence).

use std::collections::HashMap;
use std::time::Duration;

use delayline_core::{
    Change, ChangeOutcome, ClaimedTask, DeadLetterOp, DeadLetterSelect, Disposition, Due, NewTask, Order, Select,
    Shift, TaskRef, Timestamp,
};

use crate::trial::{LONG_LEASE, Trial};

pub async fn order_1_ties_go_in_the_order_they_were_scheduled(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("ties"));
    // One instant of the wall clock, however long the calls take.
    let due = Due::At(t.wall().saturating_add(t.units(2)));
    let mut rng = t.rng();
    let tasks = t.size(2_000, 400);
    let mut scheduled = 0;
    while scheduled < tasks {
        let batch = rng.usize(1..=40).min(tasks - scheduled);
        t.put_all(&backend, &queue, numbered(scheduled..scheduled + batch, due)).await;
        scheduled += batch;
    }
    let taken = t.drain(&backend, &queue, tasks).await;
    assert_eq!(taken.len(), tasks);
    assert_in_order(t, &taken, |_| 0);
}

pub async fn order_1_tasks_come_by_the_time_at_which_they_are_visible(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("mixed"));
    let mut rng = t.rng();
    let tasks = t.size(3_000, 500);
    let past = t.wall().saturating_sub(Duration::from_secs(60)).unix_millis_floor();
    // Few enough instants that many tasks share one; all of them past, so that no claim comes too early for any.
    let due_ms: Vec<i64> = (0..tasks).map(|_| past + rng.i64(0..500)).collect();
    let at = |(i, ms): (usize, &i64)| numbered_one(i, Timestamp::from_unix_millis(*ms));
    t.put_all(&backend, &queue, due_ms.iter().enumerate().map(at)).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut taken = Vec::new();
    while taken.len() < tasks {
        let some = t.take_some(&mut subscription, rng.usize(1..=100), LONG_LEASE, t.patience()).await;
        assert!(!some.is_empty(), "{} of {tasks} tasks that were due have come", taken.len());
        t.complete(&backend, &queue, &some).await;
        taken.extend(some);
    }
    assert_in_order(t, &taken, |i| due_ms[i]);
}

pub async fn order_1_a_herd_at_one_instant_comes_whole_and_in_order(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("herd"));
    let herd = t.size(30_000, 3_000);
    let due = t.wall().saturating_add(t.units(5));
    t.put_all(&backend, &queue, numbered(0..herd, Due::At(due))).await;
    let taken = t.drain(&backend, &queue, herd).await;
    let mut came = vec![0; herd];
    taken.iter().for_each(|task| came[number_of(task)] += 1);
    let wrong = came.iter().filter(|times| **times != 1).count();
    assert_eq!(wrong, 0, "{wrong} of {herd} tasks due at one instant did not come exactly once");
    assert!(taken.iter().all(|task| task.delivered_at() >= due), "one of the herd came early");
    assert_in_order(t, &taken, |_| 0);
}

pub async fn order_2_times_of_both_clocks_stand_on_one_line(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("clocks"));
    let wall = t.wall();
    let tasks = t.size(40, 8);
    // The later half is scheduled first, and the clocks take turns.
    let turn = |i: usize| ((i + tasks / 2) % tasks) as u32;
    let mut places = Vec::new();
    for i in 0..tasks {
        let (apart, before) = (t.units(2 + turn(i)), t.wall());
        let due = if i % 2 == 0 { Due::At(wall.saturating_add(apart)) } else { Due::After(apart) };
        t.put(&backend, &queue, numbered_one(i, due)).await;
        let (from, to) = if i % 2 == 0 { (wall, wall) } else { (before, t.wall()) };
        places.push((from.saturating_add(apart), to.saturating_add(apart)));
    }
    // On a virtual clock all were accepted at the instant that `wall` was read at, so that ties are known too.
    if t.is_virtual() {
        for i in tasks..tasks + 4 {
            let due = if i % 2 == 0 { Due::At(wall.saturating_add(t.units(2))) } else { Due::After(t.units(2)) };
            t.put(&backend, &queue, numbered_one(i, due)).await;
        }
    }
    let all = if t.is_virtual() { tasks + 4 } else { tasks };
    tokio::time::sleep(t.units(3 + tasks as u32)).await;
    let taken = t.drain(&backend, &queue, all).await;
    assert_eq!(taken.len(), all);
    let slack = t.caps().resolution + Duration::from_millis(1);
    for task in taken.iter().filter(|task| number_of(task) < tasks) {
        let (from, to) = places[number_of(task)];
        let shown = task.due_at;
        assert!(
            shown.saturating_add(slack) >= from && shown <= to.saturating_add(slack),
            "task {} is due at {shown}, and was scheduled for {from}..{to}",
            number_of(task)
        );
    }
    // Between two tasks of the wall clock, the machine may have taken longer than what lies between their times.
    assert_in_order(t, &taken, |i| visible_ms(&taken, i));
}

pub async fn order_3_a_released_task_stands_at_its_old_place(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("released"));
    let past = t.wall().saturating_sub(Duration::from_secs(60));
    let due_at = |i: usize| past.saturating_add(Duration::from_millis(i as u64 / 3));
    t.put_all(&backend, &queue, (0..9).map(|i| numbered_one(i, due_at(i)))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut rng = t.rng();
    for round in 0..t.size(50, 10) {
        // First some are released, then they are taken beside those that never were; then any.
        let wanted = match round {
            0 => 4,
            1 => 9,
            _ => rng.usize(1..=9),
        };
        let mut held = t.take(&mut subscription, wanted).await;
        assert!(held.iter().all(|task| task.lease.attempt == 1), "DUP-12: a release costs no attempt");
        assert_in_order(t, &held, |i| due_at(i).unix_millis_floor());
        rng.shuffle(&mut held);
        let dispositions = held.into_iter().map(|task| (task.lease, Disposition::Release)).collect();
        let answers = backend.settle(&queue, dispositions).await.unwrap();
        answers.into_iter().for_each(|answer| answer.unwrap());
    }
    drop(subscription);
    let taken = t.drain(&backend, &queue, 9).await;
    assert_eq!(taken.len(), 9, "what was released comes again");
    assert_in_order(t, &taken, |i| due_at(i).unix_millis_floor());
}

pub async fn order_3_a_retry_a_snooze_and_the_end_of_a_lease_keep_the_sequence(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("again"));
    let past = Due::At(t.wall().saturating_sub(Duration::from_secs(60)));
    let tasks = 12;
    t.put_all(&backend, &queue, numbered(0..tasks, past)).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let wait = t.units(1);
    for round in 0..3 {
        // Long enough that it does not end while the others are being claimed.
        let lease = if round == 2 { t.units(4) } else { LONG_LEASE };
        let mut held = t.take_within(&mut subscription, tasks, lease, t.patience()).await;
        assert_eq!(held.len(), tasks);
        assert_in_order(t, &held, |i| visible_ms(&held, i));
        if round < 2 {
            // Settled from the last to the first.
            held.reverse();
            let disposition = || match round {
                0 => Disposition::Retry { after: wait, reason: "again".into() },
                _ => Disposition::Snooze { after: wait },
            };
            let dispositions = held.into_iter().map(|task| (task.lease, disposition())).collect();
            let answers = backend.settle(&queue, dispositions).await.unwrap();
            answers.into_iter().for_each(|answer| answer.unwrap());
        }
        // All of them are visible again before the next look.
        tokio::time::sleep(if round == 2 { lease + wait } else { 2 * wait }).await;
    }
    drop(subscription);
    let taken = t.drain(&backend, &queue, tasks).await;
    assert_eq!(taken.len(), tasks);
    assert_in_order(t, &taken, |i| visible_ms(&taken, i));
}

pub async fn order_3_a_move_and_a_shift_keep_the_sequence(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("moved"));
    let (tasks, wall) = (12, t.wall());
    let later = wall.saturating_add(Duration::from_secs(3600));
    let scheduled = t.put_all(&backend, &queue, numbered(0..tasks, Due::At(later))).await;
    let soon = Due::At(wall.saturating_add(t.units(2)));
    let mut backwards: Vec<TaskRef> = scheduled.iter().map(TaskRef::from).collect();
    backwards.reverse();
    let (moved, shifted) = backwards.split_at(tasks / 2);
    let by = Shift::Sooner(Duration::from_secs(3600) - t.units(2));
    for (some, change) in [(moved, Change::move_to(soon)), (shifted, Change::shift(by))] {
        for one in some {
            let changed = backend.change(&queue, Select::Tasks(vec![one.clone()]), change.clone()).await.unwrap();
            assert!(matches!(changed.outcomes[..], [Ok(ChangeOutcome::Changed)]), "{changed:?}");
        }
    }
    tokio::time::sleep(t.units(3)).await;
    let taken = t.drain(&backend, &queue, tasks).await;
    assert_eq!(taken.len(), tasks);
    assert_in_order(t, &taken, |_| 0);
}

pub async fn order_4_a_replacement_gets_a_new_sequence(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("replaced"));
    let due = t.wall().saturating_add(t.units(2));
    let task = |i: usize, key: usize| numbered_one(i, due).id(t.id(format!("task-{key}")));
    t.put_all(&backend, &queue, (0..6).map(|i| task(i, i))).await;
    // The first three take places behind the others, in this order.
    for (i, key) in [(6, 1), (7, 0), (8, 2)] {
        t.put(&backend, &queue, task(i, key).replace()).await;
    }
    let taken = t.drain(&backend, &queue, 6).await;
    let mut came: Vec<usize> = taken.iter().map(number_of).collect();
    assert_in_order(t, &taken, |_| 0);
    came.sort_unstable();
    assert_eq!(came, [3, 4, 5, 6, 7, 8]);
}

pub async fn order_4_a_redriven_letter_gets_a_new_sequence(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("redriven"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    t.put(&backend, &queue, numbered_one(2, Due::NOW).id(t.id("letter"))).await;
    let held = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    t.settle(&backend, &queue, &held, Disposition::DeadLetter { reason: "for now".into() }).await.unwrap();
    // On a virtual clock these are all due at one millisecond; on a real one, one after the other.
    t.put_all(&backend, &queue, numbered(0..2, Due::NOW)).await;
    let redrive = DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None };
    assert_eq!(backend.dead_letters(&queue, redrive).await.unwrap().affected, 1);
    t.put_all(&backend, &queue, numbered(3..5, Due::NOW)).await;
    drop(subscription);
    let taken = t.drain(&backend, &queue, 5).await;
    assert_eq!(taken.len(), 5);
    assert_in_order(t, &taken, |i| visible_ms(&taken, i));
    if t.caps().order == Order::Exact {
        assert_eq!(taken.iter().map(number_of).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}

/// Checks tasks that one consumer was handed, all of them visible before the first of its claims, against the declared
/// order. Their numbers are their sequence; `visible_ms` tells when each was visible, in milliseconds on one line.
pub(super) fn assert_in_order(t: &Trial, taken: &[ClaimedTask], visible_ms: impl Fn(usize) -> i64) {
    let ranks: Vec<(i64, usize)> = taken.iter().map(number_of).map(|number| (visible_ms(number), number)).collect();
    check_ranks(t.caps().order, &ranks);
    t.checked(taken.len() as u64);
}

/// Checks what came one after the other, as (visible at in milliseconds, sequence), against a declared order.
pub(super) fn check_ranks(order: Order, ranks: &[(i64, usize)]) {
    match order {
        Order::Exact => {
            for pair in ranks.windows(2) {
                assert!(pair[0] < pair[1], "(visible at, sequence) {:?} came before {:?}", pair[0], pair[1]);
            }
        }
        Order::PerShard(shards) => {
            // What can be dealt into n rising sequences has no falling one that is longer than n (Dilworth).
            let falling = longest_falling(ranks);
            assert!(falling <= shards as usize, "{falling} tasks came in falling order, out of {shards} shards");
        }
        Order::Within(distance) => {
            let mut latest = i64::MIN;
            for &(visible_ms, number) in ranks {
                assert!(
                    visible_ms.saturating_add(distance.as_millis() as i64) >= latest,
                    "task {number} came after one that was visible more than {distance:?} later"
                );
                latest = latest.max(visible_ms);
            }
        }
        // What is declared in no way that this suite knows is not promised.
        _ => {}
    }
}

/// The length of the longest sequence that falls, by the first card of each pile of a patience.
fn longest_falling(ranks: &[(i64, usize)]) -> usize {
    let mut piles: Vec<(i64, usize)> = Vec::new();
    for rank in ranks {
        let pile = piles.partition_point(|top| top > rank);
        match piles.get_mut(pile) {
            Some(top) => *top = *rank,
            None => piles.push(*rank),
        }
    }
    piles.len()
}

/// When a task was visible before it was claimed, as its delivery shows it.
fn visible_ms(taken: &[ClaimedTask], number: usize) -> i64 {
    let by_number: HashMap<usize, i64> =
        taken.iter().map(|task| (number_of(task), task.due_at.unix_millis_ceil())).collect();
    by_number[&number]
}

/// Tasks that carry their numbers.
pub(super) fn numbered(numbers: std::ops::Range<usize>, due: Due) -> impl Iterator<Item = NewTask> {
    numbers.map(move |number| numbered_one(number, due))
}

/// A task that carries its number.
pub(super) fn numbered_one(number: usize, due: impl Into<Due>) -> NewTask {
    NewTask::new(due, number.to_string())
}

/// The number that a task carries.
pub(super) fn number_of(task: &ClaimedTask) -> usize {
    let text = std::str::from_utf8(&task.payload).expect("a payload as it was scheduled");
    text.parse().expect("a payload as it was scheduled")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_falling_sequence_is_found() {
        let of = |ms: &[i64]| longest_falling(&ms.iter().map(|ms| (*ms, 0)).collect::<Vec<_>>());
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[1, 2, 3]), 1);
        assert_eq!(of(&[2, 1, 4, 3, 6, 5]), 2);
        assert_eq!(of(&[3, 9, 2, 8, 1, 7]), 3);
    }
}
