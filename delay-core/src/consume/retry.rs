//! How long a failed task waits for its next attempt.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::caught::caught;
use crate::client::line::Line;

/// Minimum delay, so that a failing task never spins.
const DELAY_MIN: Duration = Duration::from_millis(1);
/// Maximum delay of any policy.
const DELAY_MAX: Duration = Duration::from_secs(365 * 86_400);
/// Number of attempts after which an exponential delay no longer grows: 2^64 ms is beyond `DELAY_MAX`.
const DOUBLINGS_MAX: u32 = 64;

/// How long a failed task waits for its next attempt. Default: exponential, one to two seconds after the first attempt,
/// growing to at most one hour.
///
/// Delays are between 1 ms and 365 days, and never exceed the backend's [`delay_max`](crate::Capabilities::delay_max).
/// The maximum number of attempts is not part of the policy; it is set when the task is
/// [scheduled](crate::Task::attempts_max).
///
/// ```
/// # use std::time::Duration;
/// use delayline_core::RetryPolicy;
/// let policy = RetryPolicy::exponential(Duration::from_secs(5), Duration::from_secs(600)).seeded(7);
/// assert!(policy.delay(1) >= Duration::from_secs(5));
/// assert!(policy.delay(100) <= Duration::from_secs(600));
/// ```
#[derive(Clone)]
pub struct RetryPolicy {
    kind: Kind,
    seed: Option<u64>,
}

#[derive(Clone)]
enum Kind {
    Exponential { base: Duration, max: Duration },
    Fixed(Duration),
    Custom(Arc<dyn Fn(u32) -> Duration + Send + Sync>),
}

impl RetryPolicy {
    /// Exponential delays: at least `base` after the first attempt, twice as much after each further one, never more
    /// than `max`. A random part of up to the same length is added to each delay, so that tasks that failed together do
    /// not come back together.
    #[must_use]
    pub fn exponential(base: Duration, max: Duration) -> Self {
        let base = bounded(base);
        Self { kind: Kind::Exponential { base, max: bounded(max).max(base) }, seed: None }
    }

    /// The same delay after every attempt.
    #[must_use]
    pub fn fixed(delay: Duration) -> Self {
        Self { kind: Kind::Fixed(bounded(delay)), seed: None }
    }

    /// Delays computed by a function, which receives the number of the failed attempt, from 1. If the function panics,
    /// the panic is logged and the default policy's delay is used.
    pub fn custom(delay: impl Fn(u32) -> Duration + Send + Sync + 'static) -> Self {
        Self { kind: Kind::Custom(Arc::new(delay)), seed: None }
    }

    /// Derives the random part from this seed and the attempt, so that a test can repeat it.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The delay after attempt number `attempt` failed, counted from 1.
    #[must_use]
    pub fn delay(&self, attempt: u32) -> Duration {
        match &self.kind {
            Kind::Fixed(delay) => *delay,
            Kind::Custom(delay) => {
                caught(|| delay(attempt)).map_or_else(|message| self.instead(attempt, &message), bounded)
            }
            Kind::Exponential { base, max } => exponential(*base, *max, attempt, self.seed),
        }
    }

    /// The delay, limited to what the backend supports.
    pub(crate) fn delay_on(&self, line: &Line, attempt: u32) -> Duration {
        self.delay(attempt).min(line.backend.capabilities().delay_max)
    }

    /// The delay that replaces that of a function that panicked.
    fn instead(&self, attempt: u32, message: &str) -> Duration {
        tracing::warn!(
            attempt,
            message,
            "a retry policy's function panicked; using the default policy's delay instead"
        );
        Self { seed: self.seed, ..Self::default() }.delay(attempt)
    }
}

