//! What a defect is: a change to the calls on their way to a sound backend, or to its answers on their way back.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    AdminOp, Capabilities, Change, Changed, Claim, Claimed, ClaimedTask, DeadLetterOp, DeadLetters, DelayBackend,
    Disposition, Lease, NewTask, Page, QueueName, QueueStats, Result, Scheduled, Select, Subscription, TaskId,
    TaskView, Timestamp,
};
use parking_lot::Mutex;

use crate::harness::{Harness, Time};

/// One thing that is done wrong. Each method passes the call on, unless the defect is in it; everything else is to work as
/// before, also under the defect.
#[async_trait]
pub trait Defect: Send + Sync + 'static {
    /// What is declared.
    fn capabilities(&self, declared: &Capabilities) -> Capabilities {
        declared.clone()
    }

    /// `schedule`.
    async fn schedule(&self, inner: &Inner, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        inner.schedule(queue, tasks).await
    }

    /// What becomes of a subscription that was opened.
    async fn opened(&self, inner: &Inner, subscription: Opened) -> Result<Opened> {
        let _ = inner;
        Ok(subscription)
    }

    /// A subscription's `claim`.
    async fn claim(&self, inner: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let _ = inner;
        subscription.claim(claim).await
    }

    /// A subscription's `wait`.
    async fn wait(&self, inner: &Inner, subscription: &mut Opened, at_most: Duration) {
        let _ = inner;
        subscription.wait(at_most).await;
    }

    /// A subscription is closed or dropped.
    fn ended(&self, inner: &Inner, subscription: &mut Opened) {
        let _ = (inner, subscription);
    }

    /// `settle`.
    async fn settle(
        &self,
        inner: &Inner,
        queue: &QueueName,
        dispositions: Vec<(Lease, Disposition)>,
    ) -> Result<Vec<Result<()>>> {
        inner.settle(queue, dispositions).await
    }

    /// `extend`.
    async fn extend(
        &self,
        inner: &Inner,
        queue: &QueueName,
        leases: Vec<Lease>,
        by: Duration,
    ) -> Result<Vec<Result<Lease>>> {
        inner.extend(queue, leases, by).await
    }

    /// `change`.
    async fn change(&self, inner: &Inner, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        inner.change(queue, select, change).await
    }

    /// `find`.
    async fn find(&self, inner: &Inner, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        inner.find(queue, id).await
    }

    /// `list`.
    async fn list(&self, inner: &Inner, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        inner.list(queue, page).await
    }

    /// `dead_letters`.
    async fn dead_letters(&self, inner: &Inner, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        inner.dead_letters(queue, op).await
    }

    /// `stats`.
    async fn stats(&self, inner: &Inner, queue: &QueueName) -> Result<QueueStats> {
        inner.stats(queue).await
    }

    /// `queues`.
    async fn queues(&self, inner: &Inner) -> Result<Vec<QueueName>> {
        inner.queues().await
    }

    /// `administer`.
    async fn administer(&self, inner: &Inner, queue: &QueueName, op: AdminOp) -> Result<()> {
        inner.administer(queue, op).await
    }

    /// `close`.
    async fn close(&self, inner: &Inner) -> Result<()> {
        inner.close().await
    }
}

/// No defect at all: what a test is to pass under.
#[derive(Default)]
pub(super) struct Sound;

impl Defect for Sound {}

/// The sound backend under a defect, and what is known of where it runs.
#[derive(Clone, Debug)]
pub struct Inner {
    pub(super) backend: Arc<dyn DelayBackend>,
    pub(super) harness: Arc<dyn Harness>,
}

impl Deref for Inner {
    type Target = dyn DelayBackend;
    fn deref(&self) -> &Self::Target {
        &*self.backend
    }
}

impl Inner {
    /// The unit in which the suite's tests wait.
    pub(super) fn unit(&self) -> Duration {
        Time::of(&*self.harness).unit()
    }

    /// The backend's wall clock, `later` than now, in milliseconds rounded up as due times are.
    pub(super) fn wall_in(&self, later: Duration) -> Timestamp {
        Timestamp::from_unix_millis(self.harness.wall().saturating_add(later).unix_millis_ceil())
    }

