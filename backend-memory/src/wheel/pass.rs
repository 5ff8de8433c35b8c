//! The position of a sweep, where the next call continues.

use super::chunk::SlotPass;

/// The position of a pass.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    pub(super) stage: Stage,
    /// The progress in the slot that `stage` names.
    pub(super) slot: SlotPass,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Idle,
    /// The first occupied slot of the level from `index` on.
    Slots {
        level: usize,
        index: usize,
    },
    Heap,
    Runs,
    /// The chunk of the stream with this number.
    Stream {
        next: u64,
    },
}

impl Sweep {
    /// Discards the progress in a slot that is about to be moved. Returns whether the pass was in that slot.
    #[inline]
    pub(super) fn leave(&mut self, level: usize, index: usize) -> bool {
        let inside = self.stage == Stage::Slots { level, index };
        if inside {
            self.slot = SlotPass::default();
        }
        inside
    }
}
