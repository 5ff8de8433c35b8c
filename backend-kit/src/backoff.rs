//! How long to wait between attempts at what keeps failing.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep_until};

/// Half of the first pause. The other half is left to chance, so that many clients do not come back at once.
const FIRST_HALF: Duration = Duration::from_millis(25);

/// Half of the longest pause.
const LONGEST_HALF: Duration = Duration::from_secs(1);

/// Exponential back-off with jitter: 25 to 50 ms after the first failure, doubled with each further one up to 1 to 2 s.
///
/// After a success the next attempt may be made at once.
#[derive(Debug)]
pub struct Backoff {
    pauses: ExponentialBackoff,
    not_before: Option<Instant>,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new() -> Self {
        Self { pauses: pauses(), not_before: None }
    }

    /// Notes a failure, and returns how long to pause before the next attempt.
    pub fn failed(&mut self) -> Duration {
        // The builder sets no limit on their number.
        let pause = self.pauses.next().unwrap_or(2 * LONGEST_HALF);
        self.not_before = Some(Instant::now() + pause);
        pause
    }

    /// Notes a success.
    pub fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// When the next attempt may be made; `None`: at once.
    #[must_use]
    pub fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Waits until the next attempt may be made.
    ///
    /// # Cancel safety
    /// Dropped, nothing has changed.
    pub async fn wait(&self) {
        if let Some(at) = self.not_before {
            sleep_until(at).await;
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// The library adds between nothing and the whole pause as jitter.
fn pauses() -> ExponentialBackoff {
    let builder = ExponentialBuilder::default().with_min_delay(FIRST_HALF).with_max_delay(LONGEST_HALF);
    builder.without_max_times().with_jitter().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_two_seconds_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.not_before(), None);
        let mut half = FIRST_HALF;
        for attempt in 0..100 {
            let pause = backoff.failed();
            assert!((half..=2 * half).contains(&pause), "attempt {attempt}: {pause:?} beside {half:?}");
            assert_eq!(backoff.not_before(), Some(Instant::now() + pause));
            half = (2 * half).min(LONGEST_HALF);
        }
        backoff.succeeded();
        assert_eq!(backoff.not_before(), None);
        assert!(backoff.failed() <= 2 * FIRST_HALF);
    }

    #[test]
    fn clients_do_not_come_back_together() {
        let pauses: std::collections::HashSet<_> = (0..100).map(|_| pauses().next()).collect();
        assert!(pauses.len() > 50, "{} different pauses", pauses.len());
    }
}
