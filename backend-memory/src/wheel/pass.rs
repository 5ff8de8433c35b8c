//! Where a sweep is: it goes on there at the next call.

use super::chunk::SlotPass;

/// Where a pass is.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    pub(super) stage: Stage,
    /// How far it is in the slot that `stage` names.
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
    /// Forgets how far the pass is in a slot that is about to be moved. Returns whether it was in it.
    #[inline]
    pub(super) fn leave(&mut self, level: usize, index: usize) -> bool {
        let inside = self.stage == Stage::Slots { level, index };
        if inside {
            self.slot = SlotPass::default();
        }
        inside
    }
}
