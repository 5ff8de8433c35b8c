//! The clock for due times and leases: whole milliseconds of the wall clock.

use std::time::Duration;

use delayline_core::{Clock, SystemClock, Timestamp};
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Time(SystemClock);

impl Time {
    pub(crate) fn now(&self) -> Timestamp {
        self.0.wall()
    }

    /// The wall clock in milliseconds, rounded down. A task with this due time is due.
    pub(crate) fn now_ms(&self) -> i64 {
        self.now().unix_millis_floor()
    }

    /// Time until a given millisecond.
    pub(crate) fn until(&self, ms: i64) -> Duration {
        let left_us = ms.saturating_mul(1000).saturating_sub(self.now().unix_micros());
        Duration::from_micros(u64::try_from(left_us).unwrap_or(0))
    }

    /// The end of a lease that begins now, on both clocks: at a whole millisecond of the wall clock.
    pub(crate) fn end_of_lease(&self, now: Instant, lease: Duration) -> (Instant, Timestamp) {
        let wall = self.now();
        let ends = Timestamp::from_unix_millis(wall.saturating_add(lease).unix_millis_ceil());
        (now + ends.saturating_since(wall), ends)
    }
}
