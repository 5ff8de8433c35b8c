//! LOSS: an accepted task is delivered until it ends. LOSS-1 under load, and LOSS-2, -4 and -9; the others are in `loss_batch`
//! and `loss_dead`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use delayline_core::{
    Attempts, Bytes, ClaimedTask, DeadLetterOp, DeadLetterSelect, DelayBackend, Disposition, Due, Durability,
    LeaseHold, NewTask, Queue, QueueName, Raw, SubscriptionOptions,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::crew::{Goal, Hand, dead_letter, ids, letters, retry, sorted, until_reached};
use crate::harness::Fault;
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

/// Mixed delays, several producers and consumers over two clients of one store.
pub async fn loss_1_everything_accepted_is_delivered(t: &Trial) {
    let (queue, mut rng) = (t.queue("mixed"), t.rng());
    let (producers, batches) = (4, t.size(40, 10));
    let clients = [t.backend(), t.another().await];
    let mut plans: Vec<Vec<Vec<NewTask>>> = Vec::new();
    for producer in 0..producers {
        plans.push((0..batches).map(|batch| mixed_batch(t, &mut rng, producer * batches + batch)).collect());
    }
    let goal = Goal::new(plans.iter().flatten().map(Vec::len).sum());
    let mut hands = JoinSet::new();
    for number in 0..6 {
        let (backend, queue) = (clients[number % 2].clone(), queue.clone());
        let hand = Hand { backend, queue, goal: goal.clone(), lease: LONG_LEASE, max: 1 + 5 * number };
        hands.spawn(hand.work(|_, _| Some(Disposition::Complete)));
    }
    let mut producing = JoinSet::new();
    for (number, plan) in plans.into_iter().enumerate() {
        producing.spawn(produce(clients[number % 2].clone(), queue.clone(), plan));
    }
    let accepted = sorted(producing.join_all().await.into_iter().flatten());
    let ended = until_reached(t, &goal, hands).await;
    assert_eq!(ids(ended.iter().flatten()), accepted, "what ended is what was accepted");
    assert!(t.drain(&t.backend(), &queue, 0).await.is_empty(), "a task came again after it was completed");
}

/// Up to 20 tasks with delays from none to ten units, some of them on the wall clock or in the past.
fn mixed_batch(t: &Trial, rng: &mut fastrand::Rng, number: usize) -> Vec<NewTask> {
    let longest_us = t.units(10).as_micros() as u64;
    let (now, tasks) = (t.wall(), 1 + rng.usize(0..20));
    let mut task = |i| {
        let delay = Duration::from_micros(rng.u64(0..longest_us));
        let due = match rng.u8(0..4) {
            0 => Due::NOW,
            1 => Due::At(now.saturating_add(delay)),
            2 => Due::At(now.saturating_sub(delay)),
            _ => Due::After(delay),
        };
        NewTask::new(due, format!("{number}/{i}"))
    };
    (0..tasks).map(&mut task).collect()
}

async fn produce(
    backend: Arc<dyn DelayBackend>,
    queue: QueueName,
    batches: Vec<Vec<NewTask>>,
) -> Vec<delayline_core::TaskId> {
    let mut accepted = Vec::new();
    for batch in batches {
        let answers = backend.schedule(&queue, batch).await.expect("an answer to schedule");
        accepted.extend(answers.into_iter().map(|answer| answer.expect("a task that is accepted").task.id));
        tokio::task::yield_now().await;
    }
    accepted
}

/// What brought other queues to their knees: everything due at one instant, with consumers that wait for it.
pub async fn loss_1_a_herd_due_at_one_instant_is_delivered_whole(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("herd"));
    let herd = t.size(30_000, 3_000);
    let goal = Goal::new(herd);
    let mut hands = JoinSet::new();
    for client in [t.another().await, backend.clone(), backend.clone()] {
        let hand = Hand { backend: client, queue: queue.clone(), goal: goal.clone(), lease: LONG_LEASE, max: 500 };
        hands.spawn(hand.work(|_, _| Some(Disposition::Complete)));
    }
    let due = t.wall().saturating_add(t.units(2));
    let tasks = t.put_all(&backend, &queue, (0..herd).map(|i| NewTask::new(due, format!("{i}")))).await;
    let ended = until_reached(t, &goal, hands).await;
    assert_eq!(ids(ended.iter().flatten()), sorted(tasks.into_iter().map(|task| task.task.id)));
    assert!(t.drain(&backend, &queue, 0).await.is_empty(), "a task came again after it was completed");
}

