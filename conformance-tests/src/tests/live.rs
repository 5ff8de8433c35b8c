//! LIVE: sleepers wake in time, and after faults unaided.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use delayline_core::{
    AdminOp, CancellationToken, Change, ChangeOutcome, Claim, ClaimedTask, DeadLetterOp, DeadLetterSelect,
    DelayBackend, Disposition, Due, GroupName, NewTask, Queue, QueueName, Select, Shift, Subscription, TaskRef,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::cancel::{FAR, change_one};
use super::crew::retry;
use crate::harness::Fault;
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

/// How late a sleeper may be: as declared, or in real time what no busy machine needs.
pub(super) fn promptly(t: &Trial) -> Duration {
    let declared = t.caps().resolution + t.caps().lateness;
    if t.is_virtual() { declared } else { declared + Duration::from_secs(10) }
}

/// Someone who sleeps on a queue, by a loop that only a notification or a known due time ends: it has no fallback poll.
pub(super) struct Sleeper(JoinHandle<(ClaimedTask, Instant)>);

/// Returns once it sleeps.
pub(super) async fn sleeper(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName) -> Sleeper {
    let mut subscription = t.subscribe(backend, queue).await;
    let claim = Claim::new(1, LONG_LEASE.min(t.caps().lease_max));
    let (asleep, is_asleep) = oneshot::channel();
    let mut asleep = Some(asleep);
    let handle = tokio::spawn(async move {
        for _ in 0..10_000 {
            let mut claimed = subscription.claim(claim).await.expect("a claim");
            if let Some(task) = claimed.deliveries.pop() {
                return (task, Instant::now());
            }
            let mut wait = pin!(subscription.wait(claimed.next_due_in.unwrap_or(FAR).min(FAR)));
            let is_over = polled_once(wait.as_mut()).await;
            if let Some(asleep) = asleep.take() {
                // Nobody listens if the test has failed already.
                let _ = asleep.send(());
            }
            if !is_over {
                wait.await;
            }
        }
        panic!("ten thousand waits returned, and nothing was there");
    });
    is_asleep.await.expect("a sleeper");
    Sleeper(handle)
}

