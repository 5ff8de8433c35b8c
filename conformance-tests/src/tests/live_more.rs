//! LIVE, continued: steps of the wall clock, subscriptions that stall, queues that are paused.

use std::pin::pin;
use std::time::Duration;

use delayline_core::{
    AdminOp, Attempts, CancellationToken, Change, ChangeOutcome, Claim, DeadLetterOp, Disposition, Due, NewTask, Queue,
    Shift, TaskRef, Worker,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::cancel::{FAR, change_one};
use super::live::{polled_once, promptly, sleeper};
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

pub async fn live_9_a_step_of_the_wall_clock_is_noticed_within_a_fallback_poll(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("stepped"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    t.put(&backend, &queue, NewTask::new(Due::At(t.wall().saturating_add(FAR)), "x")).await;
    assert!(t.claim(&mut subscription, 1).await.is_empty());
    if !t.step_wall(Shift::Later(2 * FAR)) {
        return;
    }
    // At the next look, whoever looks.
    let other = t.another().await;
    let mut fresh = t.subscribe(&other, &queue).await;
    let task = t.take_within(&mut fresh, 1, LONG_LEASE, t.units(1)).await;
    assert_eq!(task.len(), 1, "a look that knows the new time");
    t.complete(&backend, &queue, &task).await;
    if !t.is_virtual() {
        return; // a fallback poll is long
    }
    let queue = Queue::<u32>::new(backend.clone(), t.queue("asleep")).expect("a queue");
    queue.schedule(&1).at(t.wall().saturating_add(FAR)).await.expect("a task that is accepted");
    let mut consumer = queue.consumer().open().await.expect("a consumer");
    let asleep = tokio::spawn(async move { (consumer.next().await, Instant::now()) });
    sleep(t.units(1)).await;
    let stepped = t.step_wall(Shift::Later(2 * FAR));
    let at_most = Instant::now() + t.caps().fallback_poll_interval.min(FAR - t.units(2)) + promptly(t);
    let (delivery, at) = asleep.await.expect("a consumer that does not panic");
    assert!(stepped && at <= at_most, "{:?} later than a fallback poll", at - at_most);
    delivery.expect("a task").complete().await.expect("a live lease");
}

pub async fn live_10_a_stalled_subscription_hoards_nothing(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("hoarded"));
    // One that is never used, one that claimed in vain and was left, one whose wait is never polled again.
    let _unused = t.subscribe(&other, &queue).await;
    let mut claimed = t.subscribe(&backend, &queue).await;
    assert!(t.claim(&mut claimed, 100).await.is_empty());
    let mut waits = t.subscribe(&other, &queue).await;
    assert!(t.claim(&mut waits, 100).await.is_empty());
    let mut wait = pin!(waits.wait(FAR));
    polled_once(wait.as_mut()).await;
    for (due, n) in [(Duration::ZERO, 1), (t.units(1), 1), (Duration::ZERO, t.size(300, 100)), (t.units(1), 20)] {
        let sleeper = sleeper(t, &backend, &queue).await;
        t.put_all(&other, &queue, (0..n).map(|i| NewTask::new(due, format!("{i}")))).await;
        let first = sleeper.woken(t, Instant::now() + due, "a task that others slept for, too").await;
        t.complete(&backend, &queue, &[first]).await;
        let mut subscription = t.subscribe(&backend, &queue).await;
        let rest = t.take_within(&mut subscription, n - 1, LONG_LEASE, promptly(t) + t.units(1)).await;
        assert_eq!(rest.len(), n - 1, "all of them go to the one who works");
        t.complete(&backend, &queue, &rest).await;
    }
    t.drain(&backend, &queue, 0).await;
}

pub async fn live_10_a_busy_worker_keeps_nothing_from_another(t: &Trial) {
    let (first, second) = (t.backend(), t.another().await);
    let stop = CancellationToken::new();
    let name = t.queue("busy");
    let n = t.size(200, 50) as u32;
    // The first has a handler for each of its slots that does not end; what it has no slot for goes to the second.
    let (started, mut has_started) = mpsc::channel(n as usize);
    let queue = Queue::<u32>::new(first, &name).expect("a queue");
    let busy = Worker::builder().concurrency(2).shutdown(stop.clone()).queue(&queue, move |_, context| {
        let started = started.clone();
        async move {
            started.send(()).await.expect("the test listens");
            context.shutdown().cancelled().await;
        }
    });
    // Half of them are there when it starts, far more than it has slots for.
    for i in 0..n / 2 {
        queue.schedule(&i).await.expect("a task that is accepted");
    }
    let busy = tokio::spawn(busy.build().expect("a worker").run());
    for _ in 0..2 {
        timeout(t.patience(), has_started.recv()).await.expect("it starts").expect("a handler");
    }
    let (done, mut is_done) = mpsc::channel(n as usize);
    let free = Worker::builder().shutdown(stop.clone()).queue(&Queue::<u32>::new(second, &name).expect("a queue"), {
        move |i, _| {
            let done = done.clone();
            async move { done.send(i).await.expect("the test listens") }
        }
    });
    let free = tokio::spawn(free.build().expect("a worker").run());
    for i in n / 2..n {
        queue.schedule(&i).await.expect("a task that is accepted");
    }
    let all_accepted = Instant::now();
    for _ in 2..n {
        timeout(t.patience(), is_done.recv()).await.expect("the other one works").expect("a handler");
    }
    assert!(all_accepted.elapsed() <= promptly(t), "it took {:?}", all_accepted.elapsed());
    stop.cancel();
    assert_eq!(busy.await.expect("no panic").expect("a report").completed, 2);
    assert_eq!(free.await.expect("no panic").expect("a report").completed, u64::from(n) - 2);
    t.drain(&t.backend(), &name, 0).await;
}

pub async fn live_12_pause_stops_delivery_and_nothing_else(t: &Trial) {
    let (backend, other) = (t.backend(), t.another().await);
    let (queue, elsewhere) = (t.queue("paused"), t.queue("running"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let once = Attempts::new(1).expect("one attempt");
    t.put_all(&backend, &queue, (0..3).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut held = t.take(&mut subscription, 3).await;
    t.put(&backend, &queue, NewTask::new(Due::NOW, "last attempt").attempts_max(once)).await;
    let last = t.take_within(&mut subscription, 1, t.units(1), t.patience()).await;
    assert_eq!(last.len(), 1);
    t.put(&backend, &queue, NewTask::new(Due::NOW, "expires").expires(t.units(1))).await;
    let to_cancel: TaskRef = t.put(&backend, &queue, NewTask::new(Due::NOW, "cancelled")).await.into();
    let to_move: TaskRef = t.put(&backend, &queue, NewTask::new(FAR, "moved")).await.into();
    // It counts for every client, and twice is as good as once.
    for client in [&other, &backend] {
        client.administer(&queue, AdminOp::Pause).await.expect("a pause");
    }

    // Leases settle and extend.
    if Need::Extend.is_met(t.caps()) {
        let extended = other.extend(&queue, vec![held[0].lease.clone()], LONG_LEASE).await.expect("an answer");
        assert!(extended[0].is_ok(), "{extended:?}");
    }
    t.complete(&other, &queue, &[held.remove(0)]).await;
    let retry = Disposition::Retry { after: Duration::ZERO, reason: "again".into() };
    t.settle(&other, &queue, &held.remove(0), retry).await.expect("a live lease");
    t.settle(&other, &queue, &held.remove(0), Disposition::Release).await.expect("a live lease");
    // Tasks are accepted and changed.
    t.put(&other, &queue, NewTask::new(Due::NOW, "new")).await;
    let mut waiting = 2 + 1;
    if Need::Cancel.is_met(t.caps()) {
        assert_eq!(change_one(&other, &queue, to_cancel, Change::cancel()).await, ChangeOutcome::Changed);
    } else {
        waiting += 1;
    }
    if Need::Reschedule.is_met(t.caps()) {
        assert_eq!(change_one(&other, &queue, to_move, Change::move_to(Due::NOW)).await, ChangeOutcome::Changed);
        waiting += 1;
    }
    // Nothing is delivered, neither now nor to one who waits, and what could not be any more is not dead-lettered.
    let fresh = t.subscribe(&other, &queue).await;
    for mut subscription in [subscription, fresh] {
        let ends = Instant::now() + t.units(3);
        while Instant::now() < ends {
            let claimed = subscription.claim(Claim::new(100, t.units(50))).await.expect("a claim");
            assert_eq!((claimed.deliveries.len(), claimed.dead_lettered), (0, 0), "a claim of a paused queue");
            subscription.wait(t.units(1)).await;
        }
    }
    if Need::Stats.is_met(t.caps()) {
        assert!(other.stats(&queue).await.expect("an answer").paused);
        assert!(other.queues().await.expect("an answer").contains(&queue));
    }
    if Need::DeadLetters.is_met(t.caps()) {
        let list = DeadLetterOp::List { after: None, limit: 10 };
        assert!(backend.dead_letters(&queue, list).await.expect("a listing").letters.is_empty());
    }
    // Another queue does not notice.
    t.put(&backend, &elsewhere, NewTask::new(Due::NOW, "x")).await;
    assert_eq!(t.drain(&backend, &elsewhere, 1).await.len(), 1);

    for client in [&backend, &other] {
        client.administer(&queue, AdminOp::Resume).await.expect("a resumption");
    }
    let came = t.drain(&backend, &queue, waiting).await;
    assert_eq!(came.len(), waiting, "all that could be delivered: {came:?}");
    if Need::Stats.is_met(t.caps()) {
        let stats = backend.stats(&queue).await.expect("an answer");
        assert_eq!((stats.paused, stats.due, stats.in_flight), (false, 0, 0));
    }
}

pub async fn live_12_a_worker_on_a_paused_queue_finishes_and_starts_nothing(t: &Trial) {
    let queue = Queue::<u32>::new(t.backend(), t.queue("paused")).expect("a queue");
    let stop = CancellationToken::new();
    let (started, mut has_started) = mpsc::channel(10);
    let (go_on, is_to_go_on) = oneshot::channel::<()>();
    let is_to_go_on = parking_lot::Mutex::new(Some(is_to_go_on));
    let worker = Worker::builder().shutdown(stop.clone()).queue(&queue, move |i, _| {
        let (started, first) = (started.clone(), is_to_go_on.lock().take());
        async move {
            started.send(i).await.expect("the test listens");
            if let Some(first) = first {
                first.await.expect("the test tells");
            }
        }
    });
    let worker = tokio::spawn(worker.build().expect("a worker").run());
    queue.schedule(&1).await.expect("a task that is accepted");
    assert_eq!(timeout(t.patience(), has_started.recv()).await.expect("it starts"), Some(1));
    queue.pause().await.expect("a pause");
    queue.schedule(&2).await.expect("a task that is accepted");
    go_on.send(()).expect("a handler that waits");
    assert!(timeout(t.units(3), has_started.recv()).await.is_err(), "a handler was started on a paused queue");
    queue.resume().await.expect("a resumption");
    assert_eq!(timeout(t.patience(), has_started.recv()).await.expect("it starts"), Some(2));
    stop.cancel();
    assert_eq!(worker.await.expect("no panic").expect("a report").completed, 2);
    t.drain(&t.backend(), queue.name(), 0).await;
}
