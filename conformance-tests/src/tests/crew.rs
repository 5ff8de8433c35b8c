//! What workloads share: consumers in tasks of their own, and what they say of the tasks that they get.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use delayline_core::{
    CancellationToken, Claim, ClaimedTask, DeadLetter, DeadLetterOp, DelayBackend, Disposition, Error, ErrorKind,
    Lease, QueueName, Reason, Result, SubscriptionOptions, TaskId,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

/// How many tasks are to end before the consumers may.
#[derive(Debug)]
pub(crate) struct Goal {
    tasks: usize,
    ended: AtomicUsize,
    reached: CancellationToken,
}

impl Goal {
    pub(crate) fn new(tasks: usize) -> Arc<Self> {
        Arc::new(Self { tasks, ended: AtomicUsize::new(0), reached: CancellationToken::new() })
    }

    fn one_more(&self) {
        if self.ended.fetch_add(1, Ordering::SeqCst) + 1 >= self.tasks {
            self.reached.cancel();
        }
    }
}

/// One consumer among several.
#[derive(Clone, Debug)]
pub(crate) struct Hand {
    pub(crate) backend: Arc<dyn DelayBackend>,
    pub(crate) queue: QueueName,
    pub(crate) goal: Arc<Goal>,
    /// How long its leases are. Under [`LONG_LEASE`] none may be lost; under a shorter one they may.
    pub(crate) lease: Duration,
    /// How many tasks it claims at once.
    pub(crate) max: usize,
}

impl Hand {
    /// Claims, waits and settles as `judge` says until the goal is reached, and answers the tasks that it ended. What has no
    /// disposition is left to the end of its lease, as by a consumer that died. The judge also learns when the claim was
    /// asked for: the lease has begun no earlier.
    pub(crate) async fn work(
        self,
        mut judge: impl FnMut(&ClaimedTask, Instant) -> Option<Disposition> + Send,
    ) -> Vec<ClaimedTask> {
        let mut subscription =
            self.backend.subscribe(&self.queue, SubscriptionOptions::default()).await.expect("a subscription");
        let (fallback_poll_interval, lease_max) =
            (self.backend.capabilities().fallback_poll_interval, self.backend.capabilities().lease_max);
        let mut ended = Vec::new();
        while !self.goal.reached.is_cancelled() {
            let asked = Instant::now();
            let claimed = subscription.claim(Claim::new(self.max, self.lease.min(lease_max))).await.expect("a claim");
            if claimed.deliveries.is_empty() {
                let at_most = claimed.next_due_in.unwrap_or(fallback_poll_interval).min(fallback_poll_interval);
                tokio::select! {
                    () = self.goal.reached.cancelled() => {}
                    () = subscription.wait(at_most) => {}
                }
                continue;
            }
            let mut judged = Vec::new();
            for task in claimed.deliveries {
                judged.extend(judge(&task, asked).map(|disposition| (task, disposition)));
            }
            self.settle(judged, &mut ended).await;
            // So that on one thread too, others get their turn while there is work.
            tokio::task::yield_now().await;
        }
        ended
    }

    async fn settle(&self, judged: Vec<(ClaimedTask, Disposition)>, ended: &mut Vec<ClaimedTask>) {
        let dispositions: Vec<_> =
            judged.iter().map(|(task, disposition)| (task.lease.clone(), disposition.clone())).collect();
        let answers = self.backend.settle(&self.queue, dispositions).await.expect("an answer to settle");
        assert_eq!(answers.len(), judged.len(), "one answer for each disposition");
        for ((task, disposition), answer) in judged.into_iter().zip(answers) {
            match answer {
                Ok(()) if ends(&task, &disposition) => {
                    self.goal.one_more();
                    ended.push(task);
                }
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::LeaseLost && self.lease < LONG_LEASE => {}
                Err(e) => panic!("{disposition:?} for {} under a lease of {:?}: {e}", task.lease.id, self.lease),
            }
        }
    }
}

/// Whether a task is gone from the queue after this disposition.
fn ends(task: &ClaimedTask, disposition: &Disposition) -> bool {
    match disposition {
        Disposition::Complete | Disposition::DeadLetter { .. } => true,
        Disposition::Retry { .. } => task.lease.attempt >= task.attempts_max,
        Disposition::Snooze { .. } | Disposition::Release => false,
        _ => unreachable!("one that the suite does not know"),
    }
}

