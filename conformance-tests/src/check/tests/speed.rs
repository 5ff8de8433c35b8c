//! Large histories, and those in which one id or one group has it all, take seconds at the most even unoptimised.

use tokio::time::Instant;

use super::Written;
use super::written::{group, out, task};
use crate::history::{Change, DeclaredOrder, Disposition, Planned, Tally};

/// Far beyond what a busy machine needs; a scan of everything for everything would take minutes.
const SECONDS_MAX: u64 = 20;

fn timed(written: Written) {
    let started = Instant::now();
    let findings = written.checked();
    let took = started.elapsed();
    println!("{took:?} for {}", findings.summary);
    assert_eq!(findings.violations, vec![]);
    assert!(took.as_secs() < SECONDS_MAX, "{took:?}");
}

#[test]
fn many_tasks() {
    for order in [DeclaredOrder::Exact, DeclaredOrder::PerShard(3)] {
        let mut h = Written::declaring(|header| header.order = order);
        let tasks: Vec<Planned> = (0..30_000).map(|i| task(&format!("t{i}"), i / 100)).collect();
        for (i, batch) in tasks.chunks(300).enumerate() {
            h.schedule((i as u64, i as u64 + 1), &batch.iter().collect::<Vec<_>>());
        }
        // In an order that is right for tasks of different calls too: by when they are due at last.
        let mut at = 2_000;
        for batch in tasks.chunks(100) {
            h.claim((at, at + 1), batch.iter().map(|task| out(task, 1, 1)).collect());
            for task in batch {
                at += 2;
                h.settle((at, at + 1), &task.id.clone().unwrap().to_text(), 1, Disposition::Complete);
            }
            at += 2;
        }
        h.drained(at);
        timed(h);
    }
}

#[test]
fn one_id_again_and_again() {
    let mut h = Written::new();
    let mut at = 0;
    for fence in 1..10_000 {
        let a = task("a", 0);
        h.schedule((at, at + 1), &[&a]);
        h.change((at + 2, at + 3), "a", Change::Shift(1_000), "changed");
        h.claim((at + 10, at + 11), vec![out(&a, fence, 1)]);
        h.settle((at + 12, at + 13), "a", fence, Disposition::Complete);
        at += 20;
    }
    h.claim((at + 1000, at + 1001), vec![]);
    h.drained(at + 1002);
    timed(h);
}

#[test]
fn one_id_replaced_again_and_again_and_moved_in_its_group() {
    let mut h = Written::new();
    let tally = Tally { changed: 1, ..Tally::default() };
    for i in 0..10_000 {
        let a = task("a", 1_000_000).replacing(&format!("{i}")).with(|task| task.content.group = Some(group("g")));
        h.schedule_as((i * 4, i * 4 + 1), &[(&a, if i == 0 { "created" } else { "replaced" })]);
        h.change_group((i * 4 + 2, i * 4 + 3), "g", Change::Shift(1_000), tally);
    }
    h.claim((90_000, 90_001), vec![]);
    h.drained(90_002);
    timed(h);
}

#[test]
fn one_group_of_many_that_is_moved_often() {
    let mut h = Written::declaring(|header| header.order = DeclaredOrder::Any);
    let member = |i: u64| task(&format!("t{i}"), 0).with(|task| task.content.group = Some(group("g")));
    let members: Vec<Planned> = (0..10_000).map(member).collect();
    h.schedule((0, 1), &members.iter().collect::<Vec<_>>());
    for i in 0..200 {
        let tally = Tally { changed: 10_000, ..Tally::default() };
        h.change_group((2 + i * 2, 3 + i * 2), "g", Change::Shift(1_000), tally);
    }
    for (i, members) in members.chunks(100).enumerate() {
        let at = 1_000 + i as u64 * 2;
        h.claim((at, at + 1), members.iter().map(|task| out(task, 1, 1)).collect());
    }
    timed(h);
}
