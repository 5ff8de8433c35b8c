use delayline_core::{OperationId, Timestamp};

use super::Written;
use super::written::{group, out, task, wall};
use crate::history::{Change, Disposition, Due, Tally};

const fn ms(ms: u64) -> u64 {
    ms * 1000
}

#[test]
fn before_the_due_time() {
    for (at, shown) in [((40, 49), true), ((40, 50), false)] {
        let mut h = Written::new();
        h.schedule((0, 5), &[&task("a", 50)]);
        h.claim(at, vec![out(&task("a", 50), 1, 1)]);
        if shown { h.shows("TIME-1") } else { h.shows_nothing() }
    }
}

#[test]
fn before_an_instant_of_the_wall_clock() {
    let at = |at: Timestamp| task("a", 0).with(|task| task.due = Due::At(at));
    let claimed = |step: Option<(u64, i64)>, claim: (u64, u64)| {
        let mut h = Written::new();
        h.schedule((0, 1), &[&at(wall(50))]);
        if let Some((when, by)) = step {
            h.step_wall(when, by);
        }
        h.claim(claim, vec![out(&at(wall(50)), 1, 1)]);
        h
    };
    claimed(None, (48, 49)).shows("TIME-1");
    claimed(None, (48, 50)).shows_nothing();
    claimed(Some((10, 30)), (20, 21)).shows_nothing();
    claimed(Some((10, -30)), (60, 61)).shows("TIME-1");
}

#[test]
fn before_a_retry_or_a_snooze_is_over() {
    for disposition in [Disposition::Retry(ms(500)), Disposition::Snooze(ms(500))] {
        let attempt = if disposition == Disposition::Retry(ms(500)) { 2 } else { 1 };
        for (at, shown) in [((400, 509), true), ((400, 510), false)] {
            let mut h = Written::new();
            h.schedule((0, 1), &[&task("a", 0)]);
            h.claim((5, 6), vec![out(&task("a", 0), 1, 1)]);
            h.settle((10, 11), "a", 1, disposition);
            h.claim(at, vec![out(&task("a", 0), 2, attempt)]);
            if shown { h.shows("TIME-1") } else { h.shows_nothing() }
        }
    }
}

#[test]
fn an_unknown_retry_or_the_end_of_the_lease_whichever_is_first() {
    for (at, shown) in [((40, 49), true), ((40, 50), false)] {
        let mut h = Written::new();
        h.schedule((0, 1), &[&task("a", 0)]);
        h.claim((5, 6), vec![out(&task("a", 0), 1, 1)]);
        h.settle_as((10, 11), "a", 1, Disposition::Retry(ms(40)), None);
        h.claim(at, vec![out(&task("a", 0), 2, 2)]);
        if shown { h.shows("TIME-1") } else { h.shows_nothing() }
    }
}

#[test]
fn a_move_counts_from_its_own_call() {
    let moved = |at: (u64, u64), word: &str, by: u64, claim: (u64, u64)| {
        let mut h = Written::new();
        h.schedule((0, 1), &[&task("a", 50)]);
        h.change(at, "a", Change::MoveTo(Due::AfterUs(ms(by))), word);
        h.claim(claim, vec![out(&task("a", 50), 1, 1)]);
        h
    };
    moved((10, 11), "changed", 100, (100, 109)).shows("TIME-1");
    moved((10, 11), "changed", 100, (100, 110)).shows_nothing();
    moved((10, 105), "changed", 100, (100, 109)).shows_nothing();
    moved((10, 11), "changed", 5, (13, 14)).shows("TIME-1");
    moved((10, 11), "changed", 5, (15, 16)).shows_nothing();
    moved((10, 11), "requested", 5, (15, 16)).shows_nothing();
    moved((10, 11), "requested", 100, (50, 51)).shows_nothing();
    moved((10, 11), "not_found", 5, (15, 16)).shows("TIME-1");
}

