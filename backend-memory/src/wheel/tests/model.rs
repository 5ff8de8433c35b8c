//! The wheel beside a sorted map: any calls in any order, with dues and jumps at the borders of slots and levels.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::chunk::CHUNK_KEYS;
use super::super::{Key, LEVELS, SweepProgress, Wheel};
use super::IDLE_BYTES_MAX;

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
        3 => Just(Due::Now { offset_ms: 0 }),
        2 => (-3i64..4).prop_map(|offset_ms| Due::Now { offset_ms }),
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
    let count = prop_oneof![4 => Just(1usize), 1 => 2..4 * CHUNK_KEYS, 1 => 2..200usize];
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
        // If it is one that was there before, the two can't be told apart, and this one need not be visited.
        if let Some(unswept) = &mut self.unswept {
            unswept.remove(&key);
        }
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
