use delayline_core::OperationId;

use super::Written;
use super::written::{content, group, id, out, task};
use crate::history::{Answer, Change, Disposition, Held, Item, Op, Tally, What};

#[test]
fn what_nobody_scheduled_is_a_phantom() {
    let mut h = Written::new();
    h.schedule((0, 1), &[&task("a", 0)]);
    h.claim((5, 6), vec![out(&task("b", 0), 1, 1)]);
    h.shows("LOSS-1");
}

#[test]
fn a_task_that_was_refused_is_a_phantom_and_one_that_is_unknown_is_not() {
    for (answer, shown) in [("failed", true), ("unknown", false)] {
        let mut h = Written::new();
        h.schedule_as((0, 1), &[(&task("a", 0), answer)]);
        h.claim((5, 6), vec![out(&task("a", 0), 1, 1)]);
        if shown { h.shows("LOSS-1") } else { h.shows_nothing() }
    }
}

#[test]
fn a_call_that_failed_accepted_nothing() {
    let mut h = Written::new();
    let failed = What::Failed { kind: "Unavailable".into(), message: String::new() };
    h.ended((0, 1), Op::Schedule(vec![task("a", 0)]), failed);
    h.claim((5, 6), vec![out(&task("a", 0), 1, 1)]);
    h.shows("LOSS-1");
}

#[test]
fn an_id_that_nobody_was_told_is_matched_by_content_once() {
    let nameless = task("x", 0).with(|task| task.id = None);
    let given = |key: &str| task(key, 0).with(|task| task.content = content("x"));
    for (ids, shown) in [(vec!["u1"], false), (vec!["u1", "u2"], true)] {
        let mut h = Written::new();
        h.schedule_unknown((0, 1), &nameless);
        h.claim((5, 6), ids.iter().map(|id| out(&given(id), 1, 1)).collect());
        if shown { h.shows("LOSS-1") } else { h.shows_nothing() }
    }
    let mut late = Written::new();
    late.claim((5, 6), vec![out(&given("u1"), 1, 1)]);
    late.schedule_unknown((7, 8), &nameless);
    late.shows("LOSS-1");
}

#[test]
fn other_content_than_was_scheduled() {
    let mut h = Written::new();
    h.schedule((0, 1), &[&task("a", 0)]);
    h.claim((5, 6), vec![out(&task("a", 0).replacing("b"), 1, 1)]);
    h.shows("LOSS-5");
}

#[test]
fn what_answered_existing_is_not_delivered() {
    let mut h = Written::new();
    h.schedule((0, 1), &[&task("a", 0)]);
    h.schedule_as((2, 3), &[(&task("a", 0).replacing("b"), "existing")]);
    h.claim((5, 6), vec![out(&task("a", 0).replacing("b"), 1, 1)]);
    h.shows("LOSS-5");
}

#[test]
fn what_was_replaced_is_not_delivered_unless_the_two_overlap() {
    for (at, shown) in [((2, 3), true), ((2, 6), false)] {
        let mut h = Written::new();
        h.schedule((0, 1), &[&task("a", 0)]);
        h.schedule_as(at, &[(&task("a", 0).replacing("b"), "replaced")]);
        h.claim((5, 7), vec![out(&task("a", 0), 1, 1)]);
        if shown { h.shows("DUP-9") } else { h.shows_nothing() }
    }
}

#[test]
fn completed_and_delivered_again() {
    let a = task("a", 0);
    let again = |between: &dyn Fn(&mut Written), fence: u64| {
        let mut h = Written::new();
        h.schedule((0, 1), &[&a]);
        h.claim((5, 6), vec![out(&a, 1, 1)]);
        h.settle((7, 8), "a", 1, Disposition::Complete);
        between(&mut h);
        h.claim((20, 21), vec![out(&a, fence, 1)]);
        h
    };
    again(&|_| {}, 2).shows("DUP-3");
    again(&|h| h.schedule((9, 10), &[&a]), 2).shows_nothing();
    again(&|h| h.schedule_unknown((9, 10), &a), 2).shows_nothing();
    // The task was there while the disposition was under way: it was the same.
    again(&|h| h.schedule_as((9, 10), &[(&a, "failed")]), 2).shows("DUP-3");
}

