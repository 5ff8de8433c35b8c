use super::Written;
use super::written::{out, task};
use crate::history::{Change, Disposition, Due};

#[test]
fn an_id_that_is_there_was_created_again() {
    let a = task("a", 50);
    let twice = |between: &dyn Fn(&mut Written), second: &str| {
        let mut h = Written::new();
        h.schedule((0, 1), &[&a]);
        between(&mut h);
        h.schedule_as((10, 11), &[(&a, second)]);
        h
    };
    twice(&|_| {}, "created").shows("DUP-8");
    twice(&|_| {}, "existing").shows_nothing();
    twice(&|_| {}, "replaced").shows_nothing();
    twice(&|h| h.change((5, 6), "a", Change::Cancel, "changed"), "created").shows_nothing();
    twice(&|h| h.change((5, 6), "a", Change::Cancel, "not_found"), "created").shows("DUP-8");
}

#[test]
fn an_id_twice_in_a_batch() {
    let a = task("a", 50);
    for (second, shown) in [("created", true), ("existing", false)] {
        let mut h = Written::new();
        h.schedule_as((0, 1), &[(&a, "created"), (&a, second)]);
        if shown { h.shows("DUP-8") } else { h.shows_nothing() }
    }
}

#[test]
fn where_an_id_may_stand_for_several_tasks_it_may_be_created_again() {
    let mut h = Written::declaring(|header| header.unique_ids = false);
    h.schedule((0, 1), &[&task("a", 50)]);
    h.schedule((2, 3), &[&task("a", 50)]);
    h.claim((60, 61), vec![out(&task("a", 0), 1, 1), out(&task("a", 0), 2, 1)]);
    h.shows_nothing();
}

#[test]
fn a_task_that_may_have_been_dead_lettered_leaves_its_id_free() {
    let a = task("a", 0).with(|task| task.expires = Some(Due::AfterUs(5_000)));
    for (dead_lettered, shown) in [(0, true), (1, false)] {
        let mut h = Written::new();
        h.schedule((0, 1), &[&a]);
        h.claim_dead_lettering((10, 11), vec![], dead_lettered);
        h.schedule((12, 13), &[&a]);
        if shown { h.shows("DUP-8") } else { h.shows_nothing() }
    }
}

#[test]
fn an_id_that_is_free_answers_existing() {
    let a = task("a", 0);
    let after = |disposition: Disposition, window_ms: u64, at: (u64, u64)| {
        let mut h = Written::declaring(|header| header.retry_window_us = window_ms * 1000);
        h.schedule((0, 1), &[&a]);
        h.claim((2, 3), vec![out(&a, 1, 1)]);
        h.settle((4, 6), "a", 1, disposition);
        h.schedule_as(at, &[(&a, "existing")]);
        h
    };
    after(Disposition::Complete, 0, (10, 11)).shows("DUP-10");
    after(Disposition::DeadLetter, 0, (10, 11)).shows("DUP-10");
    after(Disposition::Complete, 0, (5, 11)).shows_nothing();
    after(Disposition::Complete, 100, (10, 11)).shows_nothing();
    after(Disposition::Retry(50_000), 0, (10, 11)).shows_nothing();
}

#[test]
fn a_completed_id_is_remembered_for_the_window() {
    let a = task("a", 0);
    for (at, shown) in [((10, 11), true), ((150, 151), false), ((50, 105), false)] {
        let mut h = Written::declaring(|header| header.retry_window_us = 100_000);
        h.schedule((0, 1), &[&a]);
        h.claim((2, 3), vec![out(&a, 1, 1)]);
        h.settle((4, 5), "a", 1, Disposition::Complete);
        h.schedule(at, &[&a]);
        if shown { h.shows("DUP-11") } else { h.shows_nothing() }
    }
}
