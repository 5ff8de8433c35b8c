use super::Written;
use super::written::{group, out, task, wall};
use crate::history::{Change, Disposition, Due, Op, Planned, Tally};

/// A task that was scheduled and is not delivered, what happened meanwhile, and a last look at 500 ms.
fn missing(planned: &Planned, meanwhile: impl FnOnce(&mut Written)) -> Written {
    let mut h = Written::new();
    h.schedule((0, 1), &[planned]);
    meanwhile(&mut h);
    h.claim((500, 501), vec![]);
    h.drained(502);
    h
}

#[test]
fn accepted_and_never_seen() {
    missing(&task("a", 50), |_| {}).shows("LOSS-1");
    missing(&task("a", 497), |_| {}).shows("LOSS-1");
    missing(&task("a", 498), |_| {}).shows_nothing();
    missing(&task("a", 0).with(|t| t.due = Due::At(wall(400))), |_| {}).shows("LOSS-1");
    missing(&task("a", 0).with(|t| t.due = Due::At(wall(600))), |_| {}).shows_nothing();
}

#[test]
fn without_a_last_look_nothing_is_known() {
    let mut h = Written::new();
    h.schedule((0, 1), &[&task("a", 0)]);
    h.claim((500, 501), vec![]);
    h.shows_nothing();
}

#[test]
fn what_may_not_have_been_accepted_is_no_loss() {
    let mut h = Written::new();
    h.schedule_unknown((0, 1), &task("a", 0));
    h.schedule_as((0, 1), &[(&task("b", 0), "unknown"), (&task("c", 0), "failed")]);
    h.claim((500, 501), vec![]);
    h.drained(502);
    h.shows_nothing();
}

#[test]
fn cancelled_deleted_or_replaced() {
    let a = task("a", 50);
    missing(&a, |h| h.change((5, 6), "a", Change::Cancel, "changed")).shows_nothing();
    missing(&a, |h| h.change((5, 6), "a", Change::Cancel, "not_found")).shows("LOSS-1");
    missing(&a, |h| h.done((5, 6), Op::Delete)).shows_nothing();
    let grouped = a.clone().with(|task| task.content.group = Some(group("g")));
    let cancel = |h: &mut Written, changed: u64| {
        let tally = Tally { changed, ..Tally::default() };
        h.change_group((5, 6), "g", Change::Cancel, tally);
    };
    missing(&grouped, |h| cancel(h, 1)).shows_nothing();
    missing(&grouped, |h| cancel(h, 0)).shows("LOSS-1");
    missing(&a, |h| h.schedule_as((5, 6), &[(&task("a", 5_000).replacing("b"), "replaced")])).shows_nothing();
    missing(&a, |h| h.schedule_as((5, 6), &[(&task("a", 5_000), "unknown")])).shows("LOSS-1");
}

#[test]
fn moved_behind_the_last_look() {
    let a = task("a", 50);
    missing(&a, |h| h.change((5, 6), "a", Change::Shift(600_000), "changed")).shows_nothing();
    missing(&a, |h| h.change((5, 6), "a", Change::Shift(100_000), "changed")).shows("LOSS-1");
    let later = Change::MoveTo(Due::AfterUs(600_000));
    missing(&a, |h| h.change((5, 6), "a", later, "requested")).shows_nothing();
}

#[test]
fn delivered_and_not_seen_again() {
    let a = task("a", 50);
    let settled = |disposition: Option<Disposition>, known: bool| {
        missing(&a, |h| {
            h.claim((60, 61), vec![out(&a, 1, 1)]);
            if let Some(disposition) = disposition {
                h.settle_as((70, 71), "a", 1, disposition, known.then_some(crate::history::Item::Ok(())));
            }
        })
    };
    settled(None, true).shows("LOSS-2");
    settled(Some(Disposition::Retry(100_000)), true).shows("LOSS-2");
    settled(Some(Disposition::Release), true).shows("LOSS-2");
    settled(Some(Disposition::Retry(600_000)), true).shows_nothing();
    settled(Some(Disposition::Release), false).shows_nothing();
    settled(Some(Disposition::Complete), false).shows_nothing();
    settled(Some(Disposition::Complete), true).shows_nothing();
    settled(Some(Disposition::DeadLetter), true).shows_nothing();
}

#[test]
fn under_a_lease_at_the_end() {
    let a = task("a", 50);
    missing(&a, |h| h.claim((450, 451), vec![out(&a, 1, 1)])).shows_nothing();
    missing(&a, |h| {
        h.claim((60, 61), vec![out(&a, 1, 1)]);
        h.extend((70, 71), "a", 1, 500, 2_000_000);
    })
    .shows_nothing();
}

#[test]
fn dead_lettered_as_often_as_claims_say() {
    let expires = |key: &str| task(key, 0).with(|task| task.expires = Some(Due::AfterUs(100_000)));
    for (dead_lettered, shown) in [(1, true), (2, false)] {
        let mut h = Written::new();
        h.schedule((0, 1), &[&expires("a"), &expires("b")]);
        h.claim_dead_lettering((200, 201), vec![], dead_lettered);
        h.claim((500, 501), vec![]);
        h.drained(502);
        if shown { h.shows("LOSS-1") } else { h.shows_nothing() }
    }
    let last = task("a", 0).with(|task| task.content.attempts_max = 1);
    for (dead_lettered, shown) in [(0, true), (1, false)] {
        missing(&last, |h| {
            h.claim((60, 61), vec![out(&last, 1, 1)]);
            h.claim_dead_lettering((200, 201), vec![], dead_lettered);
        })
        .checked()
        .violations
        .is_empty()
        .then_some(())
        .map_or_else(|| assert!(shown), |()| assert!(!shown));
    }
    missing(&last, |h| {
        h.claim((60, 61), vec![out(&last, 1, 1)]);
        h.settle((70, 71), "a", 1, Disposition::Retry(0));
    })
    .shows_nothing();
}
