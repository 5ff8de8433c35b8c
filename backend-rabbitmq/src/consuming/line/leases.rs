//! Leases: taken for a disposition, extended, or ended by time.

use std::time::Duration;

use delayline_core::{ClaimedTask, Error, ErrorKind, Lease, Receipt, Timestamp};
use tokio::time::Instant;

use super::state::{Held, Leased, Line, State};
use crate::store::Store;

/// Maximum number of remembered dispositions with an unknown outcome.
const UNCLEAR_MAX: usize = 4_096;

/// The state of a lease.
#[derive(Debug)]
pub(crate) enum Looked<T> {
    Live(T),
    Lost,
    /// An earlier disposition on it may have taken effect.
    Unclear,
}

/// The error for a lease on which an earlier disposition may have taken effect.
pub(crate) fn unclear() -> Error {
    Error::new(ErrorKind::Ambiguous, "an earlier disposition on this lease may have taken effect")
}

impl Line {
    /// Takes a lease for a disposition.
    pub(crate) fn take(&self, lease: &Lease) -> Looked<Leased> {
        let mut state = self.state.lock();
        if state.leases.get(&lease.fence).is_some_and(|leased| leased.is(lease)) {
            let leased = state.leases.remove(&lease.fence).expect("a lease that was there under this lock");
            state.ends.remove(&(leased.ends, lease.fence));
            state.ending += 1;
            return Looked::Live(leased);
        }
        if state.unclear.contains(&lease.fence) { Looked::Unclear } else { Looked::Lost }
    }

    /// Puts back a lease whose disposition had no effect. If the lease has ended in the meantime, it is handled as
    /// ended.
    pub(crate) fn put_back(&self, fence: u64, leased: Leased) {
        let mut state = self.state.lock();
        if leased.held.generation == state.generation {
            state.ends.insert((leased.ends, fence));
            state.leases.insert(fence, leased);
        }
        drop(state);
        self.ended(1);
    }

    /// Records the end of `n` dispositions or dead-letterings.
    pub(crate) fn ended(&self, n: usize) {
        self.state.lock().ending -= n;
        self.changed.notify_one();
    }

    /// Remembers that a disposition may have taken effect.
    pub(crate) fn note_unclear(&self, fence: u64) {
        let mut state = self.state.lock();
        if state.unclear.len() == UNCLEAR_MAX {
            state.unclear.pop_front();
        }
        state.unclear.push_back(fence);
    }

    /// Extends a lease and returns its new end; `None` if that is later than the broker allows.
    pub(crate) fn extend(&self, store: &Store, lease: &Lease, by: Duration) -> Looked<Option<Timestamp>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(leased) = state.leases.get_mut(&lease.fence).filter(|leased| leased.is(lease)) else {
            return if state.unclear.contains(&lease.fence) { Looked::Unclear } else { Looked::Lost };
        };
        let (ends, expires_at) = store.time.end_of_lease(Instant::now(), by);
        if ends > leased.ends_max {
            return Looked::Live(None);
        }
        if ends > leased.ends {
            state.ends.remove(&(leased.ends, lease.fence));
            state.ends.insert((ends, lease.fence));
            leased.ends = ends;
            leased.expires_at = expires_at;
        }
        let expires_at = leased.expires_at;
        self.changed.notify_one();
        Looked::Live(Some(expires_at))
    }

    /// Takes the leases that have ended. Each task is visible again from that end on, with its attempt counted.
    pub(crate) fn take_ended(&self) -> Vec<Held> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let mut ended = Vec::new();
        while let Some(&(ends, fence)) = state.ends.first()
            && ends <= now
        {
            state.ends.remove(&(ends, fence));
            if let Some(mut leased) = state.leases.remove(&fence) {
                leased.held.message.due_ms = leased.expires_at.unix_millis_ceil();
                leased.held.message.attempts = leased.attempt;
                leased.held.message.fence = fence;
                ended.push(leased.held);
            }
        }
        ended
    }
}

impl State {
    /// Puts a task under lease.
    pub(super) fn lease(&mut self, store: &Store, held: Held, lease: Duration, now: Instant) -> ClaimedTask {
        let message = &held.message;
        let fence = store.counters.fence_above(message.fence);
        let (ends, expires_at) = store.time.end_of_lease(now, lease);
        let attempt = held.attempts + 1;
        let receipt = Receipt::from_words([store.instance, fence]);
        let given = Lease::new(message.id.clone(), fence, attempt, expires_at, receipt);
        let due_at = Timestamp::from_unix_millis(message.due_ms);
        let lateness = store.time.now().saturating_since(due_at);
        let mut task = ClaimedTask::new(given, due_at, lateness, message.payload.clone());
        task.attempts_max = message.attempts_max;
        task.expires_at = message.expires_ms.map(Timestamp::from_unix_millis);
        task.headers = message.headers.clone();
        self.ends.insert((ends, fence));
        let ends_max = now + store.config.hold_time_max();
        self.leases.insert(fence, Leased { held, attempt, ends, ends_max, expires_at });
        task
    }
}

impl Leased {
    fn is(&self, lease: &Lease) -> bool {
        self.held.message.id == lease.id && self.attempt == lease.attempt
    }
}
