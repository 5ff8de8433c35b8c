//! DUP-4: a stale lease is refused and changes nothing, whatever made it stale; and the races in which leases become so.

use std::sync::Arc;

use delayline_core::{
    AdminOp, Change, ChangeOutcome, ClaimedTask, DelayBackend, Disposition, Due, NewTask, QueueName, ScheduleOutcome,
    Select, TaskRef, TaskState,
};
use tokio::time::sleep;

use super::crew::{assert_lost, assert_stale, every_disposition, ids, retry, sorted};
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

/// Stale because the task was claimed again, or settled in any way.
pub async fn dup_4_a_stale_lease_is_refused_and_changes_nothing(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("claimed-again"));
    t.put_all(&backend, &queue, (0..5).map(|i| NewTask::new(Due::NOW, format!("{i}")).id(t.id(format!("{i}"))))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let first = t.take_within(&mut subscription, 5, t.units(1), t.patience()).await;
    let mut other = t.subscribe(&t.another().await, &queue).await;
    let second = t.take(&mut other, 5).await;
    assert_eq!(ids(&first), ids(&second));
    for stale in &first {
        let now = second.iter().find(|task| task.lease.id == stale.lease.id).unwrap();
        assert_eq!((stale.lease.attempt, now.lease.attempt), (1, 2));
        let before = seen(t, &backend, &queue, now).await;
        assert_stale(t, &backend, &queue, &stale.lease).await;
        assert_eq!(seen(t, &backend, &queue, now).await, before, "a stale lease changed a task");
    }
    assert!(t.claim(&mut subscription, 10).await.is_empty(), "a stale lease gave a task back");
    t.complete(&backend, &queue, &second).await;
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// A second disposition under one lease is refused, whatever the first one was, also when the task is under another lease
/// by then.
pub async fn dup_4_a_settled_lease_is_refused_and_changes_nothing(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("settled"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    for (i, disposition) in every_disposition().into_iter().enumerate() {
        t.put(&backend, &queue, NewTask::new(Due::NOW, format!("{i}"))).await;
        let stale = t.take(&mut subscription, 1).await.remove(0);
        t.settle(&backend, &queue, &stale, disposition.clone()).await.unwrap();
        // While it waits, or is gone.
        assert_stale(t, &backend, &queue, &stale.lease).await;
        if matches!(disposition, Disposition::Complete | Disposition::DeadLetter { .. }) {
            continue;
        }
        let again = t.take(&mut subscription, 1).await.remove(0);
        let before = seen(t, &backend, &queue, &again).await;
        assert_stale(t, &backend, &queue, &stale.lease).await;
        assert_eq!(seen(t, &backend, &queue, &again).await, before, "after {disposition:?}");
        t.complete(&backend, &queue, &[again]).await;
    }
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// A retry that waits is not shortened, prolonged or ended by the lease that asked for it.
pub async fn dup_4_a_waiting_retry_is_not_touched_by_its_old_lease(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("waits"));
    let accepted = t.put_all(&backend, &queue, (0..10).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    for task in t.take(&mut subscription, 10).await {
        t.settle(&backend, &queue, &task, retry(t.units(2))).await.unwrap();
        assert_stale(t, &backend, &queue, &task.lease).await;
    }
    let again = t.drain(&backend, &queue, 10).await;
    assert_eq!(ids(&again), sorted(accepted.into_iter().map(|task| task.task.id)));
    assert!(again.iter().all(|task| task.lease.attempt == 2), "{again:?}");
}

/// The lease of a task that was replaced in flight does nothing to the one that took its place.
pub async fn dup_4_the_lease_of_a_replaced_task_is_refused(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("replaced"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    for ended in [false, true] {
        let task = |payload: &'static str| NewTask::new(Due::NOW, payload).id(t.id(format!("one/{ended}")));
        t.put(&backend, &queue, task("old")).await;
        let lease = if ended { t.units(1) } else { LONG_LEASE };
        let stale = t.take_within(&mut subscription, 1, lease, t.patience()).await.remove(0);
        if ended {
            sleep(t.units(2)).await;
        }
        assert_eq!(t.put(&backend, &queue, task("new").replace()).await.outcome, ScheduleOutcome::Replaced);
        assert_stale(t, &backend, &queue, &stale.lease).await;
        let new = t.take(&mut subscription, 1).await.remove(0);
        assert_eq!((&new.payload[..], new.lease.attempt), (&b"new"[..], 1));
        assert!(new.lease.fence > stale.lease.fence);
        assert_stale(t, &backend, &queue, &stale.lease).await;
        t.complete(&backend, &queue, &[new]).await;
    }
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// A lease on a task of a queue that was deleted does nothing to what is scheduled under its id later.
pub async fn dup_4_the_lease_of_a_deleted_task_is_refused(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("deleted"));
    let task = |payload: &'static str| NewTask::new(Due::NOW, payload).id(t.id("one"));
    t.put(&backend, &queue, task("old")).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let stale = t.take(&mut subscription, 1).await.remove(0);
    backend.administer(&queue, AdminOp::Delete).await.unwrap();
    assert_stale(t, &backend, &queue, &stale.lease).await;
    t.put(&backend, &queue, task("new")).await;
    assert_stale(t, &backend, &queue, &stale.lease).await;
    let new = t.take(&mut subscription, 1).await.remove(0);
    assert_eq!((&new.payload[..], new.lease.attempt), (&b"new"[..], 1));
    assert!(new.lease.fence > stale.lease.fence, "the fence rises through the end of a queue");
    assert_stale(t, &backend, &queue, &stale.lease).await;
    t.complete(&backend, &queue, &[new]).await;
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// A task whose lease had ended waits where a move put it: the lease is lost.
pub async fn dup_4_the_lease_of_a_moved_task_is_refused(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("moved"));
    let accepted = t.put_all(&backend, &queue, (0..4).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let stale = t.take_within(&mut subscription, 4, t.units(1), t.patience()).await;
    sleep(t.units(2)).await;
    let select = Select::Tasks(accepted.iter().map(TaskRef::from).collect());
    let moved = backend.change(&queue, select, Change::move_to(t.units(3))).await.unwrap();
    assert_eq!(moved.changed, 4, "{moved:?}");
    for task in &stale {
        assert_stale(t, &backend, &queue, &task.lease).await;
    }
    let again = t.drain(&backend, &queue, 4).await;
    assert_eq!(ids(&again), ids(&stale));
    assert!(again.iter().all(|task| task.lease.attempt == 2), "{again:?}");
}

/// A lease of another queue, on a task of the same id, is no lease in this one.
pub async fn dup_4_a_lease_is_good_for_its_own_task_alone(t: &Trial) {
    let (backend, queue, another) = (t.backend(), t.queue("one"), t.queue("another"));
    let mut held = Vec::new();
    for (queue, claims) in [(&queue, 1), (&another, 2)] {
        t.put(&backend, queue, NewTask::new(Due::NOW, "x").id(t.id("the same"))).await;
        let mut subscription = t.subscribe(&backend, queue).await;
        let mut task = t.take(&mut subscription, 1).await.remove(0);
        for _ in 1..claims {
            t.settle(&backend, queue, &task, Disposition::Release).await.unwrap();
            task = t.take(&mut subscription, 1).await.remove(0);
        }
        held.push(task);
    }
    assert_stale(t, &backend, &another, &held[0].lease).await;
    assert_stale(t, &backend, &queue, &held[1].lease).await;
    t.complete(&backend, &queue, &held[..1]).await;
    t.complete(&backend, &another, &held[1..]).await;
}

/// The classic of queues that settle by the id alone: a slow worker's disposition comes while another works on the task.
pub async fn dup_4_a_late_disposition_does_not_touch_the_attempt_of_another(t: &Trial) {
    let (slow, fast, queue) = (t.backend(), t.another().await, t.queue("late"));
    let mut rng = t.rng();
    let n = t.size(200, 60);
    t.put_all(&slow, &queue, (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(&slow, &queue).await;
    let late = t.take_within(&mut subscription, n, t.units(2), t.patience()).await;
    let mut other = t.subscribe(&fast, &queue).await;
    let working = t.take(&mut other, n).await;
    assert_eq!(ids(&working), ids(&late), "another works on each of them");
    let dispositions = late.iter().map(|task| (task.lease.clone(), every_disposition()[rng.usize(0..5)].clone()));
    let dispositions: Vec<_> = dispositions.collect();
    for batch in dispositions.chunks(t.caps().batch_max.min(50)) {
        for answer in slow.settle(&queue, batch.to_vec()).await.unwrap() {
            assert_lost(&answer, "a late disposition");
        }
    }
    assert!(t.claim(&mut subscription, n).await.is_empty(), "a late disposition gave a task back");
    t.complete(&fast, &queue, &working).await;
    assert!(t.drain(&slow, &queue, 0).await.is_empty());
}

/// A move and a completion at the same time, of tasks whose leases have just ended or are live: one of them finds the task
/// as the other left it, and what was completed leaves no ghost (rocketmq#10421).
pub async fn dup_4_a_move_that_races_a_completion_leaves_no_ghost(t: &Trial) {
    let (backend, queue, mut rng) = (t.backend(), t.queue("race"), t.rng());
    for round in 0..t.size(60, 12) {
        let n = 20;
        let accepted =
            t.put_all(&backend, &queue, (0..n).map(|i| NewTask::new(Due::NOW, format!("{round}/{i}")))).await;
        let mut subscription = t.subscribe(&backend, &queue).await;
        let live = round % 3 == 0;
        let lease = if live { LONG_LEASE } else { t.units(1) / 4 };
        let held = t.take_within(&mut subscription, n, lease, t.patience()).await;
        if !live {
            sleep(lease).await;
        }
        let moving = {
            let (backend, queue) = (t.another().await, queue.clone());
            let tasks: Vec<TaskRef> = accepted.iter().map(TaskRef::from).collect();
            let (later, mut rng) = (t.units(1), rng.fork());
            tokio::spawn(async move {
                let mut moved = Vec::new();
                for task in tasks {
                    yields(&mut rng).await;
                    let select = Select::Tasks(vec![task.clone()]);
                    let mut changed = backend.change(&queue, select, Change::move_to(later)).await.unwrap();
                    moved.push((task.id, changed.outcomes.remove(0).unwrap()));
                }
                moved
            })
        };
        let mut completed = Vec::new();
        for task in &held {
            yields(&mut rng).await;
            match t.settle(&backend, &queue, task, Disposition::Complete).await {
                Ok(()) => completed.push(task.lease.id.clone()),
                late => assert_lost(&late, "a completion"),
            }
        }
        let moved = moving.await.unwrap();
        let waits = |outcome: &ChangeOutcome| *outcome == ChangeOutcome::Changed;
        for (id, outcome) in &moved {
            let done = completed.contains(id);
            assert!(done != waits(outcome), "{id}: moved {outcome:?}, completed {done}");
            assert!(!live || done, "a completion under a live lease counts");
        }
        let waiting = moved.iter().filter(|(_, outcome)| waits(outcome)).map(|(id, _)| id.clone());
        let waiting = sorted(waiting);
        assert_eq!(
            ids(&t.drain(&backend, &queue, waiting.len()).await),
            waiting,
            "what was moved comes, nothing else does"
        );
    }
}

/// Replacing and completing at the same time: the new task comes exactly when the answer said that it took a place or is new.
pub async fn dup_4_a_replacement_that_races_a_completion_comes_once(t: &Trial) {
    let (backend, queue, mut rng) = (t.backend(), t.queue("race"), t.rng());
    for round in 0..t.size(60, 15) {
        let n = 10;
        let id = |i: usize| t.id(format!("{round}/{i}"));
        t.put_all(&backend, &queue, (0..n).map(|i| NewTask::new(Due::NOW, "old").id(id(i)))).await;
        let mut subscription = t.subscribe(&backend, &queue).await;
        let held = t.take(&mut subscription, n).await;
        let replacing = {
            let (backend, queue, mut rng) = (t.another().await, queue.clone(), rng.fork());
            let tasks: Vec<NewTask> = (0..n).map(|i| NewTask::new(Due::NOW, "new").id(id(i)).replace()).collect();
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for task in tasks {
                    yields(&mut rng).await;
                    let mut answer = backend.schedule(&queue, vec![task]).await.unwrap();
                    answers.push(answer.remove(0).unwrap());
                }
                answers
            })
        };
        let mut completed = Vec::new();
        for task in &held {
            yields(&mut rng).await;
            match t.settle(&backend, &queue, task, Disposition::Complete).await {
                Ok(()) => completed.push(task.lease.id.clone()),
                late => assert_lost(&late, "a completion"),
            }
        }
        let mut new = Vec::new();
        for answer in replacing.await.unwrap() {
            let done = completed.contains(answer.id());
            match answer.outcome {
                ScheduleOutcome::Replaced => assert!(!done, "{} was replaced, and the old one completed", answer.id()),
                ScheduleOutcome::Created => assert!(done, "{} was created, and the old one not completed", answer.id()),
                // Completed before, and remembered for the backend's window.
                outcome => {
                    assert!(
                        done && outcome == ScheduleOutcome::Existing && !t.caps().retry_window.is_zero(),
                        "{answer:?}"
                    );
                    continue;
                }
            }
            new.push(answer.task.id);
        }
        let taken = t.drain(&backend, &queue, new.len()).await;
        assert_eq!(ids(&taken), sorted(new));
        assert!(taken.iter().all(|task| task.payload == "new"), "{taken:?}");
    }
}

/// Lets others go first a few times, or not at all.
async fn yields(rng: &mut fastrand::Rng) {
    for _ in 0..rng.u8(0..4) {
        tokio::task::yield_now().await;
    }
}

/// A task in flight as the store shows it, where it can show one: state, attempt and last failure.
async fn seen(
    t: &Trial,
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    task: &ClaimedTask,
) -> Option<(TaskState, u32, Option<String>)> {
    if !Need::Inspect.is_met(t.caps()) {
        return None;
    }
    let view = backend.find(queue, &task.lease.id).await.unwrap().expect("a task in flight");
    Some((view.state, view.attempt, view.last_failure))
}