    /// Settles leases behind the caller's back. What becomes of each is not asked: one that was lost meanwhile needs none.
    pub(super) async fn settle_quietly(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) {
        if !dispositions.is_empty() {
            let _ = self.settle(queue, dispositions).await;
        }
    }

    /// Claims one more than is asked for, puts what came into an order of the defect's own, and gives back what is too
    /// much: so that a wrong order shows whether tasks are claimed together or one by one.
    pub(super) async fn claim_reordered(
        &self,
        subscription: &mut Opened,
        mut claim: Claim,
        reorder: impl FnOnce(&mut Vec<ClaimedTask>) + Send,
    ) -> Result<Claimed> {
        let asked = claim.max;
        claim.max += usize::from(asked > 0);
        let mut claimed = subscription.claim(claim).await?;
        reorder(&mut claimed.deliveries);
        let surplus = claimed.deliveries.split_off(asked.min(claimed.deliveries.len()));
        if !surplus.is_empty() {
            claimed.next_due_in = Some(Duration::ZERO);
            let released = surplus.into_iter().map(|task| (task.lease, Disposition::Release)).collect();
            self.settle_quietly(&subscription.queue.clone(), released).await;
        }
        Ok(claimed)
    }
}

/// A subscription of the sound backend.
pub struct Opened {
    pub(super) inner: Box<dyn Subscription>,
    pub(super) queue: QueueName,
    /// Different for each in this process.
    pub(super) number: u64,
    /// Whether the last claim knew of a task to come.
    pub(super) expects: bool,
}

impl Opened {
    pub(super) fn new(inner: Box<dyn Subscription>, queue: QueueName, number: u64) -> Self {
        Self { inner, queue, number, expects: false }
    }
}

impl Deref for Opened {
    type Target = dyn Subscription;
    fn deref(&self) -> &Self::Target {
        &*self.inner
    }
}

impl DerefMut for Opened {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.inner
    }
}

/// What a defect remembers of tasks, by queue and id.
pub(super) struct Notes<T>(Mutex<HashMap<(QueueName, TaskId), T>>);

impl<T> Default for Notes<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Notes<T> {
    pub(super) fn set(&self, queue: &QueueName, id: &TaskId, note: T) {
        self.0.lock().insert((queue.clone(), id.clone()), note);
    }

    pub(super) fn get(&self, queue: &QueueName, id: &TaskId) -> Option<T> {
        self.0.lock().get(&(queue.clone(), id.clone())).cloned()
    }

    pub(super) fn has(&self, queue: &QueueName, id: &TaskId) -> bool {
        self.get(queue, id).is_some()
    }

    pub(super) fn remove(&self, queue: &QueueName, id: &TaskId) -> Option<T> {
        self.0.lock().remove(&(queue.clone(), id.clone()))
    }

    /// Removes what is noted of a queue's tasks where this holds.
    pub(super) fn remove_where(&self, queue: &QueueName, over: impl Fn(&T) -> bool) -> Vec<T> {
        self.0.lock().extract_if(|(of, _), note| of == queue && over(note)).map(|(_, note)| note).collect()
    }

    /// Forgets the tasks whose leases were settled, with these answers, by a disposition after which `ends` holds.
    pub(super) fn settled(
        &self,
        queue: &QueueName,
        dispositions: &[(Lease, Disposition)],
        answers: &[Result<()>],
        ends: impl Fn(&Disposition) -> bool,
    ) {
        for ((lease, disposition), answer) in dispositions.iter().zip(answers) {
            if answer.is_ok() && ends(disposition) {
                self.remove(queue, &lease.id);
            }
        }
    }
}

/// Whether a task is gone after this disposition.
pub(super) fn is_end(disposition: &Disposition) -> bool {
    match disposition {
        Disposition::Complete | Disposition::DeadLetter { .. } => true,
        Disposition::Retry { .. } | Disposition::Snooze { .. } | Disposition::Release => false,
        _ => unreachable!("one that the suite does not know"),
    }
}