#[test]
fn shifts_add_up() {
    let shifted = |by_ms: &[i64], claim: (u64, u64)| {
        let mut h = Written::new();
        h.schedule((0, 1), &[&task("a", 50)]);
        for (i, by) in by_ms.iter().enumerate() {
            let at = 5 + 2 * i as u64;
            h.change((at, at + 1), "a", Change::Shift(by * 1000), "changed");
        }
        h.claim(claim, vec![out(&task("a", 50), 1, 1)]);
        h
    };
    shifted(&[100, 50], (190, 199)).shows("TIME-1");
    shifted(&[100, 50], (190, 200)).shows_nothing();
    shifted(&[100, -80], (60, 68)).shows("TIME-1");
    shifted(&[100, -80], (60, 70)).shows_nothing();
}

#[test]
fn a_repeated_operation_may_have_worked_the_first_time_only() {
    let operation = OperationId::from_uuid(uuid::Uuid::from_u128(7));
    let mut h = Written::new();
    h.schedule((0, 1), &[&task("a", 50)]);
    for at in [(5, 6), (40, 41)] {
        h.change_under(at, "a", Change::MoveTo(Due::AfterUs(ms(50))), "changed", Some(operation));
    }
    h.claim((56, 57), vec![out(&task("a", 50), 1, 1)]);
    h.shows_nothing();
}

#[test]
fn a_group_moves_all_its_members_unless_some_were_in_flight() {
    let a = task("a", 50).with(|task| task.content.group = Some(group("g")));
    for (tally, shown) in [
        (Tally { changed: 2, ..Tally::default() }, true),
        (Tally { changed: 1, in_flight: 1, ..Tally::default() }, false),
        (Tally::default(), false),
    ] {
        let mut h = Written::new();
        h.schedule((0, 1), &[&a]);
        h.change_group((5, 6), "g", Change::Shift(100_000), tally);
        h.claim((60, 61), vec![out(&a, 1, 1)]);
        if shown { h.shows("TIME-1") } else { h.shows_nothing() }
    }
}

#[test]
fn after_its_expiry() {
    let expires = |due: Due| task("a", 0).with(|task| task.expires = Some(due));
    for (expires, at, shown) in [
        (expires(Due::AfterUs(ms(50))), (54, 55), true),
        (expires(Due::AfterUs(ms(50))), (53, 55), false),
        (expires(Due::At(wall(50))), (53, 54), true),
        (expires(Due::At(wall(50))), (52, 54), false),
    ] {
        let mut h = Written::new();
        h.schedule((0, 1), &[&expires]);
        h.claim(at, vec![out(&expires, 1, 1)]);
        if shown { h.shows("TIME-8") } else { h.shows_nothing() }
    }
}

#[test]
fn lateness_counts_from_the_latest_due_time() {
    let mut h = Written::new();
    h.schedule((0, 5), &[&task("a", 50), &task("b", 0).with(|task| task.due = Due::At(wall(60)))]);
    h.claim((56, 58), vec![out(&task("a", 50), 1, 1)]);
    h.claim((56, 70), vec![out(&task("b", 0), 1, 1)]);
    let findings = h.checked();
    assert_eq!((findings.lateness.count(), findings.violations.len()), (2, 0));
    assert_eq!((findings.lateness.quantile_us(0.5), findings.lateness.max_us()), (3_001, 10_007));
}

#[test]
fn a_shift_of_what_was_due_at_once_counts_from_the_millisecond_that_had_begun() {
    for (at, shown) in [((30, 48), true), ((30, 49), false)] {
        let mut h = Written::new();
        h.schedule((0, 1), &[&task("a", 0)]);
        h.change((2, 3), "a", Change::Shift(50_000), "changed");
        h.claim(at, vec![out(&task("a", 0), 1, 1)]);
        if shown { h.shows("TIME-1") } else { h.shows_nothing() }
    }
}
