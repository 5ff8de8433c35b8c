//! The cases that have a name; `model` tries the others.

mod model;

use super::chunk::CHUNK_KEYS;
use super::level::Level;
use super::{Key, Wheel};

const MILLION: u64 = 1_000_000;

/// What an emptied wheel may keep: two levels and the pool.
const IDLE_BYTES_MAX: usize = 2 * size_of::<Level>() + 20_000;

impl Wheel {
    /// The heap memory held, but for allocator overhead.
    fn bytes(&self) -> usize {
        let levels = self.levels.iter().flatten();
        let moving = self.moving.as_ref();
        levels.map(|level| level.bytes()).sum::<usize>()
            + moving.map_or(0, |moving| moving.slot.bytes() + moving.chunk.capacity() * size_of::<Key>())
            + self.ready.bytes()
            + self.pool.bytes()
    }

    /// Invariants 1 and 3, and that bitmaps tell the truth.
    fn check(&self) {
        for (l, level) in self.levels.iter().enumerate() {
            let occupied = self.occupied_levels & 1 << l != 0;
            assert_eq!(occupied, level.as_deref().is_some_and(|level| !level.is_empty()));
            let Some(level) = level.as_deref() else { continue };
            for index in 0..256 {
                let slot = level.slot(index);
                assert_eq!(level.first_occupied(index) == Some(index), !slot.is_empty());
                for key in slot.keys() {
                    let differing = key.due_ms() ^ self.cursor_ms;
                    assert!(key.due_ms() > self.cursor_ms || (differing == 0 && !self.settled), "{key:?} is overdue");
                    assert_eq!((differing | 1).ilog2() as usize / 8, l, "level of {key:?}");
                    assert_eq!((key.due_ms() >> (8 * l)) as usize & 255, index, "slot of {key:?}");
                    assert!(slot.min_due_ms() <= key.due_ms());
                }
            }
        }
    }
}

fn advance_fully(wheel: &mut Wheel, now_ms: u64) {
    assert!(wheel.advance(now_ms, &mut usize::MAX.clone()));
}

fn drain_due(wheel: &mut Wheel, now_ms: u64) -> Vec<Key> {
    advance_fully(wheel, now_ms);
    std::iter::from_fn(|| wheel.pop_due(now_ms)).collect()
}

fn sweep_fully(wheel: &mut Wheel, mut live: impl FnMut(Key) -> bool) -> usize {
    let progress = wheel.sweep(&mut live, &mut usize::MAX.clone());
    assert!(progress.done);
    progress.dropped
}

/// The same permutation each time: multiplication by an odd number modulo a power of two.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    let modulus = count.next_power_of_two();
    (0..modulus).map(move |i| i.wrapping_mul(0x9E37_79B1) % modulus).filter(move |&i| i < count)
}

#[test]
fn key_orders_by_due_then_sequence_then_slot() {
    let key = Key::new(Key::MAX_DUE_MS, Key::MAX_SEQ, u32::MAX);
    assert_eq!((key.due_ms(), key.seq(), key.slot()), (Key::MAX_DUE_MS, Key::MAX_SEQ, u32::MAX));
    let key = Key::new(7, 8, 9);
    assert_eq!((key.due_ms(), key.seq(), key.slot()), (7, 8, 9));
    assert!(Key::new(1, Key::MAX_SEQ, u32::MAX) < Key::new(2, 0, 0));
    assert!(Key::new(1, 1, u32::MAX) < Key::new(1, 2, 0));
    assert!(Key::new(1, 1, 1) < Key::new(1, 1, 2));
}

#[test]
fn is_never_early_and_not_late_at_any_distance() {
    for distance_ms in (0..44).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]) {
        for start_ms in [0, 1, 255, 65_535, 1_700_000_000_000] {
            let due_ms = start_ms + distance_ms;
            let mut wheel = Wheel::new(start_ms);
            wheel.insert(Key::new(due_ms, 1, 1));
            if distance_ms > 0 {
                assert_eq!(drain_due(&mut wheel, due_ms - 1), [], "{distance_ms} ms after {start_ms}");
            }
            assert_eq!(drain_due(&mut wheel, due_ms).len(), 1, "{distance_ms} ms after {start_ms}");
        }
    }
}

