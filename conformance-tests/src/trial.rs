//! The environment of one test: recorded clients, queues, a seed, and functions that claim and wait.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use delayline_core::{
    AdminOp, Capabilities, Claim, ClaimedTask, DelayBackend, Disposition, Durability, NewTask, OperationId, QueueName,
    Result, Scheduled, Shift, Subscription, SubscriptionOptions, Support, TaskId, Timestamp,
};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::harness::{Fault, Harness, Time};
use crate::history::{History, Recorded, Recording};

/// The duration of a lease that does not end during a test.
pub const LONG_LEASE: Duration = Duration::from_secs(600);

/// One run of one test.
#[derive(Debug)]
pub struct Trial {
    name: &'static str,
    seed: u64,
    harness: Arc<dyn Harness>,
    history: History,
    caps: Capabilities,
    /// Every open client, in the order of their numbers. The first is there from the start.
    clients: Mutex<Vec<Arc<dyn DelayBackend>>>,
    /// Every queue that was named, to delete them from a store that outlives the test.
    queues: Mutex<BTreeSet<QueueName>>,
    checked: AtomicU64,
    untested: Mutex<Option<String>>,
    /// The source of operation ids.
    operations: Mutex<fastrand::Rng>,
}

impl Trial {
    /// Opens the first client.
    ///
    /// # Errors
    /// Those of [`Harness::open`].
    pub async fn begin(name: &'static str, seed: u64, harness: Arc<dyn Harness>) -> Result<Self> {
        let history = History::new(harness.clone());
        let first = harness.open().await?;
        let caps = first.capabilities().clone();
        // Of this run too: a store remembers the operations of an earlier run of the same seed.
        let operations = mixed(seed, &[name, "operations", &harness.wall().unix_micros().to_string()]);
        Ok(Self {
            name,
            seed,
            harness,
            history,
            caps,
            clients: Mutex::new(vec![first]),
            queues: Mutex::default(),
            checked: AtomicU64::new(0),
            untested: Mutex::default(),
            operations: Mutex::new(operations),
        })
    }

    /// The test's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The test's randomness. It is the same for each call, and differs from that of other tests, which may run on the
    /// same store with the same seed. A test has no other source, and can't see the seed.
    #[must_use]
    pub fn rng(&self) -> fastrand::Rng {
        mixed(self.seed, &[self.name])
    }

    /// A unique operation id: different from all others in this test, in other tests with the same seed, and in earlier
    /// runs.
    #[must_use]
    pub fn operation(&self) -> OperationId {
        OperationId::from_uuid(Uuid::from_u128(self.operations.lock().u128(1..)))
    }

    /// The part of queue names that is unique to this run, for tests that name queues themselves.
    #[must_use]
    pub fn tag(&self) -> String {
        match self.harness.queue_prefix() {
            "" => format!("{:016x}", self.seed),
            // It tells runs apart already.
            prefix => prefix.to_owned(),
        }
    }

    /// The history so far, as it would be written to a file.
    #[must_use]
    pub fn recording(&self) -> Recording {
        self.recording_of(&self.history)
    }

    /// Another history of this test, as it would be written to a file.
    #[must_use]
    pub fn recording_of(&self, history: &History) -> Recording {
        history.recording(self.name, self.seed, &self.caps)
    }

    /// A file name with the test and the seed.
    #[must_use]
    pub(crate) fn file_stem(&self) -> String {
        format!("{}.{:016x}", self.name, self.seed)
    }

    /// The backend's capabilities, which are the bounds of the tests.
    #[must_use]
    pub fn caps(&self) -> &Capabilities {
        &self.caps
    }

    /// The harness.
    #[must_use]
    pub fn harness(&self) -> &Arc<dyn Harness> {
        &self.harness
    }

