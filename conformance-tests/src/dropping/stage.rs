//! Drops an operation at each of its await points, and checks the state afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    AdminOp, Claim, ClaimedTask, Consumer, DeadLetterOp, DeadLetterSelect, DelayBackend, Delivery, Disposition, Due,
    ErrorKind, GroupName, NewTask, Queue, QueueName, RetryPolicy, Subscription, Support, TaskId, TaskRef,
};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::{At, CountedWaker, Yielding, turns};
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

/// More await points than any call of the suite has.
const PENDINGS_MAX: u32 = 2_000;

/// The tasks that stand in the queue, due at once, when an operation begins.
pub(crate) const TASKS: [&str; 3] = ["a", "b", "c"];

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A future under test.
pub(crate) struct Act<'a>(pub(crate) Boxed<'a, ()>);

/// One call, and what dropping it may have done.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) expect: Expect,
    /// Prepares what the call works on, and makes the future that is dropped.
    pub(crate) begin: for<'a> fn(&'a Stage<'a>) -> Boxed<'a, Act<'a>>,
}

/// What may differ from this afterwards: each of [`TASKS`] is delivered once more, as its first attempt, and no other.
#[derive(Clone, Copy, Default)]
pub(crate) struct Expect {
    /// These may have been ended by the call.
    pub(crate) may_end: &'static [&'static str],
    /// These were ended by it for certain, also where it was dropped.
    pub(crate) must_end: &'static [&'static str],
    /// These may be dead letters, where they are not delivered.
    pub(crate) may_die: &'static [&'static str],
    /// These may be there as well.
    pub(crate) may_come: &'static [&'static str],
    /// These may have lost one attempt.
    pub(crate) may_cost: &'static [&'static str],
    /// These have lost one attempt.
    pub(crate) must_cost: &'static [&'static str],
}

impl Expect {
    /// No difference.
    pub(crate) const NOTHING: Self =
        Self { may_end: &[], must_end: &[], may_die: &[], may_come: &[], may_cost: &[], must_cost: &[] };

    /// Those of [`TASKS`] that have to come.
    fn must_come(&self) -> impl Iterator<Item = &'static str> {
        let gone = [self.may_end, self.must_end, self.may_die].concat();
        TASKS.into_iter().filter(move |key| !gone.contains(key))
    }

    /// Those of [`TASKS`] that can come.
    fn can_come(&self) -> impl Iterator<Item = &'static str> {
        TASKS.into_iter().filter(|key| !self.must_end.contains(key))
    }
}

/// A table of operations: a name, what it needs, what may differ, and a block that prepares and returns the future.
macro_rules! operations {
    ($($name:literal [$($need:ident)*] $expect:expr, |$s:ident| $begin:block)*) => {
        &[$($crate::dropping::stage::Operation {
            name: $name,
            needs: &[$($crate::need::Need::$need),*],
            expect: $expect,
            begin: |$s| Box::pin(async move { $crate::dropping::stage::Act(Box::pin($begin)) }),
        }),*]
    };
}
pub(crate) use operations;

/// Drops each operation that the backend has at its first, second, ... pending, at once and late, until it completes;
/// over the backend itself, and over [`Yielding`].
pub(crate) async fn dropped_everywhere(t: &Trial, operations: &[Operation]) {
    let mut dropped_over_yielding = 0;
    let missing = |one: &Operation| one.needs.iter().copied().find(|need| !need.is_met(t.caps()));
    if let Some(need) =
        operations.iter().map(missing).collect::<Option<Vec<_>>>().and_then(|needs| needs.first().copied())
    {
        // There is nothing to be dropped, and that is as declared.
        need.assert_as_declared(t).await;
        return;
    }
    for operation in operations.iter().filter(|one| missing(one).is_none()) {
        run(t, operation, t.backend(), "direct").await;
        let backend = Arc::new(Yielding::over(t.backend(), 2));
        let dropped = run(t, operation, backend, "yielding").await;
        assert!(dropped > 0, "{}: a call over `Yielding` has await points", operation.name);
        dropped_over_yielding += dropped;
    }
    assert!(dropped_over_yielding > 0, "some operation is there to be dropped");
}

