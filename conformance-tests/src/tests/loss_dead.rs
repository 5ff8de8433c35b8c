//! LOSS-6, -7 and -8: dead letters stay, are shown, redriven and purged.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Attempts, DeadLetterCause, DeadLetterOp, DeadLetterSelect, DeadLetters, DelayBackend, Disposition, ErrorKind,
    GroupName, Headers, NewTask, Order, QueueName, Result, ScheduleOutcome, Support, TaskId,
};
use tokio::time::{Instant, sleep};

use super::crew::{all_letters, dead_letter, ids, letters, retry, sorted};
use crate::trial::{LONG_LEASE, Trial};

pub async fn loss_6_a_dead_letter_stays_until_it_is_purged(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("stays"));
    dead_lettered_one_by_one(t, &backend, &queue, 6).await;
    let before = letters(t, &backend, &queue, 6).await;
    let mut subscription = t.subscribe(&t.another().await, &queue).await;
    let taken = t.take_within(&mut subscription, 1, LONG_LEASE, t.units(4)).await;
    assert!(taken.is_empty(), "a dead letter was delivered: {taken:?}");
    assert_eq!(all_letters(&backend, &queue, 100).await, before, "they are as they were");
    assert_eq!(affected(purge(&backend, &queue, some([t.id("2"), t.id("4"), t.id("never there")])).await), (2, 0));
    assert_eq!(affected(purge(&backend, &queue, some([t.id("2")])).await), (0, 0), "it is gone");
    let left: Vec<TaskId> = all_letters(&backend, &queue, 100).await.into_iter().map(|letter| letter.id).collect();
    assert_eq!(left, ["0", "1", "3", "5"].map(|id| t.id(id)));
    assert_eq!(affected(purge(&backend, &queue, DeadLetterSelect::All).await), (4, 0));
    assert!(all_letters(&backend, &queue, 100).await.is_empty());
    assert_eq!(
        affected(redrive(&backend, &queue, DeadLetterSelect::All, None).await.unwrap()),
        (0, 0),
        "nothing is left"
    );
}

/// Pages of any size show every letter once, the oldest first.
pub async fn loss_6_dead_letters_are_listed_page_by_page_the_oldest_first(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("pages"));
    let n = 7;
    dead_lettered_one_by_one(t, &backend, &queue, n).await;
    let all: Vec<TaskId> = (0..n).map(|i| t.id(format!("{i}"))).collect();
    for limit in 1..=n + 1 {
        let listed: Vec<TaskId> = all_letters(&backend, &queue, limit).await.into_iter().map(|l| l.id).collect();
        assert_eq!(listed, all, "in pages of {limit}");
        t.checked(1);
    }
    // A page goes on behind one that was purged meanwhile.
    let first = backend.dead_letters(&queue, DeadLetterOp::List { after: None, limit: 3 }).await.unwrap();
    purge(&backend, &queue, some([t.id("2"), t.id("3")])).await;
    let rest = DeadLetterOp::List { after: first.next, limit: 100 };
    let rest: Vec<TaskId> =
        backend.dead_letters(&queue, rest).await.unwrap().letters.into_iter().map(|letter| letter.id).collect();
    assert_eq!(rest, all[4..]);
    assert!(all_letters(&backend, &t.queue("another"), 10).await.is_empty(), "another queue has none of them");
}

/// Every way to the dead letters, with what is told of it.
pub async fn loss_6_a_dead_letter_tells_how_it_came_there(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("causes"));
    let began = t.wall().saturating_sub(t.units(1));
    let mut headers = Headers::new();
    headers.insert("traceparent", "00-ab").unwrap();
    let task = |key: &str| NewTask::new(Duration::ZERO, key.to_owned()).id(t.id(key)).headers(headers.clone());
    let twice = Attempts::new(2).unwrap();
    t.put(&backend, &queue, task("expired").expires(t.units(1))).await;
    sleep(t.units(3)).await;
    let rest = [task("hopeless"), task("failed").attempts_max(twice), task("left alone").attempts_max(twice)];
    t.put_all(&backend, &queue, rest).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    // Three at first, then two that have an attempt left: what comes is judged until nothing comes for longer than a lease.
    while let Some(task) = t.take_within(&mut subscription, 1, t.units(2), t.units(4)).await.pop() {
        let disposition = match &task.lease.id {
            id if *id == t.id("hopeless") => dead_letter("no such exam"),
            id if *id == t.id("failed") => retry(Duration::ZERO),
            id if *id == t.id("left alone") => continue,
            id => panic!("{id} was delivered"),
        };
        t.settle(&backend, &queue, &task, disposition).await.unwrap();
    }
    let mut told: Vec<_> = letters(t, &backend, &queue, 4).await;
    told.sort_by(|a, b| a.id.cmp(&b.id));
    let ended = t.wall().saturating_add(t.units(1));
    for letter in &told {
        assert_eq!(letter.payload, letter.id.to_text().as_bytes());
        assert_eq!(letter.headers, headers);
        assert!(
            began < letter.dead_lettered_at && letter.dead_lettered_at < ended,
            "{letter:?} between {began} and {ended}"
        );
        assert!(letter.due_at <= letter.dead_lettered_at, "{letter:?}");
    }
    let told: Vec<_> =
        told.iter().map(|l| (l.id.to_text().into_owned(), l.cause, l.attempts, l.reason.as_str())).collect();
    let expected = [
        ("expired".to_owned(), DeadLetterCause::Expired, 0, ""),
        ("failed".to_owned(), DeadLetterCause::AttemptsUsedUp, 2, "once more"),
        ("hopeless".to_owned(), DeadLetterCause::Requested, 1, "no such exam"),
        ("left alone".to_owned(), DeadLetterCause::AttemptsUsedUp, 2, ""),
    ];
    assert_eq!(told, expected);
}

