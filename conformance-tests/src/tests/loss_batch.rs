//! LOSS-3, -5 and -10: one true answer for each item of a batch, and what was scheduled is what is delivered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Attempts, Bytes, CancellationToken, Change, ClaimedTask, DeadLetterCause, DeadLetterOp, DeadLetterSelect,
    DelayBackend, Disposition, Due, Error, ErrorKind, GroupName, Headers, NewTask, Queue, QueueName, Raw,
    ScheduleOutcome, Select, Shift, Support, TaskId, TaskRef, Worker, limits,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::crew::{assert_lost, dead_letter, ids, letters, retry, sorted};
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

/// Good and bad tasks in one call: each has its own answer in its place, and what was refused is not there.
pub async fn loss_3_a_batch_has_one_true_answer_for_each_item(t: &Trial) {
    let (backend, queue, mut rng) = (t.backend(), t.queue("schedule"), t.rng());
    let bad = bad_tasks(t);
    let mut batch: Vec<(NewTask, Option<ErrorKind>)> = Vec::new();
    for i in 0..t.caps().batch_max.min(60) {
        let (task, refused) = match rng.usize(0..2 * bad.len()) {
            at if at < bad.len() => (bad[at].0.clone(), Some(bad[at].1)),
            _ => (NewTask::new(Due::NOW, "good"), None),
        };
        batch.push((task.id(t.id(format!("{i}"))), refused));
    }
    let tasks = batch.iter().map(|(task, _)| task.clone()).collect();
    let answers = backend.schedule(&queue, tasks).await.unwrap();
    assert_eq!(answers.len(), batch.len(), "one answer for each task");
    let mut good = Vec::new();
    for ((task, refused), answer) in batch.iter().zip(&answers) {
        let (id, kind) = (task.id.clone().unwrap(), answer.as_ref().map_err(Error::kind));
        match (refused, &kind) {
            (Some(kind), Err(told)) => assert_eq!(told, kind, "{task:?}"),
            (None, Ok(scheduled)) => {
                assert_eq!((scheduled.id(), scheduled.outcome), (&id, ScheduleOutcome::Created), "in its place");
                good.push(id.clone());
            }
            _ => panic!("{task:?} answered {answer:?}"),
        }
        if Need::Inspect.is_met(t.caps()) {
            let there = backend.find(&queue, &id).await.unwrap().is_some();
            assert_eq!(there, kind.is_ok(), "{task:?} answered {answer:?}");
        }
    }
    let taken = t.drain(&backend, &queue, good.len()).await;
    assert_eq!(ids(&taken), sorted(good), "what was accepted is delivered, and nothing else is");
    assert!(taken.iter().all(|task| task.payload == "good"), "{taken:?}");
}

/// What every backend refuses, and why.
fn bad_tasks(t: &Trial) -> Vec<(NewTask, ErrorKind)> {
    let caps = t.caps();
    let late = Duration::from_secs(60);
    let beyond = caps.delay_max + Duration::from_secs(1);
    let mut bad = vec![
        (NewTask::new(Due::NOW, vec![7; caps.payload_bytes_max + 1]), ErrorKind::TooLarge),
        (NewTask::new(beyond, "too late"), ErrorKind::OutOfRange),
        (NewTask::new(late, "dead on arrival").expires(late / 2), ErrorKind::Invalid),
    ];
    if caps.groups == Support::Unsupported {
        bad.push((NewTask::new(Due::NOW, "no groups").group(room()), ErrorKind::Unsupported));
    }
    if caps.replace == Support::Unsupported {
        bad.push((NewTask::new(Due::NOW, "no replacing").replace(), ErrorKind::Unsupported));
    }
    bad
}

fn room() -> GroupName {
    GroupName::new("room 7").expect("a short name")
}

