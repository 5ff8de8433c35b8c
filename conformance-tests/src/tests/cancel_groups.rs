//! CANCEL, continued: groups, under load too, and operations that are repeated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use delayline_core::{
    CancellationToken, Change, ChangeOutcome, Changed, Claim, DelayBackend, Disposition, Due, ErrorKind, GroupName,
    NewTask, QueueName, Result, Scheduled, Select, Shift, Subscription, TaskId, TaskRef, Timestamp,
};
use tokio::task::yield_now;

use super::cancel::{FAR, assert_due, counts, due_of};
use crate::dropping::dropped_at;
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

fn group(name: &str) -> GroupName {
    GroupName::new(name).expect("a short name")
}

/// `n` tasks, due from `from` to twice that, all members of a group if one is given.
fn tasks<'a>(t: &Trial, n: usize, from: Duration, of: Option<&'a str>) -> impl Iterator<Item = NewTask> + use<'a> {
    let mut rng = t.rng();
    (0..n).map(move |i| {
        let task = NewTask::new(from + Duration::from_millis(rng.u64(0..from.as_millis() as u64)), format!("{i}"));
        of.iter().fold(task, |task, name| task.group(group(name)))
    })
}

/// Takes what is in a queue, and checks that each task is due `by` units later than it was when it was scheduled.
async fn all_shifted(t: &Trial, queue: &QueueName, scheduled: &[(Scheduled, u32)]) {
    let expected: HashMap<&TaskId, Timestamp> =
        scheduled.iter().map(|(task, by)| (task.id(), due_of(&task.task).saturating_add(t.units(*by)))).collect();
    let came = t.drain(&t.backend(), queue, expected.len()).await;
    assert_eq!(came.len(), expected.len(), "each task comes once");
    for task in came {
        let id = &task.lease.id;
        assert_due(t, task.due_at, expected[id], &format!("task {id} ({:?})", task.payload));
    }
}

pub async fn cancel_6_a_group_change_covers_every_member_once(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("exam"));
    let room = group("room");
    // First those that are no members any more when the change comes, and one in flight.
    let mut subscription = t.subscribe(&backend, &queue).await;
    t.put_all(&backend, &queue, (0..3).map(|_| NewTask::new(Due::NOW, "early").group(room.clone()))).await;
    let mut early = t.take(&mut subscription, 3).await;
    t.complete(&backend, &queue, &[early.remove(0)]).await;
    let dead_letter = Disposition::DeadLetter { reason: "never".into() };
    t.settle(&backend, &queue, &early.remove(0), dead_letter).await.expect("a live lease");

    let n = t.size(10_000, 2_000);
    let mut all = Vec::new();
    for (of, by) in [(Some("room"), 10), (Some("room 2"), 0), (None, 0)] {
        let n = if by > 0 { n } else { n / 10 };
        let put = t.put_all(&backend, &queue, tasks(t, n, t.units(6), of)).await;
        all.extend(put.into_iter().map(|task| (task, by)));
    }
    let later = Change::shift(Shift::Later(t.units(10)));
    let changed = backend.change(&queue, Select::Group(room), later.clone()).await.expect("an answer");
    assert_eq!(counts(&changed), [n as u64, 1, 0, 0, 0], "n changed and one in flight");
    assert!(changed.outcomes.is_empty() && changed.first_refusal.is_none(), "{changed:?}");
    let nobody = backend.change(&queue, Select::Group(group("nobody")), later).await.expect("an answer");
    assert_eq!(counts(&nobody), [0; 5], "a group without members");
    t.complete(&backend, &queue, &early).await;
    all_shifted(t, &queue, &all).await;
}

