//! Every fault is planted that the books are to find, and beside it what only looks like one.

use super::*;

const LEASE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Three tasks that were scheduled, and are due in a second.
fn ledger(deliveries: u32) -> (Ledger, Instant) {
    let ledger = Ledger::new(3).lease(LEASE).deliveries(deliveries);
    let due = ledger.origin + SECOND;
    for task in 0..3 {
        ledger.due(task, due);
        ledger.accepted(task);
    }
    (ledger, due)
}

fn play(ledger: &Ledger, task: u32, at: Instant) {
    ledger.delivered(task, at);
    ledger.completed(task);
}

/// What was found, by the names of its tallies.
fn found(ledger: &Ledger) -> Vec<&'static str> {
    let verdict = ledger.verdict();
    let tallies = [
        ("lost", &verdict.lost),
        ("early", &verdict.early),
        ("again", &verdict.again),
        ("revived", &verdict.revived),
        ("mistold", &verdict.mistold),
        ("miscounted", &verdict.miscounted),
    ];
    tallies.into_iter().filter(|(_, tally)| tally.count > 0).map(|(name, _)| name).collect()
}

#[test]
fn what_goes_as_promised_is_clean() {
    let (ledger, due) = ledger(1);
    (0..3).for_each(|task| play(&ledger, task, due));
    assert_eq!(found(&ledger), [""; 0]);
    assert_eq!((ledger.verdict().accepted.count, ledger.completed_count()), (3, 3));
}

#[test]
fn a_loss_is_found() {
    let (ledger, due) = ledger(1);
    play(&ledger, 0, due);
    ledger.delivered(2, due);
    assert_eq!(found(&ledger), ["lost"]);
    assert_eq!(ledger.verdict().lost, Tally { count: 2, first: vec![1, 2] });
}

#[test]
fn a_task_that_was_cancelled_or_never_accepted_is_not_lost() {
    let (ledger, due) = ledger(1);
    play(&ledger, 0, due);
    ledger.cancelled(1, Some(ChangeOutcome::Changed), due);
    ledger.cancelled(2, Some(ChangeOutcome::Requested), due);
    assert_eq!(found(&ledger), [""; 0]);
    assert_eq!(ledger.verdict().cancelled.count, 2);
    assert_eq!(found(&Ledger::new(5)), [""; 0]);
}

#[test]
fn one_that_is_said_to_be_gone_and_never_came_is_lost() {
    let (ledger, due) = ledger(1);
    (0..2).for_each(|task| play(&ledger, task, due));
    ledger.cancelled(2, Some(ChangeOutcome::NotFound), due);
    assert_eq!(found(&ledger), ["lost"]);
}

#[test]
fn a_second_delivery_is_found() {
    for completed in [true, false] {
        let (ledger, due) = ledger(1);
        (0..3).for_each(|task| play(&ledger, task, due));
        if !completed {
            ledger.given_back(1, due);
            ledger.delivered(1, due);
        }
        ledger.delivered(1, due);
        assert_eq!(found(&ledger), ["again"]);
        assert_eq!(ledger.verdict().twice.count, 1);
    }
}

#[test]
fn one_that_was_held_too_long_comes_again_by_right() {
    let (ledger, due) = ledger(1);
    (0..2).for_each(|task| play(&ledger, task, due));
    ledger.delivered(2, due);
    play(&ledger, 2, due + LEASE);
    assert_eq!(found(&ledger), [""; 0]);
    assert_eq!(ledger.verdict().overheld.count, 1);
}

#[test]
fn an_early_delivery_is_found_without_tolerance() {
    let (ledger, due) = ledger(1);
    (0..2).for_each(|task| play(&ledger, task, due));
    play(&ledger, 2, due - Duration::from_nanos(1));
    assert_eq!(found(&ledger), ["early"]);
}

#[test]
fn a_delivery_after_a_cancel_is_found() {
    let (ledger, due) = ledger(1);
    (0..2).for_each(|task| play(&ledger, task, due));
    ledger.cancelled(2, Some(ChangeOutcome::Changed), due);
    ledger.delivered(2, due);
    assert_eq!(found(&ledger), ["revived"]);
}

