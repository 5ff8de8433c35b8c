//! The key of a task in the wheel: its due time, its sequence among tasks with the same due time, and the index of its
//! record.

use std::fmt;

const SLOT_BITS: u32 = 32;
const SEQ_BITS: u32 = 52;
const DUE_BITS: u32 = 44;
const DUE_SHIFT: u32 = SLOT_BITS + SEQ_BITS;

/// `due_ms` (44 bits) | `seq` (52 bits) | `slot` (32 bits) in one integer, so that the order of keys is the order of
/// delivery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(u128);

impl Key {
    /// The latest due time a key can hold: 2^44 - 1 ms, 557 years.
    pub(crate) const MAX_DUE_MS: u64 = (1 << DUE_BITS) - 1;
    /// The largest sequence number a key can hold: at 10 million tasks a second it lasts for 14 years.
    pub(crate) const MAX_SEQ: u64 = (1 << SEQ_BITS) - 1;

    /// Packs a key. `due_ms` and `seq` must be within [`Self::MAX_DUE_MS`] and [`Self::MAX_SEQ`]: a larger one would
    /// overflow into the next field, so the caller returns `OutOfRange` before.
    #[inline]
    pub(crate) fn new(due_ms: u64, seq: u64, slot: u32) -> Self {
        debug_assert!(due_ms <= Self::MAX_DUE_MS, "due_ms {due_ms} out of range");
        debug_assert!(seq <= Self::MAX_SEQ, "seq {seq} out of range");
        Self(u128::from(due_ms) << DUE_SHIFT | u128::from(seq) << SLOT_BITS | u128::from(slot))
    }

    /// When the task is due, in milliseconds of the wheel's clock.
    #[inline]
    pub(crate) fn due_ms(self) -> u64 {
        (self.0 >> DUE_SHIFT) as u64
    }

    /// The order among the tasks of the same millisecond.
    #[inline]
    pub(crate) fn seq(self) -> u64 {
        (self.0 >> SLOT_BITS) as u64 & Self::MAX_SEQ
    }

    /// The index of the task's record at the caller.
    #[inline]
    pub(crate) fn slot(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} ms, #{}, @{})", self.due_ms(), self.seq(), self.slot())
    }
}
