//! CANCEL: cancel, move and shift have a definite answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Bytes, Change, ChangeOutcome, Changed, ClaimedTask, DeadLetterOp, DelayBackend, Disposition, Due, ErrorKind,
    NewTask, Queue, QueueName, Receipt, Result, Select, Shift, TaskId, TaskRef, TaskState, Timestamp,
};
use tokio::time::sleep;

use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

use ChangeOutcome::{InFlight, NotFound};

/// So far that no test meets it.
pub(super) const FAR: Duration = Duration::from_secs(3600);

/// Changes named tasks, and checks that the counts are those of the answers.
pub(super) async fn change(
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    tasks: Vec<TaskRef>,
    change: Change,
) -> Vec<Result<ChangeOutcome>> {
    let asked = tasks.len();
    let changed = backend.change(queue, Select::Tasks(tasks), change).await.expect("an answer to a change");
    assert_eq!(changed.outcomes.len(), asked, "one answer for each task");
    let mut counted = Changed::default();
    changed.outcomes.iter().for_each(|outcome| counted.count(outcome));
    assert_eq!(counts(&changed), counts(&counted), "the counts of {:?}", changed.outcomes);
    changed.outcomes
}

/// Changes one task.
pub(super) async fn change_one(
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    task: impl Into<TaskRef>,
    by: Change,
) -> ChangeOutcome {
    change(backend, queue, vec![task.into()], by).await.remove(0).expect("a change that is possible")
}

/// How many were changed, in flight, not found, asked for and refused.
pub(super) fn counts(changed: &Changed) -> [u64; 5] {
    [changed.changed, changed.in_flight, changed.not_found, changed.requested, changed.refused]
}

/// Checks when a task was due, to what the backend's clock can tell.
pub(super) fn assert_due(t: &Trial, due_at: Timestamp, expected: Timestamp, what: &str) {
    // A real wall clock may be slewed by a little between the two looks.
    let tolerance = t.caps().resolution + if t.is_virtual() { Duration::ZERO } else { Duration::from_millis(20) };
    let off = due_at.saturating_since(expected).max(expected.saturating_since(due_at));
    assert!(off <= tolerance, "{what}: due at {due_at} rather than {expected}");
}

/// When a task was due as `schedule` told.
pub(super) fn due_of(task: &TaskRef) -> Timestamp {
    task.due_at.expect("`schedule` tells when a task is due")
}

pub async fn cancel_1_each_task_of_a_cancel_has_its_own_answer(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("cancelled"));
    let in_flight = each_has_its_answer(t, &queue, Change::cancel()).await;
    t.complete(&backend, &queue, &[in_flight]).await;
    t.drain(&backend, &queue, 0).await;

    // Twice in one call: the second finds nothing any more.
    let twice: TaskRef = t.put(&backend, &queue, NewTask::new(FAR, "twice")).await.into();
    let outcomes = change(&backend, &queue, vec![twice.clone(), twice], Change::cancel()).await;
    assert!(matches!(outcomes.as_slice(), [Ok(ChangeOutcome::Changed), Ok(NotFound)]), "{outcomes:?}");
    assert!(change(&backend, &queue, vec![], Change::cancel()).await.is_empty());
}

pub async fn cancel_1_each_task_of_a_move_or_shift_has_its_own_answer(t: &Trial) {
    let later = [("moved", Change::move_to(2 * FAR)), ("shifted", Change::shift(Shift::Later(FAR)))];
    for (name, change) in later {
        let queue = t.queue(name);
        let in_flight = each_has_its_answer(t, &queue, change).await;
        t.complete(&t.backend(), &queue, &[in_flight]).await;
    }
}