/// How often it was dropped before it completed.
///
/// All rounds are on one queue, which is empty after each: making a queue costs some stores more than a round. What a
/// round has left comes in the next one, as one task too many, or at the end.
async fn run(t: &Trial, operation: &Operation, backend: Arc<dyn DelayBackend>, how: &str) -> u32 {
    // A queue's name has room for so much of it.
    let plain: String =
        operation.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(26).collect();
    let queue = t.queue(&format!("{plain}.{how}"));
    // What is made once, such as a connection, is there after a first round.
    let baseline = round(t, operation, &backend, &queue, &format!("{how}, whole"), None).await.alive;
    let mut dropped = 0;
    for late in [false, true] {
        for pending in 1.. {
            assert!(pending < PENDINGS_MAX, "{}: is pending again and again", operation.name);
            let when = format!("{how}, dropped {} at its pending {pending}", if late { "late" } else { "at once" });
            let ended = round(t, operation, &backend, &queue, &when, Some((At { pending, late }, baseline))).await;
            if ended.completed {
                break;
            }
            dropped += 1;
        }
    }
    let mut subscription = t.subscribe(&backend, &queue).await;
    let late = empty(t, &backend, &queue, &mut subscription).await;
    assert!(late.is_empty(), "{} ({how}): came when all was over: {late:?}", operation.name);
    subscription.close().await.expect("a subscription that can be closed");
    dropped
}

struct Ended {
    completed: bool,
    alive: usize,
}

/// Prepares the operation on an empty queue, drops it as told, and looks what is left.
async fn round(
    t: &Trial,
    operation: &Operation,
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    when: &str,
    drop: Option<(At, usize)>,
) -> Ended {
    let what = format!("{} ({when})", operation.name);
    let stage = Stage::set(t, backend.clone(), queue.clone(), what).await;
    let waker = Arc::new(CountedWaker::default());
    let Act(act) = (operation.begin)(&stage).await;
    let before = alive();
    let at = drop.map_or(At { pending: u32::MAX, late: false }, |(at, _)| at);
    let completed = waker.drive(at, act).await.is_some();
    // What goes on in the background is given the time to; what stays for ever is found below.
    quiet(t, Duration::from_secs(1), || alive() <= before).await;
    stage.finish(&operation.expect).await;
    let what = stage.what.clone();
    std::mem::drop(stage);
    if let Some((_, baseline)) = drop {
        quiet(t, t.patience(), || alive() <= baseline && waker.kept() == 0).await;
        assert!(alive() <= baseline, "{what} left {} tasks of the runtime", alive() - baseline);
        assert_eq!(waker.kept(), 0, "{what} left its waker registered");
    } else {
        quiet(t, Duration::from_millis(100), || alive() == 0).await;
    }
    Ended { completed, alive: alive() }
}

fn alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Waits until it is so, no longer than `at_most`.
pub(crate) async fn quiet(t: &Trial, at_most: Duration, is_so: impl Fn() -> bool) {
    let ends = Instant::now() + at_most;
    while !is_so() && Instant::now() < ends {
        turns(10).await;
        if !is_so() {
            sleep(Duration::from_millis(if t.is_virtual() { 1 } else { 5 })).await;
        }
    }
}

/// A queue with [`TASKS`], and what an operation holds of it.
pub(crate) struct Stage<'t> {
    pub(crate) t: &'t Trial,
    pub(crate) backend: Arc<dyn DelayBackend>,
    pub(crate) name: QueueName,
    pub(crate) queue: Queue<String>,
    pub(crate) refs: BTreeMap<&'static str, TaskRef>,
    /// Claimed through the trait and not settled for certain.
    pub(crate) taken: Mutex<Vec<ClaimedTask>>,
    /// Delivered by the consumer and not settled.
    pub(crate) deliveries: Mutex<Vec<Delivery<String>>>,
    pub(crate) consumer: Mutex<Option<Consumer<String>>>,
    pub(crate) subscription: Mutex<Option<Box<dyn Subscription>>>,
    what: String,
}