/// Every attempt fails until none is left; then all are redriven, and succeed.
pub async fn loss_1_a_retry_storm_ends_in_the_dead_letters_and_a_redrive_brings_all_back(t: &Trial) {
    let (backend, queue, mut rng) = (t.backend(), t.queue("storm"), t.rng());
    let n = t.size(600, 150);
    let tasks = (0..n).map(|i| {
        let attempts = Attempts::new(1 + (i % 4) as u32).unwrap();
        NewTask::new(Due::NOW, format!("{i}")).attempts_max(attempts)
    });
    let accepted = sorted(t.put_all(&backend, &queue, tasks).await.into_iter().map(|task| task.task.id));
    let goal = Goal::new(n);
    let mut hands = JoinSet::new();
    for client in [backend.clone(), backend.clone(), t.another().await] {
        let mut rng = rng.fork();
        let longest_us = t.units(2).as_micros() as u64;
        let hand = Hand { backend: client, queue: queue.clone(), goal: goal.clone(), lease: LONG_LEASE, max: 10 };
        hands.spawn(hand.work(move |_, _| Some(retry(Duration::from_micros(rng.u64(0..longest_us))))));
    }
    until_reached(t, &goal, hands).await;
    let dead = letters(t, &backend, &queue, n).await;
    assert_eq!(sorted(dead.iter().map(|letter| letter.id.clone())), accepted, "the dead letters are all that failed");
    for letter in &dead {
        let number: u32 = std::str::from_utf8(&letter.payload).unwrap().parse().unwrap();
        assert_eq!(letter.attempts, 1 + number % 4, "{letter:?} was attempted as often as it might be");
    }
    let redrive = DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None };
    let redriven = backend.dead_letters(&queue, redrive).await.unwrap();
    assert_eq!((redriven.affected, redriven.kept), (n as u64, 0));
    assert_eq!(ids(&t.drain(&backend, &queue, n).await), accepted, "what was redriven comes");
}

/// Consumers that take leases and never settle: what they held comes again, to those that live.
pub async fn loss_1_what_dead_workers_held_is_delivered(t: &Trial) {
    let (backend, queue, mut rng) = (t.backend(), t.queue("deaths"), t.rng());
    let n = t.size(800, 150);
    let plenty = Attempts::new(1_000).unwrap();
    let tasks = (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}")).attempts_max(plenty));
    let accepted = sorted(t.put_all(&backend, &queue, tasks).await.into_iter().map(|task| task.task.id));
    let goal = Goal::new(n);
    let died = Arc::new(AtomicUsize::new(0));
    let mut hands = JoinSet::new();
    for client in [backend.clone(), backend.clone(), t.another().await, t.another().await] {
        let (mut rng, died) = (rng.fork(), died.clone());
        let hand = Hand { backend: client, queue: queue.clone(), goal: goal.clone(), lease: t.units(2), max: 7 };
        hands.spawn(hand.work(move |task, _| {
            let dies = task.lease.attempt < 4 && rng.bool();
            died.fetch_add(usize::from(dies), Ordering::Relaxed);
            (!dies).then_some(Disposition::Complete)
        }));
    }
    let ended = until_reached(t, &goal, hands).await;
    assert!(died.load(Ordering::Relaxed) > n / 4, "leases were left to end");
    assert_eq!(ids(ended.iter().flatten()), accepted);
    assert!(t.drain(&backend, &queue, 0).await.is_empty(), "a task came again after it was completed");
}

