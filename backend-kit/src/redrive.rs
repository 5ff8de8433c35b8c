//! The pace of a redrive.

use std::time::Duration;

use delayline_core::{Capabilities, Error, ErrorKind, Result};

/// The time between the due times of the tasks of a redrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    gap_seconds: f64,
}

impl Pace {
    /// Creates a pace from a rate in tasks per second. `None` makes all tasks due at once.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a rate that is not positive or not finite.
    pub fn new(rate: Option<f64>) -> Result<Self> {
        match rate {
            None => Ok(Self { gap_seconds: 0.0 }),
            Some(rate) if rate.is_finite() && rate > 0.0 => Ok(Self { gap_seconds: rate.recip() }),
            Some(rate) => Err(Error::new(
                ErrorKind::Invalid,
                format!("expected a positive redrive rate in tasks per second, got {rate}"),
            )),
        }
    }

    /// Whether all tasks are due at once.
    #[must_use]
    pub fn at_once(self) -> bool {
        self.gap_seconds == 0.0
    }

    /// Time between two tasks, in microseconds.
    #[must_use]
    pub fn gap_us(self) -> f64 {
        self.gap_seconds * 1e6
    }

    /// Time between two tasks, to the nanosecond.
    #[must_use]
    pub fn gap(self) -> Duration {
        Duration::try_from_secs_f64(self.gap_seconds).unwrap_or(Duration::MAX)
    }

    /// Checks that the last of this many tasks is due within `delay_max`.
    ///
    /// # Errors
    /// [`OutOfRange`](ErrorKind::OutOfRange) if it is not.
    pub fn check(self, tasks: u64, caps: &Capabilities) -> Result<()> {
        let longest = caps.delay_max.as_secs_f64();
        if self.gap_seconds > longest || tasks as f64 * self.gap_seconds > longest {
            return Err(caps.out_of_range());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_positive_and_its_last_task_within_range() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Pace::new(Some(bad)).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
        let pace = Pace::new(Some(4.0)).unwrap();
        assert_eq!((pace.gap_us(), pace.gap(), pace.at_once()), (250_000.0, Duration::from_millis(250), false));
        assert!(Pace::new(None).unwrap().at_once());
        let mut caps = Capabilities::minimal("test");
        caps.delay_max = Duration::from_secs(10);
        assert!(pace.check(40, &caps).is_ok());
        assert_eq!(pace.check(41, &caps).unwrap_err().kind(), ErrorKind::OutOfRange);
        let slow = Pace::new(Some(f64::MIN_POSITIVE)).unwrap();
        assert_eq!(slow.gap(), Duration::MAX);
        assert_eq!(slow.check(0, &caps).unwrap_err().kind(), ErrorKind::OutOfRange);
    }
}
