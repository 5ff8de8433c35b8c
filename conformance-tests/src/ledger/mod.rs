//! Checks a run of many tasks while it is in progress: which tasks were lost, came twice or came early.
//!
//! The checkers of a history ([`check`](mod@crate::check)) need every call, hundreds of bytes for each task. A program
//! that drives millions keeps a [`Ledger`] instead: 24 bytes per task, and nothing that grows. For the promises below,
//! it finds the same as the checkers find in a history of the same calls; `check/tests/ledger.rs` compares both.
//!
//! | promise | what is found |
//! |---|---|
//! | LOSS-1 | accepted, and neither completed nor cancelled |
//! | DUP-1, DUP-3 | delivered again while it was held, or after it was completed |
//! | TIME-1 | delivered before its due time |
//! | CANCEL-1 | answered as cancelled while it was held, or after it was completed |
//! | CANCEL-2, CANCEL-3 | delivered after it was cancelled |
//! | DUP-12 | completed after a wrong number of deliveries |
//!
//! It is beside the checkers, because they define these terms. The command line's `demo` and `bench` use it. Its `run`
//! and `work` do not, because their tasks have no numbers, only ids of any length, and their streams have no end. They
//! only count (`cli/src/tally.rs`).
//!
//! # Rules
//! The ledger uses no count of the library. Instants are read from the caller's monotonic clock:
//! 1. A task must not come before `not_before`, the latest time that is known to be agreed on. It counts from an instant
//!    before the call was sent, so it is never later than the time to which the store agreed. It is raised only after the
//!    store has answered, so that a delivery that crossed the call is checked against the former time.
//! 2. A task is held from its delivery until it is completed or released, and no longer than its lease.
//! 3. If the answer to a call was lost, or if a cancel could only be requested, either outcome is accepted.
//!
//! Functions that are called for each task are `inline`: a release build of the program compiles this crate without
//! optimizations, and the bench would measure that.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use delayline_core::ChangeOutcome;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Number of tasks that are named for each problem.
const NAMED_MAX: usize = 5;

const ACCEPTED: u32 = 1;
const COMPLETED: u32 = 1 << 1;
const HELD: u32 = 1 << 2;
const CANCELLED: u32 = 1 << 3;
/// Cancelled while it was in flight: it is not delivered again.
const MARKED: u32 = 1 << 4;
/// ... but whoever had claimed it then had not shown it yet, and may, once.
const MAY_COME: u32 = 1 << 5;
/// A cancel was asked for, and nobody can tell whether it came in time.
const ASKED: u32 = 1 << 6;
const EARLY: u32 = 1 << 7;
const AGAIN: u32 = 1 << 8;
const REVIVED: u32 = 1 << 9;
const MISTOLD: u32 = 1 << 10;
/// It was not settled within its lease, so it had to come again.
const OVERHELD: u32 = 1 << 11;
const ONE_DELIVERY: u32 = 1 << 16;

/// Nobody holds the task.
const FREE: u64 = u64::MAX;

/// The ledger of one run. Tasks are numbered from 0; an unknown number panics.
#[derive(Debug)]
pub struct Ledger {
    origin: Instant,
    lease_ns: u64,
    /// How often each task is delivered before it is completed, where that is known.
    deliveries: Option<u32>,
    tasks: Box<[Entry]>,
    /// Accepted, and neither completed nor cancelled.
    open: AtomicI64,
    /// Of these, those that may never come.
    unsure: AtomicI64,
    completed: AtomicU64,
    moved: Notify,
}

#[derive(Debug)]
struct Entry {
    /// Nanoseconds from the origin, as are all times here.
    not_before: AtomicU64,
    held_since: AtomicU64,
    state: AtomicU32,
}

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing(u32);

impl Standing {
    /// The store has accepted it.
    #[must_use]
    #[inline]
    pub fn is_accepted(self) -> bool {
        self.has(ACCEPTED)
    }

    /// It was completed.
    #[must_use]
    #[inline]
    pub fn is_completed(self) -> bool {
        self.has(COMPLETED)
    }

    /// It was delivered, and neither completed nor given back since.
    #[must_use]
    #[inline]
    pub fn is_held(self) -> bool {
        self.has(HELD)
    }

    /// A cancel was answered so that it need not come any more: cancelled, marked in flight, or asked for.
    #[must_use]
    #[inline]
    pub fn may_be_gone(self) -> bool {
        self.has(CANCELLED | MARKED | ASKED)
    }

    /// How often it was delivered.
    #[must_use]
    pub fn deliveries(self) -> u32 {
        self.0 / ONE_DELIVERY
    }

    #[inline]
    fn has(self, any: u32) -> bool {
        self.0 & any != 0
    }

    #[inline]
    fn is_open(self) -> bool {
        self.is_accepted() && !self.has(COMPLETED | CANCELLED)
    }
}

