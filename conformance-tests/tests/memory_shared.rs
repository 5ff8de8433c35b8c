//! The suite on a memory backend that several clients share, each of which can end without the store: what a server looks
//! like from here, and the only place where the tests of several clients and of what survives them are tried without one.

mod support;

use std::sync::Arc;
use std::time::Duration;

use delayline_conformance::{Fault, Harness, Time};
use delayline_core::{
    AdminOp, CancellationToken, Capabilities, Change, Changed, Claim, Claimed, DeadLetterOp, DeadLetters, DelayBackend,
    Disposition, Durability, Error, ErrorKind, Lease, NewTask, Page, QueueName, QueueStats, Result, Scheduled, Select,
    Shift, Subscription, SubscriptionOptions, TaskId, TaskView, Timestamp, async_trait,
};
use parking_lot::Mutex;
use support::Memory;

delayline_conformance::suite!(Shared { memory: Memory::virtual_time(), store: Mutex::default() });

/// A store that outlives its clients.
#[derive(Debug)]
struct Shared {
    memory: Memory,
    store: Mutex<Option<Arc<dyn DelayBackend>>>,
}

#[async_trait]
impl Harness for Shared {
    async fn open(&self) -> Result<Arc<dyn DelayBackend>> {
        let fresh = self.memory.open().await?;
        let store = self.store.lock().get_or_insert(fresh).clone();
        let mut caps = store.capabilities().clone();
        caps.durability = Durability::Disk;
        Ok(Arc::new(Client { store, caps, closed: CancellationToken::new() }))
    }

    fn time(&self) -> Time {
        self.memory.time()
    }

    fn wall(&self) -> Timestamp {
        self.memory.wall()
    }

    fn step_wall(&self, by: Shift) -> bool {
        self.memory.step_wall(by)
    }

    async fn inject(&self, fault: Fault) -> Result<bool> {
        // A server that comes back with all its data: nothing of it is seen here.
        Ok(fault == Fault::Kill)
    }
}

/// One client: it can be closed by itself.
#[derive(Debug)]
struct Client {
    store: Arc<dyn DelayBackend>,
    caps: Capabilities,
    closed: CancellationToken,
}

impl Client {
    fn open(&self) -> Result<&Arc<dyn DelayBackend>> {
        is_open(&self.closed).map(|()| &self.store)
    }
}

fn is_open(closed: &CancellationToken) -> Result<()> {
    match closed.is_cancelled() {
        false => Ok(()),
        true => Err(Error::new(ErrorKind::Closed, "this client is closed")),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for Client {
    fn capabilities(&self) -> &Capabilities {
        &self.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.open()?.schedule(queue, tasks).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        let inner = self.open()?.subscribe(queue, options).await?;
        Ok(Box::new(ClientSubscription { inner, closed: self.closed.clone() }))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        self.open()?.settle(queue, dispositions).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.open()?.extend(queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        self.open()?.change(queue, select, change).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        self.open()?.find(queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        self.open()?.list(queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.open()?.dead_letters(queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.open()?.stats(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.open()?.queues().await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.open()?.administer(queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        self.open()?.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.closed.cancel();
        Ok(())
    }
}

#[derive(Debug)]
struct ClientSubscription {
    inner: Box<dyn Subscription>,
    closed: CancellationToken,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Subscription for ClientSubscription {
    async fn claim(&mut self, claim: Claim) -> Result<Claimed> {
        is_open(&self.closed)?;
        self.inner.claim(claim).await
    }

    async fn wait(&mut self, at_most: Duration) {
        tokio::select! {
            () = self.closed.cancelled() => {}
            () = self.inner.wait(at_most) => {}
        }
    }

    async fn close(self: Box<Self>) -> Result<()> {
        self.inner.close().await
    }
}
