//! The wheel against a sorted map, and the cases that have a name.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::chunk::CHUNK_KEYS;
use super::level::Level;
use super::{Key, LEVELS, SweepProgress, Wheel};

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

// --- the model ---

#[derive(Clone, Debug)]
enum Op {
    /// `count` keys with one due; the sequence goes up, or down (then order within the slot is broken).
    Insert {
        due: Due,
        count: usize,
        falling: bool,
    },
    /// The last key once more.
    InsertAgain,
    Advance {
        step: Step,
        budget: usize,
    },
    Pop {
        count: usize,
    },
    /// Keys with `seq % modulus == 0` are gone.
    Sweep {
        modulus: u64,
        budget: usize,
    },
}

/// A due time, by where it lies seen from now.
#[derive(Clone, Debug)]
enum Due {
    Now {
        offset_ms: i64,
    },
    /// The start of a slot `slots` ahead in a level, and a little beside it.
    SlotStart {
        level: u32,
        slots: u64,
        offset_ms: i64,
    },
    /// `spans` times the width of a slot from now, and a little beside it.
    Span {
        level: u32,
        spans: u64,
        offset_ms: i64,
    },
    Anywhere {
        due_ms: u64,
    },
}

impl Due {
    fn at(&self, now_ms: u64) -> u64 {
        let due_ms = match *self {
            Due::Now { offset_ms } => now_ms.saturating_add_signed(offset_ms),
            Due::SlotStart { level, slots, offset_ms } => {
                (((now_ms >> (8 * level)) + slots) << (8 * level)).saturating_add_signed(offset_ms)
            }
            Due::Span { level, spans, offset_ms } => (now_ms + (spans << (8 * level))).saturating_add_signed(offset_ms),
            Due::Anywhere { due_ms } => due_ms,
        };
        due_ms.min(Key::MAX_DUE_MS)
    }
}

#[derive(Clone, Debug)]
enum Step {
    By(u64),
    Back(u64),
    /// To the next key's due.
    Next,
}

