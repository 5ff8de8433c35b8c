//! A client that records every call that it passes on. A dropped call is recorded with an unknown outcome.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    AdminOp, Capabilities, Change, Changed, Claim, Claimed, DeadLetterOp, DeadLetterSelect, DeadLetters, DelayBackend,
    Disposition, Error, Lease, LeaseHold, NewTask, Page, QueueName, QueueStats, Result, Scheduled, Select,
    Subscription, SubscriptionOptions, TaskId, TaskView,
};

use super::event::{Accepted, Answer, Delivered, Extended, Held, Item, Op, Planned, What, micros};
use super::writing::History;

/// A backend whose calls are written into a [`History`].
///
/// If leases are bound to the connection of the client that claimed ([`LeaseHold::Connection`]), a lease is settled and
/// extended through that client, whichever recorder is called: the client that works on a task has claimed it.
///
/// Calls that neither change nor deliver anything (`find`, `list`, `stats`, `queues`, `ping`) are not recorded.
#[derive(Debug)]
pub struct Recorded {
    inner: Arc<dyn DelayBackend>,
    history: History,
    client: u32,
}

impl Recorded {
    /// Records the calls of `inner`, as this client of the test.
    #[must_use]
    pub fn new(inner: Arc<dyn DelayBackend>, history: History, client: u32) -> Self {
        Self { inner, history, client }
    }

    fn begin(&self, queue: &QueueName, op: Op) -> Call {
        Call::begin(&self.history, self.client, queue, op)
    }
}

/// Items for one client, and where their answers belong.
type Part<T> = (Arc<dyn DelayBackend>, Vec<usize>, Vec<T>);

impl Recorded {
    /// The items by the client that holds the lease of each.
    fn by_holder<T>(&self, items: Vec<T>, lease: impl Fn(&T) -> &Lease) -> Vec<Part<T>> {
        let mut parts: Vec<Part<T>> = Vec::new();
        for (at, item) in items.into_iter().enumerate() {
            let holder = self.history.holder(lease(&item)).unwrap_or_else(|| self.inner.clone());
            match parts.iter_mut().find(|(client, ..)| Arc::ptr_eq(client, &holder)) {
                Some((_, places, items)) => {
                    places.push(at);
                    items.push(item);
                }
                None => parts.push((holder, vec![at], vec![item])),
            }
        }
        if parts.is_empty() {
            parts.push((self.inner.clone(), Vec::new(), Vec::new()));
        }
        parts
    }
}

/// What a batch answers.
type Answers<R> = Result<Vec<Result<R>>>;