/// Polls a future once; whether it is over.
pub(super) async fn polled_once(mut future: Pin<&mut impl Future<Output = ()>>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

impl Sleeper {
    /// What it took, which it must have done promptly after `due`.
    pub(super) async fn woken(self, t: &Trial, due: Instant, by: &str) -> ClaimedTask {
        let woken = timeout(t.patience(), self.0).await;
        let (task, at) =
            woken.unwrap_or_else(|_| panic!("nobody woke for {by}")).expect("a sleeper that does not panic");
        assert!(at <= due + promptly(t), "woke {:?} late for {by}", at - due);
        task
    }
}

pub async fn live_1_a_consumer_sleeps_until_the_next_task_is_due(t: &Trial) {
    let queue = Queue::<u32>::new(t.backend(), t.queue("known")).expect("a queue");
    let far = [3_600, 86_400, 30 * 86_400].map(Duration::from_secs);
    let far = far.into_iter().filter(|due| t.is_virtual() && *due <= t.caps().delay_max);
    let mut dues: Vec<Duration> = [1, 2, 2, 5, 8].map(|units| t.units(units)).into_iter().chain(far).collect();
    let began = Instant::now();
    for (i, due) in dues.iter().enumerate() {
        queue.schedule(&(i as u32)).after(*due).await.expect("a task that is accepted");
    }
    let accepted = Instant::now();
    let mut consumer = queue.consumer().open().await.expect("a consumer");
    dues.reverse();
    while let Some(due) = dues.pop() {
        let delivery = timeout(2 * due + t.patience(), consumer.next()).await.expect("it wakes").expect("a task");
        let (early, late) = (Instant::now() - began, Instant::now().saturating_duration_since(accepted + due));
        assert!(early >= due && late <= promptly(t), "due after {due:?}, came after {early:?}");
        delivery.complete().await.expect("a live lease");
    }
    t.drain(&t.backend(), queue.name(), 0).await;
}

pub async fn live_1_behind_a_task_that_went_the_next_one_is_known(t: &Trial) {
    let (backend, other) = (t.backend(), t.another().await);
    // The one that a sleeper waits for is cancelled, or moved away in either direction: it still knows the one behind.
    let mut changes = vec![("moved", Change::move_to(FAR)), ("shifted", Change::shift(Shift::Later(FAR)))];
    if Need::Cancel.is_met(t.caps()) {
        changes.push(("cancelled", Change::cancel()));
    }
    for (name, by) in changes {
        let queue = t.queue(name);
        let first: TaskRef = t.put(&backend, &queue, NewTask::new(t.units(6), "first")).await.into();
        let due = Instant::now() + t.units(12);
        t.put(&backend, &queue, NewTask::new(t.units(12), "second")).await;
        let sleeper = sleeper(t, &backend, &queue).await;
        let outcome = change_one(&other, &queue, first, by).await;
        assert_eq!(outcome, ChangeOutcome::Changed);
        let task = sleeper.woken(t, due, "the task behind").await;
        assert_eq!(&task.payload[..], b"second");
        t.complete(&backend, &queue, &[task]).await;
    }
}

/// Also to a store that can't be looked into: it has seen them.
pub async fn live_1_what_was_sent_back_is_known(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("sent-back"));
    t.put_all(&backend, &queue, ["later", "first"].map(|name| NewTask::new(Due::NOW, name))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let after = [2 * FAR, FAR];
    let dispositions = t.take(&mut subscription, 2).await.into_iter().zip(after).map(|(task, after)| {
        let disposition = if after == FAR { retry(after) } else { Disposition::Snooze { after } };
        (task.lease, disposition)
    });
    let settled = backend.settle(&queue, dispositions.collect()).await.expect("an answer to settle");
    settled.into_iter().for_each(|answer| answer.expect("a live lease"));
    let claimed = subscription.claim(Claim::new(1, LONG_LEASE.min(t.caps().lease_max))).await.expect("a claim");
    assert!(claimed.deliveries.is_empty(), "{:?}", claimed.deliveries);
    let told = claimed.next_due_in.expect("a task is in sight");
    assert!(told <= FAR + t.caps().resolution, "the next is told to come in {told:?}, and comes in {FAR:?}");
}

pub async fn live_2_a_sleeper_wakes_for_an_earlier_task(t: &Trial) {
    let (backend, other) = (t.backend(), t.another().await);
    for (name, known) in [("nothing", None), ("far", Some(Duration::from_secs(600))), ("near", Some(t.units(20)))] {
        let queue = t.queue(name);
        if let Some(known) = known {
            t.put(&backend, &queue, NewTask::new(known, "known")).await;
        }
        for (client, wait) in [(&backend, Duration::ZERO), (&other, Duration::ZERO), (&other, t.units(1))] {
            let sleeper = sleeper(t, &backend, &queue).await;
            t.put(client, &queue, NewTask::new(wait, "earlier")).await;
            let due = Instant::now() + wait;
            let task = sleeper.woken(t, due, &format!("a task due in {wait:?}, knowing of one in {known:?}")).await;
            assert_eq!(&task.payload[..], b"earlier");
            t.complete(&backend, &queue, &[task]).await;
        }
    }
}

pub async fn live_2_a_sleeper_wakes_for_a_task_that_is_moved_or_shifted_sooner(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("moved"));
    let changes = [
        (Change::move_to(Due::NOW), Duration::ZERO),
        (Change::move_to(t.units(1)), t.units(1)),
        (Change::shift(Shift::Sooner(2 * FAR)), Duration::ZERO),
        (Change::shift(Shift::Sooner(FAR - t.units(1))), t.units(1)),
    ];
    let room: GroupName = "room".parse().expect("a short name");
    for (by, wait) in changes {
        for grouped in [false, true].into_iter().filter(|grouped| !grouped || Need::Groups.is_met(t.caps())) {
            let task = NewTask::new(FAR, "far");
            let task = if grouped { task.group(room.clone()) } else { task };
            let task: TaskRef = t.put(&backend, &queue, task).await.into();
            let sleeper = sleeper(t, &backend, &queue).await;
            let select = if grouped { Select::Group(room.clone()) } else { Select::Tasks(vec![task]) };
            other.change(&queue, select, by.clone()).await.expect("an answer to a change");
            let task = sleeper.woken(t, Instant::now() + wait, &format!("{by:?} of a group: {grouped}")).await;
            t.complete(&backend, &queue, &[task]).await;
        }
    }
}

