//! DUP: one live lease, and every redelivery has a cause. DUP-1, -2, -3 and -5; the others are in `dup_stale`, `dup_ids`,
//! `dup_extend` and `dup_attempts`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Attempts, Claim, ClaimedTask, Disposition, Due, ErrorKind, LeaseHold, NewTask, TaskId};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::crew::{
    Goal, Hand, assert_lost, assert_stale, dead_letter, every_disposition, ids, retry, sorted, until_reached,
};
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

/// Many consumers on few tasks with short leases, over two clients: some die, some give back, some fail.
pub async fn dup_1_one_live_lease_at_a_time(t: &Trial) {
    let (backend, queue, mut rng) = (t.backend(), t.queue("few"), t.rng());
    let (tasks, claims_each) = (6, t.size(150, 40));
    let plenty = Attempts::new(10_000).unwrap();
    t.put_all(&backend, &queue, (0..tasks).map(|i| NewTask::new(Due::NOW, format!("{i}")).attempts_max(plenty))).await;
    let (goal, holders) = (Goal::new(tasks), Arc::new(Mutex::new(Holders::default())));
    let clients = [backend.clone(), t.another().await];
    let mut hands = JoinSet::new();
    for number in 0..8 {
        // The shortest may end before its answer is there.
        let lease = (t.units(1) / [1, 2, 10, 50][number % 4]).max(Duration::from_millis(1));
        let backend = clients[number % 2].clone();
        let hand = Hand { backend, queue: queue.clone(), goal: goal.clone(), lease, max: 1 + number % 3 };
        let (mut rng, holders, pause) = (rng.fork(), holders.clone(), t.units(1) / 20);
        hands.spawn(hand.work(move |task, asked| {
            let mut holders = holders.lock();
            let claims = holders.claimed(task, asked + lease);
            let disposition = match rng.u8(0..10) {
                _ if claims >= claims_each => Some(Disposition::Complete),
                0..3 => None,
                3..6 => Some(Disposition::Release),
                6 | 7 => Some(retry(pause * rng.u32(0..3))),
                _ => Some(Disposition::Snooze { after: pause * rng.u32(0..3) }),
            };
            if disposition.is_some() {
                holders.gives_up(task);
            }
            disposition
        }));
    }
    let ended = until_reached(t, &goal, hands).await;
    assert_eq!(ended.iter().flatten().count(), tasks, "each was completed once");
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// Who holds which task, as far as it is certain.
#[derive(Debug, Default)]
struct Holders(HashMap<TaskId, Held>);

#[derive(Debug)]
struct Held {
    claims: usize,
    /// Of the last claim that was heard of.
    fence: u64,
    /// Its lease does not end before this, unless it was given up.
    until: Option<Instant>,
}

impl Holders {
    /// Notes a claim, and answers how many the task has had.
    fn claimed(&mut self, task: &ClaimedTask, until: Instant) -> usize {
        let (id, fence) = (&task.lease.id, task.lease.fence);
        let held = self.0.entry(id.clone()).or_insert(Held { claims: 0, fence: 0, until: None });
        held.claims += 1;
        assert_ne!(held.fence, fence, "{id} was delivered twice under one fence");
        // What comes with a lower fence was claimed before, and is only heard of later.
        if held.fence < fence {
            let live = held.until.is_some_and(|until| Instant::now() < until);
            assert!(!live, "{id} was claimed under fence {fence} while the lease of fence {} was live", held.fence);
            (held.fence, held.until) = (fence, Some(until));
        }
        held.claims
    }

    fn gives_up(&mut self, task: &ClaimedTask) {
        if let Some(held) = self.0.get_mut(&task.lease.id)
            && held.fence == task.lease.fence
        {
            held.until = None;
        }
    }
}

/// Everything that is due at once goes to one consumer or another, and to one of them only.
pub async fn dup_1_a_herd_is_delivered_once(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("herd"));
    let herd = t.size(5_000, 2_000);
    let accepted = t.put_all(&backend, &queue, (0..herd).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut takers = JoinSet::new();
    for number in 0..6_usize {
        let client = if number.is_multiple_of(2) { t.another().await } else { backend.clone() };
        let mut subscription = t.subscribe(&client, &queue).await;
        let claim = Claim::new(37, LONG_LEASE.min(t.caps().lease_max));
        takers.spawn(async move {
            let mut taken = Vec::new();
            loop {
                let claimed = subscription.claim(claim).await.expect("a claim");
                // A claim may bring fewer than are due, and says so.
                if claimed.deliveries.is_empty() && claimed.next_due_in != Some(Duration::ZERO) {
                    return taken;
                }
                taken.extend(claimed.deliveries);
                tokio::task::yield_now().await;
            }
        });
    }
    let mut taken: Vec<_> = takers.join_all().await.into_iter().flatten().collect();
    // A store that brings less at once than is due may have left some.
    let mut subscription = t.subscribe(&backend, &queue).await;
    taken.extend(t.take(&mut subscription, herd.saturating_sub(taken.len())).await);
    assert_eq!(ids(&taken), sorted(accepted.into_iter().map(|task| task.task.id)));
    assert!(t.take_within(&mut subscription, 1, LONG_LEASE, t.units(1)).await.is_empty());
    t.complete(&backend, &queue, &taken).await;
}

/// What has a cause comes again, with its attempt counted as it should be; what has none does not.
pub async fn dup_2_a_task_comes_again_only_for_a_cause(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("causes"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let task = |key: &str| NewTask::new(Due::NOW, key.to_owned()).id(t.id(key));
    let mut again = Vec::new();
    t.put(&backend, &queue, task("left alone")).await;
    assert_eq!(t.take_within(&mut subscription, 1, t.units(1), t.patience()).await.len(), 1);
    let others = ["kept", "completed", "buried", "retried", "snoozed", "released"];
    t.put_all(&backend, &queue, others.map(task)).await;
    let mut held = HashMap::new();
    while held.len() < others.len() {
        let task = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
        match task.lease.id.to_text().into_owned() {
            // On a slow machine its lease has ended by now.
            key if key == "left alone" => again.push(task),
            key => drop(held.insert(key, task)),
        }
    }
    for (key, disposition) in [
        ("completed", Disposition::Complete),
        ("buried", dead_letter("never again")),
        ("retried", retry(t.units(1))),
        ("snoozed", Disposition::Snooze { after: t.units(1) }),
        ("released", Disposition::Release),
    ] {
        t.settle(&backend, &queue, &held[key], disposition).await.unwrap();
    }
    again.extend(t.take_within(&mut subscription, 10, LONG_LEASE, t.units(6)).await);
    let mut came: Vec<_> =
        again.iter().map(|task| (task.lease.id.to_text().into_owned(), task.lease.attempt)).collect();
    came.sort_unstable();
    let with_cause = [("left alone", 2), ("released", 1), ("retried", 2), ("snoozed", 1)];
    assert_eq!(came, with_cause.map(|(key, attempt)| (key.to_owned(), attempt)));
    t.complete(&backend, &queue, &again).await;
    t.complete(&backend, &queue, &[held.remove("kept").unwrap()]).await;
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// A delay that is longer than a lease is no reason to run a task again and again (kombu#337).
pub async fn dup_2_a_delay_longer_than_a_lease_is_waited_for_once(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("long-delay"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let (lease, delay) = (t.units(1), t.units(5));
    t.put_all(&backend, &queue, (0..10).map(|i| NewTask::new(delay, format!("{i}")))).await;
    for (round, disposition) in
        [(1, retry(delay)), (2, Disposition::Snooze { after: delay }), (2, Disposition::Complete)]
    {
        let asked = Instant::now();
        let taken = t.take_within(&mut subscription, 10, LONG_LEASE, t.patience()).await;
        assert_eq!(taken.len(), 10);
        assert!(taken.iter().all(|task| task.lease.attempt == round), "attempt {round}: {taken:?}");
        assert!(asked.elapsed() < t.patience());
        let settling = Instant::now();
        let dispositions = taken.iter().map(|task| (task.lease.clone(), disposition.clone())).collect();
        let answers = backend.settle(&queue, dispositions).await.expect("an answer to settle");
        answers.into_iter().for_each(|answer| answer.expect("a lease that can be settled"));
        // Longer than a lease; on a busy machine less of the delay may be left.
        let left = (delay - t.units(1)).saturating_sub(settling.elapsed());
        let early = t.take_within(&mut subscription, 1, lease, t.units(2).min(left)).await;
        assert!(early.is_empty() || settling.elapsed() >= delay, "{early:?} came before its delay was over");
        for task in &early {
            t.settle(&backend, &queue, task, Disposition::Release).await.expect("a release");
        }
    }
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

pub async fn dup_3_a_completed_task_never_comes_back(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("completed"));
    let n = 40;
    t.put_all(&backend, &queue, (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    // Before the leases begin: connecting takes its time.
    let mut other = t.subscribe(&t.another().await, &queue).await;
    let taken = t.take_within(&mut subscription, n, t.units(1), t.patience()).await;
    t.complete(&backend, &queue, &taken).await;
    // Through the end of the leases that they were under, for who was there and who comes later.
    let again = t.take_within(&mut other, 1, LONG_LEASE, t.units(3)).await;
    assert!(again.is_empty(), "{again:?} came again after it was completed");
    drop((subscription, other));
    assert!(t.drain(&t.another().await, &queue, 0).await.is_empty());
    if Need::Inspect.is_met(t.caps()) {
        assert!(backend.find(&queue, &taken[0].lease.id).await.unwrap().is_none());
    }
}

/// A disposition or an extension that comes after the completion does not bring the task back.
pub async fn dup_3_a_late_retry_does_not_resurrect_a_completed_task(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("late"));
    t.put_all(&backend, &queue, (0..10).map(|i| NewTask::new(Due::NOW, format!("{i}")).id(t.id(format!("{i}"))))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let taken = t.take_within(&mut subscription, 10, t.units(2), t.patience()).await;
    t.complete(&backend, &queue, &taken).await;
    for task in &taken[..5] {
        assert_stale(t, &backend, &queue, &task.lease).await;
    }
    // Also after the lease would have ended.
    sleep(t.units(3)).await;
    for task in &taken {
        assert_stale(t, &backend, &queue, &task.lease).await;
    }
    let again = t.take_within(&mut subscription, 1, LONG_LEASE, t.units(2)).await;
    assert!(again.is_empty(), "{again:?} came back after it was completed");
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// Completions at the very end of their leases, while another consumer claims: each task is completed or comes again, and never
/// both.
pub async fn dup_3_a_completion_at_the_end_of_its_lease_counts_or_is_refused(t: &Trial) {
    let (backend, queue, mut rng) = (t.backend(), t.queue("end"), t.rng());
    for round in 0..t.size(60, 10) {
        let n = 20;
        t.put_all(&backend, &queue, (0..n).map(|i| NewTask::new(Due::NOW, format!("{round}/{i}")))).await;
        let mut slow = t.subscribe(&backend, &queue).await;
        let lease = t.units(1) / 2;
        let held = t.take_within(&mut slow, n, lease, t.patience()).await;
        let ends = Instant::now() + lease;
        let mut claiming = t.subscribe(&t.another().await, &queue).await;
        let claim = Claim::new(n, LONG_LEASE.min(t.caps().lease_max));
        let other = tokio::spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..n {
                tokio::time::sleep_until(ends).await;
                taken.extend(claiming.claim(claim).await.expect("a claim").deliveries);
                tokio::task::yield_now().await;
            }
            taken
        });
        tokio::time::sleep_until(ends).await;
        let mut completed = Vec::new();
        for task in held {
            for _ in 0..rng.u8(0..3) {
                tokio::task::yield_now().await;
            }
            match t.settle(&backend, &queue, &task, Disposition::Complete).await {
                Ok(()) => completed.push(task.lease.id),
                late => assert_lost(&late, "a completion"),
            }
        }
        let again = other.await.expect("the other consumer");
        for task in &again {
            assert!(!completed.contains(&task.lease.id), "{} was completed, and claimed again", task.lease.id);
        }
        t.complete(&backend, &queue, &again).await;
        let rest = t.drain(&backend, &queue, n - completed.len() - again.len()).await;
        assert_eq!(completed.len() + again.len() + rest.len(), n, "each was completed once");
    }
}

/// Nobody has claimed the task since, so the disposition of who held it counts.
pub async fn dup_5_a_lease_that_has_ended_still_settles(t: &Trial) {
    if t.caps().lease_hold != LeaseHold::Store {
        return the_end_is_final(t).await;
    }
    let (backend, queue) = (t.backend(), t.queue("settles"));
    let dispositions = every_disposition();
    t.put_all(&backend, &queue, (0..dispositions.len()).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let taken = t.take_within(&mut subscription, dispositions.len(), t.units(1), t.patience()).await;
    sleep(t.units(2)).await;
    let mut expected = Vec::new();
    for (task, disposition) in taken.iter().zip(dispositions) {
        let answer = t.settle(&backend, &queue, task, disposition.clone()).await;
        answer.unwrap_or_else(|e| panic!("{disposition:?} after the end of the lease, which nobody took over: {e}"));
        match disposition {
            Disposition::Retry { .. } => expected.push((task.lease.id.clone(), 2)),
            Disposition::Snooze { .. } | Disposition::Release => expected.push((task.lease.id.clone(), 1)),
            Disposition::Complete | Disposition::DeadLetter { .. } => {}
            _ => unreachable!("one that the suite does not know"),
        }
    }
    let again = t.drain(&backend, &queue, 3).await;
    let mut came: Vec<_> = again.into_iter().map(|task| (task.lease.id, task.lease.attempt)).collect();
    came.sort_unstable();
    expected.sort_unstable();
    assert_eq!(came, expected);
}

/// It is extended as well, and is live again then.
pub async fn dup_5_a_lease_that_has_ended_still_extends(t: &Trial) {
    if t.caps().lease_hold != LeaseHold::Store {
        return the_end_is_final(t).await;
    }
    let (backend, queue) = (t.backend(), t.queue("extends"));
    let n = 10;
    t.put_all(&backend, &queue, (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let taken = t.take_within(&mut subscription, n, t.units(1), t.patience()).await;
    sleep(t.units(2)).await;
    let leases: Vec<_> = taken.iter().map(|task| task.lease.clone()).collect();
    let extended = backend.extend(&queue, leases.clone(), LONG_LEASE.min(t.caps().lease_max)).await.unwrap();
    for (lease, extended) in leases.iter().zip(extended) {
        let extended = extended.expect("a lease that nobody took over");
        assert_eq!((&extended.id, extended.fence, extended.attempt), (&lease.id, lease.fence, lease.attempt));
    }
    let again = t.take_within(&mut subscription, 1, LONG_LEASE, t.units(2)).await;
    assert!(again.is_empty(), "{again:?} came though its lease was extended");
    t.complete(&backend, &queue, &taken).await;
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// DUP-16: where a connection holds the leases, one that has ended neither settles nor extends, and its task comes again with
/// the attempt counted.
async fn the_end_is_final(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("final"));
    let dispositions = every_disposition();
    t.put_all(&backend, &queue, (0..dispositions.len()).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let taken = t.take_within(&mut subscription, dispositions.len(), t.units(1), t.patience()).await;
    sleep(t.units(2)).await;
    if Need::Extend.is_met(t.caps()) {
        let leases = taken.iter().map(|task| task.lease.clone()).collect();
        for late in backend.extend(&queue, leases, LONG_LEASE.min(t.caps().lease_max)).await.unwrap() {
            assert_lost(&late, "an extension");
        }
    }
    for (task, disposition) in taken.iter().zip(dispositions) {
        assert_lost(&t.settle(&backend, &queue, task, disposition).await, "a disposition");
    }
    let again = t.drain(&backend, &queue, taken.len()).await;
    assert_eq!(ids(&again), ids(&taken));
    assert!(again.iter().all(|task| task.lease.attempt == 2), "DUP-12: {again:?}");
}

/// A disposition that is refused for its delay leaves an ended lease as it was, too.
pub async fn dup_5_a_refused_disposition_leaves_the_lease_as_it_was(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("refused"));
    t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    // One that has ended, where that is not final.
    let stored = t.caps().lease_hold == LeaseHold::Store;
    let lease = if stored { t.units(1) } else { LONG_LEASE };
    let task = t.take_within(&mut subscription, 1, lease, t.patience()).await.remove(0);
    sleep(t.units(2)).await;
    let beyond = t.caps().delay_max + Duration::from_secs(1);
    for disposition in [retry(beyond), Disposition::Snooze { after: beyond }] {
        let refused = t.settle(&backend, &queue, &task, disposition).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::OutOfRange);
    }
    t.settle(&backend, &queue, &task, Disposition::Complete).await.unwrap();
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}
