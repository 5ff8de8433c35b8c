//! The bench's books: what became of every task of a run.
//!
//! They trust nothing that the library counts: instants are this process's monotonic clock, read before a call is sent and
//! when a delivery is there. A task takes 24 bytes, so that millions can be watched without being felt. `tests` plants
//! every fault that they are to find.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use delayline::ChangeOutcome;
use indicatif::HumanCount;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// So many tasks are named where something went wrong.
const NAMED_MAX: usize = 3;

const ACCEPTED: u32 = 1;
const COMPLETED: u32 = 1 << 1;
const CANCELLED: u32 = 1 << 2;
/// A cancel was asked for, and the backend can't tell whether it came in time.
const ASKED: u32 = 1 << 3;
const EARLY: u32 = 1 << 4;
const TWICE: u32 = 1 << 5;
/// Delivered although its cancellation was answered.
const REVIVED: u32 = 1 << 6;
/// It was not settled within its lease, so it had to come again.
const OVERHELD: u32 = 1 << 7;
const ONE_DELIVERY: u32 = 1 << 16;

/// Nobody holds the task.
const FREE: u64 = u64::MAX;

/// The books of one run. Tasks are numbered from 0.
#[derive(Debug)]
pub(super) struct Ledger {
    origin: Instant,
    lease: Duration,
    /// How often each task is delivered before it is completed.
    deliveries: u32,
    tasks: Box<[Entry]>,
    /// Accepted, and neither completed nor cancelled. Below zero for a moment, where a delivery overtakes its answer.
    open: AtomicI64,
    /// Of these, those that may never come, because somebody asked to cancel them.
    asked: AtomicI64,
    completed: AtomicU64,
    strange: AtomicU64,
    moved: Notify,
    refusal: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Entry {
    /// Microseconds from the origin, as are all times here.
    not_before: AtomicU64,
    held_since: AtomicU64,
    state: AtomicU32,
}

impl Ledger {
    /// Books for so many tasks, each of which is delivered `deliveries` times under leases of this length.
    pub(super) fn new(tasks: u32, deliveries: u32, lease: Duration) -> Self {
        let entry =
            |_| Entry { not_before: AtomicU64::new(0), held_since: AtomicU64::new(FREE), state: AtomicU32::new(0) };
        Self {
            origin: Instant::now(),
            lease,
            deliveries,
            tasks: (0..tasks).map(entry).collect(),
            open: AtomicI64::new(0),
            asked: AtomicI64::new(0),
            completed: AtomicU64::new(0),
            strange: AtomicU64::new(0),
            moved: Notify::new(),
            refusal: Mutex::new(None),
        }
    }

    /// How many tasks it has room for.
    pub(super) fn len(&self) -> u32 {
        self.tasks.len() as u32
    }

    /// How many were completed.
    pub(super) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// A task is about to be scheduled, moved or retried: it must not come before then.
    pub(super) fn due(&self, task: u32, not_before: Instant) {
        self.tasks[task as usize].not_before.store(self.micros(not_before), Ordering::Release);
    }

    /// The store has accepted it.
    pub(super) fn accepted(&self, task: u32) {
        self.tasks[task as usize].state.fetch_or(ACCEPTED, Ordering::AcqRel);
        self.opened(1);
    }

    /// The store has answered a cancel.
    pub(super) fn cancelled(&self, task: u32, answer: ChangeOutcome) {
        let entry = &self.tasks[task as usize];
        match answer {
            ChangeOutcome::Changed => {
                let before = entry.state.fetch_or(CANCELLED, Ordering::AcqRel);
                if before & COMPLETED == 0 {
                    self.opened(-1);
                }
            }
            // Whatever becomes of it is right.
            ChangeOutcome::Requested => {
                let before = entry.state.fetch_or(ASKED, Ordering::AcqRel);
                if before & (COMPLETED | ASKED) == 0 {
                    self.asked.fetch_add(1, Ordering::AcqRel);
                }
            }
            // In flight or gone: it is delivered like any other.
            ChangeOutcome::InFlight | ChangeOutcome::NotFound => {}
            other => self.refused(format_args!("a cancel answered {other:?}")),
        }
    }

    /// A task was handed out, at this instant.
    pub(super) fn delivered(&self, task: u32, at: Instant) {
        let (entry, at) = (&self.tasks[task as usize], self.micros(at));
        let mut found = ONE_DELIVERY;
        if at < entry.not_before.load(Ordering::Acquire) {
            found |= EARLY;
        }
        let held_since = entry.held_since.swap(at, Ordering::AcqRel);
        let state = entry.state.load(Ordering::Acquire);
        if held_since != FREE && at - held_since.min(at) >= self.lease.as_micros() as u64 {
            found |= OVERHELD;
        } else if held_since != FREE || state & COMPLETED != 0 {
            found |= TWICE;
        }
        if state & CANCELLED != 0 {
            found |= REVIVED;
        }
        // A number that is added and flags that may be set already: not one operation.
        entry.state.fetch_add(ONE_DELIVERY, Ordering::AcqRel);
        entry.state.fetch_or(found & (ONE_DELIVERY - 1), Ordering::AcqRel);
    }

