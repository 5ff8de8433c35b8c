//! DROP: what exactly a dropped call leaves, and how its caller goes on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Change, Changed, Claim, DeadLetterOp, DeadLetterSelect, DelayBackend, Disposition, Due, ErrorKind, NewTask, Order,
    Page, QueueName, Select, Shift, Subscription, TaskRef, TaskView,
};
use tokio::time::timeout;

use crate::dropping::stage::{empty, quiet, room};
use crate::dropping::{At, CountedWaker, Yielding, turns};
use crate::trial::{LONG_LEASE, Trial};

const HOUR: Duration = Duration::from_secs(3600);
/// More than what a store does in one piece, so that a call has await points in its midst.
const MANY: usize = 5_000;
/// More await points than any call of the suite has.
const PENDINGS_MAX: u32 = 1_000;

/// Every place at which a call is dropped, until `ended` says that one completed.
async fn at_every_pending(mut round: impl AsyncFnMut(At) -> bool) {
    for late in [false, true] {
        for pending in 1.. {
            assert!(pending < PENDINGS_MAX, "a call is pending again and again");
            if round(At { pending, late }).await {
                break;
            }
        }
    }
}

/// The backend itself, and one with more await points.
fn over(t: &Trial) -> [(&'static str, Arc<dyn DelayBackend>); 2] {
    [("direct", t.backend()), ("yielding", Arc::new(Yielding::over(t.backend(), 2)))]
}

pub async fn drop_2_a_dropped_claim_is_given_back_at_once(t: &Trial) {
    let lease = LONG_LEASE.min(t.caps().lease_max);
    let soon = t.patience().min(lease / 2);
    for (how, backend) in over(t) {
        at_every_pending(async |at| {
            let queue = t.queue(&format!("{how}-{}-{}", at.pending, at.late));
            let keys: Vec<_> = (0..21).map(|i| t.id(format!("{i:02}"))).collect();
            let mut tasks = keys.iter().map(|id| NewTask::new(Due::NOW, id.to_string()).id(id.clone()));
            t.put_all(&backend, &queue, tasks.by_ref().take(20)).await;
            let mut subscription = t.subscribe(&backend, &queue).await;
            let claim = Arc::new(CountedWaker::default()).drive(at, subscription.claim(Claim::new(20, lease))).await;
            let completed = claim.is_some();
            let claimed = claim.map(|claimed| claimed.unwrap().deliveries).unwrap_or_default();
            if at.pending % 2 == 0 {
                // Whether the subscription goes on or is dropped as well.
                drop(subscription);
            }
            t.put_all(&backend, &queue, tasks).await;
            let mut other = t.subscribe(&backend, &queue).await;
            let mut again = t.take_within(&mut other, 21 - claimed.len(), LONG_LEASE, soon).await;
            assert_eq!(
                claimed.len() + again.len(),
                21,
                "{how}, {at:?}: what a dropped claim took is given back at once"
            );
            for task in &again {
                assert_eq!(task.lease.attempt, 1, "{how}, {at:?}: a claim that nobody received costs no attempt");
            }
            if t.caps().order == Order::Exact {
                // The later task may have come before all were given back. Now that nothing is under way any more, they are
                // put back once more to see their places.
                for task in &again {
                    t.settle(&backend, &queue, task, Disposition::Release).await.unwrap();
                }
                again = t.take_within(&mut other, again.len(), LONG_LEASE, soon).await;
                let order: Vec<_> = claimed.iter().chain(&again).map(|task| task.lease.id.clone()).collect();
                assert_eq!(order, keys, "{how}, {at:?}: what is given back stands at its old place");
            }
            t.complete(&backend, &queue, &claimed).await;
            t.complete(&backend, &queue, &again).await;
            t.drain(&backend, &queue, 0).await;
            completed
        })
        .await;
    }
}

pub async fn drop_10_a_dropped_wait_loses_no_notification_and_leaves_nothing_registered(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("waited"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let waker = Arc::new(CountedWaker::default());
    for round in 0..20 {
        let notification_first = round % 2 == 0;
        assert!(t.claim(&mut subscription, 1).await.is_empty());
        let mut wait = subscription.wait(HOUR);
        // It may return early for no reason, and then there is nothing to be dropped.
        let waits = waker.poll(std::pin::Pin::new(&mut wait)).is_pending();
        if notification_first {
            // The notification comes while the wait is there, and nobody polls it any more.
            t.put(&backend, &queue, NewTask::new(Due::NOW, "a")).await;
            turns(20).await;
        }
        drop(wait);
        if !notification_first {
            t.put(&backend, &queue, NewTask::new(Due::NOW, "a")).await;
        }
        if waits {
            let woken = timeout(t.patience(), subscription.wait(HOUR)).await;
            assert!(woken.is_ok(), "the notification was lost with the wait that was dropped");
        }
        let taken = t.take(&mut subscription, 1).await;
        t.complete(&backend, &queue, &taken).await;
    }
    quiet(t, t.patience(), || waker.kept() == 0).await;
    assert_eq!(waker.kept(), 0, "a wait that was dropped leaves its waker registered");
    t.drain(&backend, &queue, 0).await;
}

pub async fn drop_1_a_dropped_schedule_is_finished_by_repeating_it(t: &Trial) {
    for (how, backend) in over(t) {
        let n = t.caps().batch_max.min(if how == "direct" { MANY } else { 50 });
        at_every_pending(async |at| {
            let queue = t.queue(&format!("{how}-{}-{}", at.pending, at.late));
            let tasks = || (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}")).id(t.id(format!("{i}")))).collect();
            let call = backend.schedule(&queue, tasks());
            let completed = Arc::new(CountedWaker::default()).drive(at, call).await.is_some();
            for answer in backend.schedule(&queue, tasks()).await.unwrap() {
                answer.unwrap();
            }
            assert_eq!(t.drain(&backend, &queue, n).await.len(), n, "{how}, {at:?}: each task once");
            completed
        })
        .await;
    }
}

pub async fn drop_1_a_dropped_settling_is_finished_by_repeating_it(t: &Trial) {
    for (how, backend) in over(t) {
        let n = t.caps().batch_max.min(if how == "direct" { MANY } else { 50 });
        at_every_pending(async |at| {
            let queue = t.queue(&format!("{how}-{}-{}", at.pending, at.late));
            t.put_all(&backend, &queue, (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
            let mut subscription = t.subscribe(&backend, &queue).await;
            let taken = t.take(&mut subscription, n).await;
            assert_eq!(taken.len(), n);
            let dispositions = || taken.iter().map(|task| (task.lease.clone(), Disposition::Complete)).collect();
            let call = backend.settle(&queue, dispositions());
            let completed = Arc::new(CountedWaker::default()).drive(at, call).await.is_some();
            for answer in backend.settle(&queue, dispositions()).await.unwrap() {
                match answer {
                    Ok(()) => {}
                    Err(e) if matches!(e.kind(), ErrorKind::LeaseLost | ErrorKind::Ambiguous) => {}
                    Err(e) => panic!("{how}, {at:?}: {e}"),
                }
            }
            let left = empty(t, &backend, &queue, &mut subscription).await;
            assert!(left.is_empty(), "{how}, {at:?}: a task came after it was completed");
            t.history().drained(&queue);
            completed
        })
        .await;
    }
}

pub async fn drop_11_a_dropped_operation_is_finished_by_repeating_it(t: &Trial) {
    for (how, backend) in over(t) {
        let n = t.caps().batch_max.min(if how == "direct" { MANY } else { 50 });
        at_every_pending(async |at| {
            let queue = t.queue(&format!("tasks-{how}-{}-{}", at.pending, at.late));
            let tasks = (0..n).map(|i| NewTask::new(HOUR, format!("{i}")));
            let select = Select::Tasks(t.put_all(&backend, &queue, tasks).await.iter().map(TaskRef::from).collect());
            shifted_once(t, &backend, &queue, select, n, at).await
        })
        .await;
    }
}

pub async fn drop_11_a_dropped_operation_on_a_group_is_finished_by_repeating_it(t: &Trial) {
    for (how, backend) in over(t) {
        let n = if how == "direct" { MANY } else { 50 };
        at_every_pending(async |at| {
            let queue = t.queue(&format!("group-{how}-{}-{}", at.pending, at.late));
            t.put_all(&backend, &queue, (0..n).map(|i| NewTask::new(HOUR, format!("{i}")).group(room()))).await;
            shifted_once(t, &backend, &queue, Select::Group(room()), n, at).await
        })
        .await;
    }
}

/// Drops a shift of `n` tasks, repeats it, and sees that each was shifted once. Whether it completed before it was dropped.
async fn shifted_once(
    t: &Trial,
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    select: Select,
    n: usize,
    at: At,
) -> bool {
    let before = listed(t, backend, queue).await;
    let shift = Change::shift(Shift::Later(HOUR)).operation(t.operation());
    let call = backend.change(queue, select.clone(), shift.clone());
    let completed = Arc::new(CountedWaker::default()).drive(at, call).await.is_some();
    let changed = repeated(t, backend, queue, &select, &shift).await;
    assert_eq!((changed.changed, changed.refused), (n as u64, 0), "{at:?}: the answer is for the whole");
    let after = listed(t, backend, queue).await;
    assert_eq!(after.len(), n, "{at:?}: each task is there");
    for (before, after) in before.iter().zip(&after) {
        let shifted = after.visible_at.saturating_since(before.visible_at);
        let slack = t.caps().resolution;
        assert!(shifted >= HOUR - slack && shifted <= HOUR + slack, "{at:?}: shifted by {shifted:?}, not by an hour");
    }
    for batch in after.chunks(t.caps().batch_max) {
        let all = Select::Tasks(batch.iter().map(|view| view.task.clone()).collect());
        assert_eq!(backend.change(queue, all, Change::cancel()).await.unwrap().changed, batch.len() as u64);
    }
    t.history().drained(queue);
    completed
}

/// The same change again, once the one that was dropped has come to an end.
async fn repeated(
    t: &Trial,
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    select: &Select,
    change: &Change,
) -> Changed {
    let mut patience = t.patience();
    loop {
        match backend.change(queue, select.clone(), change.clone()).await {
            Err(e) if e.kind() == ErrorKind::Busy && !patience.is_zero() => {
                let pause = t.units(1).min(patience);
                tokio::time::sleep(pause).await;
                patience -= pause;
            }
            answer => return answer.expect("a change that can be repeated"),
        }
    }
}

/// All tasks, by their ids.
async fn listed(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName) -> Vec<TaskView> {
    let mut all: Vec<TaskView> = Vec::new();
    loop {
        let page = all.last().map_or_else(|| Page::first(1_000), |last| Page::after(last, 1_000));
        let some = backend.list(queue, page).await.expect("a page");
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    t.checked(all.len() as u64);
    all.sort_by(|x, y| x.task.id.cmp(&y.task.id));
    all
}

pub async fn drop_11_a_dropped_redrive_goes_on_with_what_is_left(t: &Trial) {
    for (how, backend) in over(t) {
        let n = if how == "direct" { 3_000 } else { 50 };
        at_every_pending(async |at| {
            let queue = t.queue(&format!("{how}-{}-{}", at.pending, at.late));
            let mut subscription = dead_lettered(t, &backend, &queue, n).await;
            let redrive = || DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None };
            let call = backend.dead_letters(&queue, redrive());
            let completed = Arc::new(CountedWaker::default()).drive(at, call).await.is_some();
            let rest = backend.dead_letters(&queue, redrive()).await.unwrap();
            assert_eq!(rest.kept, 0, "{how}, {at:?}: no id is in use");
            let came = empty(t, &backend, &queue, &mut subscription).await;
            let ids: BTreeSet<_> = came.iter().map(|task| &task.lease.id).collect();
            assert_eq!((came.len(), ids.len()), (n, n), "{how}, {at:?}: each letter is redriven once");
            assert!(came.iter().all(|task| task.lease.attempt == 1), "{how}, {at:?}: with all its attempts");
            t.history().drained(&queue);
            completed
        })
        .await;
    }
}

pub async fn drop_11_a_dropped_purge_goes_on_with_what_is_left(t: &Trial) {
    for (how, backend) in over(t) {
        let n = if how == "direct" { 3_000 } else { 50 };
        at_every_pending(async |at| {
            let queue = t.queue(&format!("{how}-{}-{}", at.pending, at.late));
            let mut subscription = dead_lettered(t, &backend, &queue, n).await;
            let purge = || DeadLetterOp::Purge { select: DeadLetterSelect::All };
            let call = backend.dead_letters(&queue, purge());
            let completed = Arc::new(CountedWaker::default()).drive(at, call).await.is_some();
            backend.dead_letters(&queue, purge()).await.unwrap();
            let list = DeadLetterOp::List { after: None, limit: 10 };
            assert!(backend.dead_letters(&queue, list).await.unwrap().letters.is_empty(), "{how}, {at:?}");
            assert!(empty(t, &backend, &queue, &mut subscription).await.is_empty(), "{how}, {at:?}: none comes back");
            completed
        })
        .await;
    }
}

/// A queue with this many dead letters, and a subscription on it.
async fn dead_lettered(
    t: &Trial,
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    n: usize,
) -> Box<dyn Subscription> {
    t.put_all(backend, queue, (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(backend, queue).await;
    let taken = t.take(&mut subscription, n).await;
    assert_eq!(taken.len(), n);
    for batch in taken.chunks(t.caps().batch_max) {
        let dead_letter = |lease| (lease, Disposition::DeadLetter { reason: "no".into() });
        let dispositions = batch.iter().map(|task| dead_letter(task.lease.clone())).collect();
        for answer in backend.settle(queue, dispositions).await.unwrap() {
            answer.unwrap();
        }
    }
    subscription
}