fn due() -> impl Strategy<Value = Due> {
    let level = 0..LEVELS as u32;
    prop_oneof![
        3 => (-3i64..4).prop_map(|offset_ms| Due::Now { offset_ms }),
        1 => (-70_000i64..70_000).prop_map(|offset_ms| Due::Now { offset_ms }),
        3 => (level.clone(), 0..4u64, -1i64..2)
            .prop_map(|(level, slots, offset_ms)| Due::SlotStart { level, slots, offset_ms }),
        3 => (level, 1..4u64, -1i64..2).prop_map(|(level, spans, offset_ms)| Due::Span { level, spans, offset_ms }),
        1 => (0..=Key::MAX_DUE_MS).prop_map(|due_ms| Due::Anywhere { due_ms }),
        1 => Just(Due::Anywhere { due_ms: Key::MAX_DUE_MS }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let widths = (0..LEVELS as u32).prop_flat_map(|level| {
        let width = 1u64 << (8 * level);
        prop_oneof![Just(width - 1), Just(width), Just(width + 1)]
    });
    prop_oneof![
        2 => Just(Step::By(0)),
        4 => Just(Step::Next),
        4 => widths.clone().prop_map(Step::By),
        1 => widths.prop_map(Step::Back),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let count = prop_oneof![4 => Just(1usize), 1 => 2..2 * CHUNK_KEYS, 1 => 2..300usize];
    let budget = prop_oneof![0..4usize, 0..100usize, Just(10_000usize)];
    prop_oneof![
        8 => (due(), count, proptest::bool::weighted(0.3))
            .prop_map(|(due, count, falling)| Op::Insert { due, count, falling }),
        1 => Just(Op::InsertAgain),
        8 => (step(), budget.clone()).prop_map(|(step, budget)| Op::Advance { step, budget }),
        4 => prop_oneof![1..5usize, Just(10_000usize)].prop_map(|count| Op::Pop { count }),
        3 => (1..5u64, budget).prop_map(|(modulus, budget)| Op::Sweep { modulus, budget }),
    ]
}

/// A wheel beside a sorted multiset of the keys that it should hold.
struct Model {
    wheel: Wheel,
    keys: BTreeMap<Key, usize>,
    len: usize,
    now_ms: u64,
    /// Pops for a time up to this must find what is due.
    complete_ms: u64,
    next_seq: u64,
    last: Option<Key>,
    /// The keys that the sweep under way has yet to visit.
    unswept: Option<BTreeSet<Key>>,
    /// `next_due_ms` may be too early, because a sweep is half-way.
    loose: bool,
}

impl Model {
    fn new(now_ms: u64) -> Self {
        Self {
            wheel: Wheel::new(now_ms),
            keys: BTreeMap::new(),
            len: 0,
            now_ms,
            complete_ms: now_ms,
            next_seq: 1 << 20,
            last: None,
            unswept: None,
            loose: false,
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Insert { ref due, count, falling } => {
                let due_ms = due.at(self.now_ms);
                self.next_seq += count as u64;
                for i in 0..count as u64 {
                    let seq = if falling { self.next_seq - i } else { self.next_seq - count as u64 + i };
                    self.insert(Key::new(due_ms, seq, i as u32));
                }
            }
            Op::InsertAgain => self.last.into_iter().for_each(|key| self.insert(key)),
            Op::Advance { ref step, budget } => self.advance(step, budget),
            Op::Pop { count } => {
                for _ in 0..count {
                    if self.pop().is_none() {
                        break;
                    }
                }
            }
            Op::Sweep { modulus, budget } => self.sweep(modulus, budget),
        }
        self.wheel.check();
        assert_eq!(self.wheel.len(), self.len);
        let (due_ms, min_ms) = (self.wheel.next_due_ms(), self.keys.keys().next().map(|key| key.due_ms()));
        assert!(due_ms == min_ms || (self.loose && due_ms < min_ms), "next due {due_ms:?}, not {min_ms:?}");
    }

    fn insert(&mut self, key: Key) {
        self.wheel.insert(key);
        *self.keys.entry(key).or_default() += 1;
        self.len += 1;
        self.last = Some(key);
    }

    fn advance(&mut self, step: &Step, mut budget: usize) {
        self.now_ms = match *step {
            Step::By(ms) => (self.now_ms + ms).min(Key::MAX_DUE_MS),
            Step::Back(ms) => self.now_ms.saturating_sub(ms),
            Step::Next => self.keys.keys().next().map_or(self.now_ms, |key| key.due_ms().max(self.now_ms)),
        };
        if self.wheel.advance(self.now_ms, &mut budget) {
            self.complete_ms = self.complete_ms.max(self.now_ms);
        }
        // An unfinished advance has used up its budget: otherwise repeating it might not get anywhere.
        assert!(self.now_ms <= self.complete_ms || budget == 0);
    }

    /// Whatever comes must be the smallest; and if it was prepared, it must come.
    fn pop(&mut self) -> Option<Key> {
        let least = self.keys.keys().next().copied().filter(|key| key.due_ms() <= self.now_ms);
        let peeked = self.wheel.peek_due(self.now_ms);
        let popped = self.wheel.pop_due(self.now_ms);
        assert_eq!(peeked, popped);
        if self.now_ms <= self.complete_ms || popped.is_some() {
            assert_eq!(popped, least);
        }
        self.remove(popped?);
        popped
    }

    fn sweep(&mut self, modulus: u64, mut budget: usize) {
        let unswept = self.unswept.get_or_insert_with(|| self.keys.keys().copied().collect());
        let mut gone = Vec::new();
        let live = |key: Key| {
            unswept.remove(&key);
            let live = !key.seq().is_multiple_of(modulus);
            if !live {
                gone.push(key);
            }
            live
        };
        let SweepProgress { dropped, done } = self.wheel.sweep(live, &mut budget);
        assert_eq!(dropped, gone.len());
        assert!(done || budget == 0);
        gone.into_iter().for_each(|key| self.remove(key));
        if done {
            let missed = self.unswept.take().into_iter().flatten().find(|key| self.keys.contains_key(key));
            assert_eq!(missed, None, "not visited by the sweep");
        }
        self.loose = !done;
    }

    fn remove(&mut self, key: Key) {
        let count = self.keys.get_mut(&key).expect("the wheel made up a key");
        *count -= 1;
        if *count == 0 {
            self.keys.remove(&key);
        }
        self.len -= 1;
    }

    fn drain(&mut self) {
        self.now_ms = Key::MAX_DUE_MS;
        while !self.wheel.advance(self.now_ms, &mut 1000) {
            self.pop();
        }
        self.complete_ms = self.now_ms;
        while self.pop().is_some() {}
        assert!(self.keys.is_empty());
        assert_eq!((self.wheel.len(), self.wheel.next_due_ms()), (0, None));
        assert!(self.wheel.bytes() <= IDLE_BYTES_MAX, "{} bytes", self.wheel.bytes());
    }
}

fn start() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(Key::MAX_DUE_MS - 70_000),
        (0..1u64 << 41),
        (0..LEVELS as u32).prop_map(|level| (1 << (8 * level)) - 1),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn does_what_a_sorted_map_does(start_ms in start(), ops in vec(op(), 1..120)) {
        let mut model = Model::new(start_ms);
        ops.iter().for_each(|op| model.run(op));
        model.drain();
    }
}

// --- cases with a name ---

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
    assert!(wheel.bytes() <= IDLE_BYTES_MAX);
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
    shuffled(100_000).for_each(|seq| wheel.insert(Key::new(seq % 1000, seq, 0)));
    let popped = drain_due(&mut wheel, 1000);
    assert!(popped.len() == 100_000 && popped.is_sorted());
    assert!(wheel.bytes() <= IDLE_BYTES_MAX);
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
    assert!(wheel.advance(200, &mut 300));
    assert!(drain_due(&mut wheel, 200).is_sorted());
}
