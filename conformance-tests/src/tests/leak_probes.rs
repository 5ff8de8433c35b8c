//! LEAK: what needs no look at the heap: records, queues, tasks of the runtime.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    AdminOp, Attempts, Change, DeadLetterOp, DeadLetterSelect, DelayBackend, Disposition, Due, ErrorKind, NewTask,
    Page, QueueName, QueueStats, Select, Support,
};
use tokio::runtime::Handle;

use crate::dropping::stage::{empty, quiet, room};
use crate::dropping::{At, CountedWaker, Yielding};
use crate::trial::Trial;

const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(1);

pub async fn leak_1_of_tasks_that_ended_no_record_is_left(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("ended"));
    // It keeps the queue, so that what is left in it is not forgotten together with it.
    let mut subscription = t.subscribe(&backend, &queue).await;
    for i in 0..10 {
        completed_after_detours(t, &backend, &queue).await;
        changed_and_cancelled(t, &backend, &queue).await;
        died_and_was_purged(t, &backend, &queue).await;
        empty(t, &backend, &queue, &mut subscription).await;
        let stats = backend.stats(&queue).await.unwrap();
        let QueueStats { scheduled, due, in_flight, dead, quarantined, .. } = stats;
        assert_eq!((scheduled, due, in_flight, dead, quarantined), (0, 0, 0, 0, 0), "in round {i}");
        assert_eq!((stats.oldest_due, stats.next_due_in), (None, None), "in round {i}");
        if t.caps().inspect == Support::Definite {
            assert_eq!(backend.list(&queue, Page::first(10)).await.unwrap(), [], "in round {i}");
        }
    }
    t.history().drained(&queue);
}