pub async fn loss_7_a_redriven_letter_is_a_task_with_all_its_attempts(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("again"));
    let mut headers = Headers::new();
    headers.insert("exam", "7").unwrap();
    let mut task = NewTask::new(Duration::ZERO, "payload").id(t.id("one")).headers(headers.clone());
    task = task.attempts_max(Attempts::new(3).unwrap());
    let group = (t.caps().groups != Support::Unsupported).then(|| GroupName::new("room 7").unwrap());
    task.group.clone_from(&group);
    t.put(&backend, &queue, task).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut fence = 0;
    for life in 1..=3 {
        for attempt in 1..=3 {
            let taken = t.take(&mut subscription, 1).await.pop().expect("an attempt that is left");
            assert_eq!((taken.lease.attempt, taken.attempts_max), (attempt, 3), "in life {life}");
            assert_eq!((&taken.payload[..], &taken.headers, &taken.group), (&b"payload"[..], &headers, &group));
            assert!(taken.lease.fence > fence, "the fence rises through the dead letters too");
            fence = taken.lease.fence;
            t.settle(&backend, &queue, &taken, retry(Duration::ZERO)).await.unwrap();
        }
        let dead = letters(t, &backend, &queue, 1).await;
        assert!(matches!(dead.as_slice(), [one] if one.attempts == 3), "{dead:?}");
        let redriven = redrive(&backend, &queue, some([t.id("one")]), None).await.unwrap();
        assert_eq!(affected(redriven), (1, 0));
        assert!(all_letters(&backend, &queue, 10).await.is_empty(), "it is a task now, and no letter");
    }
    assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1);
}

/// What had expired runs when it is redriven, whenever that is.
pub async fn loss_7_a_redriven_letter_expires_no_more(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("expired"));
    t.put(&backend, &queue, NewTask::new(Duration::ZERO, "late").id(t.id("late")).expires(t.units(1))).await;
    sleep(t.units(3)).await;
    let dead = letters(t, &backend, &queue, 1).await;
    assert!(matches!(dead.as_slice(), [one] if one.cause == DeadLetterCause::Expired), "{dead:?}");
    assert_eq!(affected(redrive(&backend, &queue, DeadLetterSelect::All, None).await.unwrap()), (1, 0));
    let taken = t.drain(&backend, &queue, 1).await;
    assert!(matches!(taken.as_slice(), [one] if one.expires_at.is_none() && one.lease.attempt == 1), "{taken:?}");
}

/// A letter whose id is in use again stays what it is, is counted as kept, and can be redriven later.
pub async fn loss_7_a_letter_whose_id_is_in_use_stays_dead(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("in-use"));
    dead_lettered_one_by_one(t, &backend, &queue, 2).await;
    let successor = t.put(&backend, &queue, NewTask::new(Duration::ZERO, "successor").id(t.id("0"))).await;
    assert_eq!(successor.outcome, ScheduleOutcome::Created, "the id of a dead letter is free");
    assert_eq!(affected(redrive(&backend, &queue, DeadLetterSelect::All, None).await.unwrap()), (1, 1));
    let left: Vec<TaskId> = all_letters(&backend, &queue, 10).await.into_iter().map(|letter| letter.id).collect();
    assert_eq!(left, [t.id("0")]);
    // In flight, it is in use as well.
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, 2).await;
    assert_eq!(affected(redrive(&backend, &queue, some([t.id("0")]), None).await.unwrap()), (0, 1));
    let payload = |id: &str| held.iter().find(|task| task.lease.id == t.id(id)).unwrap().payload.clone();
    assert_eq!((payload("0"), payload("1")), ("successor".into(), "1".into()));
    for task in &held {
        // Dead-lettered again, because the id of a completed task may be remembered.
        t.settle(&backend, &queue, task, dead_letter("again")).await.unwrap();
    }
    purge(&backend, &queue, some([t.id("1")])).await;
    // Two letters of one id now: the older one takes it.
    assert_eq!(affected(redrive(&backend, &queue, DeadLetterSelect::All, None).await.unwrap()), (1, 1));
    let taken = t.drain(&backend, &queue, 1).await;
    assert!(matches!(taken.as_slice(), [one] if one.payload == "0"), "{taken:?}");
}

