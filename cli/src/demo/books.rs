//! The demo's books: what was asked for, when, and what came of it. The conformance suite's [`Ledger`] finds what was
//! lost, came twice or came early; the books add the counts for the messages, and the lateness of first attempts.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use delayline::ChangeOutcome;
use delayline_conformance::ledger::{Ledger, Tally};
use hdrhistogram::Histogram;
use tokio::time::Instant;

/// The maximum lateness in the histogram, in microseconds.
const LATENESS_US_MAX: u64 = 3_600_000_000;

/// The state of all candidates. Its size is fixed when it is created.
pub(super) struct Books {
    ledger: Ledger,
    told: Mutex<Told>,
}

struct Told {
    lateness_us: Histogram<u64>,
    counts: Counts,
    /// For each candidate, whether extra time could only be requested,
    asked: Box<[bool]>,
    /// and when it ends for all of them.
    asked_until: Option<Instant>,
}

/// The counts so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Accepted by the backend.
    pub(super) scheduled: u64,
    /// Candidates whose cancellation was answered with `Changed`.
    pub(super) cancelled: u64,
    /// Candidates who got extra time, by one call each. If it could only be requested, those who were seen to get it.
    pub(super) moved: u64,
    /// Candidates for whom extra time could only be requested.
    pub(super) asked: u64,
    /// Candidates who got more time, by one call for all.
    pub(super) shifted: u64,
    /// Handed in by the worker.
    pub(super) delivered: u64,
    /// Candidates whose cancellation came after their hand-in had begun.
    pub(super) too_late: u64,
    /// Attempts after the first.
    pub(super) retried: u64,
}

/// The result.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    pub(super) counts: Counts,
    /// Accepted, not cancelled, and never completed.
    pub(super) lost: Tally,
    /// Completed more than once, begun after it was cancelled, or running twice at once.
    pub(super) twice: Tally,
    /// Begun before its due time.
    pub(super) early: Tally,
    /// In milliseconds: p50, p99 and maximum of first attempts.
    pub(super) lateness_ms: [f64; 3],
}

impl Books {
    pub(super) fn new(candidates: u32, not_before: Instant) -> Self {
        let told = Told {
            lateness_us: Histogram::new_with_bounds(1, LATENESS_US_MAX, 3).expect("the bounds are in order"),
            counts: Counts::default(),
            asked: vec![false; candidates as usize].into(),
            asked_until: None,
        };
        let books = Self { ledger: Ledger::new(candidates), told: Mutex::new(told) };
        books.everyone_until(not_before);
        books
    }

    /// Sets when everyone's time is up, as far as is known. Called before anything is scheduled.
    pub(super) fn everyone_until(&self, not_before: Instant) {
        (0..self.ledger.len()).for_each(|candidate| self.ledger.due(candidate, not_before));
    }

    pub(super) fn accepted(&self, candidate: u32) {
        self.ledger.accepted(candidate);
        self.told().counts.scheduled += 1;
    }

    /// Whether a candidate is still writing.
    pub(super) fn is_writing(&self, candidate: u32) -> bool {
        let standing = self.ledger.look(candidate);
        !standing.may_be_gone() && standing.deliveries() == 0
    }

    /// Records the answer to a move. If it changed nothing, the former time stays.
    pub(super) fn moved(&self, candidate: u32, answer: ChangeOutcome, not_before: Instant) {
        let mut told = self.told();
        match answer {
            ChangeOutcome::Changed => {
                self.ledger.due(candidate, not_before);
                told.counts.moved += 1;
            }
            ChangeOutcome::Requested => {
                told.asked[candidate as usize] = true;
                told.asked_until = Some(not_before);
                told.counts.asked += 1;
            }
            _ => {}
        }
    }

    /// Records the answer to a shift of everyone; every task that could be changed was changed.
    pub(super) fn shifted(&self, by: Duration, answered: Instant, changed: u64) {
        self.ledger.shifted(by, answered);
        self.told().counts.shifted += changed;
    }

    /// Records the answer to a cancellation; `None` if it was lost.
    pub(super) fn cancelled(&self, candidate: u32, answer: Option<ChangeOutcome>) {
        self.ledger.cancelled(candidate, answer, Instant::now());
        match answer {
            Some(ChangeOutcome::Changed) => self.told().counts.cancelled += 1,
            Some(ChangeOutcome::InFlight | ChangeOutcome::NotFound) => self.told().counts.too_late += 1,
            Some(_) | None => {}
        }
    }

