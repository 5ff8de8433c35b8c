//! CLOSE: close ends, and gives back.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    AdminOp, Attempts, Change, Claim, ClaimedTask, DeadLetterOp, DeadLetterSelect, DelayBackend, Disposition, Due,
    Durability, ErrorKind, GroupName, NewTask, Page, QueueName, Result, Select, Shift, SubscriptionOptions, TaskRef,
};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::cancel::FAR;
use super::live::promptly;
use crate::trial::{LONG_LEASE, Trial};

fn claim_one(t: &Trial) -> Claim {
    Claim::new(1, LONG_LEASE.min(t.caps().lease_max))
}

fn assert_closed<T: std::fmt::Debug>(answer: Result<T>, what: &str) {
    assert!(answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Closed), "{what} after `close`: {answer:?}");
}

/// As [`assert_closed`], for a method that the backend may lack.
fn assert_closed_or_absent<T: std::fmt::Debug>(answer: Result<T>, what: &str) {
    if !answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unsupported) {
        assert_closed(answer, what);
    }
}

pub async fn close_1_close_ends_and_wakes_who_waits(t: &Trial) {
    let backend = t.backend();
    let mut waiting = Vec::new();
    for i in 0..20 {
        let queue = t.queue(&format!("waited-for-{}", i % 7));
        if i % 2 == 0 {
            t.put(&backend, &queue, NewTask::new(FAR, "far")).await;
        }
        let mut subscription = t.subscribe(&backend, &queue).await;
        assert!(t.claim(&mut subscription, 1).await.is_empty());
        let claim = claim_one(t);
        let waits = tokio::spawn(async move {
            for _ in 0..10_000 {
                subscription.wait(FAR).await;
                // A wait may return early, for the tasks that others put here.
                match subscription.claim(claim).await {
                    Ok(claimed) => assert!(claimed.deliveries.is_empty()),
                    Err(e) => return (e, Instant::now(), subscription),
                }
            }
            panic!("ten thousand waits returned before `close`, and nothing was there");
        });
        // Some are asleep by then, and some about to be.
        if i % 3 == 0 {
            yield_now().await;
        }
        waiting.push(waits);
    }
    let queue = t.queue("used");
    let mut subscription = t.subscribe(&backend, &queue).await;
    t.put(&backend, &queue, NewTask::new(Due::NOW, "held")).await;
    let held = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    let other: TaskRef = t.put(&backend, &queue, NewTask::new(FAR, "far")).await.into();

    let began = Instant::now();
    timeout(t.patience(), backend.close()).await.expect("`close` ends").expect("a first close");
    for waits in waiting {
        let woken = timeout(t.patience(), waits).await.expect("a waiter that `close` wakes");
        let (e, at, subscription) = woken.expect("a waiter that does not panic");
        assert_eq!(e.kind(), ErrorKind::Closed, "the claim of one who waited: {e}");
        assert!(at <= began + promptly(t), "woke {:?} after `close` began", at - began);
        drop(subscription);
    }
    every_method_answers_closed(&backend, &queue, &held, &other).await;
    assert_closed(subscription.claim(claim_one(t)).await, "claim");
    timeout(t.patience(), subscription.wait(FAR)).await.expect("a wait after `close` is over at once");
    // What can stand in the way of ending a subscription, now that there is nothing left, is that everything is closed.
    if let Err(e) = timeout(t.patience(), subscription.close()).await.expect("it ends") {
        assert_eq!(e.kind(), ErrorKind::Closed, "{e}");
    }
    for _ in 0..2 {
        timeout(t.patience(), backend.close()).await.expect("`close` ends").expect("a second close does nothing");
    }
}

async fn every_method_answers_closed(
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    held: &ClaimedTask,
    far: &TaskRef,
) {
    let lease = || held.lease.clone();
    let one = || Select::Tasks(vec![far.clone()]);
    let room = Select::Group(GroupName::new("room").expect("a short name"));
    assert_closed(backend.schedule(queue, vec![NewTask::new(Due::NOW, "x")]).await, "schedule");
    assert_closed(backend.subscribe(queue, SubscriptionOptions::default()).await, "subscription");
    assert_closed(backend.settle(queue, vec![(lease(), Disposition::Complete)]).await, "settle");
    assert_closed(backend.ping().await, "ping");
    assert_closed_or_absent(backend.extend(queue, vec![lease()], Duration::from_secs(1)).await, "extend");
    for change in [Change::cancel(), Change::move_to(FAR), Change::shift(Shift::Later(FAR))] {
        assert_closed_or_absent(backend.change(queue, one(), change).await, "change");
    }
    assert_closed_or_absent(backend.change(queue, room, Change::cancel()).await, "change of a group");
    assert_closed_or_absent(backend.find(queue, &far.id).await, "find");
    assert_closed_or_absent(backend.list(queue, Page::first(1)).await, "list");
    assert_closed_or_absent(backend.stats(queue).await, "stats");
    assert_closed_or_absent(backend.queues().await, "queues");
    for op in [AdminOp::Pause, AdminOp::Resume, AdminOp::Delete] {
        assert_closed_or_absent(backend.administer(queue, op).await, "administer");
    }
    for op in [
        DeadLetterOp::List { after: None, limit: 1 },
        DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None },
        DeadLetterOp::Redrive { select: DeadLetterSelect::Ids(vec![far.id.clone()]), rate: None },
        DeadLetterOp::Purge { select: DeadLetterSelect::All },
    ] {
        assert_closed_or_absent(backend.dead_letters(queue, op).await, "dead_letters");
    }
}