impl<'t> Stage<'t> {
    async fn set(t: &'t Trial, backend: Arc<dyn DelayBackend>, name: QueueName, what: String) -> Self {
        let queue = Queue::new(backend.clone(), name.clone()).expect("a queue of a valid name");
        let tasks = TASKS.map(|key| task(t, key));
        let scheduled = t.put_all(&backend, &name, tasks).await;
        let refs = TASKS.into_iter().zip(scheduled.into_iter().map(TaskRef::from)).collect();
        Self {
            t,
            backend,
            name,
            queue,
            refs,
            taken: Mutex::default(),
            deliveries: Mutex::default(),
            consumer: Mutex::default(),
            subscription: Mutex::default(),
            what,
        }
    }

    /// One more task under this key, due at once.
    pub(crate) fn task(&self, key: &str) -> NewTask {
        task(self.t, key)
    }

    pub(crate) fn a(&self) -> TaskRef {
        self.refs["a"].clone()
    }

    /// Takes the first tasks, in the order of their ids, through a subscription that stays open.
    pub(crate) async fn take(&self, n: usize) -> Vec<ClaimedTask> {
        let mut subscription = self.t.subscribe(&self.backend, &self.name).await;
        let mut taken = self.t.take(&mut subscription, TASKS.len()).await;
        taken.sort_by(|x, y| x.lease.id.cmp(&y.lease.id));
        let rest = taken.split_off(n);
        for one in &rest {
            self.t.settle(&self.backend, &self.name, one, Disposition::Release).await.expect("a release");
        }
        *self.subscription.lock().await = Some(subscription);
        taken
    }

    /// Opens a subscription that stays open.
    pub(crate) async fn open_subscription(&self) {
        *self.subscription.lock().await = Some(self.t.subscribe(&self.backend, &self.name).await);
    }

    /// Opens a consumer that stays open.
    pub(crate) async fn open(&self) {
        let lease = LONG_LEASE.min(self.t.caps().lease_max);
        let retry = RetryPolicy::fixed(Duration::from_millis(1));
        let consumer = self.queue.consumer().lease(lease).retry(retry).open().await.expect("a consumer");
        *self.consumer.lock().await = Some(consumer);
    }

    /// The first deliveries, in the order of their ids, through a consumer that stays open.
    pub(crate) async fn deliver(&self, n: usize) -> Vec<Delivery<String>> {
        self.open().await;
        let mut consumer = self.consumer.lock().await;
        let consumer = consumer.as_mut().expect("the consumer that was opened");
        let mut deliveries = Vec::new();
        while deliveries.len() < TASKS.len() {
            deliveries.extend(consumer.next_batch(TASKS.len()).await.expect("tasks that are due"));
        }
        deliveries.sort_by(|x, y| x.id().cmp(y.id()));
        for rest in deliveries.split_off(n) {
            rest.release().await.expect("a release");
        }
        deliveries
    }

    /// A dead letter of `a`.
    pub(crate) async fn dead_letter_a(&self) {
        let taken = self.take(1).await;
        let disposition = Disposition::DeadLetter { reason: "a test".into() };
        self.t.settle(&self.backend, &self.name, &taken[0], disposition).await.expect("a burial");
    }