/// Changes tasks in every state by one call; brings back the one that is in flight.
async fn each_has_its_answer(t: &Trial, queue: &QueueName, by: Change) -> ClaimedTask {
    let backend = t.backend();
    let mut subscription = t.subscribe(&backend, queue).await;
    let refs: HashMap<TaskId, TaskRef> = t
        .put_all(&backend, queue, (0..4).map(|i| NewTask::new(Due::NOW, format!("{i}"))))
        .await
        .into_iter()
        .map(|scheduled| (scheduled.task.id.clone(), scheduled.task))
        .collect();
    let mut taken = t.take(&mut subscription, 4).await;
    let of = |task: &ClaimedTask| refs[&task.lease.id].clone();
    let (retried, dead_lettered, completed, in_flight) =
        (taken.remove(0), taken.remove(0), taken.remove(0), taken.remove(0));
    let retry = Disposition::Retry { after: FAR, reason: "not yet".into() };
    t.settle(&backend, queue, &retried, retry).await.expect("a live lease");
    t.settle(&backend, queue, &dead_lettered, Disposition::DeadLetter { reason: "never".into() })
        .await
        .expect("a live lease");
    t.complete(&backend, queue, std::slice::from_ref(&completed)).await;
    let waiting = t.put(&backend, queue, NewTask::new(FAR, "waiting")).await;
    let due = t.put(&backend, queue, NewTask::new(Due::NOW, "due")).await;
    let mut expected = vec![
        (waiting.into(), ChangeOutcome::Changed, "a task that waits"),
        (of(&in_flight), InFlight, "a task in flight"),
        (of(&completed), NotFound, "a completed task"),
        (of(&dead_lettered), NotFound, "a dead letter"),
        (due.into(), ChangeOutcome::Changed, "a task that is due"),
        (of(&retried), ChangeOutcome::Changed, "a task that waits for its retry"),
    ];
    if Need::Cancel.is_met(t.caps()) {
        let cancelled: TaskRef = t.put(&backend, queue, NewTask::new(FAR, "cancelled")).await.into();
        assert_eq!(
            change_one(&backend, queue, cancelled.clone(), Change::cancel()).await,
            ChangeOutcome::Changed,
            "a task that waits"
        );
        expected.push((cancelled, NotFound, "a cancelled task"));
    }
    if !t.caps().change_needs_receipt {
        expected.push((t.id("nobody").into(), NotFound, "a task that was never there"));
    }
    let tasks = expected.iter().map(|(task, ..)| task.clone()).collect();
    let outcomes = change(&backend, queue, tasks, by.clone()).await;
    for ((_, expected, what), outcome) in expected.iter().zip(outcomes) {
        assert_eq!(outcome.as_ref().ok(), Some(expected), "{by:?} of {what}: {outcome:?}");
    }
    in_flight
}

pub async fn cancel_2_a_cancelled_task_never_comes(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("half"));
    let (mut rng, unit_ms) = (t.rng(), t.units(1).as_millis() as u64);
    let delays = (0..t.size(2_000, 300)).map(|_| Duration::from_millis(rng.u64(0..10 * unit_ms)));
    let tasks: Vec<NewTask> = delays.map(|delay| NewTask::new(delay, "x")).collect();
    let mut tasks: Vec<TaskRef> = t.put_all(&backend, &queue, tasks).await.into_iter().map(TaskRef::from).collect();
    rng.shuffle(&mut tasks);
    let kept = tasks.split_off(tasks.len() / 2);
    for some in tasks.chunks(50) {
        // Some are due by now, which makes no difference as long as nobody has claimed them.
        let outcomes = change(&other, &queue, some.to_vec(), Change::cancel()).await;
        assert!(outcomes.iter().all(|o| matches!(o, Ok(ChangeOutcome::Changed))), "{outcomes:?}");
    }
    let came: HashSet<TaskId> =
        t.drain(&backend, &queue, kept.len()).await.into_iter().map(|task| task.lease.id).collect();
    assert_eq!(came, kept.into_iter().map(|task| task.id).collect());
    // Beyond the time of all that were cancelled.
    sleep(t.units(10)).await;
    t.drain(&backend, &queue, 0).await;
}

pub async fn cancel_2_through_the_typed_queue(t: &Trial) {
    let queue = Queue::<String>::new(t.backend(), t.queue("typed")).expect("a queue");
    let far = queue.schedule(&"anna".to_string()).after(FAR).await.expect("a task that is accepted");
    let near = queue.schedule(&"bert".to_string()).after(t.units(1)).await.expect("a task that is accepted");
    assert_eq!(queue.cancel(&far).await.expect("an answer"), ChangeOutcome::Changed);
    assert_eq!(queue.cancel(&far).await.expect("an answer"), NotFound);
    let mut consumer = queue.consumer().open().await.expect("a consumer");
    let delivery = consumer.next().await.expect("a task");
    assert_eq!((delivery.id(), delivery.payload().as_str()), (near.id(), "bert"));
    assert_eq!(queue.cancel(&near).await.expect("an answer"), InFlight);
    delivery.release().await.expect("a live lease");
    assert!(consumer.next_within(t.units(3)).await.expect("an answer").is_none(), "a task that was cancelled came");
}

