//! The demo's own books: what was asked for, when, and what came of it. They trust nothing that the library counts.
//!
//! 1. A candidate's hand-in may not begin before `not_before`: the latest time that is known to have been agreed on. It
//!    is computed from an instant before the call was sent, so it is never later than what the backend agreed to; and it
//!    is raised only after the backend has answered, so a delivery that met the call on its way is judged by the former.
//! 2. An accepted hand-in is completed exactly once, or its cancellation was answered, and then never begins again.
//! 3. Two attempts of one hand-in never run at the same time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use delayline::ChangeOutcome;
use hdrhistogram::Histogram;
use tokio::time::Instant;

/// So much lateness, in microseconds, is told apart.
const LATENESS_US_MAX: u64 = 3_600_000_000;

/// What is known of all candidates. Its size does not change once it is made.
pub(super) struct Ledger(Mutex<Books>);

struct Books {
    candidates: Vec<Candidate>,
    lateness_us: Histogram<u64>,
    counts: Counts,
}

#[derive(Clone, Debug)]
struct Candidate {
    not_before: Instant,
    accepted: bool,
    cancel: Cancel,
    /// The end of the extra time that could only be asked for.
    asked_until: Option<Instant>,
    attempts: u32,
    completed: u32,
    running: bool,
    twice: bool,
    early: bool,
}

/// How a cancellation was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancel {
    /// None, or one that came too late.
    No,
    /// It will never be delivered.
    Cancelled,
    /// It was in flight, and is not delivered again. Where its handler had not begun, it still will, once.
    InFlight { may_begin: bool },
    /// The backend can't tell.
    Asked,
}

/// One look at what has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Accepted by the backend.
    pub(super) scheduled: u64,
    /// Whose cancellation was answered with `Changed`.
    pub(super) cancelled: u64,
    /// Given extra time, each by a call of its own; of those that could only ask, whoever was seen to have had it.
    pub(super) moved: u64,
    /// Who could only ask for extra time.
    pub(super) asked: u64,
    /// Given more time, together.
    pub(super) shifted: u64,
    /// Handed in by the worker.
    pub(super) delivered: u64,
    /// Whose cancellation came when the hand-in had begun or was done.
    pub(super) too_late: u64,
    /// Attempts after a first one.
    pub(super) retried: u64,
}

/// How it ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    pub(super) counts: Counts,
    /// Accepted, not cancelled, and never completed.
    pub(super) lost: Vec<u32>,
    /// Completed more than once, begun after it was cancelled, or running twice at once.
    pub(super) twice: Vec<u32>,
    /// Begun before its time.
    pub(super) early: Vec<u32>,
    /// In milliseconds: p50, p99 and maximum of first attempts.
    pub(super) lateness_ms: [f64; 3],
}

impl Ledger {
    pub(super) fn new(candidates: u32, not_before: Instant) -> Self {
        let candidate = Candidate {
            not_before,
            accepted: false,
            cancel: Cancel::No,
            asked_until: None,
            attempts: 0,
            completed: 0,
            running: false,
            twice: false,
            early: false,
        };
        let lateness_us = Histogram::new_with_bounds(1, LATENESS_US_MAX, 3).expect("the bounds are in order");
        let candidates = vec![candidate; candidates as usize];
        Self(Mutex::new(Books { candidates, lateness_us, counts: Counts::default() }))
    }

    /// When everybody's time is up, as far as is known now. Said before anything is scheduled.
    pub(super) fn everyone_until(&self, not_before: Instant) {
        self.books().candidates.iter_mut().for_each(|candidate| candidate.not_before = not_before);
    }

    pub(super) fn accepted(&self, candidate: u32) {
        self.with(candidate, |it, counts| {
            it.accepted = true;
            counts.scheduled += 1;
        });
    }

    /// Whether a candidate still sits there.
    pub(super) fn is_writing(&self, candidate: u32) -> bool {
        self.with(candidate, |it, _| it.cancel == Cancel::No && it.attempts == 0).unwrap_or(false)
    }