/// A replacement that is refused leaves the task that it would have replaced.
pub async fn loss_3_a_refused_replacement_leaves_what_is_there(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("replace"));
    let bad = bad_tasks(t);
    let id = |i: usize| t.id(format!("{i}"));
    t.put_all(&backend, &queue, (0..bad.len()).map(|i| NewTask::new(Due::NOW, "there").id(id(i)))).await;
    let replacements = bad.iter().enumerate().map(|(i, (task, _))| task.clone().id(id(i)).replace()).collect();
    let answers = backend.schedule(&queue, replacements).await.unwrap();
    for ((task, kind), answer) in bad.iter().zip(answers) {
        assert_eq!(answer.map_err(|e| e.kind()).unwrap_err(), *kind, "{task:?}");
    }
    let taken = t.drain(&backend, &queue, bad.len()).await;
    assert_eq!(ids(&taken), sorted((0..bad.len()).map(id)));
    assert!(taken.iter().all(|task| task.payload == "there"), "{taken:?}");
}

/// Dispositions that take effect beside stale leases and delays beyond the range, which leave the lease as it was.
pub async fn loss_3_dispositions_of_one_call_are_answered_one_by_one(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("settle"));
    let n = t.caps().batch_max.min(40);
    t.put_all(&backend, &queue, (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, n).await;
    assert_eq!(held.len(), n);
    let stale: Vec<_> = held.iter().step_by(4).cloned().collect();
    t.complete(&backend, &queue, &stale).await;
    let beyond = t.caps().delay_max + Duration::from_secs(1);
    let disposition = |i: usize| match i % 4 {
        0 => Disposition::Release,
        1 => Disposition::Complete,
        2 => retry(beyond),
        _ => Disposition::Snooze { after: beyond },
    };
    let dispositions = held.iter().enumerate().map(|(i, task)| (task.lease.clone(), disposition(i))).collect();
    let answers = backend.settle(&queue, dispositions).await.unwrap();
    assert_eq!(answers.len(), n);
    let mut left = Vec::new();
    for (i, (task, answer)) in held.into_iter().zip(answers).enumerate() {
        match i % 4 {
            0 => assert_lost(&answer, "a release of what was completed"),
            1 => answer.expect("a lease that is live"),
            _ => {
                assert_eq!(answer.unwrap_err().kind(), ErrorKind::OutOfRange, "a delay beyond the range");
                left.push(task);
            }
        }
    }
    assert!(t.claim(&mut subscription, n).await.is_empty(), "a refused disposition gave its task back");
    t.complete(&backend, &queue, &left).await;
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// Live and stale leases in one extension, and one that is refused whole because of its length.
pub async fn loss_3_extensions_of_one_call_are_answered_one_by_one(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("extend"));
    let n = t.caps().batch_max.min(40);
    t.put_all(&backend, &queue, (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, n).await;
    let (stale, live): (Vec<_>, Vec<_>) = held.iter().cloned().enumerate().partition(|(i, _)| i % 3 == 0);
    let only = |tasks: Vec<(usize, ClaimedTask)>| tasks.into_iter().map(|(_, task)| task).collect::<Vec<_>>();
    t.complete(&backend, &queue, &only(stale)).await;
    let leases: Vec<_> = held.iter().map(|task| task.lease.clone()).collect();
    for by in [Duration::ZERO, t.caps().lease_max + Duration::from_secs(1)] {
        let refused = backend.extend(&queue, leases.clone(), by).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::OutOfRange, "an extension by {by:?}");
    }
    let answers = backend.extend(&queue, leases.clone(), t.caps().lease_max).await.unwrap();
    assert_eq!(answers.len(), n);
    for (i, (lease, answer)) in leases.iter().zip(answers).enumerate() {
        match answer {
            answer if i % 3 == 0 => assert_lost(&answer, "extend"),
            answer => {
                assert_eq!((&answer.as_ref().unwrap().id, answer.as_ref().unwrap().fence), (&lease.id, lease.fence))
            }
        }
    }
    t.complete(&backend, &queue, &only(live)).await;
}