#[test]
fn what_a_crash_left_twice_comes_twice_at_the_most() {
    let a = task("a", 0);
    // A crash after the task was accepted, and long before it is delivered.
    let came = |times: u64, crash: Option<u64>, leases_stored: bool| {
        let mut h = Written::declaring(|header| header.leases_stored = leases_stored);
        h.schedule((2, 3), &[&a]);
        if let Some(at) = crash {
            h.connections_end(at);
        }
        for fence in 1..=times {
            let at = 10 * fence;
            h.claim((at, at + 1), vec![out(&a, fence, 1)]);
            h.settle((at + 2, at + 3), "a", fence, Disposition::Complete);
        }
        h
    };
    came(2, Some(5), false).shows_nothing();
    came(3, Some(5), false).shows("DUP-3");
    // Before it was accepted, nothing of it can have been handed over.
    came(2, Some(1), false).shows("DUP-3");
    came(2, None, false).shows("DUP-3");
    came(2, Some(5), true).shows("DUP-3");
}

#[test]
fn a_completion_whose_answer_is_unknown_explains_nothing_and_breaks_nothing() {
    let a = task("a", 0);
    let mut h = Written::new();
    h.schedule((0, 1), &[&a]);
    h.claim((5, 6), vec![out(&a, 1, 1)]);
    h.settle_as((7, 8), "a", 1, Disposition::Complete, None);
    h.claim((110, 111), vec![out(&a, 2, 2)]);
    h.shows_nothing();
}

#[test]
fn dead_lettered_and_delivered_again_without_a_redrive() {
    for (affected, shown) in [(0, true), (1, false)] {
        let a = task("a", 0);
        let mut h = Written::new();
        h.schedule((0, 1), &[&a]);
        h.claim((5, 6), vec![out(&a, 1, 1)]);
        h.settle((7, 8), "a", 1, Disposition::DeadLetter);
        h.redrive((9, 10), affected);
        h.claim((20, 21), vec![out(&a, 2, 1)]);
        if shown { h.shows("DUP-2") } else { h.shows_nothing() }
    }
}

#[test]
fn cancelled_and_delivered() {
    let a = task("a", 0);
    for (word, at, shown) in [("changed", (2, 3), true), ("changed", (2, 7), false), ("requested", (2, 3), false)] {
        let mut h = Written::new();
        h.schedule((0, 1), &[&a]);
        h.change(at, "a", Change::Cancel, word);
        h.claim((5, 6), vec![out(&a, 1, 1)]);
        if shown { h.shows("CANCEL-2") } else { h.shows_nothing() }
    }
}

#[test]
fn a_cancel_that_overlaps_the_task_may_have_come_before_it() {
    let a = task("a", 0);
    let mut h = Written::new();
    h.schedule((0, 2), &[&a]);
    h.change((1, 3), "a", Change::Cancel, "changed");
    h.claim((5, 6), vec![out(&a, 1, 1)]);
    h.shows_nothing();
}

#[test]
fn cancelled_in_flight_and_redelivered() {
    for (word, shown) in [("in_flight", true), ("not_found", false)] {
        let a = task("a", 0);
        let mut h = Written::new();
        h.schedule((0, 1), &[&a]);
        h.claim((5, 6), vec![out(&a, 1, 1)]);
        h.change((7, 8), "a", Change::Cancel, word);
        h.claim((110, 111), vec![out(&a, 2, 2)]);
        if shown { h.shows("CANCEL-3") } else { h.shows_nothing() }
    }
}

#[test]
fn cancelled_with_its_group_and_delivered() {
    let member = |key: &str| task(key, 0).with(|task| task.content.group = Some(group("g")));
    for (early, shown) in [(true, true), (false, false)] {
        let a = member("a");
        let mut h = Written::new();
        h.schedule(if early { (0, 1) } else { (4, 5) }, &[&a]);
        let tally = Tally { changed: 1, ..Tally::default() };
        h.change_group((2, 6), "g", Change::Cancel, tally);
        h.claim((8, 9), vec![out(&a, 1, 1)]);
        if shown { h.shows("CANCEL-6") } else { h.shows_nothing() }
    }
}

