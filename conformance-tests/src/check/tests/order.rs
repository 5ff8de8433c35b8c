use super::Written;
use super::written::{out, task, wall};
use crate::history::{Change, DeclaredOrder, Delivered, Due, Planned};

fn outs(tasks: &[&Planned]) -> Vec<Delivered> {
    tasks.iter().map(|task| out(task, 1, 1)).collect()
}

#[test]
fn the_later_one_was_delivered_first() {
    let (x, y) = (task("x", 50), task("y", 60));
    let one_after_the_other = |first: (u64, u64), second: (u64, u64)| {
        let mut h = Written::new();
        h.schedule((0, 1), &[&x]);
        h.schedule((0, 1), &[&y]);
        h.claim(first, outs(&[&y]));
        h.claim(second, outs(&[&x]));
        h
    };
    one_after_the_other((70, 71), (72, 73)).shows("ORDER-1");
    one_after_the_other((70, 73), (72, 74)).shows_nothing();
    // It may not have been visible yet when the other was delivered.
    one_after_the_other((51, 61), (72, 74)).shows_nothing();
    let mut within = Written::new();
    within.schedule((0, 1), &[&x]);
    within.schedule((0, 1), &[&y]);
    within.claim((70, 71), outs(&[&y, &x]));
    within.shows("ORDER-1");
}

#[test]
fn tasks_that_are_closer_than_can_be_told_apart() {
    for (delay, shown) in [(51, false), (52, true)] {
        let (x, y) = (task("x", 50), task("y", delay));
        let mut h = Written::new();
        h.schedule((0, 1), &[&x]);
        h.schedule((0, 1), &[&y]);
        h.claim((70, 71), outs(&[&y, &x]));
        if shown { h.shows("ORDER-1") } else { h.shows_nothing() }
    }
}

#[test]
fn a_tolerance_is_tolerated() {
    for (order, shown) in [
        (DeclaredOrder::WithinUs(5_000), true),
        (DeclaredOrder::WithinUs(10_000), false),
        (DeclaredOrder::PerShard(2), false),
        (DeclaredOrder::Any, false),
    ] {
        let (x, y) = (task("x", 50), task("y", 60));
        let mut h = Written::declaring(|header| header.order = order);
        h.schedule((0, 1), &[&x]);
        h.schedule((0, 1), &[&y]);
        h.claim((70, 71), outs(&[&y, &x]));
        if shown { h.shows("ORDER-1") } else { h.shows_nothing() }
    }
}

#[test]
fn shards_hold_one_of_each_inversion() {
    for (shards, shown) in [(2, true), (3, false)] {
        for claims in [&[3][..], &[1, 1, 1], &[2, 1]] {
            let tasks = [task("x", 70), task("y", 60), task("z", 50)];
            let mut h = Written::declaring(|header| header.order = DeclaredOrder::PerShard(shards));
            for task in &tasks {
                h.schedule((0, 1), &[task]);
            }
            let (mut left, mut at) = (&tasks[..], 80);
            for n in claims {
                let (now, later) = left.split_at(*n);
                h.claim((at, at + 1), outs(&now.iter().collect::<Vec<_>>()));
                (left, at) = (later, at + 2);
            }
            if shown { h.shows("ORDER-1") } else { h.shows_nothing() }
        }
    }
}

#[test]
fn a_batch_is_a_row() {
    let (x, y) = (task("x", 50), task("y", 50));
    for (tasks, shown) in [([&x, &y], false), ([&y, &x], true)] {
        let mut h = Written::new();
        h.schedule((0, 10), &[&x, &y]);
        h.claim((70, 71), outs(&tasks));
        if shown {
            h.shows("ORDER-1")
        } else {
            h.shows_nothing()
        }
        let mut h = Written::new();
        h.schedule((0, 10), &[&x, &y]);
        h.claim((70, 71), outs(&tasks[..1]));
        h.claim((72, 73), outs(&tasks[1..]));
        if shown { h.shows("ORDER-1") } else { h.shows_nothing() }
    }
}

#[test]
fn a_batch_that_was_under_way_may_have_been_there_in_part() {
    let (x, y) = (task("x", 0), task("y", 0));
    let mut h = Written::new();
    h.schedule((0, 10), &[&x, &y]);
    h.claim((5, 11), outs(&[&y]));
    h.claim((12, 13), outs(&[&x]));
    h.shows_nothing();
}

#[test]
fn one_instant_in_two_calls() {
    let at = |key: &str| task(key, 0).with(|task| task.due = Due::At(wall(50)));
    for (second, shown) in [((2, 3), true), ((0, 3), false)] {
        for claims in [&[(70, 71)][..], &[(70, 71), (72, 73)]] {
            let (x, y) = (at("x"), at("y"));
            let mut h = Written::new();
            h.schedule((0, 1), &[&x]);
            h.schedule(second, &[&y]);
            match claims {
                [both] => h.claim(*both, outs(&[&y, &x])),
                [one, two] => {
                    h.claim(*one, outs(&[&y]));
                    h.claim(*two, outs(&[&x]));
                }
                _ => unreachable!("one or two"),
            }
            if shown { h.shows("ORDER-1") } else { h.shows_nothing() }
        }
    }
}

#[test]
fn what_was_moved_or_held_is_not_compared() {
    let (x, y) = (task("x", 50), task("y", 60));
    let mut moved = Written::new();
    moved.schedule((0, 1), &[&x]);
    moved.schedule((0, 1), &[&y]);
    moved.change((2, 3), "x", Change::Shift(15_000), "changed");
    moved.claim((70, 71), outs(&[&y, &x]));
    moved.shows_nothing();
    let mut held = Written::new();
    held.schedule((0, 1), &[&x]);
    held.schedule((0, 1), &[&y]);
    held.call((65, 66), Written::claim_op(), None);
    held.claim((70, 71), outs(&[&y]));
    held.claim((72, 73), outs(&[&x]));
    held.shows_nothing();
}

#[test]
fn after_a_step_of_the_wall_clock_its_times_are_not_compared() {
    let at = |key: &str, ms: i64| task(key, 0).with(|task| task.due = Due::At(wall(ms)));
    for (stepped, shown) in [(false, true), (true, false)] {
        let (x, y) = (at("x", 50), task("y", 60));
        let mut h = Written::new();
        h.schedule((0, 1), &[&x]);
        h.schedule((0, 1), &[&y]);
        if stepped {
            h.step_wall(30, -10);
        }
        h.claim((90, 91), outs(&[&y, &x]));
        if shown { h.shows("ORDER-1") } else { h.shows_nothing() }
    }
}

#[test]
fn clocks_that_do_not_agree_are_not_compared_with_each_other() {
    let at = |key: &str, ms: i64| task(key, 0).with(|task| task.due = Due::At(wall(ms)));
    // A wall clock that is read two milliseconds late once.
    let late = |h: &mut Written| h.recording.events[0].wall = wall(-2);
    for (x, y, shown) in
        [(at("x", 50), task("y", 60), false), (at("x", 50), at("y", 60), true), (task("x", 50), task("y", 60), true)]
    {
        let mut h = Written::new();
        h.schedule((0, 1), &[&x]);
        h.schedule((0, 1), &[&y]);
        late(&mut h);
        h.claim((90, 91), outs(&[&y, &x]));
        if shown { h.shows("ORDER-1") } else { h.shows_nothing() }
    }
}
