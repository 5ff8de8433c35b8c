//! One level of the wheel: 256 slots and a bitmap of those that hold keys.

use std::mem;

use super::chunk::{Pool, Slot};
use super::key::Key;

/// Number of levels of a wheel, which together cover the 44 bits of a due time.
pub(super) const LEVELS: usize = 6;
/// Bits of a due time that one level covers.
pub(super) const LEVEL_BITS: u32 = 8;
/// Slots in a level.
pub(super) const SLOTS: usize = 1 << LEVEL_BITS;
const WORD_BITS: usize = u64::BITS as usize;

#[derive(Debug)]
pub(super) struct Level {
    /// Bit i says that slot i holds a key, so that empty slots cost nothing.
    occupied: [u64; SLOTS / WORD_BITS],
    slots: [Slot; SLOTS],
}

impl Level {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self { occupied: [0; _], slots: [const { Slot::new() }; _] })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.occupied.iter().all(|&word| word == 0)
    }

    #[inline]
    pub(super) fn push(&mut self, index: usize, key: Key, pool: &mut Pool) {
        self.occupied[index / WORD_BITS] |= 1 << (index % WORD_BITS);
        self.slots[index].push(key, pool);
    }

    /// The first occupied slot at `from` or after it.
    #[inline]
    pub(super) fn first_occupied(&self, from: usize) -> Option<usize> {
        let first_word = from / WORD_BITS;
        let mut mask = u64::MAX << (from % WORD_BITS);
        for (i, word) in self.occupied.iter().enumerate().skip(first_word) {
            let bits = word & mask;
            if bits != 0 {
                return Some(i * WORD_BITS + bits.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }

    pub(super) fn slot(&self, index: usize) -> &Slot {
        &self.slots[index]
    }

    /// A slot to change in place; [`Self::note_emptied`] must follow if that may empty it.
    pub(super) fn slot_mut(&mut self, index: usize) -> &mut Slot {
        &mut self.slots[index]
    }

    pub(super) fn take(&mut self, index: usize) -> Slot {
        let slot = mem::replace(&mut self.slots[index], Slot::new());
        self.note_emptied(index);
        slot
    }

    /// Resets a slot whose last key was removed. Does nothing to other slots.
    pub(super) fn note_emptied(&mut self, index: usize) {
        if self.slots[index].is_empty() {
            self.slots[index].reset();
            self.occupied[index / WORD_BITS] &= !(1 << (index % WORD_BITS));
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.slots.iter().map(Slot::bytes).sum::<usize>()
    }
}
