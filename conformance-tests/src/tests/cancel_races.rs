//! CANCEL, continued: changes that race claims and settlings. Whichever comes first, both answers agree.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    CancellationToken, Change, ChangeOutcome, Claim, ClaimedTask, DelayBackend, Disposition, Due, NewTask, QueueName,
    Subscription, TaskId, TaskRef,
};
use tokio::task::yield_now;

use super::cancel::change;
use crate::trial::{LONG_LEASE, Trial};

pub async fn cancel_1_a_cancel_and_a_claim_agree_on_who_was_first(t: &Trial) {
    let (backend, other) = (t.backend(), t.another().await);
    let mut rng = t.rng();
    for round in 0..t.size(20, 5) {
        let queue = t.queue(&format!("race-{round}"));
        let due = (0..t.size(150, 300)).map(|i| NewTask::new(Due::NOW, format!("{i}")));
        let mut tasks: Vec<TaskRef> = t.put_all(&backend, &queue, due).await.into_iter().map(TaskRef::from).collect();
        rng.shuffle(&mut tasks);
        let stop = CancellationToken::new();
        let claimer = Claimer {
            backend: backend.clone(),
            queue: queue.clone(),
            subscription: t.subscribe(&backend, &queue).await,
            rng: rng.fork(),
            stop: stop.clone(),
        };
        let claimer = tokio::spawn(claimer.run());
        let mut outcomes = HashMap::new();
        let mut left = tasks.as_slice();
        while !left.is_empty() {
            let (some, rest) = left.split_at(rng.usize(1..=3).min(left.len()));
            left = rest;
            let answers = change(&other, &queue, some.to_vec(), Change::cancel()).await;
            for (task, answer) in some.iter().zip(answers) {
                outcomes.insert(task.id.clone(), answer.expect("a definite answer"));
            }
            yield_now().await;
        }
        stop.cancel();
        let (completed, held) = claimer.await.expect("a claimer that does not panic");
        // What was cancelled in flight still settles, and what was not is still held.
        t.complete(&backend, &queue, &held).await;
        t.drain(&backend, &queue, 0).await;
        for task in &tasks {
            let had = |list: &[ClaimedTask]| list.iter().filter(|claimed| claimed.lease.id == task.id).count();
            let story = (outcomes[&task.id], had(&completed), had(&held));
            assert!(
                matches!(
                    story,
                    (ChangeOutcome::Changed, 0, 0)
                        | (ChangeOutcome::InFlight, 1, 0)
                        | (ChangeOutcome::InFlight, 0, 1)
                        | (ChangeOutcome::NotFound, 1, 0)
                ),
                "{}: (answer to the cancel, times completed, times held) is {story:?}",
                task.id
            );
        }
    }
}

/// One who claims while others cancel.
struct Claimer {
    backend: Arc<dyn DelayBackend>,
    queue: QueueName,
    subscription: Box<dyn Subscription>,
    rng: fastrand::Rng,
    stop: CancellationToken,
}

impl Claimer {
    /// Takes what is due until told to stop; completes about half of it, and keeps the rest.
    async fn run(mut self) -> (Vec<ClaimedTask>, Vec<ClaimedTask>) {
        let (mut completed, mut held) = (Vec::new(), Vec::new());
        let lease = LONG_LEASE.min(self.backend.capabilities().lease_max);
        while !self.stop.is_cancelled() {
            let claim = Claim::new(self.rng.usize(1..=3), lease);
            for task in self.subscription.claim(claim).await.expect("a claim").deliveries {
                if self.rng.bool() {
                    held.push(task);
                    continue;
                }
                let done = vec![(task.lease.clone(), Disposition::Complete)];
                let answers = self.backend.settle(&self.queue, done).await.expect("an answer to settle");
                assert!(matches!(answers.as_slice(), [Ok(())]), "a live lease, cancelled or not: {answers:?}");
                completed.push(task);
            }
            yield_now().await;
        }
        (completed, held)
    }
}

pub async fn cancel_1_a_move_and_a_settling_agree_on_who_was_first(t: &Trial) {
    let (backend, other, queue) = (t.backend(), t.another().await, t.queue("race"));
    let mut rng = t.rng();
    let due = (0..t.size(2_000, 500)).map(|i| NewTask::new(Due::NOW, format!("{i}")));
    let tasks = t.put_all(&backend, &queue, due).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut held = t.take(&mut subscription, tasks.len()).await;
    rng.shuffle(&mut held);
    let settler = tokio::spawn(settle_all(backend.clone(), queue.clone(), held, rng.fork()));
    let mut moved: HashMap<TaskId, ChangeOutcome> = HashMap::new();
    let mut refs: Vec<TaskRef> = tasks.into_iter().map(TaskRef::from).collect();
    rng.shuffle(&mut refs);
    for some in refs.chunks(4) {
        let answers = change(&other, &queue, some.to_vec(), Change::move_to(t.units(3))).await;
        let answers = answers.into_iter().map(|answer| answer.expect("a definite answer"));
        moved.extend(some.iter().map(|task| task.id.clone()).zip(answers));
        yield_now().await;
    }
    let completed = settler.await.expect("a settler that does not panic");
    for (id, outcome) in &moved {
        let possible = match completed[id] {
            true => [ChangeOutcome::InFlight, ChangeOutcome::NotFound].contains(outcome),
            false => [ChangeOutcome::InFlight, ChangeOutcome::Changed].contains(outcome),
        };
        assert!(possible, "{id}: completed is {}, and the move answered {outcome:?}", completed[id]);
    }
    // A move that came too late must not bring back what was completed.
    let came = t.drain(&backend, &queue, completed.values().filter(|done| !**done).count()).await;
    for task in &came {
        assert!(!completed[&task.lease.id], "{} was completed, and came again", task.lease.id);
    }
    tokio::time::sleep(t.units(4)).await;
    t.drain(&backend, &queue, 0).await;
}

/// Settles all, in one way or another; tells which were completed.
async fn settle_all(
    backend: Arc<dyn DelayBackend>,
    queue: QueueName,
    held: Vec<ClaimedTask>,
    mut rng: fastrand::Rng,
) -> HashMap<TaskId, bool> {
    let mut completed = HashMap::new();
    for some in held.chunks(4) {
        let dispositions: Vec<_> = some
            .iter()
            .map(|task| {
                let disposition = match rng.u8(0..6) {
                    0 => Disposition::Release,
                    1 => Disposition::Retry { after: Duration::ZERO, reason: "again".into() },
                    2 => Disposition::Snooze { after: Duration::ZERO },
                    _ => Disposition::Complete,
                };
                (task.lease.clone(), disposition)
            })
            .collect();
        completed.extend(
            dispositions.iter().map(|(lease, disposition)| (lease.id.clone(), *disposition == Disposition::Complete)),
        );
        for answer in backend.settle(&queue, dispositions).await.expect("an answer to settle") {
            answer.expect("a lease that no move can end");
        }
        yield_now().await;
    }
    completed
}