    /// Its holder is about to give it back, for a retry that must not come before then.
    pub(super) fn retried(&self, task: u32, not_before: Instant) {
        self.due(task, not_before);
        self.tasks[task as usize].held_since.store(FREE, Ordering::Release);
    }

    /// The store has answered that it is complete.
    pub(super) fn complete(&self, task: u32) {
        let entry = &self.tasks[task as usize];
        let before = entry.state.fetch_or(COMPLETED, Ordering::AcqRel);
        entry.held_since.store(FREE, Ordering::Release);
        if before & COMPLETED == 0 {
            self.completed.fetch_add(1, Ordering::Relaxed);
            if before & ASKED != 0 {
                self.asked.fetch_sub(1, Ordering::AcqRel);
            }
            if before & CANCELLED == 0 {
                self.opened(-1);
            }
        }
    }

    /// Something was handed out that was never handed in so.
    pub(super) fn strange(&self) {
        self.strange.fetch_add(1, Ordering::Relaxed);
    }

    /// A call on a task failed; the first such is told.
    pub(super) fn refused(&self, why: impl std::fmt::Display) {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_string());
    }

    /// Returns when all that was accepted is done, or when nothing happens for so long.
    pub(super) async fn drained(&self, patience: Duration) {
        loop {
            let moved = self.moved.notified();
            let (open, completed) = (self.open.load(Ordering::Acquire), self.completed());
            if open <= self.asked.load(Ordering::Acquire) {
                return;
            }
            if timeout(patience, moved).await.is_err() && completed == self.completed() {
                return;
            }
        }
    }

    fn opened(&self, by: i64) {
        let open = self.open.fetch_add(by, Ordering::AcqRel) + by;
        // Whoever waits looks again now and then; telling of each task would cost more than the task.
        if open <= self.asked.load(Ordering::Acquire) || open % 1024 == 0 {
            self.moved.notify_waiters();
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX - 1)
    }

    /// What the books show, when all is done.
    pub(super) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict {
            strange: self.strange.load(Ordering::Relaxed),
            refusal: self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ..Verdict::default()
        };
        for (task, entry) in self.tasks.iter().enumerate() {
            let state = entry.state.load(Ordering::Acquire);
            let has = |flag: u32| state & flag != 0;
            let mut found = |what: fn(&mut Verdict) -> &mut Tally, holds: bool| {
                if holds {
                    what(&mut verdict).count(task as u32);
                }
            };
            found(|v| &mut v.accepted, has(ACCEPTED));
            found(|v| &mut v.cancelled, has(CANCELLED) || has(ASKED) && state < ONE_DELIVERY);
            found(|v| &mut v.lost, has(ACCEPTED) && !has(COMPLETED | CANCELLED | ASKED));
            found(|v| &mut v.twice, has(TWICE));
            found(|v| &mut v.early, has(EARLY));
            found(|v| &mut v.revived, has(REVIVED));
            found(|v| &mut v.overheld, has(OVERHELD));
            let other = state / ONE_DELIVERY != self.deliveries;
            found(|v| &mut v.miscounted, has(COMPLETED) && other && !has(TWICE | OVERHELD));
        }
        verdict
    }
}

/// What the books show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) accepted: Tally,
    pub(super) cancelled: Tally,
    lost: Tally,
    twice: Tally,
    early: Tally,
    revived: Tally,
    miscounted: Tally,
    overheld: Tally,
    strange: u64,
    refusal: Option<String>,
}

/// How many tasks, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) count: u64,
    first: Vec<u32>,
}

impl Tally {
    fn count(&mut self, task: u32) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(task);
        }
    }
}

impl Verdict {
    /// The promises that do not hold, each in a sentence; none if all is well.
    pub(super) fn problems(&self) -> Vec<String> {
        let all = HumanCount(self.accepted.count);
        let mut problems = Vec::new();
        for (promise, what, tally) in [
            ("LOSS-1", "lost", &self.lost),
            ("DUP-1", "delivered again while held, or after they were complete", &self.twice),
            ("TIME-1", "delivered early", &self.early),
            ("CANCEL-2", "delivered after they were cancelled", &self.revived),
            ("DUP-12", "completed after another number of attempts than there should have been", &self.miscounted),
        ] {
            if tally.count > 0 {
                let first: Vec<_> = tally.first.iter().map(u32::to_string).collect();
                let (count, first) = (HumanCount(tally.count), first.join(", "));
                problems.push(format!("{promise}: {count} of {all} tasks {what} (the first: {first})"));
            }
        }
        if self.strange > 0 {
            problems.push(format!("LOSS-5: {} deliveries of what was not scheduled so", HumanCount(self.strange)));
        }
        // Why a task was lost, perhaps; by itself it breaks no promise.
        if let (Some(why), false) = (&self.refusal, problems.is_empty()) {
            problems.push(format!("the first call that failed: {why}"));
        }
        problems
    }