#[test]
fn one_that_was_cancelled_in_flight_may_come_once_if_nobody_had_seen_it_yet() {
    for seen in [false, true] {
        let (ledger, due) = ledger(2);
        (0..2).for_each(|task| (0..2).for_each(|_| ledger.given_back(task, due)));
        if seen {
            ledger.delivered(2, due);
        }
        ledger.cancelled(2, Some(ChangeOutcome::InFlight), due);
        if !seen {
            ledger.delivered(2, due);
        }
        ledger.given_back(2, due);
        assert_eq!(ledger.verdict().lost.first, [0, 1], "it ends with the attempt that was under way");
        assert_eq!(ledger.verdict().revived.count, 0);
        ledger.delivered(2, due);
        assert_eq!(ledger.verdict().revived.first, [2]);
    }
}

#[test]
fn one_that_is_cancelled_while_it_is_held_or_when_it_is_done_is_mistold() {
    for done in [false, true] {
        let (ledger, due) = ledger(1);
        (0..2).for_each(|task| play(&ledger, task, due));
        ledger.delivered(2, due);
        if done {
            ledger.completed(2);
        }
        ledger.cancelled(2, Some(ChangeOutcome::Changed), due);
        assert_eq!(found(&ledger), ["mistold"]);
    }
    // Its lease is over: it waits.
    let (ledger, due) = ledger(1);
    (0..2).for_each(|task| play(&ledger, task, due));
    ledger.delivered(2, due);
    ledger.cancelled(2, Some(ChangeOutcome::Changed), due + LEASE);
    assert_eq!(found(&ledger), [""; 0]);
}

#[test]
fn one_whose_cancel_is_only_asked_for_may_come_or_not() {
    for answer in [Some(ChangeOutcome::Requested), None] {
        let (ledger, due) = ledger(1);
        (0..2).for_each(|task| play(&ledger, task, due));
        ledger.cancelled(2, answer, due);
        assert_eq!((found(&ledger), ledger.verdict().cancelled.count), (vec![], 1));
        play(&ledger, 2, due);
        assert_eq!((found(&ledger), ledger.verdict().cancelled.count), (vec![], 0));
    }
}

#[test]
fn a_shift_moves_those_whose_time_had_not_come() {
    let (ledger, due) = ledger(1);
    ledger.due(2, due - SECOND / 2);
    ledger.shifted(SECOND, due - SECOND / 2);
    (0..3).for_each(|task| play(&ledger, task, due + SECOND - Duration::from_nanos(1)));
    assert_eq!(ledger.verdict().early.first, [0, 1]);
}

#[test]
fn retries_are_counted_and_have_times_of_their_own() {
    let (books, due) = ledger(2);
    let later = due + SECOND;
    for task in 0..3 {
        assert_eq!(books.delivered(task, due), 1);
        books.given_back(task, later);
    }
    play(&books, 0, later);
    play(&books, 1, later);
    play(&books, 2, due);
    assert_eq!(found(&books), ["early"]);

    let (books, due) = ledger(2);
    (0..3).for_each(|task| play(&books, task, due));
    assert_eq!(found(&books), ["miscounted"]);
}

#[test]
fn deliveries_beyond_any_count_change_nothing_else() {
    let ledger = Ledger::new(1);
    ledger.accepted(0);
    let at = ledger.origin;
    for _ in 0..70_000 {
        ledger.delivered(0, at);
        ledger.given_back(0, at);
    }
    assert_eq!(ledger.look(0).deliveries(), 65_535);
    assert_eq!(found(&ledger), ["lost"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_all_is_done_and_when_nothing_happens() {
    let (ledger, due) = ledger(1);
    let begun = Instant::now();
    ledger.drained(LEASE).await;
    assert_eq!(begun.elapsed(), LEASE, "three are open");
    (0..2).for_each(|task| play(&ledger, task, due));
    ledger.cancelled(2, Some(ChangeOutcome::Requested), due);
    ledger.drained(LEASE).await;
    assert_eq!(begun.elapsed(), LEASE, "nothing is waited for that was asked to go");
}

#[test]
fn a_task_takes_24_bytes() {
    assert_eq!(size_of::<Entry>(), 24);
}