#[test]
fn delivered_after_its_queue_was_deleted() {
    for (at, shown) in [((2, 3), true), ((2, 7), false)] {
        let a = task("a", 0);
        let mut h = Written::new();
        h.schedule((0, 1), &[&a]);
        h.done(at, Op::Delete);
        h.claim((5, 6), vec![out(&a, 1, 1)]);
        if shown { h.shows("CANCEL-12") } else { h.shows_nothing() }
    }
}

#[test]
fn delivered_while_paused() {
    for (resumed, shown) in [((9, 10), true), ((5, 10), false)] {
        let a = task("a", 0);
        let mut h = Written::new();
        h.schedule((0, 1), &[&a]);
        h.done((2, 3), Op::Pause);
        h.claim((6, 7), vec![out(&a, 1, 1)]);
        h.done(resumed, Op::Resume);
        if shown { h.shows("LIVE-12") } else { h.shows_nothing() }
    }
}

#[test]
fn more_attempts_than_it_may_have() {
    let a = task("a", 0).with(|task| task.content.attempts_max = 1);
    let mut h = Written::new();
    h.schedule((0, 1), &[&a]);
    h.claim((5, 6), vec![out(&a, 1, 1)]);
    h.claim((110, 111), vec![out(&a, 2, 2)]);
    h.shows("DUP-13");
}

#[test]
fn one_batch_may_hold_answers_of_every_kind() {
    let tasks = [task("a", 0), task("b", 0), task("c", 0)];
    let mut h = Written::new();
    h.schedule_as((0, 1), &[(&tasks[0], "created"), (&tasks[1], "failed"), (&tasks[2], "unknown")]);
    h.claim((5, 6), vec![out(&tasks[0], 1, 1)]);
    let settle = Op::Settle(vec![
        (Held { id: id("a"), fence: 1 }, Disposition::Complete),
        (Held { id: id("a"), fence: 9 }, Disposition::Complete),
    ]);
    h.call((7, 8), settle, Some(Answer::Settle(vec![Item::Ok(()), Item::Failed("LeaseLost".into())])));
    h.claim((9, 10), vec![out(&tasks[2], 1, 1)]);
    h.shows_nothing();
}

#[test]
fn a_cancel_that_is_repeated_reaches_nothing_that_came_in_between() {
    let operation = Some(OperationId::from_uuid(uuid::Uuid::from_u128(7)));
    let a = task("a", 0);
    for (word, known) in [("changed", "CANCEL-2"), ("in_flight", "CANCEL-3")] {
        let cancelled = |again: bool, anew: bool| {
            let mut h = Written::new();
            h.schedule((0, 1), &[&a]);
            h.change_under((2, 3), "a", Change::Cancel, word, operation);
            if anew {
                h.schedule((4, 5), &[&a]);
            }
            if again {
                h.change_under((6, 7), "a", Change::Cancel, word, operation);
            }
            h.claim((8, 9), vec![out(&a, 1, 1)]);
            h
        };
        cancelled(true, true).shows_nothing();
        cancelled(true, false).shows(known);
        cancelled(false, false).shows(known);
    }
}

#[test]
fn a_repeated_cancel_may_have_worked_the_first_time() {
    let operation = Some(OperationId::from_uuid(uuid::Uuid::from_u128(7)));
    let a = task("a", 0);
    let repeated = |first: What, anew: bool| {
        let mut h = Written::new();
        h.schedule((0, 1), &[&a]);
        h.ended((2, 3), Op::ChangeTasks { ids: vec![id("a")], change: Change::Cancel, operation }, first);
        if anew {
            h.schedule((4, 5), &[&a]);
        }
        h.change_under((6, 7), "a", Change::Cancel, "changed", operation);
        h.claim((8, 9), vec![out(&a, 1, 1)]);
        h
    };
    repeated(What::Unknown { why: "dropped".into() }, true).shows_nothing();
    repeated(What::Failed { kind: "Busy".into(), message: String::new() }, false).shows("CANCEL-2");
}