pub async fn cancel_3_a_task_cancelled_in_flight_is_marked_and_never_redelivered(t: &Trial) {
    let now = Duration::ZERO;
    let dispositions = [
        ("completed", Some(Disposition::Complete)),
        ("retried", Some(Disposition::Retry { after: now, reason: "again".into() })),
        ("snoozed", Some(Disposition::Snooze { after: now })),
        ("released", Some(Disposition::Release)),
        ("buried", Some(Disposition::DeadLetter { reason: "never".into() })),
        ("ended", None),
    ];
    for (how, disposition) in dispositions {
        let (backend, other, queue) = (t.backend(), t.another().await, t.queue(how));
        let mut subscription = t.subscribe(&backend, &queue).await;
        let task: TaskRef = t.put(&backend, &queue, NewTask::new(Due::NOW, how)).await.into();
        // Longer than what stands between the claim and the extension takes on a busy machine.
        let lease = if disposition.is_some() { LONG_LEASE } else { t.units(10) };
        let claimed = t.take_within(&mut subscription, 1, lease, t.patience()).await.pop().expect("a task that is due");
        for _ in 0..2 {
            assert_eq!(change_one(&other, &queue, task.clone(), Change::cancel()).await, InFlight, "{how}");
        }
        if Need::Inspect.is_met(t.caps()) {
            let view = backend.find(&queue, &task.id).await.expect("an answer").expect("a task in flight");
            assert_eq!(view.state, TaskState::Cancelling, "{how}");
        }
        if Need::Extend.is_met(t.caps()) {
            let extended = backend.extend(&queue, vec![claimed.lease.clone()], t.units(10)).await.expect("an answer");
            let lease = extended.into_iter().next().expect("one answer").expect("a lease that is live");
            assert!(lease.cancelled, "{how}: its holder learns of it from the next extension");
        }
        match disposition {
            Some(disposition) => t.settle(&backend, &queue, &claimed, disposition).await.expect("a live lease"),
            None => sleep(t.units(11)).await,
        }
        let came = t.take_within(&mut subscription, 1, LONG_LEASE, t.units(2)).await;
        assert!(came.is_empty(), "{how}: a task came that had been cancelled in flight");
        assert_gone(t, &backend, &queue, &task, how).await;
    }
}

/// Checks that a task can't be found, changed or redriven.
async fn assert_gone(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName, task: &TaskRef, how: &str) {
    assert_eq!(change_one(backend, queue, task.clone(), Change::cancel()).await, NotFound, "{how}");
    if Need::Inspect.is_met(t.caps()) {
        assert_eq!(backend.find(queue, &task.id).await.expect("an answer"), None, "{how}");
    }
    if Need::DeadLetters.is_met(t.caps()) {
        let list = DeadLetterOp::List { after: None, limit: 1 };
        let letters = backend.dead_letters(queue, list).await.expect("a listing").letters;
        assert!(letters.is_empty(), "{how}: a cancelled task became a dead letter");
    }
}

