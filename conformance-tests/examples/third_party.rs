//! A backend of one's own, over a `BTreeMap`, and its proof: `cargo test -p delayline-conformance --example third_party`.
//!
//! It schedules, delivers and settles; everything else keeps the trait's default, which answers `Unsupported`, and its
//! `Capabilities` say so. The suite holds it to both.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use delayline_backend_kit::{Claims, Ids, Lifecycle, ListeningSubscription, Local, Notification, Notifier};
use delayline_conformance::{Harness, Time};
use delayline_core::{
    Capabilities, Claim, Claimed, ClaimedTask, Clock, DelayBackend, Disposition, Due, Error, ErrorKind, Lease,
    LeaseHold, NewTask, Order, QueueName, Receipt, Result, ScheduleOutcome, Scheduled, Subscription,
    SubscriptionOptions, SystemClock, TaskRef, TestClock, Timestamp, async_trait,
};
use parking_lot::{Mutex, MutexGuard};

/// The one index: (visible at in milliseconds of the wall clock, sequence).
type Place = (i64, u64);

#[derive(Debug)]
struct Entry {
    task: NewTask,
    lease: Option<Lease>,
    attempt: u32,
    expires_ms: i64,
}

#[derive(Debug, Default)]
struct State {
    queues: HashMap<QueueName, BTreeMap<Place, Entry>>,
    sequence: u64,
    fence: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told of a queue whenever one of its tasks may have become visible; a listener remembers what it was told (LIVE-4).
    notifier: Notifier<Local<QueueName>>,
    lifecycle: Arc<Lifecycle>,
    ids: Ids,
    clock: Arc<TestClock>,
}

impl Shared {
    fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        self.lifecycle.open()?;
        Ok(state)
    }

    fn now_ms(&self) -> i64 {
        self.clock.wall().unix_millis_floor()
    }

    /// In whole milliseconds, rounded up; a delay of zero is due at once (TIME-4).
    fn after_ms(&self, after: Duration) -> i64 {
        if after.is_zero() { self.now_ms() } else { self.clock.wall().saturating_add(after).unix_millis_ceil() }
    }
}

#[derive(Clone, Debug)]
struct Backend(Arc<Shared>, Capabilities);

impl Backend {
    fn new(clock: Arc<TestClock>) -> Self {
        let mut capabilities = Capabilities::minimal("btreemap");
        capabilities.order = Order::Exact;
        capabilities.lease_hold = LeaseHold::Store;
        let (notifier, lifecycle) = (Notifier::local(), Lifecycle::new("B-tree"));
        let shared = Shared { state: Mutex::default(), notifier, lifecycle, ids: Ids::new(), clock };
        Self(Arc::new(shared), capabilities)
    }

    /// When something is due, if that is not too far away (TIME-2).
    fn place_ms(&self, due: Due) -> Result<i64> {
        let ms = match due {
            Due::After(after) => self.0.after_ms(after),
            Due::At(at) => at.unix_millis_ceil(),
            _ => unreachable!("one that the suite does not know"),
        };
        self.1.check_delay(due)?;
        if ms > self.0.after_ms(self.1.delay_max) { Err(self.1.out_of_range()) } else { Ok(ms) }
    }

    fn schedule_one(&self, state: &mut State, queue: &QueueName, mut task: NewTask) -> Result<Scheduled> {
        self.1.check(&task)?;
        let due_ms = self.place_ms(task.due)?;
        let expires_ms = task.expires.map_or(Ok(i64::MAX), |expires| self.place_ms(expires))?;
        if expires_ms < due_ms {
            return Err(Error::new(ErrorKind::Invalid, "the task expires before it is due"));
        }
        state.sequence += 1;
        let id = task.id.get_or_insert_with(|| self.0.ids.task_id()).clone();
        let entry = Entry { task, lease: None, attempt: 0, expires_ms };
        state.queues.entry(queue.clone()).or_default().insert((due_ms, state.sequence), entry);
        Ok(Scheduled::new(
            TaskRef::new(id, Timestamp::from_unix_millis(due_ms), Receipt::NONE),
            ScheduleOutcome::Created,
        ))
    }

    fn settle_one(&self, state: &mut State, queue: &QueueName, lease: &Lease, disposition: &Disposition) -> Result<()> {
        let lost = Error::lease_lost;
        let tasks = state.queues.get_mut(queue).ok_or_else(lost)?;
        let [ms, sequence] = lease.receipt.words().ok_or_else(lost)?;
        let place = (ms as i64, sequence);
        // A task that was claimed again has another fence, though it may stand at the same place.
        let entry = tasks.get_mut(&place).ok_or_else(lost)?;
        if entry.lease.as_ref().is_none_or(|held| held.fence != lease.fence) {
            return Err(lost());
        }
        let back_ms = match disposition {
            Disposition::Complete | Disposition::DeadLetter { .. } => None,
            Disposition::Retry { .. } if entry.attempt >= entry.task.attempts_max.get() => None,
            Disposition::Retry { after, .. } | Disposition::Snooze { after } => Some(self.place_ms((*after).into())?),
            // Its old place is when it was due; the lease knows it no more, so it is kept in the task.
            Disposition::Release => Some(self.place_ms(entry.task.due)?),
            _ => unreachable!("one that the suite does not know"),
        };
        let mut entry = tasks.remove(&place).ok_or_else(lost)?;
        if let Some(back_ms) = back_ms {
            entry.lease = None;
            entry.attempt -= u32::from(matches!(disposition, Disposition::Release | Disposition::Snooze { .. }));
            entry.task.due = Due::At(Timestamp::from_unix_millis(back_ms));
            tasks.insert((back_ms, sequence), entry);
        } else if tasks.is_empty() {
            state.queues.remove(queue);
        }
        Ok(())
    }

