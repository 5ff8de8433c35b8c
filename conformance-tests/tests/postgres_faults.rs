//! Those tests of the suite that do something to the server, each on one of its own.
#![cfg(feature = "servers")]

mod postgres_support;

use std::sync::Arc;

use postgres_support::OnPostgres;

fn on_a_server_of_its_own(name: &'static str) {
    delayline_conformance::run(name, || Arc::new(OnPostgres::private()));
}

#[test]
fn live_3_consumers_go_on_unaided_when_a_fault_has_healed() {
    on_a_server_of_its_own("live_3_consumers_go_on_unaided_when_a_fault_has_healed");
}

#[test]
fn loss_4_what_is_on_disk_survives_a_kill() {
    on_a_server_of_its_own("loss_4_what_is_on_disk_survives_a_kill");
}