    /// The answer to a move. One that did not change anything leaves the former time.
    pub(super) fn moved(&self, candidate: u32, answer: ChangeOutcome, not_before: Instant) {
        self.with(candidate, |it, counts| match answer {
            ChangeOutcome::Changed => {
                it.not_before = not_before;
                counts.moved += 1;
            }
            ChangeOutcome::Requested => {
                it.asked_until = Some(not_before);
                counts.asked += 1;
            }
            _ => {}
        });
    }

    /// The answer to a shift of everybody, all of whom were changed that could be. Whose time was not up when it came
    /// can't have been in flight, and so was shifted; of the others it is not known, and the former time counts.
    pub(super) fn shifted(&self, by: Duration, answered: Instant, changed: u64) {
        let mut books = self.books();
        books.counts.shifted += changed;
        for candidate in books.candidates.iter_mut().filter(|it| it.not_before > answered) {
            candidate.not_before += by;
        }
    }

    /// The answer to a cancellation; `None` where it was lost.
    pub(super) fn cancelled(&self, candidate: u32, answer: Option<ChangeOutcome>) {
        self.with(candidate, |it, counts| match answer {
            Some(ChangeOutcome::Changed) => {
                it.cancel = Cancel::Cancelled;
                it.twice |= it.running || it.completed > 0;
                counts.cancelled += 1;
            }
            Some(ChangeOutcome::InFlight) => {
                it.cancel = Cancel::InFlight { may_begin: !it.running };
                counts.too_late += 1;
            }
            // If that is not true it shows as lost.
            Some(ChangeOutcome::NotFound) => counts.too_late += 1,
            // `Requested`, or what a later version may answer.
            Some(_) | None => it.cancel = Cancel::Asked,
        });
    }

    /// An attempt begins.
    pub(super) fn begins(&self, candidate: u32, now: Instant, lateness: Duration) {
        let mut books = self.books();
        let Books { candidates, lateness_us, counts } = &mut *books;
        let Some(it) = candidates.get_mut(candidate as usize) else { return };
        it.early |= now < it.not_before;
        it.twice |= it.running || it.completed > 0;
        match &mut it.cancel {
            Cancel::Cancelled => it.twice = true,
            Cancel::InFlight { may_begin } => it.twice |= !std::mem::take(may_begin),
            Cancel::No | Cancel::Asked => {}
        }
        it.running = true;
        it.attempts += 1;
        if it.attempts == 1 {
            counts.moved += u64::from(it.asked_until.is_some_and(|until| until <= now));
            lateness_us.saturating_record(u64::try_from(lateness.as_micros()).unwrap_or(u64::MAX));
        } else {
            counts.retried += 1;
        }
    }

    /// An attempt has failed; the next may not begin before then.
    pub(super) fn fails(&self, candidate: u32, not_before: Instant) {
        self.with(candidate, |it, _| {
            it.running = false;
            it.not_before = it.not_before.max(not_before);
        });
    }

    /// An attempt has done what it is for.
    pub(super) fn completes(&self, candidate: u32) {
        self.with(candidate, |it, counts| {
            it.running = false;
            it.completed += 1;
            it.twice |= it.completed > 1;
            counts.delivered += u64::from(it.completed == 1);
        });
    }

    /// Whether nobody is to be handed in any more, as far as is known: whose cancellation was only asked for may still be.
    pub(super) fn is_through(&self) -> bool {
        let through = |it: &Candidate| it.completed > 0 || it.cancel != Cancel::No;
        self.books().candidates.iter().all(|it| !it.accepted || through(it) && !it.running)
    }

    pub(super) fn counts(&self) -> Counts {
        self.books().counts
    }

    /// How many did not hand in by themselves until their time was up.
    pub(super) fn whose_time_is_up(&self, now: Instant) -> u64 {
        let is_up = |it: &&Candidate| it.accepted && it.cancel == Cancel::No && it.not_before <= now;
        self.books().candidates.iter().filter(is_up).count() as u64
    }

