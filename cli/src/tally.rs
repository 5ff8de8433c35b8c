//! The counts of a `run` or `work`. This is the one place that determines when all of a run is done.
//!
//! It only counts. In the commands that prove something, the ledger of the conformance suite determines what was lost,
//! came twice or came early. The ledger has to know the number of tasks beforehand, and needs a number for each. Here,
//! tasks arrive without end, under ids of any length, and keeping the ids would cost more than keeping the tasks.
//!
//! Counts are enough, because a memory backend contains no tasks of others. A shared queue will need to tell its own
//! ids from those of others; then only this file has to change.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use delayline::{Clock, SystemClock, Timestamp};
use hdrhistogram::Histogram;
use tokio::sync::watch;
use tokio::time::Instant;

/// Due times are in whole milliseconds, and slightly off if clocks drift.
const SHOWN_TOLERANCE: Duration = Duration::from_millis(10);

/// The counts that all parts of a run share.
pub(crate) struct Tally {
    accepted: AtomicU64,
    completed: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    running: AtomicU64,
    begun: AtomicBool,
    input_ended: AtomicBool,
    lateness_us: Mutex<Histogram<u64>>,
    next_due: Mutex<NextDue>,
    changed: watch::Sender<()>,
    began: Instant,
    began_at: Timestamp,
}

/// When the next task is due.
#[derive(Clone, Copy, Default)]
struct NextDue {
    told: Option<Instant>,
    found: Option<Instant>,
}

/// One look at the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Accepted by the backend.
    pub(crate) accepted: u64,
    /// Delivered, or completed by a command.
    pub(crate) completed: u64,
    /// Attempts that failed and are followed by another.
    pub(crate) retried: u64,
    /// Ended as dead letters.
    pub(crate) dead: u64,
    /// Commands that are running.
    pub(crate) running: u64,
}

impl Counts {
    /// Accepted, and neither completed nor dead yet.
    pub(crate) fn outstanding(&self) -> u64 {
        self.accepted.saturating_sub(self.completed + self.dead)
    }
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            running: AtomicU64::new(0),
            begun: AtomicBool::new(false),
            input_ended: AtomicBool::new(false),
            lateness_us: Mutex::new(Histogram::new(3).expect("3 digits are within what a histogram can have")),
            next_due: Mutex::default(),
            changed: watch::Sender::new(()),
            began: Instant::now(),
            began_at: SystemClock::new().wall().saturating_sub(SHOWN_TOLERANCE),
        }
    }

    pub(crate) fn accepted(&self, tasks: u64) {
        self.add(&self.accepted, tasks);
    }

    pub(crate) fn completed(&self, tasks: u64) {
        self.add(&self.completed, tasks);
    }

    pub(crate) fn retried(&self, tasks: u64) {
        self.add(&self.retried, tasks);
    }

    pub(crate) fn dead(&self, tasks: u64) {
        self.add(&self.dead, tasks);
    }

    /// All accepted tasks were cancelled before any of them was delivered.
    pub(crate) fn taken_back(&self) {
        self.accepted.store(0, Ordering::SeqCst);
    }

    /// The first call that schedules tasks has ended, or there will be none.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
        self.changed.send_replace(());
    }

    /// Returns when delivery may begin. During a call that schedules tasks, those that are accepted already could be
    /// delivered before others that are due earlier.
    pub(crate) async fn begun(&self) {
        self.until(|| self.begun.load(Ordering::SeqCst)).await;
    }

    /// Every task of the input was accepted or refused.
    pub(crate) fn input_ended(&self) {
        self.input_ended.store(true, Ordering::SeqCst);
        self.begin();
    }

    pub(crate) fn has_input_ended(&self) -> bool {
        self.input_ended.load(Ordering::SeqCst)
    }

    /// Counts a running command until the guard is dropped.
    pub(crate) fn running(&self) -> impl Drop + use<'_> {
        struct Running<'a>(&'a AtomicU64);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(&self.running)
    }

    /// Records the lateness of deliveries, each with its due time. Tasks that were overdue before the run began are
    /// left out, because their lateness is not the run's.
    pub(crate) fn late(&self, tasks: impl IntoIterator<Item = (Timestamp, Duration)>) {
        let mut histogram = self.lateness_us.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, late) in tasks.into_iter().filter(|(due_at, _)| *due_at >= self.began_at) {
            // The histogram resizes itself; values beyond its maximum are ignored.
            let _ = histogram.record(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// The median, the 99th percentile and the maximum; `None` if nothing was delivered.
    pub(crate) fn lateness(&self) -> Option<[Duration; 3]> {
        let histogram = self.lateness_us.lock().unwrap_or_else(PoisonError::into_inner);
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile).min(histogram.max()));
        Some([at(0.5), at(0.99), at(1.0)])
    }

    /// Records when the next task may be due, according to a claim.
    pub(crate) fn tell_next_due(&self, due_in: Option<Duration>) {
        let told = due_in.and_then(|wait| Instant::now().checked_add(wait));
        *self.next_due() = NextDue { told, found: None };
    }

    /// When the next task may be due, according to the last claim.
    pub(crate) fn told_next_due(&self) -> Option<Instant> {
        self.next_due().told
    }

    /// Records when the next task is due, unless a claim has answered something else meanwhile.
    pub(crate) fn found_next_due(&self, told: Option<Instant>, due_in: Option<Duration>) {
        let mut next_due = self.next_due();
        if next_due.told == told {
            next_due.found = due_in.and_then(|wait| Instant::now().checked_add(wait));
        }
    }

    /// How long until the next task is due, as far as is known.
    pub(crate) fn next_due_in(&self) -> Option<Duration> {
        let NextDue { told, found } = *self.next_due();
        found.or(told).map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn next_due(&self) -> MutexGuard<'_, NextDue> {
        self.next_due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> Counts {
        // Ends are read first, so that no task appears to end before it was accepted.
        let (completed, dead) = (self.completed.load(Ordering::SeqCst), self.dead.load(Ordering::SeqCst));
        Counts {
            accepted: self.accepted.load(Ordering::SeqCst),
            completed,
            retried: self.retried.load(Ordering::Relaxed),
            dead,
            running: self.running.load(Ordering::Relaxed),
        }
    }

    /// How long the run has taken so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns when the input has ended and everything in it is completed or dead.
    pub(crate) async fn all_done(&self) {
        self.until(|| self.has_input_ended() && self.counts().outstanding() == 0).await;
    }

    /// Returns when fewer than this many tasks are outstanding.
    pub(crate) async fn less_than(&self, outstanding: u64) {
        self.until(|| self.counts().outstanding() < outstanding).await;
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        let mut changed = self.changed.subscribe();
        while !is_so() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn add(&self, count: &AtomicU64, tasks: u64) {
        if tasks > 0 {
            count.fetch_add(tasks, Ordering::SeqCst);
            self.changed.send_replace(());
        }
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
