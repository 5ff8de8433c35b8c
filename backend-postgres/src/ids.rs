//! Ids that we give: of tasks that came without one, and of claims.

use delayline_core::{Clock, SystemClock, TaskId};
use parking_lot::Mutex;
use uuid::{Builder, Uuid};

#[derive(Debug)]
pub(crate) struct Ids {
    /// For these alone; due times go by the server's clock.
    clock: SystemClock,
    random: Mutex<[fastrand::Rng; 2]>,
}

impl Ids {
    pub(crate) fn new() -> Self {
        // An id that is given twice loses a task, so 128 bits of the system's randomness go into them.
        let (a, b) = Uuid::new_v4().as_u64_pair();
        Self {
            clock: SystemClock::new(),
            random: Mutex::new([fastrand::Rng::with_seed(a), fastrand::Rng::with_seed(b)]),
        }
    }

    /// A UUIDv7.
    pub(crate) fn fresh(&self) -> TaskId {
        let ms = u64::try_from(self.clock.wall().unix_millis_floor()).unwrap_or(0);
        let mut bytes = [0; 10];
        let mut random = self.random.lock();
        bytes[..8].copy_from_slice(&random[0].u64(..).to_be_bytes());
        bytes[8..].copy_from_slice(&random[1].u16(..).to_be_bytes());
        drop(random);
        TaskId::from_uuid(Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid())
    }

    /// A number that no other claim has, as far as chance allows, and not 0.
    pub(crate) fn claim(&self) -> i64 {
        self.random.lock()[0].i64(1..)
    }
}