/// What all of them answered, once the goal is reached.
///
/// # Panics
/// If one of them did, or if the trial's patience runs out first.
pub(crate) async fn until_reached<T: 'static>(t: &Trial, goal: &Goal, hands: JoinSet<T>) -> Vec<T> {
    match timeout(t.patience(), hands.join_all()).await {
        Ok(answers) => answers,
        Err(_) => {
            panic!("{} of {} tasks have ended after {:?}", goal.ended.load(Ordering::SeqCst), goal.tasks, t.patience())
        }
    }
}

/// Failed, again after this time.
pub(crate) fn retry(after: Duration) -> Disposition {
    Disposition::Retry { after, reason: Reason::new("once more") }
}

/// To the dead letters.
pub(crate) fn dead_letter(why: &str) -> Disposition {
    Disposition::DeadLetter { reason: Reason::new(why) }
}

/// One of every kind of disposition.
pub(crate) fn every_disposition() -> [Disposition; 5] {
    [
        Disposition::Complete,
        retry(Duration::ZERO),
        Disposition::Snooze { after: Duration::ZERO },
        dead_letter("it was stale"),
        Disposition::Release,
    ]
}

/// Checks that an answer is `LeaseLost`.
#[track_caller]
pub(crate) fn assert_lost<T: std::fmt::Debug>(answer: &Result<T>, what: &str) {
    let kind = answer.as_ref().map_err(Error::kind);
    assert!(matches!(kind, Err(ErrorKind::LeaseLost)), "{what} answered {answer:?}; the lease was lost");
}

/// Checks that a stale lease is refused with every disposition and by `extend`.
pub(crate) async fn assert_stale(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName, stale: &Lease) {
    for disposition in every_disposition() {
        let what = format!("{disposition:?}");
        let mut answers = backend.settle(queue, vec![(stale.clone(), disposition)]).await.expect("an answer to settle");
        assert_eq!(answers.len(), 1);
        assert_lost(&answers.remove(0), &what);
    }
    if Need::Extend.is_met(t.caps()) {
        let mut answers = backend.extend(queue, vec![stale.clone()], t.units(1)).await.expect("an answer to extend");
        assert_eq!(answers.len(), 1);
        assert_lost(&answers.remove(0), "extend");
    }
}

/// All dead letters of a queue, page by page, once there are `n` or more: those that are for the next claim to dead-letter
/// are given one.
pub(crate) async fn letters(
    t: &Trial,
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    n: usize,
) -> Vec<DeadLetter> {
    let there = all_letters(backend, queue, 100).await;
    if there.len() >= n {
        return there;
    }
    let mut subscription = t.subscribe(backend, queue).await;
    let taken = t.take_within(&mut subscription, 1, LONG_LEASE, t.units(3)).await;
    assert!(taken.is_empty(), "a task that is to be dead-lettered was delivered: {taken:?}");
    all_letters(backend, queue, 100).await
}

/// All dead letters of a queue, in pages of `limit`.
pub(crate) async fn all_letters(backend: &Arc<dyn DelayBackend>, queue: &QueueName, limit: usize) -> Vec<DeadLetter> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = backend.dead_letters(queue, DeadLetterOp::List { after, limit }).await.expect("a page of letters");
        assert!(page.letters.len() <= limit, "a page of {} letters; {limit} were asked for", page.letters.len());
        all.extend(page.letters);
        match page.next {
            None => return all,
            next => {
                assert!(next > after, "the next page does not begin further on: {next:?} after {after:?}");
                after = next;
            }
        }
    }
}

/// The ids of tasks, sorted.
pub(crate) fn ids<'a>(tasks: impl IntoIterator<Item = &'a ClaimedTask>) -> Vec<TaskId> {
    sorted(tasks.into_iter().map(|task| task.lease.id.clone()))
}

/// Ids in an order of their own.
pub(crate) fn sorted(ids: impl IntoIterator<Item = TaskId>) -> Vec<TaskId> {
    let mut ids: Vec<_> = ids.into_iter().collect();
    ids.sort_unstable();
    ids
}
