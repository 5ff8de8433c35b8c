//! DUP-7, -14 and -15: leases that are made longer, dispositions whose answer was lost, and handlers that learn of a lost
//! lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use delayline_core::{
    AdminOp, Bytes, CancellationToken, Capabilities, Change, Changed, Context, DeadLetterOp, DeadLetters, DelayBackend,
    Disposition, Due, Error, ErrorKind, HandlerOutcome, Lease, NewTask, Page, Queue, QueueName, QueueStats, Raw,
    Result, Scheduled, Select, Subscription, SubscriptionOptions, TaskId, TaskView, Worker, WorkerBuilder,
    WorkerReport, async_trait,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

pub async fn dup_7_an_extension_never_shortens(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("shorter"));
    let n = 5;
    t.put_all(&backend, &queue, (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let taken = t.take(&mut subscription, n).await;
    let leases: Vec<Lease> = taken.iter().map(|task| task.lease.clone()).collect();
    for by in [Duration::from_millis(1), t.units(1)] {
        let extended = backend.extend(&queue, leases.clone(), by).await.unwrap();
        for (before, after) in leases.iter().zip(extended) {
            let after = after.unwrap();
            assert_eq!((&after.id, after.fence, after.attempt), (&before.id, before.fence, before.attempt));
            assert!(!after.cancelled);
            let shorter = before.expires_at.saturating_since(after.expires_at);
            assert!(shorter <= t.caps().resolution, "an extension by {by:?} made a lease {shorter:?} shorter");
        }
    }
    let again = t.take_within(&mut subscription, 1, LONG_LEASE, t.units(3)).await;
    assert!(again.is_empty(), "{again:?} came though its lease had not ended");
    // As it was before the extensions, the lease settles as well.
    t.complete(&backend, &queue, &taken).await;
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// A longer one takes effect, and ends then: not before, and not never.
pub async fn dup_7_an_extended_lease_ends_when_it_says(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("longer"));
    t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take_within(&mut subscription, 1, t.units(2), t.patience()).await.remove(0);
    let mut lease = held.lease.clone();
    let by = t.units(3);
    let mut sent = Instant::now();
    for _ in 0..3 {
        sleep(t.units(1)).await;
        sent = Instant::now();
        let before = t.wall();
        // The lease of the claim, or that of the last extension: both are good.
        let asked = if lease.fence % 2 == 0 { held.lease.clone() } else { lease };
        lease = backend.extend(&queue, vec![asked], by).await.unwrap().remove(0).unwrap();
        let after = t.wall();
        assert_eq!((lease.fence, lease.attempt), (held.lease.fence, held.lease.attempt));
        // Clocks of two machines are not that close.
        if t.is_virtual() {
            assert!(lease.expires_at >= before.saturating_add(by) && lease.expires_at <= after.saturating_add(by + MS));
        }
    }
    let mut other = t.subscribe(&t.another().await, &queue).await;
    let again = t.take(&mut other, 1).await.pop().expect("a task whose lease has ended");
    assert!(sent.elapsed() + t.caps().resolution >= by, "it came {:?} after an extension by {by:?}", sent.elapsed());
    if t.is_virtual() {
        assert!(sent.elapsed() <= by + t.caps().resolution + t.caps().lateness, "late: {:?}", sent.elapsed());
    }
    assert_eq!((again.lease.attempt, again.lease.fence > lease.fence), (2, true));
    t.complete(&backend, &queue, &[again]).await;
}

const MS: Duration = Duration::from_millis(1);

/// Every disposition may be said under the lease as it was before an extension, and under the extended one.
pub async fn dup_7_an_old_and_an_extended_lease_settle_alike(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("alike"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    for (i, disposition) in super::crew::every_disposition().into_iter().cycle().take(10).enumerate() {
        t.put(&backend, &queue, NewTask::new(Due::NOW, format!("{i}"))).await;
        let mut task = t.take(&mut subscription, 1).await.remove(0);
        let by = LONG_LEASE.min(t.caps().lease_max);
        let extended = backend.extend(&queue, vec![task.lease.clone()], by).await.unwrap().remove(0).unwrap();
        if i >= 5 {
            task.lease = extended;
        }
        t.settle(&backend, &queue, &task, disposition.clone()).await.unwrap_or_else(|e| panic!("{disposition:?}: {e}"));
        if !matches!(disposition, Disposition::Complete | Disposition::DeadLetter { .. }) {
            let again = t.take(&mut subscription, 1).await;
            t.complete(&backend, &queue, &again).await;
        }
    }
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// A handler that takes longer than its lease runs once, while others look for work.
pub async fn dup_7_a_worker_keeps_its_lease_while_the_handler_runs(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("slow"));
    let numbers = Queue::<u32>::new(backend.clone(), queue.clone()).unwrap();
    numbers.schedule(&7).await.unwrap();
    // Long enough that a busy machine does not miss two thirds of it.
    let lease = t.units(10).min(t.caps().lease_max);
    let (began, mut begins) = mpsc::channel(10);
    let takes = lease * 8 / 5;
    let worker = Worker::builder().lease(lease).queue(&numbers, move |n, context: Context| {
        let began = began.clone();
        async move {
            began.send((n, context.attempt())).await.unwrap();
            sleep(takes).await;
            if context.lost().is_cancelled() {
                HandlerOutcome::dead_letter("the lease was lost")
            } else {
                HandlerOutcome::Complete
            }
        }
    });
    let other = t.another().await;
    let looking = async {
        assert_eq!(timeout(t.patience(), begins.recv()).await.expect("the task is delivered"), Some((7, 1)));
        let mut subscription = t.subscribe(&other, &queue).await;
        let taken = t.take_within(&mut subscription, 1, LONG_LEASE, takes).await;
        assert!(taken.is_empty(), "{taken:?} came though its handler was running");
    };
    let ((), report) = with_worker(worker, looking).await;
    assert_eq!((report.completed, report.lease_lost), (1, 0), "{report:?}");
    assert!(begins.try_recv().is_err(), "it ran once");
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// A disposition that took effect and whose answer was lost, as `Ambiguous` says: repeated, it is no `LeaseLost` for a
/// consumer.
pub async fn dup_14_a_consumer_never_answers_lease_lost_for_its_own_disposition(t: &Trial) {
    let (lossy, queue) = (Lossy::over(t.backend()), t.queue("consumer"));
    let numbers = Queue::<Bytes>::with_codec(lossy.clone(), queue.clone(), Raw).unwrap();
    t.put_all(&t.backend(), &queue, (0..20).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    let mut consumer = numbers.consumer().lease(t.units(20).min(t.caps().lease_max)).open().await.unwrap();
    let mut gone = 0;
    for i in 0..20 {
        lossy.lose.store(i % 2 == 0, Ordering::SeqCst);
        let delivery = consumer.next().await.unwrap();
        let again = i % 4 == 2;
        let answer = match again {
            false => delivery.complete().await,
            true => delivery.retry(Some(Duration::from_secs(3_600)), "later").await,
        };
        gone += usize::from(!again);
        match answer {
            Ok(()) => {}
            Err(e) => assert_eq!((e.kind(), i % 2), (ErrorKind::Ambiguous, 0), "delivery {i}: {e}"),
        }
    }
    assert!(lossy.lost.load(Ordering::SeqCst) >= 10, "answers were lost");
    assert_eq!(gone, 15);
    consumer.close().await.unwrap();
    assert!(t.drain(&t.backend(), &queue, 0).await.is_empty(), "every disposition took effect");
}

/// The same of a worker: what it counts as lost was lost to somebody else.
pub async fn dup_14_a_worker_never_counts_its_own_disposition_as_a_lost_lease(t: &Trial) {
    let (lossy, queue) = (Lossy::over(t.backend()), t.queue("worker"));
    let numbers = Queue::<Bytes>::with_codec(lossy.clone(), queue.clone(), Raw).unwrap();
    let n = 20;
    t.put_all(&t.backend(), &queue, (0..n).map(|i| NewTask::new(Due::NOW, format!("{i}")))).await;
    lossy.lose.store(true, Ordering::SeqCst);
    let (ran, mut runs) = mpsc::channel(100);
    let lease = t.units(20).min(t.caps().lease_max);
    let worker = Worker::builder().lease(lease).queue(&numbers, move |_, context: Context| {
        let ran = ran.clone();
        async move { ran.send(context.attempt()).await.map_err(|_| "nobody listens") }
    });
    let all_ran = async {
        for _ in 0..n {
            let attempt = timeout(t.patience(), runs.recv()).await.expect("a task that is delivered");
            assert_eq!(attempt, Some(1));
        }
    };
    let ((), report) = with_worker(worker, all_ran).await;
    assert_eq!((report.lease_lost, report.completed + report.unsettled), (0, n), "{report:?}");
    assert!(lossy.lost.load(Ordering::SeqCst) > 0, "answers were lost");
    assert!(t.drain(&t.backend(), &queue, 0).await.is_empty(), "every completion took effect");
}

/// Somebody else ended the lease under a running handler: it is told, and what it returns does not count.
pub async fn dup_15_a_handler_learns_that_its_lease_was_lost(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("lost"));
    let numbers = Queue::<u32>::new(backend.clone(), queue.clone()).unwrap();
    numbers.schedule(&7).await.unwrap();
    let (began, mut begins) = mpsc::channel(10);
    let (told, mut tells) = mpsc::channel(10);
    let lease = t.units(4).min(t.caps().lease_max);
    let worker = Worker::builder().lease(lease).queue(&numbers, move |_, context: Context| {
        let (began, told) = (began.clone(), told.clone());
        async move {
            began.send(context.lease()).await.unwrap();
            context.lost().cancelled().await;
            told.send(()).await.unwrap();
        }
    });
    let taking_it_away = async {
        let lease = timeout(t.patience(), begins.recv()).await.expect("the task is delivered").unwrap();
        let settled = backend.settle(&queue, vec![(lease, Disposition::Complete)]).await.unwrap().remove(0);
        settled.expect("a lease that is live");
        timeout(t.patience(), tells.recv()).await.expect("the handler is told that its lease was lost").unwrap();
    };
    let ((), report) = with_worker(worker, taking_it_away).await;
    assert_eq!((report.lease_lost, report.completed), (1, 0), "{report:?}");
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// A store that can't be reached does not extend the lease: the handler is told when it has ended, as the task may be running
/// elsewhere by then.
pub async fn dup_15_a_handler_learns_that_its_lease_could_not_be_extended(t: &Trial) {
    let (lossy, queue) = (Lossy::over(t.backend()), t.queue("unreachable"));
    let numbers = Queue::<u32>::new(lossy.clone(), queue.clone()).unwrap();
    numbers.schedule(&7).await.unwrap();
    lossy.unreachable.store(true, Ordering::SeqCst);
    let (told, mut tells) = mpsc::channel(10);
    let let_go = CancellationToken::new();
    let waits = let_go.clone();
    // One at a time, so that the worker does not take the task again itself.
    let worker = Worker::builder().lease(t.units(4).min(t.caps().lease_max)).concurrency(1);
    let worker = worker.queue(&numbers, move |_, context: Context| {
        let (told, waits) = (told.clone(), waits.clone());
        async move {
            context.lost().cancelled().await;
            told.send(context.attempt()).await.unwrap();
            waits.cancelled().await;
        }
    });
    let elsewhere = async {
        assert_eq!(timeout(t.patience(), tells.recv()).await.expect("the handler is told"), Some(1));
        let mut subscription = t.subscribe(&t.backend(), &queue).await;
        let again = t.take(&mut subscription, 1).await;
        assert!(matches!(again.as_slice(), [one] if one.lease.attempt == 2), "{again:?}");
        t.complete(&t.backend(), &queue, &again).await;
        let_go.cancel();
    };
    let ((), report) = with_worker(worker, elsewhere).await;
    assert_eq!((report.lease_lost, report.completed), (1, 0), "{report:?}");
    assert!(lossy.refused.load(Ordering::SeqCst) > 0 || !Need::Extend.is_met(t.caps()), "it tried");
    assert!(t.drain(&t.backend(), &queue, 0).await.is_empty());
}

/// Runs a worker beside `and`, then shuts it down.
async fn with_worker<T>(worker: WorkerBuilder, and: impl Future<Output = T>) -> (T, WorkerReport) {
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.shutdown(stop.clone()).build().expect("a worker").run());
    let result = and.await;
    stop.cancel();
    (result, running.await.expect("the worker's task").expect("the worker's report"))
}

/// A client whose store does what it is told, and whose answers to `settle` are lost while `lose` is set, or whose
/// extensions do not reach it.
#[derive(Debug)]
struct Lossy {
    inner: Arc<dyn DelayBackend>,
    lose: AtomicBool,
    lost: AtomicU64,
    /// Set where extensions are to fail, and how many have.
    unreachable: AtomicBool,
    refused: AtomicU64,
}

impl Lossy {
    fn over(inner: Arc<dyn DelayBackend>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            lose: AtomicBool::default(),
            lost: AtomicU64::default(),
            unreachable: AtomicBool::default(),
            refused: AtomicU64::default(),
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for Lossy {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.inner.schedule(queue, tasks).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        self.inner.subscribe(queue, options).await
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        let answers = self.inner.settle(queue, dispositions).await?;
        // Each answer is lost once: a disposition that is repeated gets the answer to its repetition.
        if self.lose.load(Ordering::SeqCst) && answers.iter().any(Result::is_ok) {
            self.lost.fetch_add(answers.len() as u64, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Ambiguous, "the answer was lost"));
        }
        Ok(answers)
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        if self.unreachable.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Unavailable, "the store can't be reached"));
        }
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
