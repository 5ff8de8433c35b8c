//! The findings of the checkers, and how much they checked.

use std::collections::HashMap;
use std::fmt;

use hdrhistogram::Histogram;

use super::index::Index;

/// Number of violations of one promise that are kept in full. The history of a broken store may show tens of thousands.
const KEPT_MAX: usize = 100;

/// A violation of a promise in a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number, as in `docs/semantics.md`.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
    /// The numbers of the calls in the history that show it.
    pub calls: Vec<u64>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (calls {:?})", self.promise, self.what, self.calls)
    }
}

/// The findings of the checkers.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The violations; the first hundred of each promise.
    pub violations: Vec<Violation>,
    /// The number of checks.
    pub summary: Summary,
    /// The lateness of first deliveries.
    pub lateness: Lateness,
    /// Violations by promise, those included that are not kept.
    found: HashMap<&'static str, usize>,
}

/// How much of a history was checked. A checker that looked at nothing has shown nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Calls.
    pub calls: usize,
    /// Tasks that were accepted for certain.
    pub accepted: usize,
    /// Tasks that were delivered, every attempt counted.
    pub deliveries: usize,
    /// Deliveries that were another attempt at the same id.
    pub redeliveries: usize,
    /// Items of `settle` and `extend`.
    pub lease_calls: usize,
    /// Tasks whose change was answered, and changes of groups.
    pub changes: usize,
    /// Deliveries whose earliest legal moment is known.
    pub timed: usize,
    /// First deliveries that were compared with the others of their queue for order.
    pub ordered: usize,
    /// Accepted tasks that were looked for when their queue had been drained.
    pub sought: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls, {} tasks accepted, {} deliveries ({} of them again, {} timed, {} ordered), {} settlings and extensions, \
             {} changes, {} tasks looked for at the end",
            self.calls,
            self.accepted,
            self.deliveries,
            self.redeliveries,
            self.timed,
            self.ordered,
            self.lease_calls,
            self.changes,
            self.sought
        )
    }
}

/// How late first deliveries were: from the latest moment at which a task can have become due to the claim's answer. It
/// says something about a store only where a consumer was waiting.
#[derive(Clone, Debug)]
pub struct Lateness(Histogram<u64>);

impl Default for Lateness {
    fn default() -> Self {
        let mut us = Histogram::new(3).expect("three digits are possible");
        us.auto(true);
        Self(us)
    }
}

impl Lateness {
    pub(super) fn record(&mut self, us: u64) {
        // Fails beyond what 64 bits hold of buckets only, and it resizes itself.
        let _ = self.0.record(us);
    }

    /// How many deliveries.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The microseconds that this part of the deliveries stayed within: 0.99 for the 99th percentile.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The latest, in microseconds.
    #[must_use]
    pub fn max_us(&self) -> u64 {
        self.0.max()
    }
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| self.quantile_us(q));
        write!(
            f,
            "{} first deliveries: p50 {p50} us, p99 {p99} us, p99.9 {p999} us, max {} us",
            self.count(),
            self.max_us()
        )
    }
}

impl Findings {
    /// Notes a violation.
    pub(super) fn report(&mut self, promise: &'static str, calls: impl Into<Vec<u64>>, what: impl FnOnce() -> String) {
        let found = self.found.entry(promise).or_default();
        *found += 1;
        if *found <= KEPT_MAX {
            self.violations.push(Violation { promise, what: what(), calls: calls.into() });
        }
    }

    /// How many violations of a promise were found, those included that are not kept in full.
    #[must_use]
    pub fn found(&self, promise: &str) -> usize {
        self.found.get(promise).copied().unwrap_or(0)
    }

    pub(super) fn count(&mut self, index: &Index<'_>) {
        let summary = &mut self.summary;
        summary.calls = index.calls;
        for queue in &index.queues {
            for task in &queue.tasks {
                summary.accepted += task.versions.all().iter().filter(|v| v.is_certain()).count();
                summary.deliveries += task.handouts.len();
                summary.redeliveries += task.handouts.len().saturating_sub(1);
                summary.lease_calls += task.settlings.len() + task.extensions.len();
                summary.changes += task.changes.all().len();
            }
            summary.changes += queue.groups.values().map(|changes| changes.all().len()).sum::<usize>();
        }
    }
}
