//! Drops the keys of tasks that have ended, a piece at a time.
//!
//! A pass goes from the highest level down to the ready part, in the direction in which keys move. So a key that moves
//! between two calls can get only ahead of the pass, never behind it. For the same reason, a half-moved slot is
//! finished first.

use super::Wheel;
use super::chunk::Swept;
use super::key::Key;
use super::level::LEVELS;
use super::pass::Stage;

/// What one call of [`Wheel::sweep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SweepProgress {
    /// Keys dropped by this call.
    pub(crate) dropped: usize,
    /// The pass is complete: all keys that existed at its start were visited. The next call begins another pass.
    pub(crate) done: bool,
}

impl Wheel {
    /// Drops the keys for which `live` is false, and frees their memory. Visits about `budget` keys and subtracts them
    /// from `budget`; it finishes a chunk, or a sorted run of 4096 keys, that it has begun. The next call continues
    /// there. Other calls are allowed in between. Keys that are inserted during a pass may be visited or not.
    pub(crate) fn sweep(&mut self, mut live: impl FnMut(Key) -> bool, budget: &mut usize) -> SweepProgress {
        let mut progress = SweepProgress::default();
        if self.sweep.stage == Stage::Idle {
            self.sweep.stage = Stage::Slots { level: LEVELS - 1, index: 0 };
            self.ready.begin_sweep();
        }
        while !progress.done && self.finish_move(budget) && *budget > 0 {
            let swept = self.sweep_step(&mut live, *budget);
            *budget = budget.saturating_sub(swept.visited.max(1));
            self.note_dropped(swept.dropped);
            progress.dropped += swept.dropped;
            progress.done = self.sweep.stage == Stage::Idle;
        }
        progress
    }

    /// Sweeps one chunk, or moves on to the next stage.
    fn sweep_step(&mut self, live: &mut impl FnMut(Key) -> bool, budget: usize) -> Swept {
        let mut stage = self.sweep.stage;
        let (swept, next) = match stage {
            Stage::Idle => return Swept::default(),
            Stage::Slots { level, index } => return self.sweep_slots(level, index, live),
            Stage::Heap => (self.ready.sweep_heap(live), Stage::Runs),
            Stage::Runs => (self.ready.sweep_runs(live, budget), Stage::Stream { next: 0 }),
            Stage::Stream { ref mut next } => (self.ready.stream.sweep_chunk(next, live, &mut self.pool), Stage::Idle),
        };
        self.sweep.stage = if swept.done { next } else { stage };
        swept
    }

    fn sweep_slots(&mut self, level: usize, from: usize, live: &mut impl FnMut(Key) -> bool) -> Swept {
        let found = self.levels[level].as_deref_mut().and_then(|slots| Some((slots.first_occupied(from)?, slots)));
        let Some((index, slots)) = found else {
            self.sweep.stage = match level.checked_sub(1) {
                Some(level) => Stage::Slots { level, index: 0 },
                None => Stage::Heap,
            };
            return Swept::default();
        };
        let swept = slots.slot_mut(index).sweep_chunk(&mut self.sweep.slot, live, &mut self.pool);
        self.sweep.stage = Stage::Slots { level, index };
        if swept.done {
            slots.note_emptied(index);
            self.sweep.stage = Stage::Slots { level, index: index + 1 };
            self.note_level_emptied(level);
        }
        swept
    }
}