    /// The recorder of the history.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The first client, recorded.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn DelayBackend> {
        let first = self.clients.lock()[0].clone();
        Arc::new(Recorded::new(first, self.history.clone(), 0))
    }

    /// The first client without recording, for tests that measure.
    #[must_use]
    pub fn bare(&self) -> Arc<dyn DelayBackend> {
        self.clients.lock()[0].clone()
    }

    /// Another client of the same store, recorded, as another process would open it. If the store is inside its client,
    /// the first client again.
    ///
    /// # Panics
    /// If it can't be opened.
    pub async fn another(&self) -> Arc<dyn DelayBackend> {
        if !self.is_shared() {
            return self.backend();
        }
        let inner = self.harness.open().await.expect("another client");
        let mut clients = self.clients.lock();
        clients.push(inner.clone());
        let number = u32::try_from(clients.len() - 1).expect("few clients");
        drop(clients);
        Arc::new(Recorded::new(inner, self.history.clone(), number))
    }

    /// Whether several clients can work on one store.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.caps.durability != Durability::Process
    }

    /// A queue for this test.
    #[must_use]
    pub fn queue(&self, name: &str) -> QueueName {
        let test: String = self.name.chars().take(60).collect();
        let named = match self.harness.queue_prefix() {
            "" => format!("{test}.{:016x}.{name}", self.seed),
            prefix => format!("{prefix}{test}.{name}"),
        };
        let queue = QueueName::new(named).expect("a short name of plain letters");
        // Where the heap is measured, this book would be seen; those tests leave their queues empty, and so forgotten.
        if self.is_shared() && !crate::heap::is_counting() {
            self.queues.lock().insert(queue.clone());
        }
        queue
    }

    /// A task id.
    #[must_use]
    pub fn id(&self, key: impl AsRef<str>) -> TaskId {
        TaskId::new(key).expect("a short key of plain letters")
    }

    /// The backend's wall clock.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.harness.wall()
    }

    /// Steps the backend's wall clock. Returns `false` if the harness can't; the test is then reported as untested.
    #[must_use]
    pub fn step_wall(&self, by: Shift) -> bool {
        let stepped = self.harness.step_wall(by);
        if stepped {
            self.history.wall_stepped();
        } else {
            self.untested("the harness can't step the backend's wall clock");
        }
        stepped
    }

    /// Injects a fault into the server. Returns `false` if the harness can't; the test is then reported as untested.
    ///
    /// # Panics
    /// If the injection fails.
    #[must_use]
    pub async fn inject(&self, fault: Fault) -> bool {
        self.history.connections_end();
        let injected = self.harness.inject(fault).await.expect("a fault that can be injected");
        if !injected {
            self.untested(format!("the harness can't inject the fault {fault:?}"));
        }
        injected
    }

    /// A number of units of time. Two instants that are one unit apart are reliably distinguished, by a virtual or a
    /// real clock.
    #[must_use]
    pub fn units(&self, n: u32) -> Duration {
        Time::of(&*self.harness).unit() * n
    }

    /// Whether time is virtual, so that only waiting takes time.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        Time::of(&*self.harness) == Time::Virtual
    }

    /// `virtual_n` if time is virtual, otherwise `real_n`: for sizes that matter only in real time.
    #[must_use]
    pub fn size(&self, virtual_n: usize, real_n: usize) -> usize {
        if self.is_virtual() { virtual_n } else { real_n }
    }

    /// Time limit for something that must happen: far longer than a busy machine needs.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Counts this many checks beyond those in the history.
    pub fn checked(&self, n: u64) {
        self.checked.fetch_add(n, Ordering::Relaxed);
    }

    /// Number of checks so far: answers in the history, and those counted by [`checked`](Self::checked).
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.history.operations() + self.checked.load(Ordering::Relaxed)
    }

    /// Records that this harness can't do what the test needs.
    pub fn untested(&self, why: impl Into<String>) {
        self.untested.lock().get_or_insert_with(|| why.into());
    }

    /// What this harness could not do for the test.
    #[must_use]
    pub fn why_untested(&self) -> Option<String> {
        self.untested.lock().clone()
    }

    /// Opens a subscription.
    ///
    /// # Panics
    /// If it can't be opened.
    pub async fn subscribe(&self, backend: &Arc<dyn DelayBackend>, queue: &QueueName) -> Box<dyn Subscription> {
        backend.subscribe(queue, SubscriptionOptions::default()).await.expect("a subscription")
    }

    /// Schedules one task that must be accepted.
    ///
    /// # Panics
    /// If it is not.
    pub async fn put(&self, backend: &Arc<dyn DelayBackend>, queue: &QueueName, task: NewTask) -> Scheduled {
        self.try_put(backend, queue, task).await.expect("a task that is accepted")
    }

    /// Schedules one task.
    ///
    /// # Errors
    /// Those of its item.
    ///
    /// # Panics
    /// If the whole call fails, or does not answer for one item.
    pub async fn try_put(
        &self,
        backend: &Arc<dyn DelayBackend>,
        queue: &QueueName,
        task: NewTask,
    ) -> Result<Scheduled> {
        let mut answers = backend.schedule(queue, vec![task]).await.expect("an answer to schedule");
        assert_eq!(answers.len(), 1, "one answer for one task");
        answers.remove(0)
    }

    /// Schedules tasks that must all be accepted, in calls of the declared batch size.
    ///
    /// # Panics
    /// If one is not.
    pub async fn put_all(
        &self,
        backend: &Arc<dyn DelayBackend>,
        queue: &QueueName,
        tasks: impl IntoIterator<Item = NewTask>,
    ) -> Vec<Scheduled> {
        let mut tasks = tasks.into_iter();
        let mut scheduled = Vec::new();
        loop {
            let batch: Vec<NewTask> = tasks.by_ref().take(self.caps.batch_max.min(10_000)).collect();
            if batch.is_empty() {
                return scheduled;
            }
            let sent = batch.len();
            let answers = backend.schedule(queue, batch).await.expect("an answer to schedule");
            assert_eq!(answers.len(), sent, "one answer for each task");
            scheduled.extend(answers.into_iter().map(|answer| answer.expect("a task that is accepted")));
        }
    }

    /// Claims what is due now, at most `max`, under a lease that does not end during the test.
    ///
    /// # Panics
    /// If the claim fails.
    pub async fn claim(&self, subscription: &mut Box<dyn Subscription>, max: usize) -> Vec<ClaimedTask> {
        self.claim_for(subscription, max, LONG_LEASE).await
    }

    /// Claims what is due now, at most `max`, under a lease of this length.
    ///
    /// # Panics
    /// If the claim fails.
    pub async fn claim_for(
        &self,
        subscription: &mut Box<dyn Subscription>,
        max: usize,
        lease: Duration,
    ) -> Vec<ClaimedTask> {
        subscription.claim(Claim::new(max, lease.min(self.caps.lease_max))).await.expect("a claim").deliveries
    }

    /// Claims and waits as consumers do, until `n` tasks have come or the trial's time limit has passed.
    pub async fn take(&self, subscription: &mut Box<dyn Subscription>, n: usize) -> Vec<ClaimedTask> {
        self.take_within(subscription, n, LONG_LEASE, self.patience()).await
    }

    /// Claims and waits as consumers do, until `n` tasks have come or `at_most` has passed.
    ///
    /// # Panics
    /// If a claim fails.
    pub async fn take_within(
        &self,
        subscription: &mut Box<dyn Subscription>,
        n: usize,
        lease: Duration,
        at_most: Duration,
    ) -> Vec<ClaimedTask> {
        let ends = Instant::now() + at_most;
        let mut taken = Vec::new();
        while taken.len() < n {
            let left = ends.saturating_duration_since(Instant::now());
            match self.take_some(subscription, n - taken.len(), lease, left).await {
                some if some.is_empty() => break,
                some => taken.extend(some),
            }
        }
        taken
    }

    /// Claims and waits as consumers do, until any task has come or `at_most` has passed; brings at most `max`.
    ///
    /// # Panics
    /// If a claim fails.
    pub async fn take_some(
        &self,
        subscription: &mut Box<dyn Subscription>,
        max: usize,
        lease: Duration,
        at_most: Duration,
    ) -> Vec<ClaimedTask> {
        let ends = Instant::now() + at_most;
        loop {
            let claim = Claim::new(max, lease.min(self.caps.lease_max));
            let claimed = subscription.claim(claim).await.expect("a claim");
            let left = ends.saturating_duration_since(Instant::now());
            if !claimed.deliveries.is_empty() || left.is_zero() {
                return claimed.deliveries;
            }
            subscription
                .wait(
                    claimed
                        .next_due_in
                        .unwrap_or(self.caps.fallback_poll_interval)
                        .min(self.caps.fallback_poll_interval)
                        .min(left),
                )
                .await;
        }
    }

    /// Settles one lease.
    ///
    /// # Errors
    /// Those of its item.
    ///
    /// # Panics
    /// If the whole call fails.
    pub async fn settle(
        &self,
        backend: &Arc<dyn DelayBackend>,
        queue: &QueueName,
        task: &ClaimedTask,
        disposition: Disposition,
    ) -> Result<()> {
        let mut answers =
            backend.settle(queue, vec![(task.lease.clone(), disposition)]).await.expect("an answer to settle");
        assert_eq!(answers.len(), 1, "one answer for one disposition");
        answers.remove(0)
    }

    /// Completes tasks that must all be completed.
    ///
    /// # Panics
    /// If one is not.
    pub async fn complete(&self, backend: &Arc<dyn DelayBackend>, queue: &QueueName, tasks: &[ClaimedTask]) {
        for batch in tasks.chunks(self.caps.batch_max.min(10_000)) {
            let dispositions = batch.iter().map(|task| (task.lease.clone(), Disposition::Complete)).collect();
            let answers = backend.settle(queue, dispositions).await.expect("an answer to settle");
            assert_eq!(answers.len(), batch.len(), "one answer for each disposition");
            answers.into_iter().for_each(|answer| answer.expect("a lease that can be completed"));
        }
    }

    /// Claims and completes `expected` tasks, checks that no other is due, and records that the queue is empty: from
    /// then on, the checkers count what is left as lost. Gives up at the time limit, which the checkers see as well.
    pub async fn drain(&self, backend: &Arc<dyn DelayBackend>, queue: &QueueName, expected: usize) -> Vec<ClaimedTask> {
        let mut subscription = self.subscribe(backend, queue).await;
        let mut done = Vec::new();
        let ends = Instant::now() + self.patience();
        while done.len() < expected {
            let left = ends.saturating_duration_since(Instant::now());
            let taken = self.take_some(&mut subscription, (expected - done.len()).min(1_000), LONG_LEASE, left).await;
            if taken.is_empty() {
                break;
            }
            self.complete(backend, queue, &taken).await;
            done.extend(taken);
        }
        let more = self.claim(&mut subscription, 1).await;
        self.complete(backend, queue, &more).await;
        done.extend(more);
        self.history.drained(queue);
        done
    }

    /// Deletes the test's queues from a store that outlives it.
    pub(crate) async fn tidy(&self) -> Result<()> {
        if !self.is_shared() || self.caps.delete != Support::Definite {
            return Ok(());
        }
        // The test may have closed its own.
        let client = self.harness.open().await?;
        let queues = std::mem::take(&mut *self.queues.lock());
        for queue in &queues {
            client.administer(queue, AdminOp::Delete).await?;
        }
        client.close().await
    }

    /// Closes every client, and returns those that did not end.
    pub(crate) async fn close(&self) -> Result<()> {
        let clients = std::mem::take(&mut *self.clients.lock());
        for client in &clients {
            client.close().await?;
        }
        Ok(())
    }
}

/// Randomness from a seed and its purpose.
fn mixed(seed: u64, of: &[&str]) -> fastrand::Rng {
    // As FNV-1a mixes the bytes of a name.
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    fastrand::Rng::with_seed(of.iter().flat_map(|part| part.bytes().chain([0])).fold(seed, mix))
}
