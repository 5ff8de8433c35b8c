//! Times in the form that stores keep.

use std::time::Duration;

use delayline_core::Timestamp;

/// Maximum distance of a due time from now, for stores that keep milliseconds in doubles or 40 bits: 2^40 - 1 ms, 34.8
/// years.
pub const DELAY_MAX: Duration = Duration::from_millis((1 << 40) - 1);

/// Converts a time to microseconds, rounded up, so that nothing happens too early.
#[must_use]
pub fn micros_ceil(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// Converts a time to milliseconds, rounded up, so that nothing happens too early.
#[must_use]
pub fn millis_ceil(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Converts a non-negative number of milliseconds since 1970.
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