/// An empty batch does nothing and is `Ok`.
pub async fn loss_3_an_empty_batch_does_nothing(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("empty"));
    assert!(backend.schedule(&queue, vec![]).await.unwrap().is_empty());
    assert!(backend.settle(&queue, vec![]).await.unwrap().is_empty());
    let mut checked = 2;
    if Need::Extend.is_met(t.caps()) {
        assert!(backend.extend(&queue, vec![], t.units(1)).await.unwrap().is_empty());
        checked += 1;
    }
    for (need, change) in [
        (Need::Cancel, Change::cancel()),
        (Need::Reschedule, Change::move_to(t.units(1))),
        (Need::Reschedule, Change::shift(Shift::Later(t.units(1)))),
    ] {
        if need.is_met(t.caps()) {
            let changed = backend.change(&queue, Select::Tasks(vec![]), change).await.unwrap();
            assert!(changed.outcomes.is_empty() && changed.changed == 0, "{changed:?}");
            checked += 1;
        }
    }
    t.checked(checked);
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// One item more than `batch_max`, and nothing of it takes effect.
pub async fn loss_3_a_batch_that_is_too_large_is_refused_whole(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("huge"));
    let n = t.caps().batch_max + 1;
    let task = t.put(&backend, &queue, NewTask::new(Due::NOW, "there")).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, 1).await.remove(0);
    let refused = |kind: ErrorKind, what: &str| assert_eq!(kind, ErrorKind::TooLarge, "{what} of {n} items");
    let tasks = (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}"))).collect();
    refused(backend.schedule(&queue, tasks).await.unwrap_err().kind(), "schedule");
    let dispositions = (0..n).map(|_| (held.lease.clone(), Disposition::Release)).collect();
    refused(backend.settle(&queue, dispositions).await.unwrap_err().kind(), "settle");
    if Need::Extend.is_met(t.caps()) {
        refused(backend.extend(&queue, vec![held.lease.clone(); n], t.units(1)).await.unwrap_err().kind(), "extend");
    }
    if Need::Cancel.is_met(t.caps()) {
        let all = Select::Tasks(vec![TaskRef::from(&task); n]);
        refused(backend.change(&queue, all, Change::cancel()).await.unwrap_err().kind(), "change");
    }
    assert!(t.claim(&mut subscription, 10).await.is_empty(), "nothing was accepted or released");
    t.settle(&backend, &queue, &held, Disposition::Complete).await.expect("a lease that is as it was");
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// Payloads of every byte, empty ones and large ones, headers, groups and attempts allowed are the same at every attempt,
/// through whatever brings the task back.
pub async fn loss_5_what_is_delivered_is_what_was_scheduled(t: &Trial) {
    let (backend, queue, mut rng) = (t.backend(), t.queue("contents"), t.rng());
    let tasks: Vec<NewTask> = (0..t.size(120, 60)).map(|i| some_task(t, &mut rng, i)).collect();
    let scheduled = t.put_all(&backend, &queue, tasks.clone()).await;
    let wanted: HashMap<TaskId, NewTask> = scheduled.into_iter().map(|s| s.task.id).zip(tasks).collect();
    let mut subscription = t.subscribe(&backend, &queue).await;
    let (rounds, mut came, mut left) = (4, HashMap::new(), wanted.len());
    while left > 0 {
        let task =
            t.take_within(&mut subscription, 1, t.units(5), t.patience()).await.pop().expect("a task that comes again");
        assert_same(&task, &wanted[&task.lease.id]);
        let times = came.entry(task.lease.id.clone()).or_insert(0);
        *times += 1;
        let disposition = match rng.u8(0..4) {
            _ if *times == rounds => Disposition::Complete,
            0 => retry(t.units(1)),
            1 => Disposition::Snooze { after: t.units(1) },
            2 => Disposition::Release,
            // Left to the end of its lease.
            _ => continue,
        };
        left -= usize::from(disposition == Disposition::Complete);
        t.settle(&backend, &queue, &task, disposition).await.unwrap();
    }
    assert_eq!(came.len(), wanted.len());
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// The same through a move and a shift.
pub async fn loss_5_what_was_moved_is_what_was_scheduled(t: &Trial) {
    let (backend, queue, mut rng) = (t.backend(), t.queue("moved"), t.rng());
    let mut wanted = HashMap::new();
    for i in 0..40 {
        let mut task = some_task(t, &mut rng, i);
        task.due = Due::After(Duration::from_secs(3_600));
        let scheduled = t.put(&backend, &queue, task.clone()).await;
        let change = match i % 3 {
            0 => Change::move_to(t.units(1)),
            1 => Change::move_to(t.wall()),
            _ => Change::shift(Shift::Sooner(Duration::from_secs(3_600))),
        };
        let changed = backend.change(&queue, Select::Tasks(vec![TaskRef::from(&scheduled)]), change).await.unwrap();
        assert_eq!(changed.changed, 1, "{changed:?}");
        wanted.insert(scheduled.task.id, task);
    }
    let taken = t.drain(&backend, &queue, wanted.len()).await;
    assert_eq!(taken.len(), wanted.len());
    for task in &taken {
        assert_same(task, &wanted[&task.lease.id]);
    }
}

/// The same through the dead letters, where attempts that were used up come back whole.
pub async fn loss_5_what_was_redriven_is_what_was_scheduled(t: &Trial) {
    let (backend, queue, mut rng) = (t.backend(), t.queue("redriven"), t.rng());
    let tasks: Vec<NewTask> = (0..40).map(|i| some_task(t, &mut rng, i)).collect();
    let scheduled = t.put_all(&backend, &queue, tasks.clone()).await;
    let wanted: HashMap<TaskId, NewTask> = scheduled.into_iter().map(|s| s.task.id).zip(tasks).collect();
    let mut subscription = t.subscribe(&backend, &queue).await;
    for task in t.take(&mut subscription, wanted.len()).await {
        t.settle(&backend, &queue, &task, dead_letter("for now")).await.unwrap();
    }
    for letter in letters(t, &backend, &queue, wanted.len()).await {
        let task = &wanted[&letter.id];
        assert_eq!((&letter.payload, &letter.headers, &letter.group), (&task.payload, &task.headers, &task.group));
    }
    let redrive = DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None };
    assert_eq!(backend.dead_letters(&queue, redrive).await.unwrap().affected, wanted.len() as u64);
    let taken = t.drain(&backend, &queue, wanted.len()).await;
    assert_eq!(taken.len(), wanted.len());
    for task in &taken {
        assert_same(task, &wanted[&task.lease.id]);
    }
}

