//! A store that can be away, hang, or give no notifications or too many: what stands in front of the one under test, for
//! promises that consumers and workers keep over a store in trouble.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    AdminOp, Capabilities, Change, Changed, Claim, Claimed, DeadLetterOp, DeadLetters, DelayBackend, Disposition,
    Error, ErrorKind, Lease, NewTask, Page, QueueName, QueueStats, Result, Scheduled, Select, Subscription,
    SubscriptionOptions, TaskId, TaskView,
};
use parking_lot::Mutex;
use tokio::time::sleep;

/// How a store behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it is.
    Works,
    /// Every call answers `Unavailable`.
    Away,
    /// No call is answered.
    Hangs,
}

/// What becomes of a store's notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notifications {
    /// As they are.
    Passed,
    /// All of them are lost.
    Lost,
    /// Every wait ends at once, up to ten thousand of them: then somebody spins, and has been seen to.
    Endless,
}

/// The store under test, behind a mood.
#[derive(Debug)]
pub(super) struct Front {
    inner: Arc<dyn DelayBackend>,
    caps: Capabilities,
    mood: Arc<Mutex<Mood>>,
    notifications: Notifications,
}

impl Front {
    /// With the fallback poll given.
    pub(super) fn new(
        inner: Arc<dyn DelayBackend>,
        notifications: Notifications,
        fallback_poll_interval: Duration,
    ) -> Arc<Self> {
        let mut caps = inner.capabilities().clone();
        caps.fallback_poll_interval = fallback_poll_interval;
        Arc::new(Self { inner, caps, mood: Arc::new(Mutex::new(Mood::Works)), notifications })
    }

    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }
}

async fn pass(mood: &Mutex<Mood>) -> Result<()> {
    let now = *mood.lock();
    match now {
        Mood::Works => Ok(()),
        Mood::Away => Err(Error::new(ErrorKind::Unavailable, "the store is away")),
        Mood::Hangs => std::future::pending().await,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for Front {
    fn capabilities(&self) -> &Capabilities {
        &self.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        pass(&self.mood).await?;
        self.inner.schedule(queue, tasks).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        pass(&self.mood).await?;
        let inner = self.inner.subscribe(queue, options).await?;
        Ok(Box::new(FrontSubscription { inner, mood: self.mood.clone(), notifications: self.notifications, waits: 0 }))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        pass(&self.mood).await?;
        self.inner.settle(queue, dispositions).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        pass(&self.mood).await?;
        self.inner.extend(queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        pass(&self.mood).await?;
        self.inner.change(queue, select, change).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        pass(&self.mood).await?;
        self.inner.find(queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        pass(&self.mood).await?;
        self.inner.list(queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        pass(&self.mood).await?;
        self.inner.dead_letters(queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        pass(&self.mood).await?;
        self.inner.stats(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        pass(&self.mood).await?;
        self.inner.queues().await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        pass(&self.mood).await?;
        self.inner.administer(queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        pass(&self.mood).await?;
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        // The store under test is its trial's to close.
        Ok(())
    }
}

#[derive(Debug)]
struct FrontSubscription {
    inner: Box<dyn Subscription>,
    mood: Arc<Mutex<Mood>>,
    notifications: Notifications,
    waits: u32,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Subscription for FrontSubscription {
    async fn claim(&mut self, claim: Claim) -> Result<Claimed> {
        pass(&self.mood).await?;
        self.inner.claim(claim).await
    }

    async fn wait(&mut self, at_most: Duration) {
        match self.notifications {
            Notifications::Passed => self.inner.wait(at_most).await,
            Notifications::Lost => sleep(at_most).await,
            Notifications::Endless if self.waits < 10_000 => self.waits += 1,
            Notifications::Endless => sleep(at_most).await,
        }
    }

    async fn close(self: Box<Self>) -> Result<()> {
        self.inner.close().await
    }
}