/// Each queue gets its own tasks and no other's, however many queues there are.
pub async fn loss_1_hundreds_of_queues_each_deliver_their_own(t: &Trial) {
    let backend = t.backend();
    let queues: Vec<QueueName> = (0..t.size(300, 40)).map(|i| t.queue(&format!("{i}"))).collect();
    let each = 3;
    for due in [Duration::ZERO, t.units(1), t.units(2)] {
        for queue in &queues {
            t.put(&backend, queue, NewTask::new(due, queue.as_str().to_owned())).await;
        }
    }
    for queue in &queues {
        let taken = t.drain(&backend, queue, each).await;
        assert_eq!(taken.len(), each, "{queue}");
        assert!(taken.iter().all(|task| task.payload == queue.as_str()), "{queue} delivered another queue's task");
    }
}

/// A task that stands before those that are being delivered is not passed over (a read cursor would have gone by).
pub async fn loss_1_what_comes_in_before_those_that_go_out_is_not_skipped(t: &Trial) {
    let (backend, queue, mut rng) = (t.backend(), t.queue("before"), t.rng());
    let mut subscription = t.subscribe(&backend, &queue).await;
    let now = t.wall();
    let past = |seconds| Due::At(now.saturating_sub(Duration::from_secs(seconds)));
    let mut accepted = t.put_all(&backend, &queue, (0..100).map(|i| NewTask::new(past(1_000 + i), "backlog"))).await;
    let mut taken = Vec::new();
    for _ in 0..30 {
        taken.extend(t.take(&mut subscription, 3).await);
        let earlier = NewTask::new(past(rng.u64(500..3_000)), "before");
        accepted.push(t.put(&backend, &queue, earlier).await);
    }
    t.complete(&backend, &queue, &taken).await;
    taken.extend(t.drain(&backend, &queue, accepted.len() - taken.len()).await);
    assert_eq!(ids(&taken), sorted(accepted.into_iter().map(|task| task.task.id)));
}

/// Tasks that are equal in everything are still tasks of their own.
pub async fn loss_1_equal_tasks_do_not_become_one(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("equal"));
    let due = t.wall().saturating_add(t.units(1));
    let accepted = t.put_all(&backend, &queue, (0..50).map(|_| NewTask::new(due, "the same"))).await;
    let accepted = sorted(accepted.into_iter().map(|task| task.task.id));
    assert!(accepted.windows(2).all(|pair| pair[0] != pair[1]), "each has an id of its own");
    assert_eq!(ids(&t.drain(&backend, &queue, 50).await), accepted);
}

/// Being tried again and again is no reason to be dropped: brokers take it for a cycle, or count to twenty.
pub async fn loss_1_a_task_is_not_dropped_for_being_tried_often(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("often"));
    let plenty = Attempts::new(1_000).unwrap();
    t.put_all(&backend, &queue, (0..3).map(|i| NewTask::new(Due::NOW, format!("{i}")).attempts_max(plenty))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    for round in 0..100 {
        let taken = t.take(&mut subscription, 3).await;
        assert_eq!(taken.len(), 3, "in round {round}");
        let disposition = [retry(Duration::ZERO), Disposition::Release, Disposition::Snooze { after: Duration::ZERO }]
            [round % 3]
            .clone();
        for task in &taken {
            t.settle(&backend, &queue, task, disposition.clone()).await.unwrap();
        }
    }
    assert_eq!(t.drain(&backend, &queue, 3).await.len(), 3);
}