/// Ends by completion: at once, after a retry, a snooze and a release.
async fn completed_after_detours(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName) {
    t.put_all(backend, queue, (0..4).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(backend, queue).await;
    let taken = t.take(&mut subscription, 4).await;
    let detours = [
        Disposition::Retry { after: SOON, reason: "no".into() },
        Disposition::Snooze { after: SOON },
        Disposition::Release,
        Disposition::Complete,
    ];
    for (task, disposition) in taken.iter().zip(detours) {
        t.settle(backend, queue, task, disposition).await.unwrap();
    }
    let again = t.take(&mut subscription, 3).await;
    t.complete(backend, queue, &again).await;
}

/// Ends by a cancel, of itself and of its group, also after it was moved.
async fn changed_and_cancelled(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName) {
    if t.caps().cancel != Support::Definite {
        return;
    }
    let refs = t.put_all(backend, queue, (0..2).map(|i| NewTask::new(HOUR, format!("{i}")))).await;
    let select = Select::Tasks(refs.iter().map(Into::into).collect());
    if t.caps().reschedule == Support::Definite {
        backend.change(queue, select.clone(), Change::move_to(2 * HOUR)).await.unwrap();
    }
    assert_eq!(backend.change(queue, select, Change::cancel()).await.unwrap().changed, 2);
    if t.caps().groups == Support::Definite {
        t.put_all(backend, queue, (0..3).map(|i| NewTask::new(HOUR, format!("{i}")).group(room()))).await;
        assert_eq!(backend.change(queue, Select::Group(room()), Change::cancel()).await.unwrap().changed, 3);
    }
}

/// Ends in the dead letters, by a disposition, by its last attempt and by its expiry, and out of them.
async fn died_and_was_purged(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName) {
    if t.caps().dead_letters != Support::Definite {
        return;
    }
    let mut subscription = t.subscribe(backend, queue).await;
    let once = |name: &'static str| NewTask::new(Due::NOW, name).attempts_max(Attempts::new(1).unwrap());
    t.put_all(backend, queue, ["bad", "spent"].map(once)).await;
    let taken = t.take(&mut subscription, 2).await;
    for task in &taken {
        let disposition = match &task.payload[..] {
            b"bad" => Disposition::DeadLetter { reason: "no".into() },
            _ => Disposition::Retry { after: SOON, reason: "no".into() },
        };
        t.settle(backend, queue, task, disposition).await.unwrap();
    }
    // A retry may leave the burial to the next claim that meets it.
    empty(t, backend, queue, &mut subscription).await;
    let purge = DeadLetterOp::Purge { select: DeadLetterSelect::All };
    assert_eq!(backend.dead_letters(queue, purge).await.unwrap().affected, 2);
}

pub async fn leak_4_a_queue_is_forgotten_when_nothing_holds_it(t: &Trial) {
    let backend = t.backend();
    let names: Vec<QueueName> = (0..t.size(300, 100)).map(|i| t.queue(&format!("once-{i}"))).collect();
    for (i, queue) in names.iter().enumerate() {
        let task = t.put(&backend, queue, NewTask::new(Due::NOW, "a")).await;
        let mut subscription = t.subscribe(&backend, queue).await;
        assert!(is_known(&backend, queue).await, "a queue with a task");
        let taken = t.take(&mut subscription, 1).await;
        assert_eq!(taken[0].lease.id, task.task.id);
        assert!(is_known(&backend, queue).await, "a queue with a task in flight");
        match i % 4 {
            0 => t.complete(&backend, queue, &taken).await,
            1 if t.caps().dead_letters == Support::Definite => {
                t.settle(&backend, queue, &taken[0], Disposition::DeadLetter { reason: "no".into() }).await.unwrap();
                assert!(is_known(&backend, queue).await, "a queue with a dead letter");
                backend.dead_letters(queue, DeadLetterOp::Purge { select: DeadLetterSelect::All }).await.unwrap();
            }
            2 if t.caps().pause == Support::Definite => {
                backend.administer(queue, AdminOp::Pause).await.unwrap();
                t.complete(&backend, queue, &taken).await;
                drop(subscription);
                assert!(is_known(&backend, queue).await, "a queue that is paused");
                backend.administer(queue, AdminOp::Resume).await.unwrap();
                continue;
            }
            3 if t.caps().delete == Support::Definite => backend.administer(queue, AdminOp::Delete).await.unwrap(),
            _ => t.complete(&backend, queue, &taken).await,
        }
        assert!(is_known(&backend, queue).await, "a queue with a subscription");
        subscription.close().await.unwrap();
    }
    let known = backend.queues().await.unwrap();
    let left: Vec<_> = names.iter().filter(|name| known.contains(name)).collect();
    assert_eq!(left, Vec::<&QueueName>::new(), "queues that nothing holds");
}

async fn is_known(backend: &Arc<dyn DelayBackend>, queue: &QueueName) -> bool {
    backend.queues().await.unwrap().contains(queue)
}

pub async fn leak_8_a_dropped_close_leaves_nothing(t: &Trial) {
    let mut baseline = None;
    for late in [false, true] {
        for pending in 1.. {
            let opened = t.harness().open().await.unwrap();
            let backend: Arc<dyn DelayBackend> = Arc::new(Yielding::over(opened.clone(), 2));
            let queue = t.queue(&format!("closed-{pending}-{late}"));
            t.put(&backend, &queue, NewTask::new(Due::NOW, "a")).await;
            let mut subscription = t.subscribe(&opened, &queue).await;
            let taken = t.take(&mut subscription, 1).await;
            t.complete(&backend, &queue, &taken).await;
            let waker = Arc::new(CountedWaker::default());
            let closed = waker.drive(At { pending, late }, backend.close()).await;
            if let Some(answer) = &closed {
                answer.as_ref().unwrap();
                assert_eq!(opened.ping().await.unwrap_err().kind(), ErrorKind::Closed);
            }
            drop((subscription, backend, opened));
            let alive = || Handle::current().metrics().num_alive_tasks();
            let least = baseline.unwrap_or(0);
            quiet(t, t.patience() / 60, || alive() <= least && waker.kept() == 0).await;
            // The first round tells what the other client of this test has.
            let baseline = *baseline.get_or_insert_with(alive);
            quiet(t, t.patience(), || alive() <= baseline && waker.kept() == 0).await;
            assert!(alive() <= baseline, "a dropped close left {} tasks of the runtime", alive() - baseline);
            assert_eq!(waker.kept(), 0, "a dropped close left its waker registered");
            t.checked(1);
            if closed.is_some() {
                break;
            }
            assert!(pending < 1_000, "`close` is pending again and again");
        }
    }
}