    /// Goes on as a caller would, until the queue is empty, and holds what came against what had to.
    async fn finish(&self, expect: &Expect) {
        let mut came = Came { what: &self.what, attempts: BTreeMap::new() };
        if self.t.caps().pause == Support::Definite {
            self.queue.resume().await.expect("a queue that can be resumed");
        }
        for delivery in self.deliveries.lock().await.drain(..) {
            came.note(delivery.id(), delivery.attempt());
            delivery.complete().await.expect("a delivery that can be completed");
        }
        for task in self.taken.lock().await.drain(..) {
            match self.t.settle(&self.backend, &self.name, &task, Disposition::Complete).await {
                Ok(()) => came.note(&task.lease.id, task.lease.attempt),
                // What was dropped, took effect.
                Err(e) if matches!(e.kind(), ErrorKind::LeaseLost | ErrorKind::Ambiguous) => {}
                Err(e) => panic!("{}: settling again: {e}", self.what),
            }
        }
        self.empty_through_consumer(&mut came).await;
        self.empty_through_subscription(expect, &mut came).await;
        self.t.history().drained(&self.name);
        let dead = self.dead().await;
        came.hold_against(expect, &dead);
    }

    /// The consumer that was dropped upon goes on.
    async fn empty_through_consumer(&self, came: &mut Came<'_>) {
        let Some(mut consumer) = self.consumer.lock().await.take() else { return };
        loop {
            let batch = consumer.try_next_batch(10).await.expect("a consumer that goes on");
            if batch.is_empty() {
                break;
            }
            for delivery in batch {
                came.note(delivery.id(), delivery.attempt());
                delivery.complete().await.expect("a delivery that can be completed");
            }
        }
        consumer.close().await.expect("a consumer that can be closed");
    }

    async fn empty_through_subscription(&self, expect: &Expect, came: &mut Came<'_>) {
        let subscription = self.subscription.lock().await.take();
        let mut subscription = match subscription {
            Some(subscription) => subscription,
            None => self.t.subscribe(&self.backend, &self.name).await,
        };
        let stats = self.t.caps().stats == Support::Definite;
        // Where nobody can tell what is left in a queue, its silence does, for which each round would wait.
        while !stats && expect.must_come().any(|key| !came.attempts.contains_key(key)) {
            let some = self.t.take_some(&mut subscription, 1_000, LONG_LEASE, self.t.patience()).await;
            if some.is_empty() {
                break;
            }
            self.t.complete(&self.backend, &self.name, &some).await;
            some.iter().for_each(|task| came.note(&task.lease.id, task.lease.attempt));
        }
        let all_came = expect.can_come().all(|key| came.attempts.contains_key(key));
        let rest = match stats || !all_came {
            true => empty(self.t, &self.backend, &self.name, &mut subscription).await,
            false => nothing_due(self.t, &self.backend, &self.name, &mut subscription).await,
        };
        rest.iter().for_each(|task| came.note(&task.lease.id, task.lease.attempt));
        subscription.close().await.expect("a subscription that can be closed");
    }

    /// The dead letters, which are purged; `None` where they can't be seen.
    async fn dead(&self) -> Option<BTreeSet<String>> {
        if self.t.caps().dead_letters != Support::Definite {
            return None;
        }
        let list = DeadLetterOp::List { after: None, limit: 100 };
        let listed = self.backend.dead_letters(&self.name, list).await.expect("a listing");
        let purge = DeadLetterOp::Purge { select: DeadLetterSelect::All };
        self.backend.dead_letters(&self.name, purge).await.expect("a purge");
        Some(listed.letters.into_iter().map(|letter| letter.id.to_string()).collect())
    }
}

fn task(t: &Trial, key: &str) -> NewTask {
    // The payload as `Queue<String>` reads it.
    let task = NewTask::new(Due::NOW, format!("{key:?}")).id(t.id(key));
    if t.caps().groups == Support::Definite { task.group(room()) } else { task }
}

/// The group of all [`TASKS`], where there are groups.
pub(crate) fn room() -> GroupName {
    GroupName::new("room").expect("a short name")
}