impl Ledger {
    /// A ledger for this many tasks.
    #[must_use]
    pub fn new(tasks: u32) -> Self {
        let entry =
            |_| Entry { not_before: AtomicU64::new(0), held_since: AtomicU64::new(FREE), state: AtomicU32::new(0) };
        Self {
            origin: Instant::now(),
            lease_ns: u64::MAX,
            deliveries: None,
            tasks: (0..tasks).map(entry).collect(),
            open: AtomicI64::new(0),
            unsure: AtomicI64::new(0),
            completed: AtomicU64::new(0),
            moved: Notify::new(),
        }
    }

    /// Sets the length of leases, which are not extended: a task that is held for longer is lost to its holder.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease_ns: nanos(lease), ..self }
    }

    /// Sets the number of deliveries of each task before it is completed.
    #[must_use]
    pub fn deliveries(self, deliveries: u32) -> Self {
        Self { deliveries: Some(deliveries), ..self }
    }

    /// Number of tasks that it has room for.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.tasks.len() as u32
    }

    /// Whether it has no room for tasks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Number of completed tasks.
    #[must_use]
    #[inline]
    pub fn completed_count(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// The state of a task.
    #[must_use]
    #[inline]
    pub fn look(&self, task: u32) -> Standing {
        Standing(self.entry(task).state.load(Ordering::Acquire))
    }

    /// Whether a task is due, as far as is known.
    #[must_use]
    #[inline]
    pub fn is_due(&self, task: u32, at: Instant) -> bool {
        self.entry(task).not_before.load(Ordering::Acquire) <= self.at(at)
    }

    /// A task is about to be scheduled, or was moved: it must not come before this time.
    #[inline]
    pub fn due(&self, task: u32, not_before: Instant) {
        self.entry(task).not_before.store(self.at(not_before), Ordering::Release);
    }

    /// All tasks that were shifted are due later by this time. A task that was not due when the answer came can't have
    /// been in flight, so it was shifted. For the others this is unknown, and the former time counts.
    pub fn shifted(&self, by: Duration, answered: Instant) {
        let (by, answered) = (nanos(by), self.at(answered));
        let later = |not_before: u64| (not_before > answered).then(|| not_before.saturating_add(by));
        for entry in &self.tasks {
            let _ = entry.not_before.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
        }
    }

    /// The store has accepted it.
    #[inline]
    pub fn accepted(&self, task: u32) {
        self.change(task, |state| state | ACCEPTED);
    }

    /// A task was delivered at this instant. Returns the number of its deliveries, this one included.
    #[inline]
    pub fn delivered(&self, task: u32, at: Instant) -> u32 {
        let (entry, at) = (self.entry(task), self.at(at));
        let early = if at < entry.not_before.load(Ordering::Acquire) { EARLY } else { 0 };
        let held_since = entry.held_since.swap(at, Ordering::AcqRel);
        let (_, now) = self.change(task, |state| {
            let mut found = early;
            if self.is_overheld(held_since, at) {
                found |= OVERHELD;
            } else if held_since != FREE || state & COMPLETED != 0 {
                found |= AGAIN;
            }
            if state & CANCELLED != 0 || state & (MARKED | MAY_COME) == MARKED {
                found |= REVIVED;
            }
            // Nobody counts further.
            let once = if Standing(state).deliveries() < u32::from(u16::MAX) { ONE_DELIVERY } else { 0 };
            (state + once) & !MAY_COME | HELD | found
        });
        now.deliveries()
    }

    /// Its holder is about to release it for a retry, which must not come before this time.
    #[inline]
    pub fn given_back(&self, task: u32, not_before: Instant) {
        let entry = self.entry(task);
        entry.not_before.fetch_max(self.at(not_before), Ordering::AcqRel);
        self.change(task, |state| state & !HELD);
        entry.held_since.store(FREE, Ordering::Release);
    }

    /// It is complete.
    #[inline]
    pub fn completed(&self, task: u32) {
        let (before, _) = self.change(task, |state| state & !HELD | COMPLETED);
        self.entry(task).held_since.store(FREE, Ordering::Release);
        if !before.is_completed() {
            self.completed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A cancel was answered at this instant; `None` if the answer was lost.
    pub fn cancelled(&self, task: u32, answer: Option<ChangeOutcome>, at: Instant) {
        let at = self.at(at);
        match answer {
            Some(ChangeOutcome::Changed) => {
                let overheld = self.is_overheld(self.entry(task).held_since.load(Ordering::Acquire), at);
                self.change(task, |state| {
                    let there = state & COMPLETED == 0 && (state & HELD == 0 || overheld);
                    state | CANCELLED | if there { 0 } else { MISTOLD }
                });
            }
            Some(ChangeOutcome::InFlight) => {
                self.change(task, |state| state | MARKED | if state & HELD == 0 { MAY_COME } else { 0 });
            }
            // If that is not true, it shows as lost.
            Some(ChangeOutcome::NotFound) => {}
            // `Requested`, or what a later version may answer.
            Some(_) | None => {
                self.change(task, |state| state | ASKED);
            }
        }
    }

    /// Returns when all accepted tasks are done, or when nothing was completed for this long.
    pub async fn drained(&self, patience: Duration) {
        loop {
            let moved = self.moved.notified();
            let completed = self.completed_count();
            if self.open.load(Ordering::Acquire) <= self.unsure.load(Ordering::Acquire) {
                return;
            }
            if timeout(patience, moved).await.is_err() && completed == self.completed_count() {
                return;
            }
        }
    }

    /// The verdict, when everything is done.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for task in 0..self.len() {
            let standing = self.look(task);
            let other = self.deliveries.is_some_and(|deliveries| deliveries != standing.deliveries());
            let mut found = |what: fn(&mut Verdict) -> &mut Tally, holds: bool| {
                if holds {
                    what(&mut verdict).count(task);
                }
            };
            let unfinished = standing.is_accepted() && !standing.is_completed();
            found(|v| &mut v.accepted, standing.is_accepted());
            found(|v| &mut v.cancelled, unfinished && standing.may_be_gone());
            found(|v| &mut v.lost, unfinished && !standing.may_be_gone());
            found(|v| &mut v.early, standing.has(EARLY));
            found(|v| &mut v.again, standing.has(AGAIN));
            found(|v| &mut v.revived, standing.has(REVIVED));
            found(|v| &mut v.mistold, standing.has(MISTOLD));
            found(|v| &mut v.twice, standing.has(AGAIN | REVIVED | MISTOLD));
            found(|v| &mut v.overheld, standing.has(OVERHELD));
            found(|v| &mut v.miscounted, standing.is_completed() && other && !standing.has(AGAIN | OVERHELD));
        }
        verdict
    }

    /// Changes the state of a task, and returns the old and the new state.
    #[inline]
    fn change(&self, task: u32, how: impl Fn(u32) -> u32) -> (Standing, Standing) {
        let state = &self.entry(task).state;
        let mut after = 0;
        let change = |state| {
            after = how(state);
            Some(after)
        };
        let before = state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).unwrap_or_else(|state| state);
        let (before, after) = (Standing(before), Standing(after));
        let is_unsure = |standing: Standing| standing.is_open() && standing.may_be_gone();
        let open = i64::from(after.is_open()) - i64::from(before.is_open());
        let unsure = i64::from(is_unsure(after)) - i64::from(is_unsure(before));
        if open != 0 || unsure != 0 {
            if unsure != 0 {
                self.unsure.fetch_add(unsure, Ordering::AcqRel);
            }
            let open = self.open.fetch_add(open, Ordering::AcqRel) + open;
            // Whoever waits looks again now and then; telling of each task would cost more than the task.
            if open <= self.unsure.load(Ordering::Acquire) || open % 1024 == 0 {
                self.moved.notify_waiters();
            }
        }
        (before, after)
    }

    #[inline]
    fn is_overheld(&self, held_since: u64, at: u64) -> bool {
        held_since != FREE && at.saturating_sub(held_since) >= self.lease_ns
    }

    #[inline]
    fn entry(&self, task: u32) -> &Entry {
        &self.tasks[task as usize]
    }

    #[inline]
    fn at(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.origin))
    }
}

/// Nanoseconds, below the number that means something else.
#[inline]
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).map_or(FREE - 1, |nanos| nanos.min(FREE - 1))
}

/// The judgement of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted by the store.
    pub accepted: Tally,
    /// Accepted, never completed, and excused by a cancel.
    pub cancelled: Tally,
    /// Accepted, and neither completed nor excused (LOSS-1).
    pub lost: Tally,
    /// Delivered before its due time (TIME-1).
    pub early: Tally,
    /// Delivered again while it was held, or after it was completed (DUP-1, DUP-3).
    pub again: Tally,
    /// Delivered after it was cancelled (CANCEL-2, CANCEL-3).
    pub revived: Tally,
    /// Answered as cancelled while it was held, or after it was completed (CANCEL-1).
    pub mistold: Tally,
    /// Any of these three.
    pub twice: Tally,
    /// Completed after a wrong number of deliveries (DUP-12).
    pub miscounted: Tally,
    /// Came again because it was held beyond its lease, which breaks no promise.
    pub overheld: Tally,
}

/// A number of tasks, and the first five of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// The first.
    pub first: Vec<u32>,
}

impl Tally {
    fn count(&mut self, task: u32) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(task);
        }
    }
}
