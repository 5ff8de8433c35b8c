//! Unique ids and random numbers.

use delayline_core::{Clock, SystemClock, TaskId};
use parking_lot::Mutex;
use uuid::{Builder, Uuid};

/// Generates task ids (UUIDv7) and random numbers, from 128 bits of the system's randomness.
///
/// A duplicate id would lose a task, so the seed does not come from a clock.
#[derive(Debug)]
pub struct Ids {
    /// Used for ids only; due times use the store's clock.
    clock: SystemClock,
    random: Mutex<[fastrand::Rng; 2]>,
}

impl Ids {
    /// Creates a generator, which seeds two generators with 64 bits each.
    #[must_use]
    pub fn new() -> Self {
        let (a, b) = Uuid::new_v4().as_u64_pair();
        let random = Mutex::new([fastrand::Rng::with_seed(a), fastrand::Rng::with_seed(b)]);
        Self { clock: SystemClock::new(), random }
    }

    /// A UUIDv7: the millisecond of the wall clock, then 74 random bits.
    #[must_use]
    pub fn task_id(&self) -> TaskId {
        let ms = u64::try_from(self.clock.wall().unix_millis_floor()).unwrap_or(0);
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&self.number().to_be_bytes()[..10]);
        TaskId::from_uuid(Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid())
    }

    /// 128 random bits.
    #[must_use]
    pub fn number(&self) -> u128 {
        let mut random = self.random.lock();
        u128::from(random[0].u64(..)) << 64 | u128::from(random[1].u64(..))
    }

    /// A random number from 1 to `i64::MAX`, for stores with signed integers.
    #[must_use]
    pub fn positive(&self) -> i64 {
        self.random.lock()[0].i64(1..)
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_version_7_and_all_different() {
        let (ids, others) = (Ids::new(), Ids::new());
        let all: HashSet<TaskId> = (0..10_000).flat_map(|_| [ids.task_id(), others.task_id()]).collect();
        assert_eq!(all.len(), 20_000);
        assert!(all.iter().all(|id| id.as_uuid().unwrap().get_version_num() == 7));
        let numbers: HashSet<u128> = (0..10_000).flat_map(|_| [ids.number(), others.number()]).collect();
        assert_eq!(numbers.len(), 20_000);
        assert!((0..1_000).all(|_| ids.positive() > 0));
    }
}