pub async fn cancel_6_a_cancelled_group_never_comes(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("exam"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    t.put_all(&backend, &queue, (0..2).map(|_| NewTask::new(Due::NOW, "early").group(group("room")))).await;
    let held = t.take(&mut subscription, 2).await;
    let n = t.size(10_000, 2_000);
    t.put_all(&backend, &queue, tasks(t, n, t.units(2), Some("room"))).await;
    let kept = t.put_all(&backend, &queue, tasks(t, n / 10, t.units(2), Some("room 2"))).await;
    let changed = other.change(&queue, Select::Group(group("room")), Change::cancel()).await.expect("an answer");
    assert_eq!(counts(&changed), [n as u64, 2, 0, 0, 0]);
    for task in &held {
        let retry = Disposition::Retry { after: Duration::ZERO, reason: "again".into() };
        t.settle(&backend, &queue, task, retry).await.expect("a live lease, which ends with its task");
    }
    all_shifted(t, &queue, &kept.into_iter().map(|task| (task, 0)).collect::<Vec<_>>()).await;
    // They are no members any more either.
    let again = other.change(&queue, Select::Group(group("room")), Change::cancel()).await.expect("an answer");
    assert_eq!(counts(&again), [0; 5]);
}

pub async fn cancel_6_a_moved_group_is_due_then(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("exam"));
    let n = t.size(10_000, 2_000);
    t.put_all(&backend, &queue, tasks(t, n, FAR, Some("room"))).await;
    let target = t.wall().saturating_add(t.units(3));
    let moved = backend.change(&queue, Select::Group(group("room")), Change::move_to(target)).await.expect("an answer");
    assert_eq!(counts(&moved), [n as u64, 0, 0, 0, 0]);
    for task in t.drain(&backend, &queue, n).await {
        assert_due(t, task.due_at, target, "a task of a group that was moved");
    }
    // By a delay, from the instant of each piece.
    t.put_all(&backend, &queue, tasks(t, n, FAR, Some("room"))).await;
    let before = t.wall();
    let by = Change::move_to(t.units(3));
    let moved = backend.change(&queue, Select::Group(group("room")), by).await.expect("an answer");
    let after = t.wall();
    assert_eq!(counts(&moved), [n as u64, 0, 0, 0, 0]);
    for task in t.drain(&backend, &queue, n).await {
        let (first, last) = (before.saturating_add(t.units(3)), after.saturating_add(t.units(3)));
        assert_due(t, task.due_at, task.due_at.clamp(first, last), "a task of a group that was moved by a delay");
    }
}

/// How far the change under load is.
const AHEAD: u8 = 0;
const UNDER_WAY: u8 = 1;
const ANSWERED: u8 = 2;

pub async fn cancel_6_a_group_is_shifted_under_load(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("exam"));
    let phase = Arc::new(AtomicU8::new(AHEAD));
    let n = t.size(6_000, 2_000);
    let mut planned: Vec<(TaskRef, u8)> = Vec::new();
    for task in t.put_all(&backend, &queue, tasks(t, n, t.units(4), Some("room"))).await {
        planned.push((task.into(), AHEAD));
    }
    // Some are due by the time of the change, and are claimed and settled while it runs.
    let due_now = (0..n / 4).map(|i| NewTask::new(Due::NOW, format!("now {i}")).group(group("room")));
    planned.extend(t.put_all(&backend, &queue, due_now).await.into_iter().map(|task| (task.into(), AHEAD)));
    let stop = CancellationToken::new();
    let mut consumers = Vec::new();
    for client in [&backend, &other] {
        let load = Load { backend: client.clone(), queue: queue.clone(), phase: phase.clone(), stop: stop.clone() };
        consumers.push(tokio::spawn(load.consume(t.subscribe(client, &queue).await)));
    }
    let producers: Vec<_> = [&backend, &other]
        .map(|client| Load { backend: client.clone(), queue: queue.clone(), phase: phase.clone(), stop: stop.clone() })
        .into_iter()
        .map(|load| tokio::spawn(load.produce(t.units(4))))
        .collect();
    yield_now().await;
    phase.store(UNDER_WAY, Ordering::SeqCst);
    let later = Change::shift(Shift::Later(t.units(10)));
    let changed = backend.change(&queue, Select::Group(group("room")), later).await.expect("an answer");
    phase.store(ANSWERED, Ordering::SeqCst);
    for producer in producers {
        planned.extend(producer.await.expect("a producer that does not panic"));
    }
    let mut came: HashMap<TaskId, (Timestamp, u8)> = HashMap::new();
    stop.cancel();
    for consumer in consumers {
        came.extend(consumer.await.expect("a consumer that does not panic"));
    }
    let rest = t.drain(&backend, &queue, planned.len() - came.len()).await;
    came.extend(rest.into_iter().map(|task| (task.lease.id, (task.due_at, ANSWERED))));
    assert_eq!(came.len(), planned.len(), "each task comes once");
    let mut shifted = 0;
    for (task, accepted) in &planned {
        let (due_at, claimed) = came[&task.id];
        let was_shifted = due_at.saturating_since(due_of(task)) >= t.units(5);
        let expected = due_of(task).saturating_add(if was_shifted { t.units(10) } else { Duration::ZERO });
        assert_due(t, due_at, expected, "a task is shifted once or not at all");
        shifted += u64::from(was_shifted);
        assert!(!was_shifted || *accepted < ANSWERED, "{task:?} was scheduled after the change, and shifted");
        // One that was claimed before the answer was in flight, or gone, when the change came to it.
        let must = *accepted == AHEAD && claimed == ANSWERED;
        assert!(was_shifted || !must, "{task:?} was there before the change, and left out");
    }
    assert_eq!((changed.changed, changed.refused, changed.requested), (shifted, 0, 0), "{changed:?}");
}

