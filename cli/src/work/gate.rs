//! A wrapper of the backend that limits claims by `--max` and records the state of the claim loop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use delayline::backend::{AdminOp, Claim, Claimed, DeadLetterOp, Subscription, SubscriptionOptions, async_trait};
use delayline::{
    Capabilities, Change, Changed, DeadLetters, DelayBackend, Disposition, Lease, NewTask, Page, QueueName, QueueStats,
    Result, Scheduled, Select, TaskId, TaskView,
};
use tokio::sync::watch;

use super::health::Loop;

/// The backend, with subscriptions that are [`Gated`].
pub(super) struct Gate {
    inner: Arc<dyn DelayBackend>,
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) claims: Loop,
    /// How many tasks may still be claimed.
    left: AtomicU64,
    /// Whether a claim without deliveries and without a next due time ends the worker.
    until_empty: bool,
    /// Whether the worker should end: the last claim was such a claim, or no more tasks may be claimed.
    empty: watch::Sender<bool>,
}

impl Gate {
    pub(super) fn new(inner: Arc<dyn DelayBackend>, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

impl Shared {
    pub(super) fn new(max: Option<u64>, until_empty: bool) -> Self {
        let left = AtomicU64::new(max.unwrap_or(u64::MAX));
        Self { claims: Loop::new(), left, until_empty, empty: watch::Sender::new(false) }
    }

    /// Returns when a claim has found the queue empty, or no more tasks may be claimed.
    pub(super) async fn nothing_left(&self) {
        // The sender lives as long as `self`.
        let _ = self.empty.subscribe().wait_for(|empty| *empty).await;
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for Gate {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.inner.schedule(queue, tasks).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        let inner = self.inner.subscribe(queue, options).await;
        if let Err(e) = &inner {
            self.shared.claims.claimed(Err(e));
        }
        let fallback_poll_interval = self.capabilities().fallback_poll_interval;
        Ok(Box::new(Gated { inner: inner?, shared: self.shared.clone(), fallback_poll_interval }))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        self.inner.settle(queue, dispositions).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.inner.extend(queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        self.inner.change(queue, select, change).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        self.inner.find(queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        self.inner.list(queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.inner.dead_letters(queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.inner.stats(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.inner.queues().await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.inner.administer(queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.inner).finish()
    }
}

struct Gated {
    inner: Box<dyn Subscription>,
    shared: Arc<Shared>,
    fallback_poll_interval: Duration,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Subscription for Gated {
    async fn claim(&mut self, mut claim: Claim) -> Result<Claimed> {
        let shared = self.shared.clone();
        let mut permit = Permit::take(&shared, claim.max);
        if permit.0 == 0 && claim.max > 0 {
            shared.empty.send_replace(true);
            return Ok(Claimed::default());
        }
        claim.max = permit.0;
        shared.claims.claiming();
        let answer = self.inner.claim(claim).await;
        shared.claims.claimed(answer.as_ref().map(drop));
        let mut claimed = answer?;
        permit.0 = permit.0.saturating_sub(claimed.deliveries.len());
        let empty = claimed.deliveries.is_empty() && claimed.next_due_in.is_none();
        shared.empty.send_replace(empty && shared.until_empty);
        if empty && !shared.until_empty {
            // With `--max` alone, the worker ends on an empty queue too, so it must not see one.
            claimed.next_due_in = Some(self.fallback_poll_interval);
        }
        Ok(claimed)
    }

    async fn wait(&mut self, at_most: Duration) {
        self.shared.claims.waiting(at_most);
        self.inner.wait(at_most).await;
        self.shared.claims.between();
    }

    async fn close(self: Box<Self>) -> Result<()> {
        self.inner.close().await
    }
}

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gated").field(&self.inner).finish()
    }
}

/// Permission to claim this many tasks. When it is dropped, even in the middle of a claim, the rest goes to the next
/// claim.
struct Permit<'a>(usize, &'a AtomicU64);

impl<'a> Permit<'a> {
    fn take(shared: &'a Shared, wanted: usize) -> Self {
        let mut taken = 0;
        let take = |left: u64| {
            taken = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
            Some(left - taken as u64)
        };
        let _ = shared.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        Self(taken, &shared.left)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.1.fetch_add(self.0 as u64, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delayline::{Due, Queue, Raw};

    async fn gate(tasks: usize, max: Option<u64>, until_empty: bool) -> (Arc<Gate>, Box<dyn Subscription>, QueueName) {
        let inner = delayline::connect("memory:").await.expect("a store in memory");
        let name = QueueName::new("q").expect("a name");
        let new = (0..tasks).map(|_| NewTask::new(Due::NOW, "x")).collect();
        inner.schedule(&name, new).await.expect("there is room");
        let gate = Arc::new(Gate::new(inner, Arc::new(Shared::new(max, until_empty))));
        let subscription = gate.subscribe(&name, SubscriptionOptions::default()).await.expect("a subscription");
        (gate, subscription, name)
    }

    #[tokio::test]
    async fn no_more_is_claimed_than_may_be() {
        let (gate, mut subscription, _) = gate(10, Some(7), false).await;
        let claim = |max| Claim::new(max, Duration::from_secs(30));
        assert_eq!(subscription.claim(claim(5)).await.map(|claimed| claimed.deliveries.len()).ok(), Some(5));
        assert_eq!(subscription.claim(claim(5)).await.map(|claimed| claimed.deliveries.len()).ok(), Some(2));
        let none = subscription.claim(claim(5)).await.expect("an answer");
        assert!(none.deliveries.is_empty() && none.next_due_in.is_none());
        gate.shared().nothing_left().await;
    }

    #[tokio::test]
    async fn what_a_claim_did_not_bring_may_be_claimed_later() {
        let (gate, mut subscription, name) = gate(1, Some(3), false).await;
        let claim = Claim::new(100, Duration::from_secs(30));
        assert_eq!(subscription.claim(claim).await.map(|claimed| claimed.deliveries.len()).ok(), Some(1));
        // An empty queue is not the end without `--until-empty`.
        let none = subscription.claim(claim).await.expect("an answer");
        assert!(none.deliveries.is_empty() && none.next_due_in.is_some());
        let queue = Queue::with_codec(gate, name, Raw).expect("a name");
        for _ in 0..5 {
            queue.schedule(&"x".into()).await.expect("there is room");
        }
        assert_eq!(subscription.claim(claim).await.map(|claimed| claimed.deliveries.len()).ok(), Some(2));
    }

    #[tokio::test]
    async fn an_empty_queue_is_told_where_that_is_the_end() {
        let (gate, mut subscription, _) = gate(0, None, true).await;
        let none = subscription.claim(Claim::new(1, Duration::from_secs(30))).await.expect("an answer");
        assert!(none.next_due_in.is_none());
        gate.shared().nothing_left().await;
    }
}