/// The random part may be as long as the rest, so the rest only grows to half of `max`.
fn exponential(base: Duration, max: Duration, attempt: u32, seed: Option<u64>) -> Duration {
    let mut delays = ExponentialBuilder::new()
        .with_min_delay(base)
        .with_max_delay((max / 2).max(base))
        .with_factor(2.0)
        .without_max_times()
        .with_jitter();
    if let Some(seed) = seed {
        // One seed for all attempts would also work, but attempt n would then need n steps of the sequence.
        delays = delays.with_jitter_seed(seed ^ u64::from(attempt));
    }
    let doublings = attempt.clamp(1, DOUBLINGS_MAX) as usize - 1;
    delays.build().nth(doublings).map_or(max, |delay| delay.min(max))
}

fn bounded(delay: Duration) -> Duration {
    delay.clamp(DELAY_MIN, DELAY_MAX)
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), Duration::from_secs(3600))
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Exponential { base, max } => write!(f, "RetryPolicy::exponential({base:?}, {max:?})"),
            Kind::Fixed(delay) => write!(f, "RetryPolicy::fixed({delay:?})"),
            Kind::Custom(_) => f.write_str("RetryPolicy::custom(..)"),
        }
    }
}

/// Delays between retries of a failing call to a store: doubling from 50 ms to 2.5 s, each plus a random part of
/// up to the same length.
pub(crate) fn outage_delays() -> impl Iterator<Item = Duration> + Send + fmt::Debug {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_millis(2_500))
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(3600);

    #[test]
    fn the_wait_doubles_from_base_to_maximum_and_never_leaves_them() {
        let policy = RetryPolicy::default();
        for attempt in 1..=12 {
            let low = (BASE * 2u32.pow(attempt - 1)).min(MAX / 2);
            for _ in 0..100 {
                let delay = policy.delay(attempt);
                assert!(delay >= low && delay <= (low * 2).min(MAX), "attempt {attempt}: {delay:?}");
            }
        }
        for attempt in [0, 63, 64, 65, 10_000, u32::MAX] {
            assert!((BASE..=MAX).contains(&policy.delay(attempt)), "attempt {attempt}");
        }
    }

    #[test]
    fn waits_differ_unless_seeded() {
        let policy = RetryPolicy::default();
        let spread: std::collections::HashSet<_> = (0..50).map(|_| policy.delay(12)).collect();
        assert!(spread.len() > 40, "at the maximum too, or a herd comes back as one: {}", spread.len());

        let (a, b) = (RetryPolicy::default().seeded(1), RetryPolicy::default().seeded(1));
        let of = |p: &RetryPolicy| (1..20).map(|n| p.delay(n)).collect::<Vec<_>>();
        assert_eq!(of(&a), of(&b));
        assert_ne!(of(&a), of(&RetryPolicy::default().seeded(2)));
    }

    #[test]
    fn a_function_that_panics_is_as_if_the_default_policy_was_asked() {
        let policy = RetryPolicy::custom(|attempt| panic!("no wait for attempt {attempt}")).seeded(1);
        let default = RetryPolicy::default().seeded(1);
        for attempt in [1, 2, 3, 100] {
            assert_eq!(policy.delay(attempt), default.delay(attempt));
        }
    }

    #[test]
    fn bound_10_no_policy_waits_not_at_all_or_for_ever() {
        for policy in [
            RetryPolicy::fixed(Duration::ZERO),
            RetryPolicy::custom(|_| Duration::ZERO),
            RetryPolicy::exponential(Duration::ZERO, Duration::ZERO),
        ] {
            assert_eq!(policy.delay(1), DELAY_MIN, "{policy:?}");
        }
        for policy in [
            RetryPolicy::fixed(Duration::MAX),
            RetryPolicy::custom(|_| Duration::MAX),
            RetryPolicy::exponential(Duration::MAX, Duration::MAX),
            RetryPolicy::exponential(BASE, Duration::MAX),
        ] {
            assert!(policy.delay(u32::MAX) <= DELAY_MAX, "{policy:?}");
        }
        assert_eq!(RetryPolicy::exponential(MAX, BASE).delay(3), MAX, "a maximum below the base is the base");
    }
}
