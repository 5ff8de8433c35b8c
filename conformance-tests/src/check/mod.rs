//! Pure checkers over a recorded history: what was seen from outside is held against what was promised.
//!
//! A checker reports only what can't be explained by any order in which the calls may have taken effect: a call takes effect at
//! one moment between its invocation and its answer; one whose outcome is unknown, at any moment after its invocation or
//! never. So a violation is one, and what overlaps is given the benefit of the doubt.

use std::fmt;

use crate::history::Recording;

/// A promise that a history shows broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number, as in `docs/semantics.md`.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
    /// The calls that show it, by their numbers in the history.
    pub calls: Vec<u64>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (calls {:?})", self.promise, self.what, self.calls)
    }
}

/// What the checkers found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Promises that were broken.
    pub violations: Vec<Violation>,
}

/// Runs every checker.
#[must_use]
pub fn check(recording: &Recording) -> Findings {
    let _ = recording;
    Findings::default()
}
