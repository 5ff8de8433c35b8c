//! For those who run mutants: tests that fail without noise, and what was seen of each.

use std::panic;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Once};
use std::time::Duration;

use super::harness::Mutated;
use super::mutant::Mutant;
use crate::harness::Harness;
use crate::run::{FAILURES_ARE_WANTED, Outcome, run_test_within};
use crate::suite::{self, Test};

/// Longer than that, a test hangs, which is a way of noticing.
const AT_MOST: Duration = Duration::from_secs(20);

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
    match run_test_within(test, Arc::new(Mutated::new(mutant, harness)), seed, AT_MOST).outcome {
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

/// Keeps the panics of tests under [`run_test`](crate::run_test) from being printed, for the rest of the process: they are
/// in its report, and with mutants they are wanted. Other panics are printed as before.
pub fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        FAILURES_ARE_WANTED.store(true, Ordering::Relaxed);
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