pub async fn live_2_a_sleeper_wakes_for_a_task_that_is_given_back(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("back"));
    let mut holder = t.subscribe(&other, &queue).await;
    let retry = |after| Disposition::Retry { after, reason: "again".into() };
    let dispositions = [
        (Disposition::Release, Duration::ZERO),
        (retry(Duration::ZERO), Duration::ZERO),
        (retry(t.units(1)), t.units(1)),
        (Disposition::Snooze { after: Duration::ZERO }, Duration::ZERO),
        (Disposition::Snooze { after: t.units(1) }, t.units(1)),
    ];
    for (disposition, wait) in dispositions {
        t.put(&other, &queue, NewTask::new(Due::NOW, "x")).await;
        let held = t.take(&mut holder, 1).await.pop().expect("a task that is due");
        let sleeper = sleeper(t, &backend, &queue).await;
        t.settle(&other, &queue, &held, disposition.clone()).await.expect("a live lease");
        let task = sleeper.woken(t, Instant::now() + wait, &format!("{disposition:?}")).await;
        t.complete(&backend, &queue, &[task]).await;
    }
    // And for a lease that ends, which nobody announces.
    t.put(&other, &queue, NewTask::new(Due::NOW, "x")).await;
    let held = t.take_within(&mut holder, 1, t.units(5), t.patience()).await;
    let ends = Instant::now() + t.units(5);
    assert_eq!(held.len(), 1);
    let task = sleeper(t, &backend, &queue).await.woken(t, ends, "the end of a lease").await;
    t.complete(&backend, &queue, &[task]).await;
    t.drain(&backend, &queue, 0).await;
}

pub async fn live_2_a_sleeper_wakes_for_a_redriven_letter(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("redriven"));
    let mut holder = t.subscribe(&other, &queue).await;
    for rate in [None, Some(1.0 / t.units(2).as_secs_f64())] {
        t.put(&other, &queue, NewTask::new(Due::NOW, "x")).await;
        let held = t.take(&mut holder, 1).await.pop().expect("a task that is due");
        t.settle(&other, &queue, &held, Disposition::DeadLetter { reason: "never".into() })
            .await
            .expect("a live lease");
        let sleeper = sleeper(t, &backend, &queue).await;
        let redrive = DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate };
        assert_eq!(other.dead_letters(&queue, redrive).await.expect("an answer").affected, 1);
        // At a rate, the first comes at once or after its share of a second.
        let due = Instant::now() + if rate.is_some() { t.units(2) } else { Duration::ZERO };
        let task = sleeper.woken(t, due, &format!("a letter that is redriven at {rate:?}")).await;
        t.complete(&backend, &queue, &[task]).await;
    }
}

pub async fn live_2_a_sleeper_wakes_when_its_queue_is_resumed(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("resumed"));
    for due in [Duration::ZERO, t.units(1)] {
        other.administer(&queue, AdminOp::Pause).await.expect("a pause");
        t.put(&other, &queue, NewTask::new(due, "x")).await;
        let ready = Instant::now() + due;
        let sleeper = sleeper(t, &backend, &queue).await;
        other.administer(&queue, AdminOp::Resume).await.expect("a resumption");
        let task = sleeper.woken(t, ready.max(Instant::now()), "a queue that is resumed").await;
        t.complete(&backend, &queue, &[task]).await;
    }
}

pub async fn live_2_a_sleeper_wakes_for_a_replacement(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("replaced"));
    let named = |due: Duration, payload: &'static str| NewTask::new(due, payload).id(t.id("anna"));
    t.put(&other, &queue, named(FAR, "old")).await;
    let sleeper = sleeper(t, &backend, &queue).await;
    t.put(&other, &queue, named(t.units(1), "new").replace()).await;
    let task = sleeper.woken(t, Instant::now() + t.units(1), "a replacement").await;
    assert_eq!(&task.payload[..], b"new");
    t.complete(&backend, &queue, &[task]).await;
}

