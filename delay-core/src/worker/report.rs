//! The numbers of a worker's run.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many tasks ended in which way while a worker ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Tasks that were completed.
    pub completed: u64,
    /// Tasks whose attempt failed and that will be retried, including those whose handler panicked.
    pub retried: u64,
    /// Tasks that their handler put off.
    pub snoozed: u64,
    /// Tasks that were dead-lettered by their handler, or because their last attempt failed.
    pub dead_lettered: u64,
    /// Tasks that were given back unfinished when the worker shut down.
    pub released: u64,
    /// Tasks that their handler settled itself.
    pub already_settled: u64,
    /// Tasks that were not settled because their lease was lost.
    pub lease_lost: u64,
    /// Tasks that were dead-lettered because their payload can't be decoded.
    pub undecodable: u64,
    /// Attempts that ended in a panic. Their tasks also count as retried or dead-lettered.
    pub panicked: u64,
    /// Tasks that are not known to be settled: the store did not answer or was closed, or the handler could not be
    /// stopped. Their leases end by themselves.
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

/// The same numbers, while the worker runs.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// All claimed tasks.
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
