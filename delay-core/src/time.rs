//! Time: the due times of tasks, and the clock that everything reads.
//!
//! Two kinds of time never mix. *Monotonic* time only moves forward; it measures delays and leases. *Wall-clock* time
//! is what people and other machines mean by a date, and may be stepped in either direction. [`Due::After`] uses
//! monotonic time, [`Due::At`] wall-clock time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// An instant of the wall clock: microseconds since 1970-01-01T00:00:00Z, without leap seconds.
///
/// Its text form is RFC 3339 in UTC, with three decimal places of a second if that is exact, and six otherwise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(0);

    /// Creates a timestamp from microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Creates a timestamp from milliseconds since the Unix epoch. Saturates at the first or last instant that fits.
    #[must_use]
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded up. Due times are kept in this form, so that no task is early.
    #[must_use]
    pub const fn unix_millis_ceil(self) -> i64 {
        self.0.div_euclid(1000) + if self.0.rem_euclid(1000) == 0 { 0 } else { 1 }
    }

    /// Milliseconds since the Unix epoch, rounded down. "Now" is compared with due times in this form.
    #[must_use]
    pub const fn unix_millis_floor(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant plus `by`. Saturates at the last instant that fits.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This instant minus `by`. Saturates at the first instant that fits.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` to this instant; zero if this instant is not later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    /// Rounds up to the microsecond.
    fn from(t: SystemTime) -> Self {
        let micros_ceil = |d: Duration| i64::try_from(d.as_nanos().div_ceil(1000)).unwrap_or(i64::MAX);
        match t.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(micros_ceil(after)),
            Err(before) => Self(-i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX)),
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(t: Timestamp) -> Self {
        let distance = Duration::from_micros(t.0.unsigned_abs());
        if t.0 >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(t) = jiff::Timestamp::from_microsecond(self.0) else {
            // The year is outside the range of RFC 3339.
            return write!(f, "@{}us", self.0);
        };
        let digits = if self.0 % 1000 == 0 { 3 } else { 6 };
        write!(f, "{t:.digits$}")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Parses RFC 3339 with any offset; rounds up to the microsecond.
    fn from_str(s: &str) -> Result<Self> {
        let t: jiff::Timestamp = s.parse().map_err(|e: jiff::Error| not_a_time(s).with_source(e))?;
        let micros = t.as_nanosecond().div_euclid(1000) + i128::from(t.as_nanosecond().rem_euclid(1000) != 0);
        i64::try_from(micros)
            .map(Self)
            .map_err(|e| Error::new(ErrorKind::OutOfRange, "the time is outside the supported range").with_source(e))
    }
}

/// The error for a text that can't be parsed. If the text has the form of a time, it says what is wrong with the time.
fn not_a_time(s: &str) -> Error {
    let is_time = |text: String| text.parse::<jiff::Timestamp>().is_ok();
    // 9999 is a popular year for "never", and its last day is out of range.
    if s.strip_prefix("9999").is_some_and(|rest| is_time(format!("2001{rest}"))) {
        let what = "the time is later than 9999-12-30T22:00:00Z, the latest that is supported";
        return Error::new(ErrorKind::OutOfRange, what);
    }
    let first_of_month = s.get(..8).zip(s.get(10..)).map(|(month, time)| format!("{month}01{time}"));
    let why = if first_of_month.is_some_and(is_time) { ": there is no such day" } else { "" };
    let what = format!("expected an RFC 3339 time such as 2030-01-31T12:00:00Z, got `{}`{why}", crate::names::shown(s));
    Error::new(ErrorKind::Invalid, what)
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = std::borrow::Cow::<str>::deserialize(d)?;
        s.parse().map_err(serde::de::Error::custom)
    }
}

/// When a task becomes due. Resolution: 1 ms, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Due {
    /// Delay from the moment at which the backend accepted the task, on the backend's monotonic clock. All tasks of one
    /// `schedule` call are accepted at one instant, as far as the backend's batch limit allows.
    After(Duration),
    /// Instant on the backend's wall clock; the backend compares it again at every delivery. An instant in the past is
    /// due at once.
    At(Timestamp),
}

impl Due {
    /// Due at once.
    pub const NOW: Self = Self::After(Duration::ZERO);

    /// The due instant of a task that is accepted at `now`. Saturates at the latest [`Timestamp`].
    #[must_use]
    pub fn instant(self, now: Timestamp) -> Timestamp {
        match self {
            Self::After(delay) => now.saturating_add(delay),
            Self::At(at) => at,
        }
    }
}

impl From<Duration> for Due {
    fn from(after: Duration) -> Self {
        Self::After(after)
    }
}

impl From<Timestamp> for Due {
    fn from(at: Timestamp) -> Self {
        Self::At(at)
    }
}

impl From<SystemTime> for Due {
    fn from(at: SystemTime) -> Self {
        Self::At(at.into())
    }
}

/// The source of "now". Nothing else in this library reads the wall clock.
///
/// All sleeping uses tokio's timers, so the monotonic time of a clock must move with [`tokio::time`].
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time since an origin that is fixed for the lifetime of this clock. Never goes back.
    fn monotonic(&self) -> Duration;
    /// Time of the wall clock. May be stepped in either direction at any moment.
    fn wall(&self) -> Timestamp;
}

/// The real clocks: tokio's monotonic time and the system's wall clock.
///
/// Under `tokio::time::pause` both stand still, and `tokio::time::advance` moves both. A test of "in 30 days" therefore
/// takes a millisecond.
#[derive(Debug)]
pub struct SystemClock {
    origin: tokio::time::Instant,
}

impl SystemClock {
    /// Creates a clock whose monotonic time starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that reads the system's clocks")]
    fn wall(&self) -> Timestamp {
        // How far tokio's time was paused or advanced away from real time. With this order of reads, a preemption
        // between them makes the result too small, so that tasks are late rather than early.
        let tokio_now = tokio::time::Instant::now().into_std();
        let std_now = std::time::Instant::now();
        let system_now = SystemTime::now();
        let shifted = match tokio_now.checked_duration_since(std_now) {
            Some(ahead) => system_now + ahead,
            None => system_now - std_now.duration_since(tokio_now),
        };
        let since_epoch = shifted.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_and_read_as_rfc_3339() {
        let t: Timestamp = "2026-11-23T10:00:00+01:00".parse().unwrap();
        assert_eq!(t.to_string(), "2026-11-23T09:00:00.000Z");
        let fine: Timestamp = "2026-11-23T09:00:00.0000001Z".parse().unwrap();
        assert_eq!(fine.to_string(), "2026-11-23T09:00:00.000001Z", "a due time is rounded up, never down");
        assert_eq!(fine.unix_millis_ceil() - t.unix_millis_ceil(), 1);
        assert_eq!(fine.unix_millis_floor(), t.unix_millis_floor());
        assert_eq!("tomorrow".parse::<Timestamp>().unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn what_is_wrong_with_a_time_is_told() {
        for (text, kind, says) in [
            ("tomorrow", ErrorKind::Invalid, "expected an RFC 3339 time such as 2030-01-31T12:00:00Z, got `tomorrow`"),
            ("2030-01-31T12:00:00", ErrorKind::Invalid, "got `2030-01-31T12:00:00`"),
            ("2026-02-30T00:00:00Z", ErrorKind::Invalid, "got `2026-02-30T00:00:00Z`: there is no such day"),
            ("9999-12-31T23:59:59Z", ErrorKind::OutOfRange, "later than 9999-12-30T22:00:00Z"),
            ("9999-12-31", ErrorKind::Invalid, "expected an RFC 3339 time"),
            ("20é0-01-31", ErrorKind::Invalid, "expected an RFC 3339 time"),
        ] {
            let e = text.parse::<Timestamp>().unwrap_err();
            assert!(e.kind() == kind && e.message().contains(says), "{text}: {e}");
        }
    }

    #[test]
    fn before_1970_rounds_towards_the_future_too() {
        let t = Timestamp::from_unix_micros(-1_500);
        assert_eq!((t.unix_millis_floor(), t.unix_millis_ceil()), (-2, -1));
        assert_eq!(Timestamp::from(SystemTime::from(t)), t);
    }

    #[tokio::test(start_paused = true)]
    async fn paused_time_stops_and_moves_both_clocks() {
        let clock = SystemClock::new();
        let (mono, wall) = (clock.monotonic(), clock.wall());
        tokio::time::advance(Duration::from_secs(30 * 86_400)).await;
        assert_eq!(clock.monotonic() - mono, Duration::from_secs(30 * 86_400));
        let moved = clock.wall().saturating_since(wall);
        assert!(moved > Duration::from_secs(30 * 86_400 - 1) && moved < Duration::from_secs(30 * 86_400 + 60));
    }
}
