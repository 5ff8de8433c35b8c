//! Times as stores keep them.

use std::time::Duration;

use delayline_core::Timestamp;

/// The farthest that a due time may lie ahead where a store keeps milliseconds in doubles or 40 bits: 2^40 - 1 ms, 34.8 years.
pub const DELAY_MAX: Duration = Duration::from_millis((1 << 40) - 1);

/// A time in microseconds, rounded up, so that nothing happens sooner than asked for.
#[must_use]
pub fn micros_ceil(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// A time in milliseconds, rounded up, so that nothing happens sooner than asked for.
#[must_use]
pub fn millis_ceil(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A count of milliseconds since 1970 that is not negative.
#[must_use]
pub fn millis(ms: u64) -> Timestamp {
    Timestamp::from_unix_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_rounded_down() {
        assert_eq!(micros_ceil(Duration::from_nanos(1)), 1);
        assert_eq!(micros_ceil(Duration::from_nanos(1_000)), 1);
        assert_eq!(micros_ceil(Duration::MAX), i64::MAX);
        assert_eq!((millis_ceil(Duration::from_nanos(1)), millis_ceil(Duration::from_millis(2))), (1, 2));
    }
}
