//! What tells tasks, their lives and their leases apart: numbers and ids, sequences, fences.

use std::sync::atomic::{AtomicU64, Ordering};

use delayline_core::TaskId;
use parking_lot::Mutex;
use uuid::{Builder, Uuid};

use crate::time::Time;

#[derive(Debug)]
pub(crate) struct Ids {
    /// A number for leases of this backend, which no other has.
    pub(crate) instance: u64,
    time: Time,
    random: Mutex<fastrand::Rng>,
    /// The last sequence and the last fence that were given.
    seq: AtomicU64,
    fence: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self {
            instance: Uuid::new_v4().as_u64_pair().1,
            time: Time::default(),
            // A number that is given twice loses a task, so it comes from the system's randomness.
            random: Mutex::new(fastrand::Rng::with_seed(Uuid::new_v4().as_u64_pair().1)),
            seq: AtomicU64::new(0),
            fence: AtomicU64::new(0),
        }
    }

    /// The first of `n` sequences that nobody here has had, about the time in microseconds.
    pub(crate) fn sequences(&self, n: usize) -> u64 {
        self.rising(&self.seq, n as u64)
    }

    /// A fence above `last` and above all that were given here.
    pub(crate) fn fence_above(&self, last: u64) -> u64 {
        self.fence.fetch_max(last, Ordering::Relaxed);
        self.rising(&self.fence, 1)
    }

    /// The first of `n` numbers above the last that was given and not below the time in microseconds.
    fn rising(&self, last: &AtomicU64, n: u64) -> u64 {
        let now = u64::try_from(self.time.now().unix_micros()).unwrap_or(0);
        let end = |last: u64| Some((last + 1).max(now) + n - 1);
        let before = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, end).unwrap_or(0);
        (before + 1).max(now)
    }

    /// A UUIDv7.
    pub(crate) fn fresh_id(&self) -> TaskId {
        let random = self.fresh_number().to_be_bytes();
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&random[..10]);
        let ms = u64::try_from(self.time.now_ms()).unwrap_or(0);
        TaskId::from_uuid(Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid())
    }

    /// A number that nobody else has.
    pub(crate) fn fresh_number(&self) -> u128 {
        self.random.lock().u128(..)
    }
}
