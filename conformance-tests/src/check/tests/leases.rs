use super::Written;
use super::written::{out, task, wall};
use crate::history::{Change, Disposition, Item, Op};

/// A task that was delivered by a claim from 5 to 6 ms under a lease of 100 ms.
fn claimed() -> Written {
    let mut h = Written::new();
    h.schedule((0, 1), &[&task("a", 0)]);
    h.claim((5, 6), vec![out(&task("a", 0), 1, 1)]);
    h
}

fn lost() -> Option<Item<()>> {
    Some(Item::Failed("LeaseLost".into()))
}

#[test]
fn two_leases_at_once() {
    for (at, shown) in [((50, 51), true), ((100, 104), true), ((100, 105), false), ((104, 120), false)] {
        let mut h = claimed();
        h.claim(at, vec![out(&task("a", 0), 2, 2)]);
        if shown { h.shows("DUP-1") } else { h.shows_nothing() }
    }
}

#[test]
fn an_extended_lease_lasts_longer() {
    for (at, shown) in [((150, 151), true), ((240, 260), false)] {
        let mut h = claimed();
        h.extend((50, 51), "a", 1, 200, 2_000_000);
        h.claim(at, vec![out(&task("a", 0), 2, 2)]);
        if shown { h.shows("DUP-1") } else { h.shows_nothing() }
    }
}

#[test]
fn a_lease_that_was_settled_or_may_have_been_is_over() {
    let a = task("a", 0);
    let between = |between: &dyn Fn(&mut Written), attempt: u32| {
        let mut h = claimed();
        between(&mut h);
        h.claim((50, 51), vec![out(&a, 2, attempt)]);
        h
    };
    between(&|h| h.settle((10, 11), "a", 1, Disposition::Retry(0)), 2).shows_nothing();
    between(&|h| h.settle_as((10, 11), "a", 1, Disposition::Release, None), 1).shows_nothing();
    between(&|h| h.settle_as((10, 60), "a", 1, Disposition::Release, Some(Item::Unknown)), 1).shows_nothing();
    between(&|h| h.settle_as((10, 11), "a", 1, Disposition::Retry(0), Some(Item::Failed("Busy".into()))), 2)
        .shows("DUP-1");
    between(&|h| h.schedule_as((10, 11), &[(&a, "replaced")]), 1).shows_nothing();
}

#[test]
fn a_claim_that_nobody_received_takes_no_live_lease() {
    let mut h = claimed();
    h.call((10, 11), Written::claim_op(), None);
    h.claim((50, 51), vec![out(&task("a", 0), 3, 2)]);
    h.shows("DUP-1");
}

#[test]
fn a_fence_that_falls_or_stays() {
    let two = |fences: (u64, u64), at: (u64, u64)| {
        let mut h = Written::new();
        h.schedule((0, 1), &[&task("a", 0)]);
        h.claim((5, 6), vec![out(&task("a", 0), fences.0, 1)]);
        h.claim(at, vec![out(&task("a", 0), fences.1, 2)]);
        h.checked().found("DUP-6")
    };
    assert_eq!(two((1, 2), (110, 111)), 0);
    assert_eq!(two((2, 1), (110, 111)), 1);
    assert_eq!(two((2, 2), (110, 111)), 1);
    assert_eq!(two((2, 1), (5, 111)), 0, "they overlap");
}

#[test]
fn a_stale_lease_that_settles() {
    for (at, item, shown) in [
        ((112, 113), Some(Item::Ok(())), true),
        ((110, 113), Some(Item::Ok(())), false),
        ((112, 113), lost(), false),
        ((112, 113), None, false),
    ] {
        let mut h = claimed();
        h.claim((110, 111), vec![out(&task("a", 0), 2, 2)]);
        h.settle_as(at, "a", 1, Disposition::Retry(0), item);
        if shown { h.shows("DUP-4") } else { h.shows_nothing() }
    }
}

#[test]
fn a_stale_lease_that_extends() {
    let mut h = claimed();
    h.claim((110, 111), vec![out(&task("a", 0), 2, 2)]);
    h.extend((112, 113), "a", 1, 100, 2_000_000);
    h.shows("DUP-4");
}

#[test]
fn a_repeated_disposition_whose_first_answer_was_lost_may_be_answered_ok() {
    let mut h = claimed();
    h.settle_as((10, 11), "a", 1, Disposition::Release, None);
    h.claim((20, 21), vec![out(&task("a", 0), 2, 1)]);
    h.settle((22, 23), "a", 1, Disposition::Release);
    h.shows_nothing();
}

#[test]
fn a_second_disposition_after_the_first() {
    for (at, shown) in [((12, 13), true), ((10, 13), false)] {
        let mut h = claimed();
        h.settle((9, 11), "a", 1, Disposition::Complete);
        h.settle(at, "a", 1, Disposition::Complete);
        if shown { h.shows("DUP-4") } else { h.shows_nothing() }
    }
}

#[test]
fn a_live_lease_that_is_said_to_be_lost() {
    let a = task("a", 0);
    let between = |between: &dyn Fn(&mut Written)| {
        let mut h = claimed();
        between(&mut h);
        h.settle_as((50, 51), "a", 1, Disposition::Complete, lost());
        h
    };
    between(&|_| {}).shows("DUP-4");
    between(&|h| h.settle((10, 11), "a", 1, Disposition::Complete)).shows_nothing();
    between(&|h| h.schedule_as((10, 60), &[(&a, "replaced")])).shows_nothing();
    between(&|h| h.done((10, 11), Op::Delete)).shows_nothing();
}