    /// An attempt begins.
    pub(super) fn begins(&self, candidate: u32, now: Instant, lateness: Duration) {
        let attempt = self.ledger.delivered(candidate, now);
        let mut told = self.told();
        if attempt > 1 {
            told.counts.retried += 1;
            return;
        }
        let had_extra_time = told.asked[candidate as usize] && told.asked_until.is_some_and(|until| until <= now);
        told.counts.moved += u64::from(had_extra_time);
        told.lateness_us.saturating_record(u64::try_from(lateness.as_micros()).unwrap_or(u64::MAX));
    }

    /// An attempt has failed. The next must not begin before this time.
    pub(super) fn fails(&self, candidate: u32, not_before: Instant) {
        self.ledger.given_back(candidate, not_before);
    }

    /// An attempt has succeeded.
    pub(super) fn completes(&self, candidate: u32) {
        self.ledger.completed(candidate);
    }

    /// Whether no hand-in is left, as far as is known. A candidate whose cancellation was only requested may still
    /// come.
    pub(super) fn is_through(&self) -> bool {
        (0..self.ledger.len()).map(|candidate| self.ledger.look(candidate)).all(|standing| {
            let through = standing.is_completed() || standing.may_be_gone();
            !standing.is_accepted() || through && !standing.is_held()
        })
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { delivered: self.ledger.completed_count(), ..self.told().counts }
    }

    /// Number of candidates who did not hand in by themselves before their time was up.
    pub(super) fn whose_time_is_up(&self, now: Instant) -> u64 {
        let is_up = |&candidate: &u32| {
            let standing = self.ledger.look(candidate);
            standing.is_accepted() && !standing.may_be_gone() && self.ledger.is_due(candidate, now)
        };
        (0..self.ledger.len()).filter(is_up).count() as u64
    }

