//! Rising numbers: the sequence of each task, and the fence of each lease.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Time;

/// The last numbers that were assigned.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    time: Time,
    seq: AtomicU64,
    fence: AtomicU64,
}

impl Counters {
    /// The first of `n` sequences that this backend has not used: about the time in microseconds.
    pub(crate) fn sequences(&self, n: usize) -> u64 {
        self.rising(&self.seq, n as u64)
    }

    /// A fence above `last` and above all fences of this backend.
    pub(crate) fn fence_above(&self, last: u64) -> u64 {
        self.fence.fetch_max(last, Ordering::Relaxed);
        self.rising(&self.fence, 1)
    }

    /// The first of `n` numbers above the last assigned number, and at least the time in microseconds.
    fn rising(&self, last: &AtomicU64, n: u64) -> u64 {
        let now = u64::try_from(self.time.now().unix_micros()).unwrap_or(0);
        let end = |last: u64| Some((last + 1).max(now) + n - 1);
        let before = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, end).unwrap_or(0);
        (before + 1).max(now)
    }
}
