//! One reading of both clocks, and the timeline on which their times are compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use delayline_core::{Clock, Timestamp};

/// Maximum drift between the wall clock and monotonic time before the wall-clock times of monotonic due times are
/// recalculated. Up to this drift, they stay the same to the millisecond.
const OFFSET_TOLERANCE_MS: i64 = 2;

/// The last instant that the wheel can represent. A clock beyond it stands still.
const US_MAX: u64 = crate::wheel::Key::MAX_DUE_MS * 1000;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Monotonic microseconds since the clock's origin.
    pub(crate) mono_us: u64,
    /// Wall-clock microseconds since the Unix epoch; the time before it counts as 0.
    pub(crate) wall_us: u64,
    /// Milliseconds to add to monotonic time to show it as wall time.
    pub(crate) offset_ms: i64,
}

/// A due time on one of the two clocks, in milliseconds of that clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) wall: bool,
    pub(crate) ms: u64,
}

impl Place {
    pub(crate) fn mono(ms: u64) -> Self {
        Self { wall: false, ms }
    }

    pub(crate) fn wall(ms: u64) -> Self {
        Self { wall: true, ms }
    }
}

impl Now {
    pub(crate) fn mono_ms(self) -> u64 {
        self.mono_us / 1000
    }

    pub(crate) fn wall_ms(self) -> u64 {
        self.wall_us / 1000
    }

    /// The monotonic millisecond that is `delay` from now, rounded up so that no task is early. For no delay, the
    /// current millisecond, so that the task can be claimed at once.
    pub(crate) fn mono_after(self, delay: Duration) -> u64 {
        if delay.is_zero() {
            return self.mono_ms();
        }
        let below_second_ns = self.mono_us % 1_000_000 * 1_000 + u64::from(delay.subsec_nanos());
        let seconds = (self.mono_us / 1_000_000).saturating_add(delay.as_secs());
        seconds.saturating_mul(1_000).saturating_add(below_second_ns.div_ceil(1_000_000))
    }

    /// Whether the clock of a place has reached it.
    pub(crate) fn reached(self, place: Place) -> bool {
        place.ms <= if place.wall { self.wall_ms() } else { self.mono_ms() }
    }

    /// Whether the clock of a place is past its millisecond.
    pub(crate) fn passed(self, place: Place) -> bool {
        place.ms < if place.wall { self.wall_ms() } else { self.mono_ms() }
    }

    /// Time until the clock of a place reaches it.
    pub(crate) fn until(self, place: Place) -> Duration {
        let now_us = if place.wall { self.wall_us } else { self.mono_us };
        Duration::from_micros((place.ms.saturating_mul(1000)).saturating_sub(now_us))
    }

    /// Time since the clock of a place reached it.
    pub(crate) fn since(self, place: Place) -> Duration {
        let now_us = if place.wall { self.wall_us } else { self.mono_us };
        Duration::from_micros(now_us.saturating_sub(place.ms.saturating_mul(1000)))
    }

    /// The place on the common timeline of both clocks: wall-clock milliseconds.
    pub(crate) fn line_ms(self, place: Place) -> i64 {
        let ms = i64::try_from(place.ms).unwrap_or(i64::MAX);
        if place.wall { ms } else { ms.saturating_add(self.offset_ms) }
    }

    /// The place as a timestamp.
    pub(crate) fn shown(self, place: Place) -> Timestamp {
        Timestamp::from_unix_millis(self.line_ms(place))
    }
}

/// Reads the clock, and keeps the offset between its two times steady.
#[derive(Debug)]
pub(crate) struct TimeBase {
    clock: Arc<dyn Clock>,
    offset_ms: AtomicI64,
}

impl TimeBase {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let base = Self { clock, offset_ms: AtomicI64::new(i64::MIN) };
        base.now();
        base
    }

    pub(crate) fn now(&self) -> Now {
        let mono_us = u64::try_from(self.clock.monotonic().as_micros()).unwrap_or(u64::MAX).min(US_MAX);
        let wall_us = u64::try_from(self.clock.wall().unix_micros()).unwrap_or(0).min(US_MAX);
        let measured = (wall_us as i64).saturating_sub(mono_us as i64).div_euclid(1000);
        let mut offset_ms = self.offset_ms.load(Ordering::Relaxed);
        // If the thread was suspended between the two readings, the difference includes its pause.
        let paused = || self.clock.monotonic().as_micros().saturating_sub(u128::from(mono_us)) > 1_000;
        let unknown = offset_ms == i64::MIN;
        if measured.saturating_sub(offset_ms).abs() > OFFSET_TOLERANCE_MS && (unknown || !paused()) {
            self.offset_ms.store(measured, Ordering::Relaxed);
            offset_ms = measured;
        }
        Now { mono_us, wall_us, offset_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_4_delays_are_rounded_up_and_no_delay_is_now() {
        let now = Now { mono_us: 10_700, wall_us: 0, offset_ms: 0 };
        assert_eq!(now.mono_after(Duration::ZERO), 10);
        assert_eq!(now.mono_after(Duration::from_nanos(1)), 11);
        assert_eq!(now.mono_after(Duration::from_millis(5)), 16);
        assert_eq!(now.mono_after(Duration::from_micros(300)), 11);
        assert_eq!(now.mono_after(Duration::from_nanos(300_001)), 12);
        assert_eq!(now.mono_after(Duration::MAX), u64::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_drift_moves_no_due_time_and_a_step_does() {
        let clock = Arc::new(delayline_core::TestClock::at(Timestamp::from_unix_millis(1_000_000)));
        let base = TimeBase::new(clock.clone());
        let before = base.now().shown(Place::mono(5));
        clock.step_forward(Duration::from_millis(2));
        assert_eq!(base.now().shown(Place::mono(5)), before);
        clock.step_forward(Duration::from_secs(60));
        assert_eq!(base.now().shown(Place::mono(5)).saturating_since(before), Duration::from_millis(60_002));
    }
}