    /// The result, once nothing runs any more.
    pub(super) fn verdict(&self) -> Verdict {
        let found = self.ledger.verdict();
        let counts = Counts { cancelled: found.cancelled.count, ..self.counts() };
        let told = self.told();
        let lateness = &told.lateness_us;
        let at = |quantile| lateness.value_at_quantile(quantile) as f64 / 1000.0;
        let lateness_ms =
            if lateness.is_empty() { [0.0; 3] } else { [at(0.5), at(0.99), lateness.max() as f64 / 1000.0] };
        Verdict { counts, lost: found.lost, twice: found.twice, early: found.early, lateness_ms }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verdict {
    /// Whether every promise was kept.
    pub(super) fn is_clean(&self) -> bool {
        [&self.lost, &self.twice, &self.early].iter().all(|tally| tally.count == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_millis(2);

    /// One accepted candidate, whose time is up then.
    fn one() -> (Books, Instant) {
        let up = Instant::now() + Duration::from_secs(10);
        let books = Books::new(1, up);
        books.accepted(0);
        (books, up)
    }

    fn found(books: &Books) -> [u64; 3] {
        let verdict = books.verdict();
        [verdict.lost.count, verdict.twice.count, verdict.early.count]
    }

    #[test]
    fn a_hand_in_that_comes_once_in_time_is_fine() {
        let (books, up) = one();
        books.begins(0, up, LATE);
        books.completes(0);
        assert_eq!(found(&books), [0, 0, 0]);
        let verdict = books.verdict();
        assert_eq!((verdict.counts.scheduled, verdict.counts.delivered), (1, 1));
        assert!(verdict.is_clean());
        assert!((verdict.lateness_ms[2] - 2.0).abs() < 0.01, "{:?}", verdict.lateness_ms);
    }

    #[test]
    fn one_that_never_comes_is_lost() {
        let (books, _) = one();
        assert_eq!(found(&books), [1, 0, 0]);
    }

    #[test]
    fn one_that_fails_and_does_not_come_again_is_lost() {
        let (books, up) = one();
        books.begins(0, up, LATE);
        books.fails(0, up);
        assert_eq!(found(&books), [1, 0, 0]);
    }

    #[test]
    fn one_that_is_said_to_be_gone_and_never_came_is_lost() {
        let (books, _) = one();
        books.cancelled(0, Some(ChangeOutcome::NotFound));
        assert_eq!(found(&books), [1, 0, 0]);
    }

    #[test]
    fn one_that_was_not_accepted_is_not_lost() {
        assert_eq!(found(&Books::new(1, Instant::now())), [0, 0, 0]);
    }

    #[test]
    fn one_that_comes_again_is_twice() {
        let (books, up) = one();
        for _ in 0..2 {
            books.begins(0, up, LATE);
            books.completes(0);
        }
        assert_eq!(found(&books), [0, 1, 0]);
        assert_eq!(books.verdict().counts.delivered, 1);
    }

    #[test]
    fn attempts_that_overlap_are_twice() {
        let (books, up) = one();
        books.begins(0, up, LATE);
        books.begins(0, up, LATE);
        books.fails(0, up);
        books.completes(0);
        assert_eq!(found(&books), [0, 1, 0]);
    }

    #[test]
    fn one_that_comes_after_it_was_cancelled_is_twice() {
        let (books, up) = one();
        books.cancelled(0, Some(ChangeOutcome::Changed));
        assert_eq!((found(&books), books.verdict().counts.cancelled), ([0, 0, 0], 1));
        books.begins(0, up, LATE);
        books.completes(0);
        assert_eq!(found(&books), [0, 1, 0]);
    }

    #[test]
    fn one_that_is_cancelled_while_it_runs_or_when_it_is_done_is_twice() {
        for done in [false, true] {
            let (books, up) = one();
            books.begins(0, up, LATE);
            if done {
                books.completes(0);
            }
            books.cancelled(0, Some(ChangeOutcome::Changed));
            assert_eq!(found(&books), [0, 1, 0]);
        }
    }

    #[test]
    fn one_in_flight_may_end_but_not_come_again() {
        let (books, up) = one();
        books.cancelled(0, Some(ChangeOutcome::InFlight));
        books.begins(0, up, LATE);
        books.fails(0, up);
        assert_eq!((found(&books), books.verdict().counts.cancelled), ([0, 0, 0], 1));
        books.begins(0, up, LATE);
        assert_eq!(found(&books), [0, 1, 0]);

        let (books, up) = one();
        books.begins(0, up, LATE);
        books.cancelled(0, Some(ChangeOutcome::InFlight));
        books.fails(0, up);
        assert_eq!(found(&books), [0, 0, 0]);
        books.begins(0, up, LATE);
        assert_eq!(found(&books), [0, 1, 0]);
    }

    #[test]
    fn one_whose_cancellation_is_only_asked_for_may_come_or_not() {
        for answer in [Some(ChangeOutcome::Requested), None] {
            let (books, up) = one();
            books.cancelled(0, answer);
            assert_eq!((found(&books), books.verdict().counts.cancelled), ([0, 0, 0], 1));
            books.begins(0, up, LATE);
            books.completes(0);
            assert_eq!((found(&books), books.verdict().counts.cancelled), ([0, 0, 0], 0));
        }
    }

    #[test]
    fn one_that_comes_before_its_time_is_early() {
        let (books, up) = one();
        books.begins(0, up - Duration::from_nanos(1), LATE);
        books.completes(0);
        assert_eq!(found(&books), [0, 0, 1]);
    }

    #[test]
    fn one_that_was_moved_has_to_keep_to_that() {
        for (answer, is_early) in [(ChangeOutcome::Changed, 1), (ChangeOutcome::InFlight, 0)] {
            let (books, up) = one();
            books.moved(0, answer, up + Duration::from_secs(1));
            books.begins(0, up, LATE);
            books.completes(0);
            assert_eq!(found(&books), [0, 0, is_early]);
        }
    }

    #[test]
    fn one_that_was_shifted_has_to_keep_to_that() {
        let minute = Duration::from_secs(60);
        for (answered_before_up, is_early) in [(true, 1), (false, 0)] {
            let (books, up) = one();
            let answered = if answered_before_up { up - LATE } else { up };
            books.shifted(minute, answered, 1);
            books.begins(0, up + minute - LATE, LATE);
            books.completes(0);
            assert_eq!(found(&books), [0, 0, is_early]);
        }
    }

    #[test]
    fn a_retry_may_not_come_before_its_time() {
        let (books, up) = one();
        books.begins(0, up, LATE);
        books.fails(0, up + LATE);
        books.begins(0, up + LATE / 2, LATE);
        books.completes(0);
        assert_eq!(found(&books), [0, 0, 1]);
        assert_eq!(books.verdict().counts.retried, 1);
    }
}
