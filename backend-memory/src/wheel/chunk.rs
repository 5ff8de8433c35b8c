//! Chunks of keys, the pool that recycles them, and the slot that queues them.

use std::collections::VecDeque;
use std::mem;

use super::key::Key;

/// Number of keys in a chunk: 31 keys are 496 bytes, a block of 512 bytes with the allocator's header. A slot with few
/// keys wastes little memory, and a slot with millions grows and shrinks in small steps. Fewer in tests, so that a few
/// dozen keys already make a long slot.
pub(super) const CHUNK_KEYS: usize = if cfg!(test) { 5 } else { 31 };

/// Number of idle chunks kept for reuse, 16 KiB: enough for sparse queues, where each key opens and closes its own
/// slot.
const POOL_CHUNKS_MAX: usize = 32;

/// A few keys in order of arrival. In slots never longer than [`CHUNK_KEYS`].
pub(super) type Chunk = Vec<Key>;

/// A bounded stock of empty chunks. Chunks beyond the bound are freed at once.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Vec<Chunk>,
}

impl Pool {
    #[inline]
    pub(super) fn take(&mut self) -> Chunk {
        self.idle.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_KEYS))
    }

    #[inline]
    pub(super) fn give(&mut self, mut chunk: Chunk) {
        // Sorted runs are chunks too, but far larger, and a swept chunk may be smaller: neither is worth keeping.
        if chunk.capacity() == CHUNK_KEYS && self.idle.len() < POOL_CHUNKS_MAX {
            chunk.clear();
            self.idle.push(chunk);
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.idle.iter().map(bytes_of).sum()
    }
}

/// A queue of keys, first in, first out. Empty chunks occur only while a sweep has stopped half-way in this slot.
#[derive(Debug)]
pub(super) struct Slot {
    /// The chunks before the last one; a sweep may leave some of them partly filled.
    full: VecDeque<Chunk>,
    /// The chunk that is being filled, outside the deque because most slots never need a second one. Empty only
    /// if the slot is.
    tail: Chunk,
    /// The smallest due of all keys. Once a sweep has begun to drop keys it is a lower bound, until the sweep has
    /// finished the slot.
    min_due_ms: u64,
    /// No key is smaller than the one before it, so the chunks may go to the ready stream as they are.
    in_order: bool,
}

impl Slot {
    pub(super) const fn new() -> Self {
        Self { full: VecDeque::new(), tail: Vec::new(), min_due_ms: u64::MAX, in_order: true }
    }

    /// Resets an empty slot.
    #[inline]
    pub(super) fn reset(&mut self) {
        debug_assert!(self.is_empty());
        self.min_due_ms = u64::MAX;
        self.in_order = true;
        if self.full.capacity() > 0 {
            self.full = VecDeque::new();
        }
        if self.tail.capacity() > 0 {
            self.tail = Chunk::new();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    pub(super) fn min_due_ms(&self) -> u64 {
        self.min_due_ms
    }

    pub(super) fn in_order(&self) -> bool {
        self.in_order
    }

    /// The key that arrived first.
    pub(super) fn first(&self) -> Option<Key> {
        self.full.front().unwrap_or(&self.tail).first().copied()
    }

    #[inline]
    pub(super) fn push(&mut self, key: Key, pool: &mut Pool) {
        if let Some(last) = self.tail.last() {
            self.in_order = self.in_order && key >= *last;
            if self.tail.len() == CHUNK_KEYS {
                let filled = mem::replace(&mut self.tail, pool.take());
                self.full.push_back(filled);
            }
        } else {
            self.tail = pool.take();
        }
        self.tail.push(key);
        self.min_due_ms = self.min_due_ms.min(key.due_ms());
    }

    /// Takes the oldest chunk. `min_due_ms` stays: the keys that were taken still count while they are being moved.
    pub(super) fn pop_chunk(&mut self) -> Option<Chunk> {
        match self.full.pop_front() {
            Some(chunk) => Some(chunk),
            None if self.tail.is_empty() => None,
            None => Some(mem::take(&mut self.tail)),
        }
    }

    /// Takes the keys if they are so few that they are in one chunk.
    pub(super) fn take_only_chunk(&mut self) -> Option<Chunk> {
        self.full.is_empty().then(|| mem::take(&mut self.tail))
    }

    /// Sweeps one more chunk and fills the one before from what is left of it, so that the memory of dropped keys is
    /// freed. Order is kept.
    pub(super) fn sweep_chunk(
        &mut self,
        pass: &mut SlotPass,
        live: &mut impl FnMut(Key) -> bool,
        pool: &mut Pool,
    ) -> Swept {
        let in_tail = pass.read == self.full.len();
        let mut chunk = mem::take(if in_tail { &mut self.tail } else { &mut self.full[pass.read] });
        let visited = chunk.len();
        chunk.retain(|&key| {
            let keep = live(key);
            if keep {
                pass.min_due_ms = pass.min_due_ms.min(key.due_ms());
            }
            keep
        });
        let dropped = visited - chunk.len();
        if in_tail {
            self.tail = chunk;
            self.finish_sweep(pass, pool);
            return Swept { visited, dropped, done: true };
        }
        pass.read += 1;
        if let Some(last) = pass.kept.checked_sub(1) {
            let last = &mut self.full[last];
            let room = CHUNK_KEYS - last.len();
            last.extend(chunk.drain(..room.min(chunk.len())));
        }
        if chunk.is_empty() {
            pool.give(chunk);
        } else {
            self.full[pass.kept] = chunk;
            pass.kept += 1;
        }
        Swept { visited, dropped, done: false }
    }

    /// Abandons a sweep that is half-way in this slot, because the slot is about to be moved.
    pub(super) fn abandon_sweep(&mut self) {
        self.full.retain(|chunk| !chunk.is_empty());
    }

    fn finish_sweep(&mut self, pass: &mut SlotPass, pool: &mut Pool) {
        self.full.truncate(pass.kept);
        if self.tail.is_empty() {
            let emptied = mem::replace(&mut self.tail, self.full.pop_back().unwrap_or_default());
            pool.give(emptied);
        }
        if self.full.len() < self.full.capacity() / 4 {
            self.full.shrink_to_fit();
        }
        self.min_due_ms = pass.min_due_ms;
        *pass = SlotPass::default();
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.full.iter().chain([&self.tail]).flatten().copied()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.full.capacity() * size_of::<Chunk>() + self.full.iter().map(bytes_of).sum::<usize>() + bytes_of(&self.tail)
    }
}

/// The progress of a sweep in a slot: chunks below `kept` are swept and filled, those from `kept` to `read` are empty,
/// the rest is not read yet. Pushes only append, so this stays true between calls.
#[derive(Debug)]
pub(super) struct SlotPass {
    read: usize,
    kept: usize,
    min_due_ms: u64,
}

impl Default for SlotPass {
    fn default() -> Self {
        Self { read: 0, kept: 0, min_due_ms: u64::MAX }
    }
}

/// What one step of a sweep did.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub(super) visited: usize,
    pub(super) dropped: usize,
    /// Nothing of the swept part is left to visit.
    pub(super) done: bool,
}

#[cfg(test)]
pub(super) fn bytes_of(chunk: &Chunk) -> usize {
    chunk.capacity() * size_of::<Key>()
}
