//! Claims: the tasks they take, their remaining demand, and the time of the next task.

use std::time::Duration;

use delayline_core::{Claim, ClaimedTask, DeadLetterCause};
use tokio::time::{Instant, timeout};

use super::state::{Held, Line, State, WANT_MAX};
use crate::limits::SOON_MS;
use crate::store::Store;

/// Maximum amount by which a due time is rounded up.
const SOON: Duration = Duration::from_millis(SOON_MS.cast_unsigned());

/// Maximum number of remembered tasks that this process published, which tell when the next task becomes due.
const EXPECTED_MAX: usize = 10_000;

/// Time, in milliseconds, that a task is expected beyond its due time. Another process may have received it, or a
/// change may have moved it.
const EXPECTED_LATE_MS: i64 = 1_000;

/// Time after which a late task is checked for again.
const LATE_AGAIN: Duration = Duration::from_millis(50);

/// The result of a claim.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) tasks: Vec<ClaimedTask>,
    pub(crate) doomed: Vec<(Held, DeadLetterCause)>,
    /// Time until the next task, if known.
    pub(crate) next_in: Option<Duration>,
}

impl Found {
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.doomed.is_empty()
    }
}

impl Line {
    /// Takes arrived tasks, the earliest first, and records the remaining demand.
    pub(crate) fn claim(&self, store: &Store, subscription: u64, claim: &Claim) -> Found {
        let now_ms = store.time.now_ms();
        let (now, mut bytes) = (Instant::now(), 0);
        let mut found = Found::default();
        let mut state = self.state.lock();
        while found.tasks.len() < claim.max
            && let Some(first) = state.pool.first_entry()
        {
            let task = &first.get().task;
            if let Some(cause) = task.doom(now_ms) {
                found.doomed.push((first.remove().task, cause));
                state.ending += 1;
                continue;
            }
            let size = task.message.payload.len();
            if !found.tasks.is_empty() && bytes + size > claim.max_bytes {
                break;
            }
            bytes += size;
            let held = first.remove().task;
            found.tasks.push(state.lease(store, held, claim.lease, now));
        }
        let more = !state.pool.is_empty();
        found.next_in = if more { Some(Duration::ZERO) } else { state.next_expected(store, now) };
        let wanted = if more { 0 } else { (claim.max - found.tasks.len()).min(WANT_MAX) };
        if let Some(want) = state.subscriptions.get_mut(&subscription) {
            *want = wanted;
        }
        drop(state);
        self.changed.notify_one();
        found
    }

    /// Records that a task is being published that becomes due at this millisecond.
    pub(crate) fn expect(&self, due_ms: i64) {
        let mut state = self.state.lock();
        if state.expected.len() < EXPECTED_MAX {
            *state.expected.entry(due_ms).or_default() += 1;
        }
    }

    /// Removes a task that was not published.
    pub(crate) fn expect_not(&self, due_ms: i64) {
        self.state.lock().expected_came(due_ms);
    }

    /// Time until the first arrived task is due, if its due time was rounded up. A task that is due even later was
    /// published by another clock, and counts as due.
    pub(crate) fn until_due(&self, store: &Store) -> Duration {
        let state = self.state.lock();
        let Some((first_ms, ..)) = state.pool.keys().next() else { return Duration::ZERO };
        let left = store.time.until(*first_ms);
        if left <= SOON { left } else { Duration::ZERO }
    }

    /// Makes the pump ask the broker for the tasks that a claim did not find here, and waits for the broker's answer,
    /// not for tasks. Does nothing if nothing has changed since the last answer: a later arrival wakes the waiting
    /// subscriptions.
    pub(crate) async fn ask(&self, at_most: Duration) {
        let question = {
            let mut state = self.state.lock();
            if !state.unsettled && state.short().is_none() {
                return;
            }
            state.asked += 1;
            state.asked
        };
        let mut answered = self.answered.subscribe();
        self.changed.notify_one();
        // `self` owns the sender. Without an answer, the claim returns nothing.
        let _ = timeout(at_most, answered.wait_for(|answered| *answered >= question)).await;
    }
}

impl Held {
    /// The cause, if the task must be dead-lettered instead of delivered.
    fn doom(&self, now_ms: i64) -> Option<DeadLetterCause> {
        if self.message.expires_ms.is_some_and(|expires| expires < now_ms) {
            Some(DeadLetterCause::Expired)
        } else if self.attempts >= self.message.attempts_max {
            Some(DeadLetterCause::AttemptsUsedUp)
        } else {
            None
        }
    }
}

impl State {
    fn next_expected(&mut self, store: &Store, now: Instant) -> Option<Duration> {
        let late_ms = store.time.now_ms() - EXPECTED_LATE_MS;
        self.expected = self.expected.split_off(&late_ms);
        let (first_ms, _) = self.expected.first_key_value()?;
        let left = Some(store.time.until(*first_ms)).filter(|left| !left.is_zero()).unwrap_or(LATE_AGAIN);
        // The task of a lease that ends becomes visible, too.
        let lease = self.ends.first().map(|(ends, _)| ends.saturating_duration_since(now).max(LATE_AGAIN));
        Some(lease.map_or(left, |lease| lease.min(left)))
    }
}
