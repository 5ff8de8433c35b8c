//! Pure checkers over a recorded history: they compare what clients saw with the promises.
//!
//! A call takes effect at one moment between its invocation and its answer. If its outcome is unknown, it takes effect
//! at any moment after its invocation, or never. A checker reports only what no order of these moments can explain. So
//! every reported violation is real, and calls that overlap get the benefit of the doubt.
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
//! All of them read the history from an index by queue and id (`index`, built in `build`).

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
