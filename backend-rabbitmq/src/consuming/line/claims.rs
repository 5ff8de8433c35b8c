//! What claims take, what they want beyond that, and when the next task comes.

use std::time::Duration;

use delayline_core::{Claim, ClaimedTask, DeadLetterCause};
use tokio::time::{Instant, timeout};

use super::state::{Held, Line, State, WANT_MAX};
use crate::limits::SOON_MS;
use crate::store::Store;

/// The most by which a due time is rounded up.
const SOON: Duration = Duration::from_millis(SOON_MS.cast_unsigned());

/// How many tasks are remembered that this process sent on their way, to tell when the next one comes.
const EXPECTED_MAX: usize = 10_000;

/// How long one is expected that does not come: another process may have got it, or a change met it.
const EXPECTED_LATE_MS: i64 = 1_000;

/// How soon to look again for one that is late.
const LATE_AGAIN: Duration = Duration::from_millis(50);

/// What a claim found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) tasks: Vec<ClaimedTask>,
    pub(crate) doomed: Vec<(Held, DeadLetterCause)>,
    /// When the next comes, as far as that is known.
    pub(crate) next_in: Option<Duration>,
}

impl Found {
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.doomed.is_empty()
    }
}

impl Line {
    /// Takes what has arrived, the earliest first, and notes how much more is wanted.
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

    /// Notes that a task is being sent on its way, and comes at this millisecond.
    pub(crate) fn expect(&self, due_ms: i64) {
        let mut state = self.state.lock();
        if state.expected.len() < EXPECTED_MAX {
            *state.expected.entry(due_ms).or_default() += 1;
        }
    }

    /// It was not sent.
    pub(crate) fn expect_not(&self, due_ms: i64) {
        self.state.lock().expected_came(due_ms);
    }

    /// How long until the first that has arrived is due, where its time was rounded up; what is due later than that came by
    /// another clock, and is due.
    pub(crate) fn until_due(&self, store: &Store) -> Duration {
        let state = self.state.lock();
        let Some((first_ms, ..)) = state.pool.keys().next() else { return Duration::ZERO };
        let left = store.time.until(*first_ms);
        if left <= SOON { left } else { Duration::ZERO }
    }

    /// Has the broker asked for what a claim wants and has not found here, and waits for the answer: not for tasks. Does
    /// nothing if nothing has come or gone since the last answer: whatever comes now wakes who waits.
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
        // The sender lives as long as this. Without an answer, the claim brings nothing.
        let _ = timeout(at_most, answered.wait_for(|answered| *answered >= question)).await;
    }
}

impl Held {
    /// Why it is dead-lettered rather than delivered.
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
        // The task of a lease that ends comes, too.
        let lease = self.ends.first().map(|(ends, _)| ends.saturating_duration_since(now).max(LATE_AGAIN));
        Some(lease.map_or(left, |lease| lease.min(left)))
    }
}