#[test]
fn a_jump_over_the_whole_range_costs_a_few_steps() {
    let mut wheel = Wheel::new(0);
    let keys = [0, 1, 255, 1 << 24, 1 << 43, Key::MAX_DUE_MS].map(|due_ms| Key::new(due_ms, 1, 1));
    keys.into_iter().rev().for_each(|key| wheel.insert(key));
    let mut budget = 100;
    assert!(wheel.advance(u64::MAX, &mut budget));
    let popped: Vec<Key> = std::iter::from_fn(|| wheel.pop_due(u64::MAX)).collect();
    assert_eq!(popped, keys);
}

#[test]
fn a_million_in_one_tick_in_order_are_handed_over_untouched() {
    let mut wheel = Wheel::new(0);
    (0..MILLION).for_each(|seq| wheel.insert(Key::new(300, seq, 0)));
    advance_fully(&mut wheel, 299);
    let mut budget = MILLION as usize / CHUNK_KEYS + 10;
    assert!(wheel.advance(300, &mut budget));
    (0..MILLION).for_each(|seq| assert_eq!(wheel.pop_due(300), Some(Key::new(300, seq, 0))));
    assert_eq!(wheel.bytes(), 0, "nothing is kept after a burst");
}

#[test]
fn a_million_in_one_tick_shuffled_come_out_in_order() {
    let mut wheel = Wheel::new(0);
    shuffled(MILLION).for_each(|seq| wheel.insert(Key::new(300, seq, 0)));
    let mut calls = 0;
    loop {
        let mut budget = 1000;
        calls += 1;
        if wheel.advance(300, &mut budget) {
            break;
        }
        assert_eq!(wheel.pop_due(300), None, "not before all of them are prepared");
        assert_eq!(wheel.next_due_ms(), Some(300));
    }
    assert!((2000..2010).contains(&calls), "{calls} calls of 1000 for a cascade and a sort of a million keys");
    (0..MILLION).for_each(|seq| assert_eq!(wheel.pop_due(300), Some(Key::new(300, seq, 0))));
    assert!(wheel.bytes() <= IDLE_BYTES_MAX);
}

#[test]
fn overdue_keys_in_any_order_come_out_in_order() {
    let mut wheel = Wheel::new(1000);
    shuffled(60_080).for_each(|seq| wheel.insert(Key::new(seq % 1000, seq, 0)));
    let popped = drain_due(&mut wheel, 1000);
    assert!(popped.len() == 60_080 && popped.is_sorted());
}

#[test]
fn overdue_keys_leave_no_large_buffer() {
    let mut wheel = Wheel::new(1000);
    (0..60).rev().for_each(|seq| wheel.insert(Key::new(1000, seq, 0)));
    assert!(wheel.ready.bytes() > 60 * size_of::<Key>());
    assert_eq!(drain_due(&mut wheel, 1000).len(), 60);
    assert!(wheel.ready.bytes() < 20 * size_of::<Key>(), "{} bytes", wheel.ready.bytes());
}

#[test]
fn a_late_insert_does_not_get_lost_in_a_half_cascaded_slot() {
    let mut wheel = Wheel::new(0);
    (0..1000).for_each(|seq| wheel.insert(Key::new(256 + seq % 3, seq, 0)));
    assert!(!wheel.advance(256, &mut 500));
    (1000..1003).for_each(|seq| wheel.insert(Key::new(255 + seq % 3, seq, 0)));
    assert_eq!(wheel.pop_due(256), Some(Key::new(255, 1002, 0)), "due before what is being prepared");
    assert_eq!(wheel.pop_due(256), None);
    let popped = drain_due(&mut wheel, 258);
    assert!(popped.len() == 1002 && popped.is_sorted());
}

#[test]
fn inserts_do_not_cut_into_a_slot_on_its_way_to_the_stream() {
    // One unit for the slot and one for each chunk: with each budget it stops in another place.
    for budget in 1..100 / CHUNK_KEYS {
        let mut wheel = Wheel::new(0);
        (0..100).for_each(|seq| wheel.insert(Key::new(1, 10 + seq, 0)));
        assert!(!wheel.advance(1, &mut budget.clone()));
        for late in [Key::new(1, 0, 0), Key::new(1, 500, 0), Key::new(0, 0, 0), Key::new(1, 60, 1), Key::new(2, 0, 0)] {
            wheel.insert(late);
            wheel.check();
        }
        while !wheel.advance(1, &mut budget.clone()) {}
        wheel.check();
        let popped: Vec<Key> = std::iter::from_fn(|| wheel.pop_due(1)).collect();
        assert!(popped.len() == 104 && popped.is_sorted());
        assert_eq!(drain_due(&mut wheel, 2), [Key::new(2, 0, 0)]);
    }
}