/// One who works on the queue while its group is changed.
struct Load {
    backend: Arc<dyn DelayBackend>,
    queue: QueueName,
    phase: Arc<AtomicU8>,
    stop: CancellationToken,
}

impl Load {
    /// Schedules members until after the change was answered; tells when each was accepted.
    async fn produce(self, after: Duration) -> Vec<(TaskRef, u8)> {
        let mut accepted = Vec::new();
        let mut rounds_after = 10;
        while rounds_after > 0 {
            let before = self.phase.load(Ordering::SeqCst);
            let batch = (0..7).map(|_| NewTask::new(after, "meanwhile").group(group("room"))).collect();
            let answers = self.backend.schedule(&self.queue, batch).await.expect("an answer to schedule");
            let now = self.phase.load(Ordering::SeqCst);
            // Only what was accepted wholly ahead of the change, or wholly after it, is sure to be in or out.
            let when = if before == now { now } else { UNDER_WAY };
            accepted.extend(answers.into_iter().map(|task| (task.expect("a task that is accepted").into(), when)));
            rounds_after -= u32::from(before == ANSWERED);
            yield_now().await;
        }
        accepted
    }

    /// Completes what is due until told to stop; tells when each task was due, and when it was claimed.
    async fn consume(self, mut subscription: Box<dyn Subscription>) -> Vec<(TaskId, (Timestamp, u8))> {
        let mut came = Vec::new();
        while !self.stop.is_cancelled() {
            let when = self.phase.load(Ordering::SeqCst);
            let lease = LONG_LEASE.min(self.backend.capabilities().lease_max);
            let claimed = subscription.claim(Claim::new(5, lease)).await.expect("a claim");
            let leases = claimed.deliveries.iter().map(|task| (task.lease.clone(), Disposition::Complete)).collect();
            for answer in self.backend.settle(&self.queue, leases).await.expect("an answer to settle") {
                answer.expect("a lease that is live");
            }
            came.extend(claimed.deliveries.into_iter().map(|task| (task.lease.id, (task.due_at, when))));
            yield_now().await;
        }
        came
    }
}

pub async fn cancel_7_a_repeated_operation_changes_nothing_twice(t: &Trial) {
    let backend = t.backend();
    // More than any store changes in one piece, so that a drop leaves a part behind.
    let n = t.size(9_000, 1_000).min(t.caps().batch_max);
    let by_group = Need::Groups.is_met(t.caps());
    let mut rounds = Vec::new();
    for drops in [vec![], vec![1], vec![2], vec![3, 1]] {
        for grouped in [false, true].into_iter().filter(|grouped| by_group || !grouped) {
            let queue = t.queue(&format!("{}-{}", if grouped { "group" } else { "tasks" }, rounds.len()));
            let of = grouped.then_some("room");
            let put = t.put_all(&backend, &queue, tasks(t, n, t.units(5), of)).await;
            let select = match of {
                Some(name) => Select::Group(group(name)),
                None => Select::Tasks(put.iter().map(TaskRef::from).collect()),
            };
            let change = Change::shift(Shift::Later(t.units(5))).operation(t.operation());
            for k in &drops {
                dropped_at(*k, backend.change(&queue, select.clone(), change.clone())).await;
            }
            for _ in 0..2 {
                let changed = until_done(&backend, &queue, &select, &change).await.expect("an answer");
                assert_eq!(counts(&changed), [n as u64, 0, 0, 0, 0], "for the whole, after drops at {drops:?}");
                assert_eq!(changed.outcomes.len(), if grouped { 0 } else { n });
            }
            rounds.push((queue, put.into_iter().map(|task| (task, 5)).collect::<Vec<_>>()));
        }
    }
    for (queue, put) in rounds {
        all_shifted(t, &queue, &put).await;
    }
}