pub async fn cancel_3_the_id_of_a_task_cancelled_in_flight_is_free_at_once(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("again"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let named = |payload: &'static str| NewTask::new(Due::NOW, payload).id(t.id("anna"));
    let first: TaskRef = t.put(&backend, &queue, named("first")).await.into();
    let old = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    assert_eq!(change_one(&backend, &queue, first.clone(), Change::cancel()).await, InFlight);
    let again = t.put(&backend, &queue, named("second")).await;
    assert_eq!(again.outcome, delayline_core::ScheduleOutcome::Created);
    let new = t.take(&mut subscription, 1).await.pop().expect("the new task");
    assert_eq!((&new.payload, new.lease.attempt), (&Bytes::from("second"), 1));
    assert!(new.lease.fence > old.lease.fence);
    for disposition in [Disposition::Release, Disposition::Complete] {
        let lost = t.settle(&backend, &queue, &old, disposition).await.expect_err("a lease that is lost");
        assert_eq!(lost.kind(), ErrorKind::LeaseLost);
    }
    if first.receipt != Receipt::NONE {
        assert_eq!(change_one(&backend, &queue, first, Change::cancel()).await, NotFound, "it is another task");
    }
    t.complete(&backend, &queue, &[new]).await;
    t.drain(&backend, &queue, 0).await;
}

pub async fn cancel_4_move_and_shift_leave_a_task_in_flight_alone(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("held"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let task: TaskRef = t.put(&backend, &queue, NewTask::new(t.units(1), "x")).await.into();
    let held = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    let changes = [
        Change::move_to(FAR),
        Change::move_to(Due::NOW),
        Change::move_to(t.wall().saturating_add(FAR)),
        Change::shift(Shift::Later(FAR)),
        Change::shift(Shift::Sooner(FAR)),
    ];
    for change in changes {
        assert_eq!(change_one(&backend, &queue, task.clone(), change.clone()).await, InFlight, "{change:?}");
    }
    let meanwhile = t.take_within(&mut subscription, 1, LONG_LEASE, t.units(1)).await;
    assert!(meanwhile.is_empty(), "a move ended a lease");
    t.settle(&backend, &queue, &held, Disposition::Release).await.expect("a lease that no move has touched");
    let again = t.take(&mut subscription, 1).await.pop().expect("a task that was given back");
    assert_due(t, again.due_at, due_of(&task), "a task that was given back after moves that left it alone");
    t.complete(&backend, &queue, &[again]).await;
    t.drain(&backend, &queue, 0).await;
}

pub async fn cancel_4_a_task_whose_lease_has_ended_is_changed_and_the_lease_is_lost(t: &Trial) {
    let changes = [
        ("moved", Change::move_to(t.units(5))),
        ("now", Change::move_to(Due::NOW)),
        ("later", Change::shift(Shift::Later(t.units(5)))),
        ("sooner", Change::shift(Shift::Sooner(FAR))),
    ];
    for (name, by) in changes {
        let (backend, queue) = (t.backend(), t.queue(name));
        let mut subscription = t.subscribe(&backend, &queue).await;
        let task: TaskRef = t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await.into();
        let old =
            t.take_within(&mut subscription, 1, t.units(2), t.patience()).await.pop().expect("a task that is due");
        sleep(t.units(3)).await;
        let asked_at = t.wall();
        let outcome = change_one(&backend, &queue, task, by.clone()).await;
        assert_eq!(outcome, ChangeOutcome::Changed, "{by:?}");
        let lost = t.settle(&backend, &queue, &old, Disposition::Complete).await.expect_err("a lease that is lost");
        assert_eq!(lost.kind(), ErrorKind::LeaseLost, "{by:?}");
        if Need::Extend.is_met(t.caps()) {
            let answers = backend.extend(&queue, vec![old.lease.clone()], LONG_LEASE).await.expect("an answer");
            assert!(answers[0].as_ref().is_err_and(|e| e.kind() == ErrorKind::LeaseLost), "{by:?}: {answers:?}");
        }
        let again = t.take(&mut subscription, 1).await.pop().expect("the task at its new place");
        assert_eq!(again.lease.attempt, 2, "{by:?}");
        match name {
            "moved" => {
                let earliest = asked_at.saturating_add(t.units(5));
                assert_due(t, again.due_at, again.due_at.max(earliest), "moved by a delay from then");
            }
            "later" => {
                let from_its_end = old.lease.expires_at.saturating_add(t.units(5));
                assert_due(t, again.due_at, from_its_end, "shifted from the end of its lease");
            }
            _ => {}
        }
        t.complete(&backend, &queue, &[again]).await;
        t.drain(&backend, &queue, 0).await;
    }
}

pub async fn cancel_4_a_cancel_after_the_lease_has_ended_takes_the_task(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("ended"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let task: TaskRef = t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await.into();
    let old = t.take_within(&mut subscription, 1, t.units(2), t.patience()).await.pop().expect("a task that is due");
    sleep(t.units(3)).await;
    assert_eq!(change_one(&backend, &queue, task.clone(), Change::cancel()).await, ChangeOutcome::Changed);
    let lost = t.settle(&backend, &queue, &old, Disposition::Release).await.expect_err("a lease that is lost");
    assert_eq!(lost.kind(), ErrorKind::LeaseLost);
    assert_gone(t, &backend, &queue, &task, "cancelled").await;
    t.drain(&backend, &queue, 0).await;
}