/// Takes and completes what is there and what comes, until nothing is left, as far as the backend can tell.
///
/// # Panics
/// If something is left that does not come.
pub(crate) async fn empty(
    t: &Trial,
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    subscription: &mut Box<dyn Subscription>,
) -> Vec<ClaimedTask> {
    let mut done = Vec::new();
    let ends = Instant::now() + t.patience();
    let quiet = t.units(2) + t.caps().resolution + t.caps().lateness;
    loop {
        let some = t.take_some(subscription, t.caps().batch_max.min(1_000), LONG_LEASE, Duration::ZERO).await;
        t.complete(backend, queue, &some).await;
        let came = !some.is_empty();
        done.extend(some);
        if came {
            continue;
        }
        if t.caps().stats == Support::Definite {
            let stats = backend.stats(queue).await.expect("statistics");
            if stats.scheduled + stats.due + stats.in_flight == 0 {
                return done;
            }
            if stats.paused {
                // A pause that was dropped goes on, and may come after the resume that was to undo it.
                backend.administer(queue, AdminOp::Resume).await.expect("a queue that can be resumed");
            }
            assert!(Instant::now() < ends, "what is left in `{queue}` does not come: {stats:?}");
        }
        let some = t.take_some(subscription, 1, LONG_LEASE, quiet).await;
        if some.is_empty() && t.caps().stats != Support::Definite {
            return done;
        }
        t.complete(backend, queue, &some).await;
        done.extend(some);
    }
}

/// Takes and completes what is due, and what is known to be due next, until a claim finds nothing more.
async fn nothing_due(
    t: &Trial,
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    subscription: &mut Box<dyn Subscription>,
) -> Vec<ClaimedTask> {
    let mut done = Vec::new();
    loop {
        let claim = Claim::new(1_000, LONG_LEASE.min(t.caps().lease_max));
        let claimed = subscription.claim(claim).await.expect("a claim");
        match (claimed.deliveries.is_empty(), claimed.next_due_in) {
            (true, None) => return done,
            (true, Some(next)) => subscription.wait(next).await,
            (false, _) => {}
        }
        t.complete(backend, queue, &claimed.deliveries).await;
        done.extend(claimed.deliveries);
    }
}

/// What was delivered and completed after the drop, with its attempt.
struct Came<'a> {
    what: &'a str,
    attempts: BTreeMap<String, u32>,
}

impl Came<'_> {
    fn note(&mut self, id: &TaskId, attempt: u32) {
        let before = self.attempts.insert(id.to_string(), attempt);
        assert_eq!(before, None, "{}: `{id}` came twice", self.what);
    }

    fn hold_against(&self, expect: &Expect, dead: &Option<BTreeSet<String>>) {
        let what = self.what;
        let is_dead = |key: &str| dead.as_ref().map(|dead| dead.contains(key));
        for key in TASKS {
            let came = self.attempts.contains_key(key);
            let died = expect.may_die.contains(&key).then(|| is_dead(key)).flatten();
            if expect.must_end.contains(&key) {
                assert!(!came, "{what}: `{key}` was ended, and came again");
            } else if died == Some(true) {
                assert!(!came, "{what}: `{key}` is a dead letter, and came as well");
            } else {
                let unseen_dead = expect.may_die.contains(&key) && dead.is_none();
                assert!(came || unseen_dead || expect.may_end.contains(&key), "{what}: `{key}` was lost");
            }
        }
        for key in expect.may_die.iter().filter(|key| expect.must_end.contains(key)) {
            assert_ne!(is_dead(key), Some(false), "{what}: `{key}` is no dead letter");
        }
        for (key, attempt) in &self.attempts {
            let key = key.as_str();
            assert!(TASKS.contains(&key) || expect.may_come.contains(&key), "{what}: `{key}` was never there");
            let (least, most) = match (expect.must_cost.contains(&key), expect.may_cost.contains(&key)) {
                (true, _) => (2, 2),
                (false, true) => (1, 2),
                (false, false) => (1, 1),
            };
            assert!((least..=most).contains(attempt), "{what}: `{key}` came as attempt {attempt}");
        }
    }
}