/// Changes, again as long as a call that was dropped may be at it still.
async fn until_done(
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    select: &Select,
    change: &Change,
) -> Result<Changed> {
    loop {
        match backend.change(queue, select.clone(), change.clone()).await {
            Err(e) if e.kind() == ErrorKind::Busy => tokio::time::sleep(Duration::from_millis(10)).await,
            done => return done,
        }
    }
}

pub async fn cancel_7_a_repetition_leaves_alone_what_came_meanwhile(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("exam"));
    let n = t.size(500, 100);
    let members = t.put_all(&backend, &queue, tasks(t, n, t.units(5), Some("room"))).await;
    let change = Change::shift(Shift::Later(t.units(5))).operation(t.operation());
    let select = Select::Group(group("room"));
    let first = backend.change(&queue, select.clone(), change.clone()).await.expect("an answer");
    let late = t.put_all(&backend, &queue, tasks(t, n, t.units(5), Some("room"))).await;
    // From another client too: the operation is the store's, not the connection's.
    let again = other.change(&queue, select, change).await.expect("an answer");
    assert_eq!((counts(&first), counts(&again)), ([n as u64, 0, 0, 0, 0], [n as u64, 0, 0, 0, 0]));
    let all: Vec<_> = members.into_iter().map(|task| (task, 5)).chain(late.into_iter().map(|task| (task, 0))).collect();
    all_shifted(t, &queue, &all).await;
}

pub async fn cancel_8_an_operation_id_names_one_change(t: &Trial) {
    let (backend, queue, elsewhere) = (t.backend(), t.queue("one"), t.queue("another"));
    let put = t.put_all(&backend, &queue, tasks(t, 2, t.units(3), None)).await;
    t.put(&backend, &elsewhere, NewTask::new(FAR, "x").id(put[0].id().clone())).await;
    let (first, second) = (TaskRef::from(&put[0]), TaskRef::from(&put[1]));
    let id = t.operation();
    let later = |units: u32| Change::shift(Shift::Later(t.units(units))).operation(id);
    let only = |task: &TaskRef| Select::Tasks(vec![task.clone()]);
    let changed = backend.change(&queue, only(&first), later(3)).await.expect("an answer");
    assert_eq!(counts(&changed), [1, 0, 0, 0, 0]);
    let mut misuses = vec![
        ("another distance", &queue, only(&first), later(4)),
        ("another action", &queue, only(&first), Change::move_to(Due::NOW).operation(id)),
        ("another task", &queue, only(&second), later(3)),
        ("more tasks", &queue, Select::Tasks(vec![first.clone(), second.clone()]), later(3)),
        ("no task", &queue, Select::Tasks(vec![]), later(3)),
        ("another queue", &elsewhere, only(&first), later(3)),
    ];
    if Need::Groups.is_met(t.caps()) {
        misuses.push(("a group", &queue, Select::Group(group("room")), later(3)));
    }
    for (what, queue, select, change) in misuses {
        let answer = backend.change(queue, select, change).await;
        assert!(answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Invalid), "{what}: {answer:?}");
    }
    let again = backend.change(&queue, only(&first), later(3)).await.expect("the change itself, repeated");
    assert_eq!(counts(&again), [1, 0, 0, 0, 0]);
    let [first, second] = <[Scheduled; 2]>::try_from(put).expect("two tasks");
    all_shifted(t, &queue, &[(first, 3), (second, 0)]).await;
}