/// A task of any content, due at once.
fn some_task(t: &Trial, rng: &mut fastrand::Rng, i: usize) -> NewTask {
    let longest = t.caps().payload_bytes_max.min(40_000);
    let payload: Vec<u8> = match i % 5 {
        0 => Vec::new(),
        1 => (0..=255).cycle().take(longest.min(300)).collect(),
        2 => (0..longest).map(|_| rng.u8(..)).collect(),
        3 => format!("{{\"exam\": {i}, \"quoted\": \"\\\"\0\r\n%s' OR 1=1\"}}").into_bytes(),
        _ => (0..rng.usize(1..longest.min(2_000))).map(|_| rng.u8(..)).collect(),
    };
    let mut headers = Headers::new();
    for h in 0..rng.usize(0..8) {
        let value = ["", "00-4bf92f3577b34da6a3ce929d0e0e4736", "ünï\u{1F980}\0\"'\\", "a\r\nb"][rng.usize(0..4)];
        headers.insert(format!("{}{h}", ["traceparent", "X-Was:", "a,b;c=\"d\""][rng.usize(0..3)]), value).unwrap();
    }
    // Enough for every round of these tests, up to the most there may be.
    let attempts = [8, limits::ATTEMPTS_DEFAULT, limits::ATTEMPTS_MAX][rng.usize(0..3)];
    let mut task = NewTask::new(Due::NOW, payload).headers(headers).attempts_max(Attempts::new(attempts).unwrap());
    if rng.bool() {
        task = task.id(t.id(format!("exam-{i}/änna")));
    }
    if rng.bool() && t.caps().groups != Support::Unsupported {
        task = task.group(GroupName::new(["room 7", "ü"][rng.usize(0..2)]).unwrap());
    }
    task
}

#[track_caller]
fn assert_same(got: &ClaimedTask, wanted: &NewTask) {
    assert!(got.payload == wanted.payload, "the payload of {} at attempt {}", got.lease.id, got.lease.attempt);
    assert_eq!(got.headers, wanted.headers, "the headers of {}", got.lease.id);
    assert_eq!(got.group, wanted.group, "the group of {}", got.lease.id);
    assert_eq!(got.attempts_max, wanted.attempts_max.get(), "the attempts of {}", got.lease.id);
}

