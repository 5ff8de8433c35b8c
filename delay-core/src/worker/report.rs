//! What a worker did, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many tasks ended how while a worker ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Completed.
    pub completed: u64,
    /// To be tried again, those that panicked included.
    pub retried: u64,
    /// Put off by their handler.
    pub snoozed: u64,
    /// Dead-lettered by their handler, or because their last attempt failed.
    pub dead_lettered: u64,
    /// Given back unfinished when the worker shut down.
    pub released: u64,
    /// Settled by their handler itself.
    pub already_settled: u64,
    /// Not settled, because their lease was lost.
    pub lease_lost: u64,
    /// Dead-lettered because their payload can't be decoded.
    pub undecodable: u64,
    /// Attempts that ended in a panic; their tasks also count as retried or dead-lettered.
    pub panicked: u64,
    /// Not known to be settled: the store did not answer or was closed, or the handler could not be stopped. Their leases
    /// end by themselves.
    pub unsettled: u64,
}

impl WorkerReport {
    fn accounted_for(&self) -> u64 {
        self.completed
            + self.retried
            + self.snoozed
            + self.dead_lettered
            + self.released
            + self.already_settled
            + self.lease_lost
            + self.undecodable
    }
}

/// The same, while it runs.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// All that were claimed.
    pub(super) claimed: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) snoozed: AtomicU64,
    pub(super) dead_lettered: AtomicU64,
    pub(super) released: AtomicU64,
    pub(super) already_settled: AtomicU64,
    pub(super) lease_lost: AtomicU64,
    pub(super) undecodable: AtomicU64,
    pub(super) panicked: AtomicU64,
}

impl Counts {
    pub(super) fn report(&self) -> WorkerReport {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut report = WorkerReport {
            completed: read(&self.completed),
            retried: read(&self.retried),
            snoozed: read(&self.snoozed),
            dead_lettered: read(&self.dead_lettered),
            released: read(&self.released),
            already_settled: read(&self.already_settled),
            lease_lost: read(&self.lease_lost),
            undecodable: read(&self.undecodable),
            panicked: read(&self.panicked),
            unsettled: 0,
        };
        report.unsettled = read(&self.claimed).saturating_sub(report.accounted_for());
        report
    }
}

pub(super) fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