pub async fn loss_2_a_lease_that_ends_makes_its_task_visible_again(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("ended"));
    t.put_all(&backend, &queue, (0..20).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    // One that waits from before the first lease, and so has to be told of its end by the claim.
    let mut waiting = t.subscribe(&t.another().await, &queue).await;
    let began = Instant::now();
    let mut leases = HashMap::new();
    // The longest first, so that none has ended before the last is taken.
    for units in [8, 7, 6, 5] {
        let mut dies = t.subscribe(&backend, &queue).await;
        let taken = t.take_within(&mut dies, 5, t.units(units), t.patience()).await;
        leases.extend(taken.into_iter().map(|task| (task.lease.id, t.units(units))));
    }
    for _ in 0..20 {
        let again = t.take_within(&mut waiting, 1, LONG_LEASE, t.patience()).await.pop();
        let again = again.expect("a task whose lease has ended");
        let (lease, caps) = (leases[&again.lease.id], t.caps());
        assert!(began.elapsed() + caps.resolution >= lease, "{again:?} came before its lease of {lease:?} ended");
        let late = began.elapsed().saturating_sub(lease);
        assert!(!t.is_virtual() || late <= caps.resolution + caps.lateness, "{late:?} after the end of a lease");
        assert_eq!(again.lease.attempt, 2);
        t.complete(&backend, &queue, &[again]).await;
    }
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// Whoever opens a subscription after the end finds the task, though nobody was there to notice it.
pub async fn loss_2_nobody_needs_to_notice_the_end_of_a_lease(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("unnoticed"));
    let accepted = t.put_all(&backend, &queue, (0..30).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    assert_eq!(t.take_within(&mut subscription, 30, t.units(1), t.patience()).await.len(), 30);
    drop(subscription);
    sleep(t.units(2)).await;
    let again = t.drain(&t.another().await, &queue, 30).await;
    assert_eq!(ids(&again), sorted(accepted.into_iter().map(|task| task.task.id)));
}

/// What survives the end of every client, as the backend declares.
pub async fn loss_4_tasks_survive_the_end_of_all_clients_as_declared(t: &Trial) {
    let (first, queue) = (t.another().await, t.queue("ends"));
    let lease = t.units(2);
    let accepted = one_of_each(t, &first, &queue, lease).await;
    first.close().await.unwrap();
    t.backend().close().await.unwrap();
    if t.caps().durability > Durability::Process {
        return all_still_there(t, &queue, accepted).await;
    }
    // Nothing of the store is left: another one is empty.
    let fresh = t.harness().open().await.unwrap();
    let mut subscription = t.subscribe(&fresh, &queue).await;
    assert!(
        t.take_within(&mut subscription, 1, lease, t.units(8)).await.is_empty(),
        "a task of a store that was closed"
    );
    if Need::DeadLetters.is_met(t.caps()) {
        assert!(letters(t, &fresh, &queue, 0).await.is_empty(), "a dead letter of a store that was closed");
    }
    fresh.close().await.unwrap();
}

/// What was accepted survives a server that is killed, where the backend declares it.
pub async fn loss_4_what_is_on_disk_survives_a_kill(t: &Trial) {
    if t.caps().durability < Durability::Disk {
        return t.untested("the backend does not declare that a task survives a crash of its server");
    }
    let (backend, queue) = (t.another().await, t.queue("killed"));
    let accepted = one_of_each(t, &backend, &queue, t.units(2)).await;
    if t.inject(Fault::Kill).await {
        all_still_there(t, &queue, accepted).await;
    }
}

/// A task that waits, one that is due, one under a lease that nobody will settle, and a dead letter.
async fn one_of_each(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName, lease: Duration) -> Vec<NewTask> {
    let task = |key: &str, due: Duration| NewTask::new(due, key.to_owned()).id(t.id(key));
    let mut subscription = t.subscribe(backend, queue).await;
    t.put(backend, queue, task("dead", Duration::ZERO)).await;
    let dead = t.take(&mut subscription, 1).await.remove(0);
    t.settle(backend, queue, &dead, dead_letter("it was hopeless")).await.unwrap();
    t.put(backend, queue, task("in flight", Duration::ZERO)).await;
    assert_eq!(t.take_within(&mut subscription, 1, lease, t.patience()).await.len(), 1);
    let waiting = [task("due", Duration::ZERO), task("scheduled", t.units(6))];
    t.put_all(backend, queue, waiting.clone()).await;
    [task("in flight", Duration::ZERO)].into_iter().chain(waiting).collect()
}

async fn all_still_there(t: &Trial, queue: &QueueName, accepted: Vec<NewTask>) {
    let backend = t.another().await;
    let mut taken = t.drain(&backend, queue, accepted.len()).await;
    if t.caps().lease_hold == LeaseHold::Connection {
        // DUP-16: what was being handed over may come twice.
        let distinct = |taken: &[ClaimedTask]| ids(taken).windows(2).filter(|pair| pair[0] != pair[1]).count() + 1;
        while !taken.is_empty() && distinct(&taken) < accepted.len() {
            match t.drain(&backend, queue, 1).await {
                more if more.is_empty() => break,
                more => taken.extend(more),
            }
        }
    }
    let mut came = ids(&taken);
    if t.caps().lease_hold == LeaseHold::Connection {
        came.dedup();
    }
    assert_eq!(came, sorted(accepted.iter().filter_map(|task| task.id.clone())), "what was accepted comes");
    for task in &taken {
        assert_eq!(task.payload, task.lease.id.to_text().as_bytes(), "with its payload");
    }
    if Need::DeadLetters.is_met(t.caps()) {
        let dead = letters(t, &backend, queue, 1).await;
        assert!(matches!(dead.as_slice(), [one] if one.id == t.id("dead")), "the dead letter is there: {dead:?}");
    }
}

/// Leases outlive the subscription that gave them, and what it did not deliver goes to others.
pub async fn loss_9_a_subscription_that_ends_loses_nothing_and_its_leases_stay_valid(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("subscriptions"));
    t.put_all(&backend, &queue, (0..40).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut held = Vec::new();
    for closes in [true, false] {
        let mut subscription = t.subscribe(&t.another().await, &queue).await;
        held.extend(t.take(&mut subscription, 10).await);
        if closes {
            subscription.close().await.unwrap();
        }
    }
    // Nothing that is held comes to another, and what was not delivered does.
    let mut other = t.subscribe(&backend, &queue).await;
    let rest = t.take(&mut other, 20).await;
    assert_eq!((held.len(), rest.len()), (20, 20));
    assert!(
        t.take_within(&mut other, 1, LONG_LEASE, t.units(1)).await.is_empty(),
        "a lease ended with its subscription"
    );
    if Need::Extend.is_met(t.caps()) {
        let leases = held.iter().map(|task| task.lease.clone()).collect();
        for extended in backend.extend(&queue, leases, LONG_LEASE.min(t.caps().lease_max)).await.unwrap() {
            extended.expect("a lease whose subscription has ended");
        }
    }
    t.complete(&backend, &queue, &held).await;
    t.complete(&backend, &queue, &rest).await;
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// Consumers that have one name, as those of one host may: the end of one is not the end of another, nor of its leases.
pub async fn loss_9_subscriptions_of_one_name_hold_what_is_theirs(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("namesakes"));
    let mut options = SubscriptionOptions::default();
    options.consumer = Some("host-1".into());
    t.put_all(&backend, &queue, (0..20).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut dies = backend.subscribe(&queue, options.clone()).await.unwrap();
    let lost = t.take_within(&mut dies, 10, t.units(2), t.patience()).await;
    let mut lives = other.subscribe(&queue, options.clone()).await.unwrap();
    let held = t.take(&mut lives, 10).await;
    assert_eq!((lost.len(), held.len()), (10, 10));
    drop(dies);
    let mut third = backend.subscribe(&queue, options).await.unwrap();
    let again = t.take_within(&mut third, 20, LONG_LEASE, t.units(6)).await;
    assert_eq!(ids(&again), ids(&lost), "what the one that died held comes again, and nothing else");
    t.complete(&backend, &queue, &held).await;
    t.complete(&other, &queue, &again).await;
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// The same of a consumer and its deliveries.
pub async fn loss_9_a_consumer_that_ends_loses_nothing_and_its_deliveries_stay_valid(t: &Trial) {
    let backend = t.backend();
    let queue = Queue::<Bytes>::with_codec(backend.clone(), t.queue("consumers"), Raw).unwrap();
    t.put_all(&backend, queue.name(), (0..30).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut deliveries = Vec::new();
    for closes in [true, false] {
        let mut consumer = queue.consumer().lease(LONG_LEASE.min(t.caps().lease_max)).open().await.unwrap();
        for _ in 0..10 {
            deliveries.push(consumer.next().await.unwrap());
        }
        if closes {
            consumer.close().await.unwrap();
        }
    }
    let rest = t.drain(&backend, queue.name(), 10).await;
    assert_eq!(rest.len(), 10, "what no consumer held comes to others, and nothing else does");
    for delivery in deliveries {
        delivery.complete().await.expect("a delivery whose consumer has ended");
    }
    assert!(t.drain(&backend, queue.name(), 0).await.is_empty());
}
