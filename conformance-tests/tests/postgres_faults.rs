//! Those tests of the suite that do something to the server, each on one of its own.
#![cfg(feature = "servers")]

mod postgres_support;

use std::sync::Arc;

use delayline_conformance::{Outcome, run_test, seed, suite};
use postgres_support::OnPostgres;

/// Runs a test, which has to find all that it needs: a server that is ours, and one that keeps what it accepted.
fn on_a_server_of_its_own(name: &str) {
    let test = suite::find(name).expect("a test of the suite");
    let report = run_test(test, Arc::new(OnPostgres::private()), seed());
    match report.outcome {
        Outcome::Passed => {}
        Outcome::Failed(failure) => {
            panic!("{name} failed; repeat it with DELAYLINE_SEED={:#018x}\n{failure}", report.seed)
        }
        untested => panic!("{name} did not run: {untested:?}"),
    }
}

#[test]
fn live_3_consumers_go_on_unaided_when_a_fault_has_healed() {
    on_a_server_of_its_own("live_3_consumers_go_on_unaided_when_a_fault_has_healed");
}

#[test]
fn loss_4_what_is_on_disk_survives_a_kill() {
    on_a_server_of_its_own("loss_4_what_is_on_disk_survives_a_kill");
}

#[test]
fn loss_4_a_server_killed_in_the_middle_of_the_work_loses_nothing() {
    on_a_server_of_its_own("loss_4_a_server_killed_in_the_middle_of_the_work_loses_nothing");
}
