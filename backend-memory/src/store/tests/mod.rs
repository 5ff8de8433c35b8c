//! The store against a model that is too simple to be wrong, and what deserves a test of its own.

mod op;
mod world;

use delayline_core::{Action, ChangeOutcome, Claim, Disposition, Due, Timestamp};
use proptest::prelude::*;

use super::*;
use op::{Op, op};
use world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn does_what_the_model_does(ops in prop::collection::vec(op(), 1..200)) {
        let mut world = World::new();
        ops.into_iter().for_each(|op| world.run(op));
    }
}

#[test]
fn leak_1_nothing_is_left_when_every_task_is_done() {
    let mut world = World::new();
    for round in 0..50u64 {
        for i in 0..200 {
            world.run(Op::Schedule {
                name: None,
                at: i % 2 == 0,
                ms: i % 60 + round,
                group: Some((i % 3) as u8),
                expires: None,
                attempts: 3,
                replace: false,
            });
        }
        world.run(Op::Pass { ms: 300 });
        for _ in 0..50 {
            world.run(Op::Claim { max: 5, lease: 30 });
            for lease in std::mem::take(&mut world.leases) {
                world.leases = vec![lease];
                world.settle(0, 0, 0);
            }
            world.leases.clear();
        }
        // Only these have a claim for each task; the others are left to the next rounds.
    }
    while !world.model.tasks.is_empty() {
        world.run(Op::Claim { max: 5, lease: 30 });
        for lease in std::mem::take(&mut world.leases) {
            world.leases = vec![lease];
            world.settle(0, 0, 0);
        }
    }
    let store = &world.store;
    assert_eq!((store.tasks.len(), store.extras.len(), store.leases.len(), store.groups.len()), (0, 0, 0, 0));
    assert!(store.is_idle());
    let stale: usize = store.wheels.counts().iter().map(|(keys, _)| keys).sum();
    assert!(stale < 300, "{stale} keys of finished tasks are still in the wheels");
}

#[test]
fn bound_7_the_oldest_dead_letters_go_when_there_are_too_many() {
    let mut world = World::new();
    world.store = Store::new(world.now, Floors::default(), 3, &mut fastrand::Rng::with_seed(1));
    for n in 0..5 {
        world.schedule(Some(n), false, 0, None, None, 1, false);
        let ClaimStep::Done(claimed) = world.store.claim(world.now, Claim::new(1, Duration::from_secs(1))) else {
            panic!()
        };
        let disposition = Disposition::DeadLetter { reason: "poison".into() };
        world.store.settle(world.now, &world.caps, &claimed.deliveries[0].lease, disposition).unwrap();
    }
    let (page, _) = world.store.dead_page(None, 10);
    assert_eq!(page.iter().map(|d| d.id.to_string()).collect::<Vec<_>>(), ["key-2", "key-3", "key-4"]);
    assert_eq!((world.store.dead_dropped(), world.store.take_moved().0.tasks), (2, 7));
}

#[test]
fn time_8_a_task_may_run_in_the_very_millisecond_of_its_expiry_and_not_in_the_next() {
    for (late_ms, delivered) in [(0, 1), (1, 0)] {
        let mut world = World::new();
        world.schedule(None, true, 8, None, Some(8), 3, false);
        world.now.mono_us += 8_000;
        world.now.wall_us += 8_000 - 700 + late_ms * 1000;
        let ClaimStep::Done(claimed) = world.store.claim(world.now, Claim::new(9, Duration::from_secs(1))) else {
            panic!()
        };
        assert_eq!((claimed.deliveries.len(), claimed.dead_lettered), (delivered, 1 - delivered as u64));
    }
}

#[test]
fn bound_9_a_claim_stops_at_its_bytes_and_the_rest_comes_next() {
    let mut world = World::new();
    for _ in 0..200 {
        world.schedule(None, false, 0, None, None, 3, false);
    }
    let mut seen = vec![];
    // A payload has 1,200 bytes and more; at least one comes, however small the limit.
    for limit in [1, 5_000, 200_000, usize::MAX] {
        let claim = Claim::new(1_000, Duration::from_secs(30)).max_bytes(limit);
        let ClaimStep::Done(claimed) = world.store.claim(world.now, claim) else { panic!() };
        let bytes: usize = claimed.deliveries.iter().map(|d| d.payload.len()).sum();
        assert!(bytes <= limit || claimed.deliveries.len() == 1);
        assert!(!claimed.deliveries.is_empty());
        assert_eq!(claimed.next_due_in == Some(Duration::ZERO), limit < usize::MAX);
        seen.extend(claimed.deliveries);
    }
    assert_eq!(seen.len(), 200, "nothing is lost at a limit");
    assert!(seen.is_sorted_by_key(|d| d.lease.receipt.words().unwrap()[1]), "nor out of order");
}

#[test]
fn leak_7_a_task_replaced_or_moved_for_ever_leaves_no_keys_behind() {
    let keys = |world: &World| world.store.wheels.counts().iter().map(|(keys, _)| keys).sum::<usize>();
    let mut world = World::new();
    for _ in 0..10_000 {
        world.schedule(Some(1), false, 60_000, None, None, 3, true);
        world.store.sweep_after(1);
    }
    assert!(keys(&world) < 500, "{} keys after replacing", keys(&world));
    let task = world.refs.last().unwrap().clone();
    for i in 0..10_000u64 {
        // The same instant again and again, then away and back.
        let at = world.now.wall_ms() + if i < 5_000 { 70_000 } else { 70_000 + i % 2 };
        let action = Action::MoveTo(Due::At(Timestamp::from_unix_millis(at as i64)));
        assert_eq!(world.store.change_task(world.now, &world.caps, &task, action).unwrap(), ChangeOutcome::Changed);
        world.store.sweep_after(1);
    }
    assert!(keys(&world) < 500, "{} keys after moving", keys(&world));
}
