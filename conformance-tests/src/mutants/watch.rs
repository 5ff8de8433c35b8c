//! For those who run mutants: tests that fail without noise, and what was seen of each.

use std::panic;
use std::sync::{Arc, Once};

use super::{Mutant, Mutated};
use crate::harness::Harness;
use crate::run::{Outcome, Report, run_test};
use crate::suite::{self, Test};

/// What a test made of a mutant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Seen {
    /// It failed, as it has to: the first line of what it said.
    Caught(String),
    /// It noticed nothing.
    Missed,
    /// It could not be run: the backend lacks what it needs, or the harness does.
    NotRun(String),
}

/// Runs a test against a mutant of a harness.
#[must_use]
pub fn see(mutant: &Mutant, test: &'static Test, harness: Arc<dyn Harness>, seed: u64) -> Seen {
    match outcome_of(run_test(test, Arc::new(Mutated::new(mutant, harness)), seed)) {
        Outcome::Failed(failure) => {
            let said = failure.message.as_deref().unwrap_or_default().lines().next().map(str::to_string);
            let shown = failure.violations.first().map(ToString::to_string);
            Seen::Caught(said.or(shown).unwrap_or_default())
        }
        Outcome::Passed => Seen::Missed,
        Outcome::Untested(why) => Seen::NotRun(why),
        // A mutant may be caught by what it says of what it declares as absent; here it was not.
        Outcome::Unsupported(needs) => {
            Seen::NotRun(format!("lacks {}", needs.iter().map(|need| need.field()).collect::<Vec<_>>().join(", ")))
        }
    }
}

/// The outcome alone: nobody reads the history of a failure that was wanted.
fn outcome_of(report: Report) -> Outcome {
    if let Outcome::Failed(failure) = &report.outcome
        && let Some(history) = &failure.history
    {
        let _ = std::fs::remove_file(history);
    }
    report.outcome
}

/// Keeps the panics of tests under [`run_test`] from being printed, for the rest of the process: they are in its report, and
/// with mutants they are wanted. Other panics are printed as before.
pub fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // Each test runs in a thread of its name.
            let thread = std::thread::current();
            if thread.name().is_none_or(|name| suite::find(name).is_none()) {
                before(info);
            }
        }));
    });
}
