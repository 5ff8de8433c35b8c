//! The state of the claim loop, for `/healthz` and `/readyz`.
//!
//! Healthy: the loop claims, waits for a notification no longer than planned, or has no free slot. If the store is
//! unreachable, the process is healthy but not ready, because a restart would not help.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time by which a step of the loop may be late and still counts as progress. A claim is given up after 30 s.
const STEP_MAX: Duration = Duration::from_secs(60);

pub(super) struct Loop {
    state: Mutex<State>,
    running: AtomicU64,
    slots: AtomicU64,
    stopping: AtomicBool,
}

struct State {
    phase: Phase,
    /// The result of the last claim; `None` before the first.
    last: Option<Result<(), String>>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// A claim has been in progress since then.
    Claiming(Instant),
    /// The loop waits for a notification until then.
    Waiting(Instant),
    /// Neither, since then: no slot is free, deliveries are being written, or the loop waits before it asks a failed
    /// store again.
    Between(Instant),
}

impl Loop {
    pub(super) fn new() -> Self {
        let state = State { phase: Phase::Between(Instant::now()), last: None };
        Self {
            state: Mutex::new(state),
            running: AtomicU64::new(0),
            slots: AtomicU64::new(u64::MAX),
            stopping: AtomicBool::new(false),
        }
    }

    /// Sets the number of tasks that may run at once.
    pub(super) fn slots(&self, slots: usize) {
        self.slots.store(slots as u64, Ordering::Relaxed);
    }

    /// Counts a task as running until the guard is dropped.
    pub(super) fn running(&self) -> impl Drop + use<'_> {
        struct Running<'a>(&'a Loop);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.running.fetch_sub(1, Ordering::Relaxed);
                self.0.slot_freed();
            }
        }
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self)
    }

    pub(super) fn running_now(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    pub(super) fn claiming(&self) {
        self.lock().phase = Phase::Claiming(Instant::now());
    }

    /// The store can't be reached yet: nothing has been claimed.
    pub(super) fn not_connected(&self, e: &delayline::Error) {
        let mut state = self.lock();
        state.phase = Phase::Between(Instant::now());
        state.last = Some(Err(format!("not connected: {e}")));
    }

    pub(super) fn claimed(&self, answer: Result<(), &delayline::Error>) {
        let mut state = self.lock();
        state.phase = Phase::Between(Instant::now());
        state.last = Some(answer.map_err(|e| format!("the last claim failed: {e}")));
    }

    pub(super) fn waiting(&self, at_most: Duration) {
        let now = Instant::now();
        self.lock().phase = Phase::Waiting(now.checked_add(at_most).unwrap_or(now));
    }

    /// A step has ended, and no other has begun.
    pub(super) fn between(&self) {
        self.lock().phase = Phase::Between(Instant::now());
    }

    /// A slot is free again. A loop that had none can claim from now on; one that claims or waits is not affected.
    fn slot_freed(&self) {
        let mut state = self.lock();
        if let Phase::Between(since) = &mut state.phase {
            *since = Instant::now();
        }
    }

    /// The process claims no more tasks.
    pub(super) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// What the loop is doing. The error is the step in which it hangs.
    pub(super) fn healthy(&self) -> Result<&'static str, String> {
        let now = Instant::now();
        let state = self.lock();
        let late = |since: Instant| now.saturating_duration_since(since);
        let hangs = |what: &str, time: Duration| Err(format!("{what} for {}s\n", time.as_secs()));
        match state.phase {
            _ if self.stopping.load(Ordering::Relaxed) => Ok("stopping\n"),
            Phase::Claiming(since) if late(since) > STEP_MAX => hangs("a claim has been in progress", late(since)),
            Phase::Claiming(_) => Ok("claiming\n"),
            Phase::Waiting(until) if late(until) > STEP_MAX => hangs("a wait is overdue", late(until)),
            Phase::Waiting(_) => Ok("waiting\n"),
            Phase::Between(_) if self.running_now() >= self.slots.load(Ordering::Relaxed) => Ok("all slots are busy\n"),
            Phase::Between(since) if late(since) > STEP_MAX => hangs("nothing was claimed", late(since)),
            Phase::Between(_) => Ok("working\n"),
        }
    }

    /// Whether the process takes tasks. The error is the reason why not.
    pub(super) fn ready(&self) -> Result<&'static str, String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("stopping\n".to_owned());
        }
        match &self.lock().last {
            None => Err("no claim has been made yet\n".to_owned()),
            Some(Err(why)) => Err(format!("{why}\n")),
            Some(Ok(())) => Ok("ready\n"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const LONG: Duration = Duration::from_secs(61);

    #[tokio::test(start_paused = true)]
    async fn it_is_healthy_while_the_loop_gets_on() {
        let claims = Loop::new();
        claims.slots(2);
        assert!(claims.healthy().is_ok());
        claims.claiming();
        advance(LONG).await;
        assert!(claims.healthy().is_err_and(|why| why.contains("in progress")), "a claim that hangs");
        claims.claimed(Ok(()));
        assert!(claims.healthy().is_ok());
        claims.waiting(LONG * 10);
        advance(LONG * 10).await;
        assert!(claims.healthy().is_ok(), "it planned to wait this long");
        advance(LONG).await;
        assert!(claims.healthy().is_err_and(|why| why.contains("overdue")));
        claims.waiting(LONG * 3);
        drop(claims.running());
        advance(LONG * 2).await;
        assert!(claims.healthy().is_ok(), "a task that ended does not end the wait");
        claims.between();
        let (one, two) = (claims.running(), claims.running());
        advance(LONG).await;
        assert!(claims.healthy().is_ok(), "it can't claim without a slot");
        drop(one);
        assert!(claims.healthy().is_ok(), "it has only just become free");
        advance(LONG).await;
        assert!(claims.healthy().is_err_and(|why| why.contains("nothing was claimed")));
        drop(two);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_ready_while_the_store_answers() {
        let claims = Loop::new();
        assert!(claims.ready().is_err());
        claims.claimed(Ok(()));
        assert!(claims.ready().is_ok());
        claims.claimed(Err(&delayline::Error::new(delayline::ErrorKind::Unavailable, "no answer")));
        assert!(claims.ready().is_err_and(|why| why.contains("no answer")));
        assert!(claims.healthy().is_ok(), "starting it again would not bring the store back");
        claims.claimed(Ok(()));
        claims.stopping();
        assert!(claims.ready().is_err() && claims.healthy().is_ok());
    }
}