pub async fn live_2_every_sleeper_gets_its_task(t: &Trial) {
    const SLEEPERS: usize = 8;
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("many"));
    for round in 0..t.size(10, 3) {
        let mut sleepers = Vec::new();
        for i in 0..SLEEPERS {
            sleepers.push(sleeper(t, if i % 2 == 0 { &backend } else { &other }, &queue).await);
        }
        // In one call, or one by one: neither wakes too few.
        let tasks = (0..SLEEPERS).map(|i| NewTask::new(Due::NOW, format!("{i}")));
        if round % 2 == 0 {
            t.put_all(&backend, &queue, tasks).await;
        } else {
            for task in tasks {
                t.put(&backend, &queue, task).await;
            }
        }
        let due = Instant::now();
        for sleeper in sleepers {
            let task = sleeper.woken(t, due, "one of several tasks").await;
            t.complete(&backend, &queue, &[task]).await;
        }
    }
    t.drain(&backend, &queue, 0).await;
}

pub async fn live_2_a_sleeper_that_is_dropped_takes_no_wake_up_along(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("dropped"));
    for _ in 0..t.size(30, 5) {
        let (leaves, stays) = (sleeper(t, &backend, &queue).await, sleeper(t, &backend, &queue).await);
        t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await;
        let due = Instant::now();
        leaves.0.abort();
        match leaves.0.await {
            // It was the faster one.
            Ok((task, _)) => {
                t.complete(&backend, &queue, &[task]).await;
                stays.0.abort();
                // Ended either way.
                let _ = stays.0.await;
            }
            Err(_) => {
                let task = stays.woken(t, due, "a task that one who was dropped had been woken for").await;
                t.complete(&backend, &queue, &[task]).await;
            }
        }
    }
    t.drain(&backend, &queue, 0).await;
}

pub async fn live_2_no_wake_up_is_lost_in_a_storm_of_them(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("storm"));
    let mut rng = t.rng();
    let span_ms = t.units(4).as_millis() as u64;
    let n = t.size(600, 200);
    let stop = CancellationToken::new();
    let (tell, mut told) = mpsc::channel(n);
    let mut consumers = Vec::new();
    for client in [&backend, &other, &other] {
        let queue = Queue::<u32>::new(client.clone(), &queue).expect("a queue");
        consumers.push(tokio::spawn(consume(queue, t.harness().clone(), tell.clone(), stop.clone())));
    }
    let typed = Queue::<u32>::new(other.clone(), &queue).expect("a queue");
    for i in 0..n as u32 {
        let mut random = || Duration::from_millis(rng.u64(0..span_ms));
        let task = typed.schedule(&i).after(random()).await.expect("a task that is accepted");
        if Need::Reschedule.is_met(t.caps()) && i % 3 == 0 {
            // Some have been claimed by now, which is as well.
            typed.move_to(&task, random()).await.expect("an answer to a change");
        }
        if rng.u8(0..4) == 0 {
            sleep(Duration::from_millis(rng.u64(0..span_ms / 8))).await;
        }
    }
    let mut came = HashSet::new();
    while came.len() < n {
        let next = timeout(t.patience(), told.recv()).await;
        let (number, late) = next.unwrap_or_else(|_| panic!("only {} of {n} came", came.len())).expect("a consumer");
        assert!(late <= promptly(t), "task {number} came {late:?} late");
        assert!(came.insert(number), "task {number} came twice");
    }
    stop.cancel();
    for consumer in consumers {
        consumer.await.expect("a consumer that does not panic");
    }
    t.drain(&backend, &queue, 0).await;
}

/// Completes what comes, until told to stop; tells how late each was.
async fn consume(
    queue: Queue<u32>,
    harness: Arc<dyn crate::Harness>,
    tell: mpsc::Sender<(u32, Duration)>,
    stop: CancellationToken,
) {
    let mut consumer = queue.consumer().open().await.expect("a consumer");
    loop {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery.expect("a task"),
            () = stop.cancelled() => return,
        };
        let came = (*delivery.payload(), harness.wall().saturating_since(delivery.due_at()));
        delivery.complete().await.expect("a live lease");
        tell.send(came).await.expect("the test listens");
    }
}

