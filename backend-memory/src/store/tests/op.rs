//! What may happen to a store, drawn at random.

use proptest::prelude::*;
use proptest::sample::select;

/// Distances around every slot and level boundary of the wheel, in milliseconds.
fn distance() -> impl Strategy<Value = u64> {
    let boundaries: Vec<u64> =
        [1u64, 1 << 8, 1 << 16, 1 << 24, 1 << 32].iter().flat_map(|span| [span - 1, *span, span + 1]).collect();
    prop_oneof![6 => 0u64..20, 3 => select(boundaries), 2 => 0u64..100_000, 1 => Just((1 << 40) - 1)]
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Schedule {
        name: Option<u8>,
        at: bool,
        ms: u64,
        group: Option<u8>,
        expires: Option<u64>,
        attempts: u32,
        replace: bool,
    },
    Claim {
        max: usize,
        lease: u64,
    },
    Settle {
        pick: usize,
        disposition: u8,
        ms: u64,
    },
    Extend {
        pick: usize,
        ms: u64,
    },
    Change {
        pick: usize,
        by_name: bool,
        action: u8,
        ms: u64,
    },
    ChangeGroup {
        group: u8,
        action: u8,
        ms: u64,
    },
    Pass {
        ms: u64,
    },
    StepWall {
        ms: u64,
        back: bool,
    },
    Pause(bool),
    Purge,
    Redrive,
    Look,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let named = prop::option::of(0u8..4);
    prop_oneof![
        6 => (named.clone(), any::<bool>(), distance(), named.clone(), prop::option::weighted(0.2, distance()), 1u32..4, any::<bool>())
            .prop_map(|(name, at, ms, group, expires, attempts, replace)| Op::Schedule { name, at, ms, group, expires, attempts, replace }),
        5 => (0usize..6, 1u64..40).prop_map(|(max, lease)| Op::Claim { max, lease }),
        4 => (any::<usize>(), 0u8..5, distance()).prop_map(|(pick, disposition, ms)| Op::Settle { pick, disposition, ms }),
        1 => (any::<usize>(), 1u64..80).prop_map(|(pick, ms)| Op::Extend { pick, ms }),
        3 => (any::<usize>(), any::<bool>(), 0u8..5, distance()).prop_map(|(pick, by_name, action, ms)| Op::Change { pick, by_name, action, ms }),
        1 => (0u8..4, 0u8..5, distance()).prop_map(|(group, action, ms)| Op::ChangeGroup { group, action, ms }),
        5 => distance().prop_map(|ms| Op::Pass { ms }),
        1 => (distance(), any::<bool>()).prop_map(|(ms, back)| Op::StepWall { ms, back }),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => Just(Op::Purge),
        1 => Just(Op::Redrive),
        2 => Just(Op::Look),
    ]
}
