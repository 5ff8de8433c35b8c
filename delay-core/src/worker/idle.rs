//! Detects that nothing is left, for a worker with `until_empty`.
//!
//! A handler may schedule into any queue of the worker, so one empty queue is not enough. Time is divided into rounds,
//! each of which begins at a moment when no handler runs. The work is done when, for every queue, a claim that was sent
//! and answered within one round found the queue empty.

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(super) struct Idle {
    state: Mutex<State>,
    round: watch::Sender<u64>,
    pub(super) done: CancellationToken,
}

struct State {
    round: u64,
    /// Number of handlers that run or settle.
    running: usize,
    /// The queues that were found empty in this round.
    empty: Vec<bool>,
}

impl Idle {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            state: Mutex::new(State { round: 0, running: 0, empty: vec![false; lanes] }),
            round: watch::channel(0).0,
            done: CancellationToken::new(),
        }
    }

    /// The round of a claim that is sent now.
    pub(super) fn round(&self) -> u64 {
        self.state.lock().round
    }

    pub(super) fn handler_started(&self) {
        let mut state = self.state.lock();
        state.running += 1;
        state.empty.fill(false);
    }

    pub(super) fn handler_ended(&self) {
        let mut state = self.state.lock();
        state.running -= 1;
        if state.running == 0 {
            state.round += 1;
            state.empty.fill(false);
            self.round.send_replace(state.round);
        }
    }

    /// Records that a claim of `round` found no task, neither due nor scheduled.
    pub(super) fn found_empty(&self, lane: usize, round: u64) {
        let mut state = self.state.lock();
        if state.running == 0 && state.round == round {
            state.empty[lane] = true;
            if state.empty.iter().all(|empty| *empty) {
                self.done.cancel();
            }
        }
    }

    /// Returns once `round` is over.
    pub(super) async fn round_over(&self, round: u64) {
        // This can't fail: the sender lives as long as `self`.
        let _ = self.round.subscribe().wait_for(|now| *now != round).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_ran_between_two_claims_makes_both_worthless() {
        let idle = Idle::new(2);
        let round = idle.round();
        idle.found_empty(0, round);
        idle.handler_started(); // of queue 1, and it schedules into queue 0
        idle.found_empty(1, round);
        idle.found_empty(0, round);
        assert!(!idle.done.is_cancelled(), "one is running");
        idle.handler_ended();
        idle.found_empty(1, round);
        assert!(!idle.done.is_cancelled(), "this claim was sent before it ended");

        let round = idle.round();
        idle.found_empty(0, round);
        assert!(!idle.done.is_cancelled(), "one queue is not both");
        idle.found_empty(1, round);
        assert!(idle.done.is_cancelled());
    }
}