#[test]
fn a_clock_stepped_back_holds_nothing_early_out() {
    let mut wheel = Wheel::new(0);
    [10, 20].into_iter().for_each(|due_ms| wheel.insert(Key::new(due_ms, 1, 1)));
    advance_fully(&mut wheel, 30);
    assert!(wheel.advance(15, &mut 0));
    wheel.insert(Key::new(12, 2, 2));
    assert_eq!(drain_due(&mut wheel, 15).iter().map(|key| key.due_ms()).collect::<Vec<_>>(), [10, 12]);
    assert_eq!(wheel.next_due_ms(), Some(20));
    assert_eq!(drain_due(&mut wheel, 20).len(), 1);
}

#[test]
fn sweeping_frees_the_memory_of_what_it_drops() {
    let mut wheel = Wheel::new(0);
    shuffled(200_000).for_each(|seq| wheel.insert(Key::new(1 + seq * 97 % 5_000_000, seq, 0)));
    let full = wheel.bytes();
    assert!(full >= 200_000 * size_of::<Key>());
    assert_eq!(sweep_fully(&mut wheel, |key| key.seq().is_multiple_of(20)), 190_000);
    assert!(wheel.bytes() < full / 5, "{} of {full} bytes for a twentieth of the keys", wheel.bytes());
    assert_eq!(sweep_fully(&mut wheel, |_| false), 10_000);
    assert!(wheel.bytes() <= IDLE_BYTES_MAX, "{} bytes", wheel.bytes());
    assert_eq!((wheel.len(), wheel.next_due_ms()), (0, None));
}

#[test]
fn sweeping_a_long_slot_frees_its_buffers() {
    let mut wheel = Wheel::new(0);
    (0..60_000).for_each(|seq| wheel.insert(Key::new(200, seq, 0)));
    assert_eq!(sweep_fully(&mut wheel, |key| key.seq() == 30_000), 59_999);
    assert!(wheel.bytes() <= IDLE_BYTES_MAX, "{} bytes", wheel.bytes());
    assert_eq!(drain_due(&mut wheel, 200), [Key::new(200, 30_000, 0)]);
}

#[test]
fn a_stream_that_ends_frees_its_buffers() {
    let mut wheel = Wheel::new(0);
    (0..60_000).for_each(|seq| wheel.insert(Key::new(200, seq, 0)));
    wheel.insert(Key::new(300, 0, 0));
    assert_eq!(drain_due(&mut wheel, 200).len(), 60_000);
    assert!(wheel.bytes() <= IDLE_BYTES_MAX, "{} bytes", wheel.bytes());
}

#[test]
fn sweeping_reaches_every_source_of_the_ready_part() {
    let mut wheel = Wheel::new(1000);
    (0..10_000).for_each(|seq| wheel.insert(Key::new(1000, seq, 0))); // the stream
    shuffled(10_000).for_each(|seq| wheel.insert(Key::new(seq % 100, seq, 0))); // runs and the heap
    (0..10).for_each(|_| assert!(wheel.pop_due(1000).is_some()));
    let mut dropped = 0;
    loop {
        let progress = wheel.sweep(|key| key.seq().is_multiple_of(100), &mut 100);
        dropped += progress.dropped;
        if progress.done {
            break;
        }
    }
    assert_eq!(dropped + wheel.len(), 19_990);
    let left = drain_due(&mut wheel, 1000);
    assert!(left.is_sorted() && left.iter().all(|key| key.seq().is_multiple_of(100)));
    assert_eq!(left.len(), 190, "10 of the 200 were popped before");
}

#[test]
fn a_sweep_keeps_a_slot_in_order() {
    let mut wheel = Wheel::new(0);
    (0..10_000).for_each(|seq| wheel.insert(Key::new(200, seq, 0)));
    while !wheel.sweep(|key| !key.seq().is_multiple_of(3), &mut 100).done {}
    assert_eq!(wheel.len(), 6666);
    // Chunks, not keys: it is handed over untouched.
    assert!(wheel.advance(200, &mut (7000 / CHUNK_KEYS)));
    assert!(drain_due(&mut wheel, 200).is_sorted());
}
