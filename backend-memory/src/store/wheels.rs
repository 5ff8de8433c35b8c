//! The two wheels of a queue, for monotonic and wall-clock time, which are read as one.

use crate::now::{Now, Place};
use crate::wheel::{Key, Wheel};

/// Number of keys that are handled under one lock, by all work that grows with the number of tasks.
pub(super) const BUDGET: usize = 32 * 1024;

/// Fewer stale keys than this are not worth a sweep.
const STALE_MIN: usize = 64;

#[derive(Debug)]
pub(super) struct Wheels {
    mono: Clocked,
    wall: Clocked,
}

/// One wheel, and the number of its stale keys.
#[derive(Debug)]
struct Clocked {
    wheel: Wheel,
    stale: usize,
    sweeping: bool,
}

/// The smallest due key of both wheels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) key: Key,
    pub(super) wall: bool,
}

impl Wheels {
    pub(super) fn new(now: Now) -> Self {
        let clocked = |ms| Clocked { wheel: Wheel::new(ms), stale: 0, sweeping: false };
        Self { mono: clocked(now.mono_ms()), wall: clocked(now.wall_ms()) }
    }

    pub(super) fn insert(&mut self, wall: bool, key: Key) {
        self.of(wall).wheel.insert(key);
    }

    /// Records that an inserted key has become stale.
    pub(super) fn gone_stale(&mut self, wall: bool) {
        self.of(wall).stale += 1;
    }

    /// Prepares the due keys. Returns false if the budget ran out first.
    pub(super) fn advance(&mut self, now: Now, budget: &mut usize) -> bool {
        self.mono.wheel.advance(now.mono_ms(), budget) && self.wall.wheel.advance(now.wall_ms(), budget)
    }

    /// The first due key by (time on the common timeline, sequence), after `advance` was complete.
    fn head(&self, now: Now) -> Option<Head> {
        let mono = self.mono.wheel.peek_due(now.mono_ms()).map(|key| Head { key, wall: false });
        let wall = self.wall.wheel.peek_due(now.wall_ms()).map(|key| Head { key, wall: true });
        match (mono, wall) {
            (Some(m), Some(w)) => {
                let rank = |h: Head| (now.line_ms(Place { wall: h.wall, ms: h.key.due_ms() }), h.key.seq());
                Some(if rank(m) <= rank(w) { m } else { w })
            }
            (one, other) => one.or(other),
        }
    }

    /// Takes the first `max` due keys, after `advance` was complete.
    pub(super) fn take_block(&mut self, now: Now, max: usize, block: &mut Vec<Head>) {
        block.clear();
        while block.len() < max
            && let Some(head) = self.head(now)
        {
            let ms = if head.wall { now.wall_ms() } else { now.mono_ms() };
            let taken = self.of(head.wall).wheel.pop_due(ms);
            debug_assert_eq!(taken, Some(head.key), "the head changed between a look and a take");
            block.push(head);
        }
    }

    /// Records that a taken key was stale.
    pub(super) fn took_stale(&mut self, wall: bool) {
        let side = self.of(wall);
        debug_assert!(side.stale > 0, "a stale key that was not counted");
        side.stale = side.stale.saturating_sub(1);
    }

    /// The time of the next due key on each clock: monotonic, wall. Stale keys count, so it may be early, never late.
    pub(super) fn next(&self) -> (Option<Place>, Option<Place>) {
        (self.mono.wheel.next_due_ms().map(Place::mono), self.wall.wheel.next_due_ms().map(Place::wall))
    }

    /// Sweeps about `share` keys on each wheel that has enough stale keys.
    pub(super) fn sweep(&mut self, share: usize, live: impl Fn(Key, bool) -> bool) {
        for wall in [false, true] {
            let side = self.of(wall);
            side.sweeping |= side.stale > STALE_MIN && side.stale * 2 > side.wheel.len();
            if side.sweeping {
                let mut budget = share.min(BUDGET);
                let progress = side.wheel.sweep(|key| live(key, wall), &mut budget);
                side.stale = side.stale.saturating_sub(progress.dropped);
                side.sweeping = !progress.done;
            }
        }
    }

    fn of(&mut self, wall: bool) -> &mut Clocked {
        if wall { &mut self.wall } else { &mut self.mono }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> [(usize, usize); 2] {
        [(self.mono.wheel.len(), self.mono.stale), (self.wall.wheel.len(), self.wall.stale)]
    }
}
