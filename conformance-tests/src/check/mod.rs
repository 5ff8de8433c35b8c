//! Pure checkers over a recorded history: what was seen from outside is held against what was promised.
//!
//! A checker reports only what can't be explained by any order in which the calls may have taken effect: a call takes effect at
//! one moment between its invocation and its answer; one whose outcome is unknown, at any moment after its invocation or
//! never. So a violation is one, and what overlaps is given the benefit of the doubt.
//!
//! | file | what it checks |
//! |---|---|
//! | `delivery` | what is delivered was scheduled, as it was, and has not ended (LOSS-5, DUP-3, CANCEL) |
//! | `loss` | what was accepted was delivered (LOSS-1) |
//! | `ids` | an id names one task (DUP-8, DUP-10, DUP-11) |
//! | `leases` | one live lease, fences that rise, attempts that count (DUP) |
//! | `time` | never early, never after its expiry; how late (TIME) |
//! | `order` | delivery by (visible at, sequence), as far as declared (ORDER) |
//!
//! They all read the history from an index (`index`, built in `build`), which holds it by queue and id.

mod build;
mod delivery;
mod ids;
mod index;
mod leases;
mod loss;
mod order;
mod report;
mod span;
mod time;

#[cfg(test)]
mod tests;

use crate::history::Recording;

pub use report::{Findings, Lateness, Summary, Violation};

/// Runs every checker.
#[must_use]
pub fn check(recording: &Recording) -> Findings {
    let index = build::index(recording);
    let mut findings = Findings::default();
    findings.count(&index);
    for queue in &index.queues {
        delivery::check(&index, queue, &mut findings);
        ids::check(&index, queue, &mut findings);
        leases::check(&index, queue, &mut findings);
        time::check(&index, queue, &mut findings);
        order::check(&index, queue, &mut findings);
        loss::check(&index, queue, &mut findings);
    }
    findings
}