    fn settle_all(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        self.1.check_batch(dispositions.len())?;
        let mut state = self.0.open()?;
        let each =
            |(lease, disposition): (Lease, Disposition)| self.settle_one(&mut state, queue, &lease, &disposition);
        let answers = dispositions.into_iter().map(each).collect();
        self.0.notifier.notify(queue, Notification::default());
        Ok(answers)
    }
}

#[async_trait]
impl DelayBackend for Backend {
    fn capabilities(&self) -> &Capabilities {
        &self.1
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.1.check_batch(tasks.len())?;
        let mut state = self.0.open()?;
        let answers = tasks.into_iter().map(|task| self.schedule_one(&mut state, queue, task)).collect();
        self.0.notifier.notify(queue, Notification::default());
        Ok(answers)
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        drop(self.0.open()?);
        let claims = FromQueue { backend: self.clone(), queue: queue.clone() };
        Ok(Box::new(ListeningSubscription::new(claims, (), &self.0.notifier, queue.clone(), options)))
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        self.settle_all(queue, dispositions)
    }

    async fn ping(&self) -> Result<()> {
        self.0.open().map(drop)
    }

    async fn close(&self) -> Result<()> {
        self.0.lifecycle.close();
        *self.0.state.lock() = State::default();
        self.0.notifier.close().await;
        Ok(())
    }
}

/// Claims from one queue. The kit sees to what is the same for every store: that a dropped claim gives back what it took
/// (DROP-1), that one claim is under way at a time, and how to wait.
struct FromQueue {
    backend: Backend,
    queue: QueueName,
}

impl Claims for FromQueue {
    type State = ();

    fn capabilities(&self) -> &Capabilities {
        &self.backend.1
    }

    fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.backend.0.lifecycle
    }

    fn queue(&self) -> &QueueName {
        &self.queue
    }

    async fn settle(&self, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        self.backend.settle_all(&self.queue, dispositions)
    }

    // No answer is ever lost within a process.
    fn is_clean(&self, (): &()) -> bool {
        true
    }

    async fn clean_up(&self, (): &mut ()) -> Result<()> {
        Ok(())
    }

    async fn claim(&self, (): &mut (), claim: Claim) -> Result<Claimed> {
        let shared = &self.backend.0;
        let mut guard = shared.open()?;
        let state = &mut *guard;
        let (now_ms, ends_ms) = (shared.now_ms(), shared.after_ms(claim.lease));
        let (mut claimed, mut bytes) = (Claimed::default(), 0);
        let Some(tasks) = state.queues.get_mut(&self.queue) else { return Ok(claimed) };
        while let Some(first) = tasks.first_entry().filter(|first| first.key().0 <= now_ms) {
            let entry = first.get();
            bytes += entry.task.payload.len();
            let spent = entry.attempt >= entry.task.attempts_max.get() || now_ms > entry.expires_ms;
            // Always one task, however large it is (BOUND-9).
            let full =
                claimed.deliveries.len() == claim.max || (bytes > claim.max_bytes && !claimed.deliveries.is_empty());
            if full && !spent {
                break;
            }
            let ((due_ms, sequence), mut entry) = first.remove_entry();
            if spent {
                claimed.dead_lettered += 1;
                continue;
            }
            state.fence += 1;
            entry.attempt += 1;
            // Where a release puts it back.
            let due_at = Timestamp::from_unix_millis(due_ms);
            entry.task.due = Due::At(due_at);
            let id = entry.task.id.clone().expect("it got one when it was scheduled");
            let place = Receipt::from_words([ends_ms as u64, sequence]);
            let lease = Lease::new(id, state.fence, entry.attempt, Timestamp::from_unix_millis(ends_ms), place);
            let lateness = shared.clock.wall().saturating_since(due_at);
            let mut task = ClaimedTask::new(lease.clone(), due_at, lateness, entry.task.payload.clone());
            task.attempts_max = entry.task.attempts_max.get();
            task.expires_at = entry.task.expires.map(|_| Timestamp::from_unix_millis(entry.expires_ms));
            task.headers = entry.task.headers.clone();
            claimed.deliveries.push(task);
            entry.lease = Some(lease);
            tasks.insert((ends_ms, sequence), entry);
        }
        let next = tasks.keys().next().map(|(ms, _)| Timestamp::from_unix_millis(*ms));
        claimed.next_due_in = next.map(|at| at.saturating_since(shared.clock.wall()));
        if tasks.is_empty() {
            state.queues.remove(&self.queue);
        }
        Ok(claimed)
    }
}

/// All that the suite has to know of it: how to open one, and its clock, which is tokio's time from the wall clock's start.
#[derive(Debug)]
struct OverBTreeMap(Arc<TestClock>);

impl Default for OverBTreeMap {
    fn default() -> Self {
        Self(Arc::new(TestClock::at(SystemClock::new().wall())))
    }
}

#[async_trait]
impl Harness for OverBTreeMap {
    async fn open(&self) -> Result<Arc<dyn DelayBackend>> {
        Ok(Arc::new(Backend::new(self.0.clone())))
    }

    fn wall(&self) -> Timestamp {
        self.0.wall()
    }

    fn time(&self) -> Time {
        Time::Virtual
    }
}

#[cfg(test)]
delayline_conformance::suite!(OverBTreeMap::default());

fn main() {
    for test in delayline_conformance::TESTS {
        let report =
            delayline_conformance::run_test(test, Arc::new(OverBTreeMap::default()), delayline_conformance::seed());
        println!("{:<70} {:?}", report.test, report.outcome);
    }
}