/// What can't be decoded is dead-lettered by a consumer, with the reason, and nobody else is held up.
pub async fn loss_10_a_consumer_dead_letters_what_it_cannot_decode(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("consumer"));
    let undecodable = good_and_undecodable(t, &backend, &queue).await;
    let numbers = Queue::<u32>::new(backend.clone(), queue.clone()).unwrap();
    let mut consumer = numbers.consumer().lease(LONG_LEASE.min(t.caps().lease_max)).open().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..GOOD {
        let delivery = timeout(t.patience(), consumer.next()).await.expect("nothing holds up the good ones").unwrap();
        seen.push(*delivery.payload());
        delivery.complete().await.unwrap();
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..GOOD).collect::<Vec<_>>());
    let more = consumer.next_within(t.units(2)).await.unwrap();
    assert!(more.is_none(), "{more:?}");
    consumer.close().await.unwrap();
    assert_undecodable(t, &backend, &queue, undecodable).await;
}

/// The same of a worker.
pub async fn loss_10_a_worker_dead_letters_what_it_cannot_decode(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("worker"));
    let undecodable = good_and_undecodable(t, &backend, &queue).await;
    let numbers = Queue::<u32>::new(backend.clone(), queue.clone()).unwrap();
    let (seen, mut saw) = mpsc::channel(100);
    let stop = CancellationToken::new();
    let handler = move |number: u32, _| {
        let seen = seen.clone();
        async move { seen.send(number).await.map_err(|_| "nobody listens") }
    };
    let worker = Worker::builder()
        .queue(&numbers, handler)
        .lease(LONG_LEASE.min(t.caps().lease_max))
        .shutdown(stop.clone())
        .build()
        .unwrap();
    let running = tokio::spawn(worker.run());
    let mut got = Vec::new();
    for _ in 0..GOOD {
        got.push(timeout(t.patience(), saw.recv()).await.expect("nothing holds up the good ones").unwrap());
    }
    stop.cancel();
    let report = running.await.unwrap().unwrap();
    got.sort_unstable();
    assert_eq!(got, (0..GOOD).collect::<Vec<_>>());
    assert_eq!((report.completed, report.unsettled), (u64::from(GOOD), 0), "{report:?}");
    // It may have ended before it met the last of them.
    if report.undecodable < undecodable.len() as u64 {
        let mut consumer = numbers.consumer().open().await.unwrap();
        assert!(consumer.next_within(t.units(2)).await.unwrap().is_none());
        consumer.close().await.unwrap();
    }
    assert_undecodable(t, &backend, &queue, undecodable).await;
}

/// Good tasks of [`loss_10_a_consumer_dead_letters_what_it_cannot_decode`].
const GOOD: u32 = 10;

/// Numbers as JSON, with what is no number before and between them; answers the ids of those.
async fn good_and_undecodable(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName) -> Vec<TaskId> {
    let raw = Queue::<Bytes>::with_codec(backend.clone(), queue.clone(), Raw).unwrap();
    let mut undecodable = Vec::new();
    for n in 0..GOOD {
        for junk in ["no number", "", "\u{1F980}", "-1"].iter().take(n as usize % 5) {
            undecodable.push(raw.schedule(&Bytes::from(*junk)).await.unwrap().task.id);
        }
        raw.schedule(&Bytes::from(n.to_string())).await.unwrap();
    }
    t.checked(1);
    undecodable
}

async fn assert_undecodable(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName, undecodable: Vec<TaskId>) {
    assert!(t.drain(backend, queue, 0).await.is_empty(), "what can't be decoded was given back");
    if !Need::DeadLetters.is_met(t.caps()) {
        return;
    }
    let dead = letters(t, backend, queue, undecodable.len()).await;
    assert_eq!(sorted(dead.iter().map(|letter| letter.id.clone())), sorted(undecodable));
    for letter in dead {
        assert_eq!((letter.cause, letter.attempts), (DeadLetterCause::Requested, 1), "{letter:?}");
        assert!(!letter.reason.as_str().is_empty(), "a dead letter says why: {letter:?}");
    }
}
