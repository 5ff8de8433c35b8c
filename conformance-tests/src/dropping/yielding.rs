//! A backend that lets the runtime go on before and after each call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    AdminOp, Capabilities, Change, Changed, Claim, Claimed, DeadLetterOp, DeadLetters, DelayBackend, Disposition,
    Error, ErrorKind, Lease, NewTask, Page, QueueName, QueueStats, Result, Scheduled, Select, Subscription,
    SubscriptionOptions, TaskId, TaskView, owned,
};
use tokio::sync::Mutex;

/// Gives the runtime's other tasks this many turns.
pub async fn turns(n: u32) {
    for _ in 0..n {
        tokio::task::yield_now().await;
    }
}

/// A backend whose calls have await points before they reach the inner one and after it answered, as calls over a
/// network have. A call that is dropped after the inner one answered has taken effect, and its answer is lost. A claim
/// keeps the promise all the same: tasks that it claimed and that no caller received are released.
#[derive(Clone, Debug)]
pub struct Yielding {
    inner: Arc<dyn DelayBackend>,
    turns: u32,
}

impl Yielding {
    /// This many turns before and after each call.
    #[must_use]
    pub fn over(inner: Arc<dyn DelayBackend>, turns: u32) -> Self {
        Self { inner, turns }
    }

    async fn amid<T>(&self, call: impl Future<Output = T>) -> T {
        turns(self.turns).await;
        let answer = call.await;
        turns(self.turns).await;
        answer
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for Yielding {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.amid(self.inner.schedule(queue, tasks)).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        let inner = self.amid(self.inner.subscribe(queue, options)).await?;
        let inner = Arc::new(Mutex::new(Some(inner)));
        Ok(Box::new(YieldingSubscription { backend: self.clone(), queue: queue.clone(), inner }))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        self.amid(self.inner.settle(queue, dispositions)).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.amid(self.inner.extend(queue, leases, by)).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        self.amid(self.inner.change(queue, select, change)).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        self.amid(self.inner.find(queue, id)).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        self.amid(self.inner.list(queue, page)).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.amid(self.inner.dead_letters(queue, op)).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.amid(self.inner.stats(queue)).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.amid(self.inner.queues()).await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.amid(self.inner.administer(queue, op)).await
    }

    async fn ping(&self) -> Result<()> {
        self.amid(self.inner.ping()).await
    }

    async fn close(&self) -> Result<()> {
        self.amid(self.inner.close()).await
    }
}

#[derive(Debug)]
struct YieldingSubscription {
    backend: Yielding,
    queue: QueueName,
    /// Shared with a claim that goes on after its caller was dropped; nothing once it was closed.
    inner: Arc<Mutex<Option<Box<dyn Subscription>>>>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Subscription for YieldingSubscription {
    async fn claim(&mut self, claim: Claim) -> Result<Claimed> {
        turns(self.backend.turns).await;
        let mut inner = self.inner.clone().lock_owned().await;
        let (backend, queue) = (self.backend.clone(), self.queue.clone());
        let claiming = {
            let turns_after = backend.turns;
            async move {
                let claimed = match &mut *inner {
                    Some(inner) => inner.claim(claim).await,
                    None => Err(Error::new(ErrorKind::Closed, "this subscription was closed")),
                };
                turns(turns_after).await;
                claimed
            }
        };
        let give_back = |unseen: Claimed| async move {
            let dispositions = unseen.deliveries.into_iter().map(|task| (task.lease, Disposition::Release)).collect();
            // What can't be given back now comes back when its lease ends.
            let _ = backend.inner.settle(&queue, dispositions).await;
        };
        owned(claiming, give_back).await
    }

    async fn wait(&mut self, at_most: Duration) {
        turns(self.backend.turns).await;
        if let Some(inner) = &mut *self.inner.lock().await {
            inner.wait(at_most).await;
        }
    }

    async fn close(self: Box<Self>) -> Result<()> {
        turns(self.backend.turns).await;
        let inner = self.inner.lock().await.take();
        let answer = match inner {
            Some(inner) => inner.close().await,
            None => Ok(()),
        };
        turns(self.backend.turns).await;
        answer
    }
}