pub async fn close_1_calls_under_way_end(t: &Trial) {
    let backend = t.backend();
    let (tell, mut told) = mpsc::channel(1);
    let used = |i: u32| (backend.clone(), t.queue(&format!("{}", i % 2)), claim_one(t), tell.clone());
    let users: Vec<_> = (0..6).map(used).map(|used| tokio::spawn(use_until_closed(used))).collect();
    // Until they are at it.
    for _ in 0..100 {
        timeout(t.patience(), told.recv()).await.expect("they work").expect("a user");
    }
    // Twice at the same time: both end.
    let (first, second) = tokio::join!(backend.close(), backend.close());
    first.expect("a close");
    second.expect("another close");
    for user in users {
        timeout(t.patience(), user).await.expect("its calls end").expect("they answer `Closed`");
    }
}

/// Schedules, claims and settles until it is told `Closed`, which is the only error that it may be told, apart from those of
/// a call whose answer was lost.
async fn use_until_closed((backend, queue, claim, tell): (Arc<dyn DelayBackend>, QueueName, Claim, mpsc::Sender<()>)) {
    let told = async {
        let mut subscription = backend.subscribe(&queue, SubscriptionOptions::default()).await?;
        loop {
            for item in backend.schedule(&queue, vec![NewTask::new(Due::NOW, "x")]).await? {
                item?;
            }
            subscription.wait(Duration::from_millis(1)).await;
            let claimed = subscription.claim(claim).await?.deliveries;
            let dispositions = claimed.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
            for item in backend.settle(&queue, dispositions).await? {
                item?;
            }
            // Nobody listens any more when it is about to be closed.
            let _ = tell.try_send(());
            yield_now().await;
        }
    };
    let told: Result<()> = told.await;
    let kind = told.expect_err("there is no other end").kind();
    assert!(matches!(kind, ErrorKind::Closed | ErrorKind::Ambiguous), "{kind:?}");
}

pub async fn close_1_one_client_s_close_is_not_another_s(t: &Trial) {
    if !t.is_shared() {
        t.untested("each client has a store of its own");
        return;
    }
    let (first, second, queue) = (t.another().await, t.another().await, t.queue("shared"));
    let mut subscription = t.subscribe(&second, &queue).await;
    t.put(&first, &queue, NewTask::new(t.units(1), "x")).await;
    first.close().await.expect("a close");
    let came = t.take(&mut subscription, 1).await;
    assert_eq!(came.len(), 1, "the other client goes on");
    t.complete(&second, &queue, &came).await;
    second.ping().await.expect("the other client goes on");
}

pub async fn close_10_what_is_there_after_close_is_as_declared(t: &Trial) {
    let queue = t.queue("kept");
    let first = if t.is_shared() { t.another().await } else { t.backend() };
    let mut subscription = t.subscribe(&first, &queue).await;
    t.put_all(&first, &queue, (0..3).map(|_| NewTask::new(Due::NOW, "early"))).await;
    let mut early = t.take_within(&mut subscription, 3, t.units(5), t.patience()).await;
    let retry = Disposition::Retry { after: t.units(1), reason: "again".into() };
    t.settle(&first, &queue, &early.remove(0), retry).await.expect("a live lease");
    let dead_letter = Disposition::DeadLetter { reason: "never".into() };
    t.settle(&first, &queue, &early.remove(0), dead_letter).await.expect("a live lease");
    t.put(&first, &queue, NewTask::new(t.units(2), "later").attempts_max(Attempts::new(1).expect("one"))).await;
    first.close().await.expect("a close");
    match t.caps().durability {
        Durability::Process => {
            // A store of this process is emptied: who opens it anew finds nothing of the old one.
            let fresh = t.harness().open().await.expect("another store");
            let mut subscription =
                fresh.subscribe(&queue, SubscriptionOptions::default()).await.expect("a subscription");
            sleep(t.units(6)).await;
            let claimed = subscription.claim(claim_one(t)).await.expect("a claim");
            assert!(claimed.deliveries.is_empty() && claimed.dead_lettered == 0, "{claimed:?}");
            drop(subscription);
            fresh.close().await.expect("a close");
            t.checked(1);
        }
        _ => {
            let second = t.another().await;
            // One whose lease ends, one that is retried, one that was waiting.
            let came = t.drain(&second, &queue, 3).await;
            let mut attempts: Vec<_> = came.iter().map(|task| task.lease.attempt).collect();
            attempts.sort_unstable();
            assert_eq!(attempts, [1, 2, 2], "what the store holds stays there");
            if crate::Need::DeadLetters.is_met(t.caps()) {
                let list = DeadLetterOp::List { after: None, limit: 10 };
                let letters = second.dead_letters(&queue, list).await.expect("a listing").letters;
                assert_eq!(letters.len(), 1, "dead letters too");
            }
        }
    }
}