/// Only what is selected is redriven.
pub async fn loss_7_a_redrive_takes_what_it_selects(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("selected"));
    dead_lettered_one_by_one(t, &backend, &queue, 6).await;
    let selected = some([t.id("1"), t.id("5"), t.id("never there")]);
    assert_eq!(affected(redrive(&backend, &queue, selected, None).await.unwrap()), (2, 0));
    assert_eq!(ids(&t.drain(&backend, &queue, 2).await), sorted([t.id("1"), t.id("5")]));
    let left: Vec<TaskId> = all_letters(&backend, &queue, 10).await.into_iter().map(|letter| letter.id).collect();
    assert_eq!(left, ["0", "2", "3", "4"].map(|id| t.id(id)));
}

pub async fn loss_8_a_redrive_at_a_rate_staggers_the_oldest_first(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("rate"));
    let n = t.size(20, 8);
    dead_lettered_one_by_one(t, &backend, &queue, n).await;
    let gap = t.units(1);
    let began = Instant::now();
    let redriven = redrive(&backend, &queue, DeadLetterSelect::All, Some(1.0 / gap.as_secs_f64())).await.unwrap();
    assert_eq!(affected(redriven), (n as u64, 0));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut taken = Vec::new();
    while taken.len() < n {
        let one = t.take(&mut subscription, 1).await.pop().expect("the next of those that were redriven");
        let (resolution, earliest) = (t.caps().resolution, gap * taken.len() as u32);
        assert!(began.elapsed() + resolution >= earliest, "number {} came before {earliest:?}", taken.len());
        taken.push(one);
    }
    t.complete(&backend, &queue, &taken).await;
    // Times are kept in whole steps of the resolution, rounded up; none of it adds up.
    let slack = t.caps().resolution * 2;
    taken.sort_by_key(|task| task.due_at);
    for (i, task) in taken.iter().enumerate() {
        if t.caps().order == Order::Exact {
            assert_eq!(task.lease.id, t.id(format!("{i}")), "the oldest is the first");
        }
        let (after, even) = (task.due_at.saturating_since(taken[0].due_at), gap * i as u32);
        assert!(
            after <= even + slack && after + slack >= even,
            "number {i} is due {after:?} after the first, not {even:?}"
        );
    }
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// What is no rate is refused, and nothing is redriven.
pub async fn loss_8_what_is_no_rate_is_refused(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("no-rate"));
    dead_lettered_one_by_one(t, &backend, &queue, 3).await;
    let longest = t.caps().delay_max.as_secs_f64();
    for (rate, kind) in [
        (0.0, ErrorKind::Invalid),
        (-0.0, ErrorKind::Invalid),
        (-1.0, ErrorKind::Invalid),
        (f64::NAN, ErrorKind::Invalid),
        (f64::NEG_INFINITY, ErrorKind::Invalid),
        (0.5 / longest, ErrorKind::OutOfRange),
        (f64::MIN_POSITIVE, ErrorKind::OutOfRange),
    ] {
        let refused = redrive(&backend, &queue, DeadLetterSelect::All, Some(rate)).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{rate} a second: {refused}");
    }
    assert_eq!(all_letters(&backend, &queue, 10).await.len(), 3, "nothing was redriven");
    let mut subscription = t.subscribe(&backend, &queue).await;
    assert!(t.claim(&mut subscription, 1).await.is_empty(), "nothing was redriven");
    assert_eq!(affected(redrive(&backend, &queue, DeadLetterSelect::All, Some(1e9)).await.unwrap()), (3, 0));
    assert_eq!(t.drain(&backend, &queue, 3).await.len(), 3);
}

/// Tasks `0`, `1` and so on, dead-lettered in this order with time between them.
async fn dead_lettered_one_by_one(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName, n: usize) {
    let mut subscription = t.subscribe(backend, queue).await;
    for i in 0..n {
        t.put(backend, queue, NewTask::new(Duration::ZERO, format!("{i}")).id(t.id(format!("{i}")))).await;
        let task = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
        t.settle(backend, queue, &task, Disposition::DeadLetter { reason: format!("because of {i}").into() })
            .await
            .unwrap();
        // What is dead-lettered in different milliseconds is older or younger for certain.
        sleep(t.caps().resolution * 2).await;
    }
    assert_eq!(all_letters(backend, queue, 100).await.len(), n);
}

fn some<const N: usize>(ids: [TaskId; N]) -> DeadLetterSelect {
    DeadLetterSelect::Ids(ids.into())
}

async fn redrive(
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    select: DeadLetterSelect,
    rate: Option<f64>,
) -> Result<DeadLetters> {
    backend.dead_letters(queue, DeadLetterOp::Redrive { select, rate }).await
}

async fn purge(backend: &Arc<dyn DelayBackend>, queue: &QueueName, select: DeadLetterSelect) -> DeadLetters {
    backend.dead_letters(queue, DeadLetterOp::Purge { select }).await.expect("a purge")
}

fn affected(answer: DeadLetters) -> (u64, u64) {
    (answer.affected, answer.kept)
}
