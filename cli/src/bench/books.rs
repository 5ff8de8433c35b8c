//! The bench's books: what became of every task of a run. The conformance suite's [`Ledger`] keeps the tasks; the books
//! add unknown deliveries and failed calls, and turn all of it into sentences.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use delayline::ChangeOutcome;
use delayline_conformance::ledger::{Ledger, Verdict};
use indicatif::HumanCount;
use tokio::time::Instant;

/// Number of tasks that are named in a problem.
const NAMED_MAX: usize = 3;

/// The books of one run.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) ledger: Ledger,
    strange: AtomicU64,
    refusal: Mutex<Option<String>>,
}

impl Books {
    /// Books for `tasks` tasks, each delivered `deliveries` times under leases of this length.
    pub(super) fn new(tasks: u32, deliveries: u32, lease: Duration) -> Self {
        let ledger = Ledger::new(tasks).deliveries(deliveries).lease(lease);
        Self { ledger, strange: AtomicU64::new(0), refusal: Mutex::new(None) }
    }

    /// The store has answered a cancel.
    pub(super) fn cancelled(&self, task: u32, answer: ChangeOutcome) {
        match answer {
            ChangeOutcome::Changed | ChangeOutcome::Requested => {
                self.ledger.cancelled(task, Some(answer), Instant::now());
            }
            // In flight or gone: its holder completes it, like any other.
            ChangeOutcome::InFlight | ChangeOutcome::NotFound => {}
            other => self.refused(format_args!("a cancel answered {other:?}")),
        }
    }

    /// Something was delivered that was not scheduled like this.
    pub(super) fn strange(&self) {
        self.strange.fetch_add(1, Ordering::Relaxed);
    }

    /// A call on a task failed; the first failure is reported.
    pub(super) fn refused(&self, why: impl Display) {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_string());
    }

    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The broken promises, each in a sentence.
    pub(super) fn problems(&self, verdict: &Verdict) -> Vec<String> {
        let all = HumanCount(verdict.accepted.count);
        let mut problems = Vec::new();
        for (promise, what, tally) in [
            ("LOSS-1", "lost", &verdict.lost),
            ("DUP-1", "delivered again while held, or after they were complete", &verdict.again),
            ("TIME-1", "delivered early", &verdict.early),
            ("CANCEL-1", "answered as cancelled while held, or after they were complete", &verdict.mistold),
            ("CANCEL-2", "delivered after they were cancelled", &verdict.revived),
            ("DUP-12", "completed after another number of attempts than there should have been", &verdict.miscounted),
        ] {
            if tally.count > 0 {
                let first: Vec<_> = tally.first.iter().take(NAMED_MAX).map(u32::to_string).collect();
                let (count, first) = (HumanCount(tally.count), first.join(", "));
                problems.push(format!("{promise}: {count} of {all} tasks {what} (the first: {first})"));
            }
        }
        let strange = self.strange.load(Ordering::Relaxed);
        if strange > 0 {
            problems.push(format!("LOSS-5: {} deliveries of something that was not scheduled", HumanCount(strange)));
        }
        // Perhaps the reason why a task was lost; by itself it breaks no promise.
        if let (Some(why), false) = (self.refusal(), problems.is_empty()) {
            problems.push(format!("the first call that failed: {why}"));
        }
        problems
    }

    /// What the reader should know even if no promise is broken.
    pub(super) fn remarks(&self, verdict: &Verdict) -> Vec<String> {
        let overheld = (verdict.overheld.count > 0).then(|| {
            let count = HumanCount(verdict.overheld.count);
            format!("{count} tasks came again because they were held beyond their leases")
        });
        overheld.into_iter().chain(self.refusal().map(|why| format!("a call failed: {why}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    /// Three tasks that were scheduled, and are due.
    fn books() -> (Books, Instant) {
        let (books, due) = (Books::new(3, 1, LEASE), Instant::now() + LEASE);
        for task in 0..3 {
            books.ledger.due(task, due);
            books.ledger.accepted(task);
        }
        (books, due)
    }

    fn play(books: &Books, task: u32, at: Instant) {
        books.ledger.delivered(task, at);
        books.ledger.completed(task);
    }

    fn problems(books: &Books) -> Vec<String> {
        books.problems(&books.ledger.verdict())
    }

    fn found(books: &Books) -> Vec<String> {
        problems(books).iter().map(|text| text.split(':').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_goes_as_promised_is_clean() {
        let (books, due) = books();
        (0..3).for_each(|task| play(&books, task, due));
        assert_eq!(found(&books), [""; 0]);
        assert_eq!(books.remarks(&books.ledger.verdict()), [""; 0]);
    }

    #[test]
    fn a_loss_is_told_with_its_tasks() {
        let (books, due) = books();
        play(&books, 0, due);
        books.ledger.delivered(2, due);
        assert_eq!(problems(&books), ["LOSS-1: 2 of 3 tasks lost (the first: 1, 2)"]);
    }

    #[test]
    fn a_task_that_was_cancelled_or_never_accepted_is_not_lost() {
        let (books, due) = books();
        play(&books, 0, due);
        books.cancelled(1, ChangeOutcome::Changed);
        books.cancelled(2, ChangeOutcome::Requested);
        assert_eq!(found(&books), [""; 0]);
        assert_eq!(found(&Books::new(5, 1, LEASE)), [""; 0]);
    }

    #[test]
    fn a_cancel_that_came_too_late_excuses_no_loss() {
        let (books, due) = books();
        play(&books, 0, due);
        books.cancelled(1, ChangeOutcome::InFlight);
        books.cancelled(2, ChangeOutcome::NotFound);
        assert_eq!(problems(&books), ["LOSS-1: 2 of 3 tasks lost (the first: 1, 2)"]);
    }

    #[test]
    fn each_promise_has_its_sentence() {
        let (books, due) = books();
        play(&books, 0, due - LEASE / 2);
        books.ledger.delivered(0, due);
        books.cancelled(0, ChangeOutcome::Changed);
        books.cancelled(1, ChangeOutcome::Changed);
        books.ledger.delivered(1, due);
        books.ledger.delivered(2, due);
        books.ledger.given_back(2, due);
        play(&books, 2, due);
        assert_eq!(found(&books), ["DUP-1", "TIME-1", "CANCEL-1", "CANCEL-2", "DUP-12"]);
    }

    #[test]
    fn one_that_was_held_too_long_is_a_remark() {
        let (books, due) = books();
        (0..2).for_each(|task| play(&books, task, due));
        books.ledger.delivered(2, due);
        play(&books, 2, due + LEASE);
        assert_eq!(found(&books), [""; 0]);
        assert_eq!(books.remarks(&books.ledger.verdict()).len(), 1);
    }

    #[test]
    fn what_was_never_scheduled_is_found() {
        let (books, due) = books();
        (0..3).for_each(|task| play(&books, task, due));
        books.strange();
        books.refused("a wire was cut");
        assert_eq!(found(&books), ["LOSS-5", "the first call that failed"]);
    }
}