/// The answers to parts as one.
fn joined<R>(mut parts: Vec<(Vec<usize>, Answers<R>)>) -> Answers<R> {
    if parts.len() == 1 {
        return parts.remove(0).1;
    }
    let mut answers: Vec<(usize, Result<R>)> = Vec::new();
    for (places, part) in parts {
        match part {
            Ok(part) => answers.extend(places.into_iter().zip(part)),
            Err(e) => answers.extend(places.into_iter().map(|at| (at, Err(e.clone())))),
        }
    }
    answers.sort_by_key(|(at, _)| *at);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// A call in progress. If it is dropped before its end, its outcome is unknown.
struct Call {
    history: History,
    number: u64,
    open: bool,
}

impl Call {
    fn begin(history: &History, client: u32, queue: &QueueName, op: Op) -> Self {
        Self { number: history.invoked(client, queue, op), history: history.clone(), open: true }
    }

    fn end<T>(mut self, result: &Result<T>, answer: impl FnOnce(&T) -> Answer) {
        self.open = false;
        let how = match result {
            Ok(value) => What::Ok(answer(value)),
            Err(e) => What::of_error(e),
        };
        self.history.ended(self.number, how);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.open {
            self.history.ended(self.number, What::Unknown { why: "dropped".into() });
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for Recorded {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        let call = self.begin(queue, Op::Schedule(tasks.iter().map(Planned::from).collect()));
        let result = self.inner.schedule(queue, tasks).await;
        call.end(&result, |items| {
            Answer::Schedule(items.iter().map(|item| Item::of(item, |s| Accepted::from(s))).collect())
        });
        result
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        let inner = self.inner.subscribe(queue, options).await?;
        let holds = self.capabilities().lease_hold == LeaseHold::Connection;
        let holder = holds.then(|| Arc::downgrade(&self.inner));
        let (history, client, queue) = (self.history.clone(), self.client, queue.clone());
        Ok(Box::new(RecordedSubscription { inner, holder, history, client, queue }))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        let noted = dispositions.iter().map(|(lease, disposition)| (Held::from(lease), disposition.into())).collect();
        let call = self.begin(queue, Op::Settle(noted));
        let mut parts = Vec::new();
        for (client, places, dispositions) in self.by_holder(dispositions, |(lease, _)| lease) {
            parts.push((places, client.settle(queue, dispositions).await));
        }
        let result = joined(parts);
        call.end(&result, |items| Answer::Settle(items.iter().map(|item| Item::of(item, |()| ())).collect()));
        result
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        let noted = leases.iter().map(Held::from).collect();
        let call = self.begin(queue, Op::Extend { leases: noted, by_us: micros(by) });
        let mut parts = Vec::new();
        for (client, places, leases) in self.by_holder(leases, |lease| lease) {
            parts.push((places, client.extend(queue, leases, by).await));
        }
        let result = joined(parts);
        call.end(&result, |items| {
            Answer::Extend(items.iter().map(|item| Item::of(item, |lease| Extended::from(lease))).collect())
        });
        result
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        let call = self.begin(queue, Op::change(&select, &change));
        let result = self.inner.change(queue, select, change).await;
        call.end(&result, |changed| Answer::from(changed));
        result
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        self.inner.find(queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        self.inner.list(queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        let ids = |select: &DeadLetterSelect| match select {
            DeadLetterSelect::Ids(ids) => Ok(Some(ids.clone())),
            DeadLetterSelect::All => Ok(None),
            _ => Err(Error::unsupported("a selection that the suite does not know")),
        };
        let noted = match &op {
            DeadLetterOp::Redrive { select, rate } => Op::Redrive { ids: ids(select)?, rate: *rate },
            DeadLetterOp::Purge { select } => Op::Purge { ids: ids(select)? },
            _ => return self.inner.dead_letters(queue, op).await,
        };
        let call = self.begin(queue, noted);
        let result = self.inner.dead_letters(queue, op).await;
        call.end(&result, |dead| Answer::Dead { affected: dead.affected, kept: dead.kept });
        result
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.inner.stats(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.inner.queues().await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        let noted = match op {
            AdminOp::Pause => Op::Pause,
            AdminOp::Resume => Op::Resume,
            AdminOp::Delete => Op::Delete,
            _ => return Err(Error::unsupported("an operation that the suite does not know")),
        };
        let call = self.begin(queue, noted);
        let result = self.inner.administer(queue, op).await;
        call.end(&result, |()| Answer::Done);
        result
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.history.connections_end();
        self.inner.close().await
    }
}

#[derive(Debug)]
struct RecordedSubscription {
    inner: Box<dyn Subscription>,
    /// The client, where its connection holds the leases.
    holder: Option<Weak<dyn DelayBackend>>,
    history: History,
    client: u32,
    queue: QueueName,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Subscription for RecordedSubscription {
    async fn claim(&mut self, claim: Claim) -> Result<Claimed> {
        let op = Op::Claim { max: claim.max, max_bytes: claim.max_bytes, lease_us: micros(claim.lease) };
        let call = Call::begin(&self.history, self.client, &self.queue, op);
        let result = self.inner.claim(claim).await;
        if let (Some(holder), Ok(claimed)) = (&self.holder, &result) {
            claimed.deliveries.iter().for_each(|task| self.history.held_by(&task.lease, holder.clone()));
        }
        call.end(&result, |claimed| Answer::Claim {
            deliveries: claimed.deliveries.iter().map(Delivered::from).collect(),
            next_due_us: claimed.next_due_in.map(micros),
            dead_lettered: claimed.dead_lettered,
            quarantined: claimed.quarantined,
        });
        result
    }

    async fn wait(&mut self, at_most: Duration) {
        self.inner.wait(at_most).await;
    }

    async fn close(self: Box<Self>) -> Result<()> {
        self.inner.close().await
    }
}
