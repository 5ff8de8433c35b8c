//! The steps that traces are made of, and how they are made up.
//!
//! Steps name what they act on by how long ago it came, so that a trace means something on every backend, whatever ids and
//! receipts it gives, and goes on meaning something when a step is left out.

use proptest::prelude::*;
use proptest::sample::select;
use serde::{Deserialize, Serialize};

/// One call, by one of two clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Step {
    /// Whether the second client makes it.
    pub(super) other: bool,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum What {
    Pass {
        ticks: u64,
    },
    Schedule(Vec<Sketch>),
    Claim {
        subscription: u8,
        max: usize,
        max_bytes: Option<u16>,
        lease: Span,
    },
    Settle(Vec<(u8, Ending)>),
    Extend {
        leases: Vec<u8>,
        by: Span,
    },
    Change {
        tasks: Vec<Named>,
        to: To,
        operation: bool,
    },
    ChangeGroup {
        group: u8,
        to: To,
        operation: bool,
    },
    /// An operation of before, once more.
    Repeat {
        operation: u8,
    },
    /// The id of an operation of before, for another selection.
    Misuse {
        operation: u8,
    },
    Find(u8),
    List {
        page: usize,
    },
    Letters {
        page: usize,
    },
    Redrive {
        ids: Option<Vec<u8>>,
        staggered: bool,
    },
    Purge {
        ids: Option<Vec<u8>>,
    },
    Stats,
    Queues,
    Pause,
    Resume,
    Delete,
    Open,
    Leave {
        subscription: u8,
        closed: bool,
    },
    StepWall {
        ticks: u8,
        back: bool,
    },
}

/// A task to schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sketch {
    pub(super) key: Option<u8>,
    pub(super) due: When,
    /// When it expires, on the clock that it is due on.
    pub(super) expires: Option<Span>,
    pub(super) group: Option<u8>,
    pub(super) attempts: Option<u32>,
    pub(super) replace: bool,
    pub(super) header: bool,
    /// Bytes of payload beyond its number, as far as the backend takes them.
    pub(super) bytes: u16,
}

/// A distance in time: to half a tick before a later tick, a little more or less, so that no answer hangs on a race between
/// that moment and a step, which happens on the tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    /// Zero is no distance at all.
    pub(super) ticks: u64,
    /// Milliseconds more or less. The largest one, [`Span::ON_THE_TICK`], ends on the tick where time is virtual.
    pub(super) fine: i8,
    /// Whether it is 0.3 ms more, which stores round up.
    pub(super) fraction: bool,
}

impl Span {
    pub(super) const ON_THE_TICK: i8 = 5;
    /// Farther than any backend goes.
    pub(super) const BEYOND: u64 = 1 << 50;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum When {
    After(Span),
    At(Span),
    /// Before now, by the wall clock.
    Past(Span),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ending {
    Complete,
    Retry(Span),
    Snooze(Span),
    DeadLetter,
    Release,
}

/// A task by what `schedule` answered for it, or by its id alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) task: u8,
    pub(super) by_id: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum To {
    Cancel,
    Move(When),
    /// This many ticks, and a fraction of a millisecond that stores round.
    Later(u64, bool),
    Sooner(u64, bool),
}

/// What a trace is mostly about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mix {
    Everything,
    /// Distances of every size, on both clocks.
    Time,
    Groups,
    Leases,
}

/// Traces of up to `steps_max` steps.
pub(super) fn trace(mix: Mix, steps_max: usize) -> BoxedStrategy<Vec<Step>> {
    prop::collection::vec(step(mix), 1..=steps_max).boxed()
}

fn step(mix: Mix) -> BoxedStrategy<Step> {
    (prop::bool::weighted(0.25), what(mix)).prop_map(|(other, what)| Step { other, what }).boxed()
}

fn what(mix: Mix) -> BoxedStrategy<What> {
    let of = |everything: u32, time: u32, groups: u32, leases: u32| match mix {
        Mix::Everything => everything,
        Mix::Time => time,
        Mix::Groups => groups,
        Mix::Leases => leases,
    };
    let ids = || prop::option::of(prop::collection::vec(pick(), 1..3));
    let calls = prop_oneof![
        of(16, 22, 14, 20) => pass(mix),
        of(18, 24, 24, 16) => prop::collection::vec(sketch(mix), 1..=4).prop_map(What::Schedule),
        of(16, 20, 10, 24) => claim(mix),
        of(14, 12, 8, 22) => prop::collection::vec((pick(), ending(mix)), 1..=3).prop_map(What::Settle),
        of(4, 3, 2, 12) => (prop::collection::vec(pick(), 1..=2), lease(mix)).prop_map(|(leases, by)| What::Extend { leases, by }),
        of(8, 12, 6, 6) => (prop::collection::vec(named(), 1..=3), to(mix), prop::bool::weighted(0.3))
            .prop_map(|(tasks, to, operation)| What::Change { tasks, to, operation }),
        of(4, 3, 24, 1) => (0u8..3, to(mix), prop::bool::weighted(0.4))
            .prop_map(|(group, to, operation)| What::ChangeGroup { group, to, operation }),
        of(2, 1, 6, 1) => pick().prop_map(|operation| What::Repeat { operation }),
        of(1, 0, 2, 0) => pick().prop_map(|operation| What::Misuse { operation }),
    ];
    let looks = prop_oneof![
        4 => pick().prop_map(What::Find),
        4 => (1usize..5).prop_map(|page| What::List { page }),
        2 => (1usize..4).prop_map(|page| What::Letters { page }),
        3 => Just(What::Stats),
        1 => Just(What::Queues),
    ];
    let rules = prop_oneof![
        3 => (ids(), any::<bool>()).prop_map(|(ids, staggered)| What::Redrive { ids, staggered }),
        2 => ids().prop_map(|ids| What::Purge { ids }),
        1 => Just(What::Pause),
        2 => Just(What::Resume),
        1 => Just(What::Delete),
        1 => Just(What::Open),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(subscription, closed)| What::Leave { subscription, closed }),
        of(0, 4, 0, 0) => (1u8..20, any::<bool>()).prop_map(|(ticks, back)| What::StepWall { ticks, back }),
    ];
    prop_oneof![of(83, 90, 88, 90) => calls, 12 => looks, of(8, 5, 4, 4) => rules].boxed()
}