    /// What came of it all, once nothing runs any more.
    pub(super) fn verdict(&self) -> Verdict {
        let books = self.books();
        let mut verdict = Verdict { counts: books.counts, ..Verdict::default() };
        verdict.counts.cancelled = 0;
        for (number, it) in (0..).zip(&books.candidates) {
            match (it.accepted && it.completed == 0, it.cancel) {
                (true, Cancel::No) => verdict.lost.push(number),
                (true, Cancel::Cancelled | Cancel::InFlight { .. } | Cancel::Asked) => verdict.counts.cancelled += 1,
                (false, _) => {}
            }
            if it.twice {
                verdict.twice.push(number);
            }
            if it.early {
                verdict.early.push(number);
            }
        }
        let lateness = &books.lateness_us;
        let at = |quantile| lateness.value_at_quantile(quantile) as f64 / 1000.0;
        if !lateness.is_empty() {
            verdict.lateness_ms = [at(0.5), at(0.99), lateness.max() as f64 / 1000.0];
        }
        verdict
    }

    fn with<R>(&self, candidate: u32, look: impl FnOnce(&mut Candidate, &mut Counts) -> R) -> Option<R> {
        let mut books = self.books();
        let Books { candidates, counts, .. } = &mut *books;
        Some(look(candidates.get_mut(candidate as usize)?, counts))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verdict {
    /// Whether everything went as promised.
    pub(super) fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.twice.is_empty() && self.early.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_millis(2);

    /// One accepted candidate, whose time is up then.
    fn one() -> (Ledger, Instant) {
        let up = Instant::now() + Duration::from_secs(10);
        let ledger = Ledger::new(1, up);
        ledger.accepted(0);
        (ledger, up)
    }

    fn found(ledger: &Ledger) -> [usize; 3] {
        let verdict = ledger.verdict();
        [verdict.lost.len(), verdict.twice.len(), verdict.early.len()]
    }

    #[test]
    fn a_hand_in_that_comes_once_in_time_is_fine() {
        let (ledger, up) = one();
        ledger.begins(0, up, LATE);
        ledger.completes(0);
        assert_eq!(found(&ledger), [0, 0, 0]);
        let verdict = ledger.verdict();
        assert_eq!((verdict.counts.scheduled, verdict.counts.delivered), (1, 1));
        assert!(verdict.is_clean());
        assert!((verdict.lateness_ms[2] - 2.0).abs() < 0.01, "{:?}", verdict.lateness_ms);
    }

    #[test]
    fn one_that_never_comes_is_lost() {
        let (ledger, _) = one();
        assert_eq!(found(&ledger), [1, 0, 0]);
    }

    #[test]
    fn one_that_fails_and_does_not_come_again_is_lost() {
        let (ledger, up) = one();
        ledger.begins(0, up, LATE);
        ledger.fails(0, up);
        assert_eq!(found(&ledger), [1, 0, 0]);
    }

    #[test]
    fn one_that_is_said_to_be_gone_and_never_came_is_lost() {
        let (ledger, _) = one();
        ledger.cancelled(0, Some(ChangeOutcome::NotFound));
        assert_eq!(found(&ledger), [1, 0, 0]);
    }

    #[test]
    fn one_that_was_not_accepted_is_not_lost() {
        assert_eq!(found(&Ledger::new(1, Instant::now())), [0, 0, 0]);
    }

    #[test]
    fn one_that_comes_again_is_twice() {
        let (ledger, up) = one();
        for _ in 0..2 {
            ledger.begins(0, up, LATE);
            ledger.completes(0);
        }
        assert_eq!(found(&ledger), [0, 1, 0]);
        assert_eq!(ledger.verdict().counts.delivered, 1);
    }

    #[test]
    fn attempts_that_overlap_are_twice() {
        let (ledger, up) = one();
        ledger.begins(0, up, LATE);
        ledger.begins(0, up, LATE);
        ledger.fails(0, up);
        ledger.completes(0);
        assert_eq!(found(&ledger), [0, 1, 0]);
    }

    #[test]
    fn one_that_comes_after_it_was_cancelled_is_twice() {
        let (ledger, up) = one();
        ledger.cancelled(0, Some(ChangeOutcome::Changed));
        assert_eq!((found(&ledger), ledger.verdict().counts.cancelled), ([0, 0, 0], 1));
        ledger.begins(0, up, LATE);
        ledger.completes(0);
        assert_eq!(found(&ledger), [0, 1, 0]);
    }

    #[test]
    fn one_that_is_cancelled_while_it_runs_or_when_it_is_done_is_twice() {
        for done in [false, true] {
            let (ledger, up) = one();
            ledger.begins(0, up, LATE);
            if done {
                ledger.completes(0);
            }
            ledger.cancelled(0, Some(ChangeOutcome::Changed));
            assert_eq!(found(&ledger), [0, 1, 0]);
        }
    }

    #[test]
    fn one_in_flight_may_end_but_not_come_again() {
        let (ledger, up) = one();
        ledger.cancelled(0, Some(ChangeOutcome::InFlight));
        ledger.begins(0, up, LATE);
        ledger.fails(0, up);
        assert_eq!((found(&ledger), ledger.verdict().counts.cancelled), ([0, 0, 0], 1));
        ledger.begins(0, up, LATE);
        assert_eq!(found(&ledger), [0, 1, 0]);

        let (ledger, up) = one();
        ledger.begins(0, up, LATE);
        ledger.cancelled(0, Some(ChangeOutcome::InFlight));
        ledger.fails(0, up);
        assert_eq!(found(&ledger), [0, 0, 0]);
        ledger.begins(0, up, LATE);
        assert_eq!(found(&ledger), [0, 1, 0]);
    }

    #[test]
    fn one_whose_cancellation_is_only_asked_for_may_come_or_not() {
        for answer in [Some(ChangeOutcome::Requested), None] {
            let (ledger, up) = one();
            ledger.cancelled(0, answer);
            assert_eq!((found(&ledger), ledger.verdict().counts.cancelled), ([0, 0, 0], 1));
            ledger.begins(0, up, LATE);
            ledger.completes(0);
            assert_eq!((found(&ledger), ledger.verdict().counts.cancelled), ([0, 0, 0], 0));
        }
    }

    #[test]
    fn one_that_comes_before_its_time_is_early() {
        let (ledger, up) = one();
        ledger.begins(0, up - Duration::from_nanos(1), LATE);
        ledger.completes(0);
        assert_eq!(found(&ledger), [0, 0, 1]);
    }

    #[test]
    fn one_that_was_moved_has_to_keep_to_that() {
        for (answer, is_early) in [(ChangeOutcome::Changed, 1), (ChangeOutcome::InFlight, 0)] {
            let (ledger, up) = one();
            ledger.moved(0, answer, up + Duration::from_secs(1));
            ledger.begins(0, up, LATE);
            ledger.completes(0);
            assert_eq!(found(&ledger), [0, 0, is_early]);
        }
    }

    #[test]
    fn one_that_was_shifted_has_to_keep_to_that() {
        let minute = Duration::from_secs(60);
        for (answered_before_up, is_early) in [(true, 1), (false, 0)] {
            let (ledger, up) = one();
            let answered = if answered_before_up { up - LATE } else { up };
            ledger.shifted(minute, answered, 1);
            ledger.begins(0, up + minute - LATE, LATE);
            ledger.completes(0);
            assert_eq!(found(&ledger), [0, 0, is_early]);
        }
    }

    #[test]
    fn a_retry_may_not_come_before_its_time() {
        let (ledger, up) = one();
        ledger.begins(0, up, LATE);
        ledger.fails(0, up + LATE);
        ledger.begins(0, up + LATE / 2, LATE);
        ledger.completes(0);
        assert_eq!(found(&ledger), [0, 0, 1]);
        assert_eq!(ledger.verdict().counts.retried, 1);
    }
}
