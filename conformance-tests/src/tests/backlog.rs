//! Backlogs in random order that are larger than what a store sorts or moves in one piece.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Change, ChangeOutcome, ClaimedTask, DelayBackend, Disposition, NewTask, QueueName, Select, TaskRef, Timestamp,
};

use super::order::{assert_in_order, number_of, numbered_one};
use crate::trial::Trial;

pub async fn order_3_a_large_backlog_released_in_any_order_comes_in_its_old_order(t: &Trial) {
    let (backend, queue, tasks) = (t.backend(), t.queue("released"), t.size(12_000, 1_500));
    let begun = t.wall();
    t.put_all(&backend, &queue, (0..tasks).map(|i| numbered_one(i, long_ago(begun, i)))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, tasks).await;
    assert_eq!(held.len(), tasks);
    release_shuffled(t, &backend, &queue, held).await;
    let again = t.take(&mut subscription, tasks).await;
    assert_eq!(again.len(), tasks);
    assert_in_order(t, &again, |i| long_ago(begun, i).unix_millis_floor());
    t.complete(&backend, &queue, &again).await;
    t.drain(&backend, &queue, 0).await;
}

pub async fn cancel_2_the_rest_of_a_backlog_that_was_mostly_cancelled_comes(t: &Trial) {
    let (backend, queue, tasks) = (t.backend(), t.queue("sessions"), t.size(12_000, 1_500));
    let (begun, mut rng) = (t.wall(), t.rng());
    // One half is due already, and was given back in no order; the other half waits, each task for a time of its own.
    let span_ms = u64::try_from(t.units(10).as_millis()).expect("a short time");
    let mut refs: Vec<TaskRef> = Vec::new();
    let due = (0..tasks / 2).map(|i| numbered_one(i, long_ago(begun, i)));
    refs.extend(t.put_all(&backend, &queue, due).await.into_iter().map(TaskRef::from));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, tasks / 2).await;
    assert_eq!(held.len(), tasks / 2);
    let later: Vec<NewTask> = (tasks / 2..tasks)
        .map(|i| numbered_one(i, Duration::from_millis(rng.u64(span_ms..2 * span_ms)) + t.units(20)))
        .collect();
    refs.extend(t.put_all(&backend, &queue, later).await.into_iter().map(TaskRef::from));
    release_shuffled(t, &backend, &queue, held).await;

    let (mut cancelled, mut rest) = (Vec::new(), Vec::new());
    for (number, task) in refs.into_iter().enumerate() {
        if rng.u8(..6) == 0 { rest.push(number) } else { cancelled.push(task) }
    }
    rng.shuffle(&mut cancelled);
    for some in cancelled.chunks(t.caps().batch_max.min(1_000)) {
        let select = Select::Tasks(some.to_vec());
        let changed = backend.change(&queue, select, Change::cancel()).await.expect("a change");
        assert!(changed.outcomes.iter().all(|outcome| matches!(outcome, Ok(ChangeOutcome::Changed))));
    }
    let mut came: Vec<usize> = t.drain(&backend, &queue, rest.len()).await.iter().map(number_of).collect();
    came.sort_unstable();
    assert_eq!(came, rest, "what was not cancelled, and nothing else");
}

/// Three tasks a millisecond, an hour ago.
fn long_ago(begun: Timestamp, number: usize) -> Timestamp {
    begun.saturating_sub(Duration::from_secs(3600)).saturating_add(Duration::from_millis(number as u64 / 3))
}

async fn release_shuffled(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName, mut held: Vec<ClaimedTask>) {
    t.rng().shuffle(&mut held);
    for some in held.chunks(t.caps().batch_max.min(1_000)) {
        let dispositions = some.iter().map(|task| (task.lease.clone(), Disposition::Release)).collect();
        for answer in backend.settle(queue, dispositions).await.expect("an answer to settle") {
            answer.expect("a live lease");
        }
    }
}