    /// What the reader should know although no promise is broken.
    pub(super) fn remarks(&self) -> Vec<String> {
        let overheld = (self.overheld.count > 0).then(|| {
            format!("{} tasks came again because they were held beyond their leases", HumanCount(self.overheld.count))
        });
        overheld.into_iter().chain(self.refusal.as_ref().map(|why| format!("a call failed: {why}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    /// Three tasks that were handed in, and are due in a second.
    fn ledger(deliveries: u32) -> (Ledger, Instant) {
        let ledger = Ledger::new(3, deliveries, LEASE);
        let due = ledger.origin + Duration::from_secs(1);
        for task in 0..3 {
            ledger.due(task, due);
            ledger.accepted(task);
        }
        (ledger, due)
    }

    fn play(ledger: &Ledger, task: u32, at: Instant) {
        ledger.delivered(task, at);
        ledger.complete(task);
    }

    fn found(ledger: &Ledger) -> Vec<String> {
        ledger.verdict().problems().iter().map(|text| text.split(':').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_goes_as_promised_is_clean() {
        let (ledger, due) = ledger(1);
        (0..3).for_each(|task| play(&ledger, task, due));
        assert_eq!(found(&ledger), [""; 0]);
        assert_eq!((ledger.verdict().accepted.count, ledger.completed()), (3, 3));
    }

    #[test]
    fn a_loss_is_found() {
        let (ledger, due) = ledger(1);
        play(&ledger, 0, due);
        ledger.delivered(2, due);
        assert_eq!(ledger.verdict().problems(), ["LOSS-1: 2 of 3 tasks lost (the first: 1, 2)"]);
    }

    #[test]
    fn a_task_that_was_cancelled_or_never_accepted_is_not_lost() {
        let (ledger, due) = ledger(1);
        play(&ledger, 0, due);
        ledger.cancelled(1, ChangeOutcome::Changed);
        ledger.cancelled(2, ChangeOutcome::Requested);
        assert_eq!(found(&ledger), [""; 0]);
        assert_eq!(found(&Ledger::new(5, 1, LEASE)), [""; 0]);
    }

    #[test]
    fn a_cancel_that_came_too_late_excuses_no_loss() {
        let (ledger, due) = ledger(1);
        play(&ledger, 0, due);
        ledger.cancelled(1, ChangeOutcome::InFlight);
        ledger.cancelled(2, ChangeOutcome::NotFound);
        assert_eq!(found(&ledger), ["LOSS-1"]);
    }

    #[test]
    fn a_second_delivery_is_found() {
        for completed in [true, false] {
            let (ledger, due) = ledger(1);
            (0..3).for_each(|task| play(&ledger, task, due));
            if !completed {
                ledger.retried(1, due);
                ledger.delivered(1, due);
            }
            ledger.delivered(1, due);
            assert_eq!(found(&ledger), ["DUP-1"]);
        }
    }

    #[test]
    fn one_that_was_held_too_long_comes_again_by_right() {
        let (ledger, due) = ledger(1);
        (0..2).for_each(|task| play(&ledger, task, due));
        ledger.delivered(2, due);
        play(&ledger, 2, due + LEASE);
        assert_eq!(found(&ledger), [""; 0]);
        assert_eq!(ledger.verdict().remarks().len(), 1);
    }

    #[test]
    fn an_early_delivery_is_found_without_tolerance() {
        let (ledger, due) = ledger(1);
        (0..2).for_each(|task| play(&ledger, task, due));
        play(&ledger, 2, due - Duration::from_micros(1));
        assert_eq!(found(&ledger), ["TIME-1"]);
    }

    #[test]
    fn a_delivery_after_a_cancel_is_found() {
        let (ledger, due) = ledger(1);
        (0..2).for_each(|task| play(&ledger, task, due));
        ledger.cancelled(2, ChangeOutcome::Changed);
        ledger.delivered(2, due);
        assert_eq!(found(&ledger), ["CANCEL-2"]);
    }

    #[test]
    fn retries_are_counted_and_have_times_of_their_own() {
        let (ledger, due) = ledger(2);
        let later = due + Duration::from_secs(1);
        for task in 0..3 {
            ledger.delivered(task, due);
            ledger.retried(task, later);
        }
        play(&ledger, 0, later);
        play(&ledger, 1, later);
        play(&ledger, 2, due);
        assert_eq!(found(&ledger), ["TIME-1"]);

        let (ledger, due) = self::ledger(2);
        (0..3).for_each(|task| play(&ledger, task, due));
        assert_eq!(found(&ledger), ["DUP-12"]);
    }

    #[test]
    fn what_was_never_scheduled_is_found() {
        let (ledger, due) = ledger(1);
        (0..3).for_each(|task| play(&ledger, task, due));
        ledger.strange();
        ledger.refused("a wire was cut");
        assert_eq!(found(&ledger), ["LOSS-5", "the first call that failed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_all_is_done_and_when_nothing_happens() {
        let (ledger, due) = ledger(1);
        let begun = Instant::now();
        ledger.drained(Duration::from_secs(30)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(30), "three are open");
        (0..2).for_each(|task| play(&ledger, task, due));
        ledger.cancelled(2, ChangeOutcome::Requested);
        ledger.drained(Duration::from_secs(30)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(30), "nothing is waited for that was asked to go");
    }
}