pub async fn live_3_consumers_go_on_unaided_when_a_fault_has_healed(t: &Trial) {
    for (name, fault) in [("cut", Fault::Disconnect), ("stalled", Fault::Stall(Duration::from_secs(3)))] {
        let (backend, other) = (t.backend(), t.another().await);
        let queue = Queue::<u32>::new(backend, t.queue(name)).expect("a queue");
        let mut consumer = queue.consumer().open().await.expect("a consumer");
        let waiting = tokio::spawn(async move {
            let delivery = consumer.next().await?;
            delivery.complete().await
        });
        if !t.inject(fault).await {
            waiting.abort();
            return;
        }
        // By one who did not notice, or has noticed and tries again: with an id of one's own, that makes no second task.
        let one = || vec![NewTask::new(Due::NOW, "1").id(t.id("one"))];
        while let Err(e) = other.schedule(queue.name(), one()).await.and_then(|mut items| items.remove(0)) {
            assert!(e.retryable(), "{fault:?}: {e}");
            sleep(Duration::from_millis(50)).await;
        }
        // A claim that hangs is given up after 30 s, and the tries stand at most 5 s apart.
        let done = timeout(t.patience(), waiting).await.unwrap_or_else(|_| panic!("nobody went on after {fault:?}"));
        done.expect("a consumer that does not panic").unwrap_or_else(|e| panic!("after {fault:?}: {e}"));
    }
}

pub async fn live_4_a_notification_between_claim_and_wait_is_not_lost(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("between"));
    let mut holder = t.subscribe(&other, &queue).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    for round in 0..t.size(20, 3) {
        if round == 1 {
            t.put(&backend, &queue, NewTask::new(FAR, "far")).await;
        }
        assert!(t.claim(&mut subscription, 1).await.is_empty());
        t.put(&other, &queue, NewTask::new(Due::NOW, "new")).await;
        notified(t, &backend, &queue, &mut subscription, "a new task").await;

        t.put(&other, &queue, NewTask::new(Due::NOW, "held")).await;
        let held = t.take(&mut holder, 1).await.pop().expect("a task that is due");
        assert!(t.claim(&mut subscription, 1).await.is_empty());
        t.settle(&other, &queue, &held, Disposition::Release).await.expect("a live lease");
        notified(t, &backend, &queue, &mut subscription, "a task that was given back").await;
    }
    if Need::Reschedule.is_met(t.caps()) {
        let task: TaskRef = t.put(&other, &queue, NewTask::new(FAR, "moved")).await.into();
        assert!(t.claim(&mut subscription, 1).await.is_empty());
        change_one(&other, &queue, task, Change::move_to(Due::NOW)).await;
        notified(t, &backend, &queue, &mut subscription, "a task that was moved").await;
    }
    if Need::Pause.is_met(t.caps()) {
        other.administer(&queue, AdminOp::Pause).await.expect("a pause");
        t.put(&other, &queue, NewTask::new(Due::NOW, "paused")).await;
        assert!(t.claim(&mut subscription, 1).await.is_empty());
        other.administer(&queue, AdminOp::Resume).await.expect("a resumption");
        notified(t, &backend, &queue, &mut subscription, "a queue that was resumed").await;
    }
}

/// Checks that a wait returns promptly for what came since the last claim, and that it is there.
async fn notified(
    t: &Trial,
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    subscription: &mut Box<dyn Subscription>,
    what: &str,
) {
    let began = Instant::now();
    while began.elapsed() < t.patience() {
        subscription.wait(FAR.min(t.patience())).await;
        assert!(began.elapsed() <= promptly(t), "the wait slept for {:?} through {what}", began.elapsed());
        let taken = t.claim(subscription, 1).await;
        if !taken.is_empty() {
            t.complete(backend, queue, &taken).await;
            return;
        }
    }
    panic!("{what} was never seen");
}
