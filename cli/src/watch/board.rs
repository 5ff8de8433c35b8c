//! The numbers of each queue, and how they change.

use std::collections::VecDeque;
use std::time::Duration;

use delayline::{QueueName, QueueStats};
use tokio::time::Instant;

use super::scrape::{Quantiles, Sample, Told};

/// Changes are computed over this time.
pub(super) const OVER: Duration = Duration::from_secs(10);

/// All that is shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    /// The backend's name.
    pub(super) backend: &'static str,
    /// By name.
    pub(super) rows: Vec<Row>,
    /// Number of queues that are not shown, because there are too many.
    pub(super) left_out: usize,
    /// Number of workers that were named, and of those that answered.
    pub(super) workers: Option<(usize, usize)>,
    /// The error, if the store could not be asked.
    pub(super) trouble: Option<String>,
}

/// One queue.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) queue: QueueName,
    /// `None` if the store did not answer.
    pub(super) stats: Option<QueueStats>,
    /// Change of the number of tasks, per second.
    pub(super) net: Option<f64>,
    /// The numbers of the workers.
    pub(super) out: Option<Out>,
}

/// Deliveries of workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Out {
    pub(super) per_second: f64,
    pub(super) lateness: Option<Quantiles>,
}

/// Values at several instants, the newest last. They reach back slightly further than [`OVER`].
#[derive(Debug)]
pub(super) struct Past<T>(VecDeque<(Instant, T)>);

impl<T> Default for Past<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Past<T> {
    pub(super) fn push(&mut self, at: Instant, value: T) {
        self.0.push_back((at, value));
        while self.0.get(1).is_some_and(|(second, _)| at.saturating_duration_since(*second) >= OVER) {
            self.0.pop_front();
        }
    }

    /// The oldest and the newest value, if they are apart, and the seconds between them.
    fn ends(&self) -> Option<(&T, &T, f64)> {
        let ((from, first), (to, last)) = (self.0.front()?, self.0.back()?);
        let seconds = to.saturating_duration_since(*from).as_secs_f64();
        (seconds > 0.0).then_some((first, last, seconds))
    }
}

impl Past<u64> {
    /// The increase per second.
    pub(super) fn change(&self) -> Option<f64> {
        let (first, last, seconds) = self.ends()?;
        Some((*last as f64 - *first as f64) / seconds)
    }
}

/// The sum of the deliveries of a queue by all workers. A restarted worker counts from zero.
pub(super) fn out<'a>(workers: impl Iterator<Item = &'a Past<Told>>, queue: &QueueName) -> Option<Out> {
    let (mut sum, mut per_second, mut known) = (Sample::default(), 0.0, false);
    for worker in workers {
        let Some((first, last, seconds)) = worker.ends() else { continue };
        let Some(last) = last.get(queue) else { continue };
        let more = last.since(first.get(queue));
        per_second += more.delivered / seconds;
        sum.add(&more);
        known = true;
    }
    known.then(|| Out { per_second, lateness: sum.quantiles() })
}

/// All tasks of a queue.
pub(super) fn tasks(stats: &QueueStats) -> u64 {
    stats.scheduled + stats.due + stats.in_flight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_looked_at_over_the_last_seconds() {
        let (mut past, begin) = (Past::default(), Instant::now());
        assert_eq!(past.change(), None);
        for second in 0..60 {
            // It stops growing after half of the time.
            past.push(begin + Duration::from_secs(second), 100 * second.min(30));
            if second == 0 {
                assert_eq!(past.change(), None, "of one look");
            }
        }
        assert_eq!(past.change(), Some(0.0));
        past.push(begin + Duration::from_secs(60), 2_000);
        assert_eq!(past.change(), Some(-100.0));
        assert!(past.0.len() <= 12);
    }
}