#[test]
fn a_lease_that_ended_settles_while_nobody_took_the_task() {
    let between = |between: &dyn Fn(&mut Written)| {
        let mut h = claimed();
        between(&mut h);
        h.settle_as((150, 151), "a", 1, Disposition::Complete, lost());
        h
    };
    between(&|_| {}).shows("DUP-5");
    between(&|h| h.claim((120, 121), vec![])).shows("DUP-5");
    between(&|h| h.claim((120, 121), vec![out(&task("a", 0), 2, 2)])).shows_nothing();
    between(&|h| h.call((120, 121), Written::claim_op(), None)).shows_nothing();
    between(&|h| h.claim_dead_lettering((120, 121), vec![], 1)).shows_nothing();
    let moved = crate::history::Change::MoveTo(crate::history::Due::AfterUs(0));
    between(&|h| h.change((120, 121), "a", moved, "changed")).shows_nothing();
}

#[test]
fn an_extension_that_shortens() {
    for (told_ms, shown) in [(999_999, true), (1_000_000, false)] {
        let mut h = claimed();
        h.extend((50, 51), "a", 1, 10, told_ms);
        if shown { h.shows("DUP-7") } else { h.shows_nothing() }
    }
    let mut stepped = claimed();
    stepped.step_wall(20, -100);
    stepped.extend((50, 51), "a", 1, 10, 999_900);
    stepped.shows_nothing();
    assert!(wall(1) > wall(0));
}

#[test]
fn attempts_follow_from_how_the_one_before_ended() {
    let a = task("a", 0);
    let second = |disposition: Option<Disposition>, known: bool, attempt: u32| {
        let mut h = claimed();
        if let Some(disposition) = disposition {
            h.settle_as((10, 11), "a", 1, disposition, known.then_some(Item::Ok(())));
        }
        h.claim((110, 111), vec![out(&a, 2, attempt)]);
        h
    };
    second(None, true, 2).shows_nothing();
    second(None, true, 1).shows("DUP-12");
    second(None, true, 3).shows("DUP-12");
    second(Some(Disposition::Retry(0)), true, 2).shows_nothing();
    second(Some(Disposition::Retry(0)), true, 1).shows("DUP-12");
    second(Some(Disposition::Release), true, 1).shows_nothing();
    second(Some(Disposition::Release), true, 2).shows("DUP-12");
    second(Some(Disposition::Snooze(0)), true, 2).shows("DUP-12");
    second(Some(Disposition::Snooze(0)), false, 2).shows_nothing();
    second(Some(Disposition::Snooze(0)), false, 1).shows_nothing();
}

#[test]
fn the_first_attempt_is_the_first_unless_a_claim_was_lost() {
    for (lost, shown) in [(false, true), (true, false)] {
        let mut h = Written::new();
        h.schedule((0, 1), &[&task("a", 0)]);
        if lost {
            h.call((2, 3), Written::claim_op(), None);
        }
        h.claim((5, 6), vec![out(&task("a", 0), 1, 2)]);
        if shown { h.shows("DUP-12") } else { h.shows_nothing() }
    }
}

#[test]
fn a_new_task_and_a_redriven_one_start_over() {
    let a = task("a", 0);
    let mut h = claimed();
    h.schedule_as((10, 11), &[(&a.clone().replacing("b"), "replaced")]);
    h.claim((12, 13), vec![out(&a.clone().replacing("b"), 2, 2)]);
    h.shows("DUP-12");
    let mut h = claimed();
    h.settle((10, 11), "a", 1, Disposition::DeadLetter);
    h.redrive((12, 13), 1);
    h.claim((14, 15), vec![out(&a, 2, 1)]);
    h.shows_nothing();
}

#[test]
fn a_redriven_letter_takes_the_id_of_a_task_that_was_cancelled_in_flight() {
    let (a, b) = (task("a", 0), task("a", 0).replacing("b"));
    let taken = |between: &dyn Fn(&mut Written)| {
        let mut h = claimed();
        h.settle((7, 8), "a", 1, Disposition::DeadLetter);
        h.schedule((10, 11), &[&b]);
        h.claim((12, 13), vec![out(&b, 2, 1)]);
        between(&mut h);
        h.claim((20, 21), vec![out(&a, 3, 1)]);
        h.settle_as((22, 23), "a", 2, Disposition::Complete, lost());
        h
    };
    let cancel = |h: &mut Written| h.change((14, 15), "a", Change::Cancel, "in_flight");
    let both = |h: &mut Written| {
        cancel(h);
        h.redrive((16, 17), 1);
    };
    taken(&both).shows_nothing();
    let redriven_alone = taken(&|h| h.redrive((16, 17), 1)).checked();
    assert_eq!((redriven_alone.found("DUP-1"), redriven_alone.found("DUP-4")), (1, 1));
    let before_the_cancel = taken(&|h| {
        h.redrive((8, 9), 1);
        cancel(h);
    });
    assert_ne!(before_the_cancel.checked().found("DUP-1"), 0);
}