pub async fn cancel_8_the_same_operation_at_once_changes_nothing_twice(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("twice"));
    let n = t.size(9_000, 1_000).min(t.caps().batch_max);
    let put = t.put_all(&backend, &queue, tasks(t, n, t.units(5), None)).await;
    let change = Change::shift(Shift::Later(t.units(5))).operation(t.operation());
    let select = Select::Tasks(put.iter().map(TaskRef::from).collect());
    let runs: Vec<_> = [&backend, &other, &backend, &other]
        .map(|client| (client.clone(), queue.clone(), select.clone(), change.clone()))
        .into_iter()
        .map(|(client, queue, select, change)| tokio::spawn(async move { client.change(&queue, select, change).await }))
        .collect();
    for run in runs {
        match run.await.expect("a call that does not panic") {
            Ok(changed) => assert_eq!(counts(&changed), [n as u64, 0, 0, 0, 0]),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Busy, "{e}"),
        }
    }
    let changed = until_done(&backend, &queue, &select, &change).await.expect("an answer");
    assert_eq!(changed.outcomes.iter().filter(|o| matches!(o, Ok(ChangeOutcome::Changed))).count(), n);
    all_shifted(t, &queue, &put.into_iter().map(|task| (task, 5)).collect::<Vec<_>>()).await;
}

pub async fn cancel_10_a_group_counts_what_a_shift_out_of_range_refuses(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("exam"));
    let far = (0..3).map(|_| NewTask::new(t.caps().delay_max - FAR, "far").group(group("room")));
    t.put_all(&backend, &queue, far).await;
    t.put_all(&backend, &queue, (0..4).map(|_| NewTask::new(FAR, "near").group(group("room")))).await;
    let later = Change::shift(Shift::Later(2 * FAR));
    let changed = backend.change(&queue, Select::Group(group("room")), later).await.expect("an answer");
    assert_eq!(counts(&changed), [4, 0, 0, 0, 3]);
    let refusal = changed.first_refusal.expect("why the first was refused");
    assert_eq!(refusal.kind(), ErrorKind::OutOfRange);

    // And what was refused is where it was: a shift back by what it stood at brings all of them.
    let sooner = Change::shift(Shift::Sooner(t.caps().delay_max - FAR));
    let changed = backend.change(&queue, Select::Group(group("room")), sooner).await.expect("an answer");
    assert_eq!(counts(&changed), [7, 0, 0, 0, 0]);
    assert_eq!(t.drain(&backend, &queue, 7).await.len(), 7);
}

pub async fn cancel_6_what_comes_after_a_change_began_is_left_alone(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("exam"));
    let n = t.size(9_000, 2_000);
    let members = t.put_all(&backend, &queue, tasks(t, n, t.units(5), Some("room"))).await;
    let change = Change::shift(Shift::Later(t.units(5))).operation(t.operation());
    let select = Select::Group(group("room"));
    dropped_at(1, backend.change(&queue, select.clone(), change.clone())).await;
    // Whether it had begun when it was dropped can be seen of its members.
    let first = backend.find(&queue, members[0].id()).await.expect("an answer").expect("a task that waits");
    let had_begun = first.visible_at.saturating_since(due_of(&members[0].task)) >= t.units(4);
    let late = t.put_all(&backend, &queue, tasks(t, n / 10, t.units(5), Some("room"))).await;
    let changed = until_done(&backend, &queue, &select, &change).await.expect("an answer");
    let both = n + n / 10;
    if !had_begun {
        // Then what was sent may begin at any time, before the late ones or after them.
        assert!((n as u64..=both as u64).contains(&changed.changed), "{changed:?}");
        assert_eq!(t.drain(&backend, &queue, both).await.len(), both);
        return;
    }
    assert_eq!(counts(&changed), [n as u64, 0, 0, 0, 0], "those that were there when it began");
    let (members, late) = (members.into_iter().map(|task| (task, 5)), late.into_iter().map(|task| (task, 0)));
    all_shifted(t, &queue, &members.chain(late).collect::<Vec<_>>()).await;
}