/// How long ago what is meant came: mostly lately.
fn pick() -> impl Strategy<Value = u8> + Clone {
    prop_oneof![4 => 0u8..4, 2 => 0u8..12]
}

fn pass(mix: Mix) -> BoxedStrategy<What> {
    let far = if mix == Mix::Time { 3 } else { 0 };
    prop_oneof![8 => 1u64..4, 2 => 4u64..9, far => boundary()].prop_map(|ticks| What::Pass { ticks }).boxed()
}

/// Ticks around powers of two of milliseconds, for ticks of 10 ms.
fn boundary() -> impl Strategy<Value = u64> + Clone {
    let powers: Vec<u64> = (6..=40).step_by(2).flat_map(|power| [(1 << power) / 10, (1 << power) / 10 + 1]).collect();
    select(powers)
}

fn fine() -> impl Strategy<Value = i8> + Clone {
    prop_oneof![3 => Just(0), 1 => -4i8..=4, 3 => Just(Span::ON_THE_TICK)]
}

fn span(mix: Mix) -> BoxedStrategy<Span> {
    let (far, beyond) = if mix == Mix::Time { (8, 1) } else { (0, 0) };
    let ticks =
        prop_oneof![5 => Just(0), 14 => 1u64..5, 4 => 5u64..12, far => boundary(), beyond => Just(Span::BEYOND)];
    of_ticks(ticks)
}

fn of_ticks(ticks: impl Strategy<Value = u64> + 'static) -> BoxedStrategy<Span> {
    (ticks, fine(), prop::bool::weighted(0.2))
        .prop_map(|(ticks, fine, fraction)| Span { ticks, fine, fraction })
        .boxed()
}

/// The length of a lease, which is never zero.
fn lease(mix: Mix) -> BoxedStrategy<Span> {
    let far = if mix == Mix::Time { 3 } else { 0 };
    of_ticks(prop_oneof![8 => 1u64..4, 4 => 4u64..9, far => boundary()])
}

fn when(mix: Mix) -> BoxedStrategy<When> {
    prop_oneof![5 => span(mix).prop_map(When::After), 3 => span(mix).prop_map(When::At), 1 => of_ticks(1u64..9).prop_map(When::Past)]
        .boxed()
}

fn sketch(mix: Mix) -> BoxedStrategy<Sketch> {
    let (keyed, grouped) = if mix == Mix::Groups { (0.4, 0.8) } else { (0.5, 0.4) };
    let attempts = if mix == Mix::Leases { 0.9 } else { 0.6 };
    (
        prop::option::weighted(keyed, 0u8..5),
        when(mix),
        prop::option::weighted(0.15, span(mix)),
        prop::option::weighted(grouped, 0u8..3),
        prop::option::weighted(attempts, 1u32..=4),
        prop::bool::weighted(0.4),
        prop::bool::weighted(0.2),
        prop_oneof![6 => 0u16..20, 2 => 90u16..120, 1 => 1_000u16..1_040, 1 => Just(3_000)],
    )
        .prop_map(|(key, due, expires, group, attempts, replace, header, bytes)| Sketch {
            key,
            due,
            expires,
            group,
            attempts,
            replace,
            header,
            bytes,
        })
        .boxed()
}

fn claim(mix: Mix) -> BoxedStrategy<What> {
    let max_bytes = prop::option::weighted(0.2, prop_oneof![Just(1u16), 10u16..200, 900u16..4_000]);
    (any::<u8>(), prop_oneof![1 => Just(0usize), 12 => 1usize..5, 4 => Just(50)], max_bytes, lease(mix))
        .prop_map(|(subscription, max, max_bytes, lease)| What::Claim { subscription, max, max_bytes, lease })
        .boxed()
}

fn ending(mix: Mix) -> BoxedStrategy<Ending> {
    prop_oneof![
        4 => Just(Ending::Complete),
        4 => span(mix).prop_map(Ending::Retry),
        3 => span(mix).prop_map(Ending::Snooze),
        2 => Just(Ending::DeadLetter),
        4 => Just(Ending::Release),
    ]
    .boxed()
}

fn named() -> impl Strategy<Value = Named> {
    (pick(), prop::bool::weighted(0.3)).prop_map(|(task, by_id)| Named { task, by_id })
}

fn to(mix: Mix) -> BoxedStrategy<To> {
    let far = if mix == Mix::Time { 3 } else { 0 };
    let ticks = || prop_oneof![8 => 0u64..5, 2 => 5u64..12, far => boundary()];
    prop_oneof![
        4 => Just(To::Cancel),
        4 => when(mix).prop_map(To::Move),
        4 => (ticks(), prop::bool::weighted(0.3)).prop_map(|(ticks, fraction)| To::Later(ticks, fraction)),
        4 => (ticks(), prop::bool::weighted(0.3)).prop_map(|(ticks, fraction)| To::Sooner(ticks, fraction)),
    ]
    .boxed()
}
