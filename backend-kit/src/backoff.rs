//! How long to wait between attempts that keep failing.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep_until};

/// Default pause after the first failure, for connecting.
const FIRST: Duration = Duration::from_millis(50);

/// Default maximum pause, for connecting.
const LONGEST: Duration = Duration::from_secs(2);

/// Exponential back-off with jitter. Default: up to 50 ms after the first failure, doubled after each further one up to
/// 2 s; see also [`between`](Self::between). Half of each pause is random, so that many clients do not come back at
/// once.
///
/// After a success, the next attempt may be made at once.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    pauses: ExponentialBackoff,
    not_before: Option<Instant>,
}

impl Backoff {
    /// Creates a back-off for connecting, without a failure so far.
    #[must_use]
    pub fn new() -> Self {
        Self::between(FIRST, LONGEST)
    }

    /// Creates a back-off with other pauses: up to `first` after the first failure, doubled after each further one up
    /// to `longest`. Each pause is at least half of that.
    #[must_use]
    pub fn between(first: Duration, longest: Duration) -> Self {
        Self { first, longest, pauses: pauses(first, longest), not_before: None }
    }

    /// Records a failure, and returns the pause before the next attempt.
    pub fn failed(&mut self) -> Duration {
        // The builder does not limit the number of pauses.
        let pause = self.pauses.next().unwrap_or(self.longest);
        self.not_before = Some(Instant::now() + pause);
        pause
    }

    /// Records a success.
    pub fn succeeded(&mut self) {
        *self = Self::between(self.first, self.longest);
    }

    /// When the next attempt may be made; `None` means at once.
    #[must_use]
    pub fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Waits until the next attempt may be made.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
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

/// The library adds between nothing and the whole pause as jitter, so half of the pause is passed to it.
fn pauses(first: Duration, longest: Duration) -> ExponentialBackoff {
    let builder = ExponentialBuilder::default().with_min_delay(first / 2).with_max_delay(longest / 2);
    builder.without_max_times().with_jitter().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_two_seconds_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.not_before(), None);
        let mut half = FIRST / 2;
        for attempt in 0..100 {
            let pause = backoff.failed();
            assert!((half..=2 * half).contains(&pause), "attempt {attempt}: {pause:?} beside {half:?}");
            assert_eq!(backoff.not_before(), Some(Instant::now() + pause));
            half = (2 * half).min(LONGEST / 2);
        }
        backoff.succeeded();
        assert_eq!(backoff.not_before(), None);
        assert!(backoff.failed() <= FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_are_between_those_that_were_set() {
        let (first, longest) = (Duration::from_millis(2), Duration::from_millis(32));
        let mut backoff = Backoff::between(first, longest);
        for _ in 0..2 {
            assert!((first / 2..=first).contains(&backoff.failed()));
            let last = (0..5).map(|_| backoff.failed()).last().unwrap();
            assert!((longest / 2..=longest).contains(&last));
            backoff.succeeded();
        }
    }

    #[test]
    fn clients_do_not_come_back_together() {
        let pauses: std::collections::HashSet<_> = (0..100).map(|_| pauses(FIRST, LONGEST).next()).collect();
        assert!(pauses.len() > 50, "{} different pauses", pauses.len());
    }
}
