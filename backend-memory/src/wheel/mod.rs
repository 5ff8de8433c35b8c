//! A hierarchical hashed timing wheel: holds keys until they are due, then returns them in exact key order.
//!
//! Pure and synchronous: no clock, no lock, no thread. The caller passes the time. The wheel has time steps of 1 ms and
//! six levels of 256 slots. Level `l` covers byte `l` of the due time, 44 bits in all, so the top level uses 16 slots.
//!
//! # Invariants
//!
//! 1. **Placement.** A key in the levels has `due_ms > cursor_ms` (equal only while the wheel is not *settled*). It is
//!    in the level of the highest byte in which its due and the cursor differ, in the slot named by that byte. Hence
//!    all slots in use are ahead of the cursor's slot in their level: there is no wrap-around, and no rounds to count.
//!    And all keys of a level are due before all keys of the level above, slot by slot: the first occupied slot of the
//!    lowest occupied level holds the smallest due time.
//! 2. **The cursor never skips a key.** It moves to the start of that first slot, whose keys are then taken out, or to
//!    `now` if that is before it. Either way, every other key still differs from the cursor in the same highest byte,
//!    so (1) holds without moving it. A slot of level 0 holds one millisecond, and is due as a whole. A slot of a
//!    higher level is *cascaded*: its keys are placed again, in lower levels. A slot of one chunk is handled at once:
//!    the cursor moves to its last due key, the due keys become ready, and the rest is placed again.
//! 3. **Nothing is lost.** A key is in exactly one of: a slot, the slot being moved (`moving`), the ready part. At most
//!    one slot is moved at a time, and no other slot is touched before it is finished. Each piece of it leaves `moving`
//!    in the same call in which it arrives elsewhere.
//! 4. **Nothing is early, nothing overtakes.** All keys due before `cursor_ms` are in the ready part, and those due at
//!    the cursor as well once the wheel is settled. A key is delivered only if it is the smallest ready one, due before
//!    that bound, and due by the caller's `now`. So keys that are being prepared hold back later keys, and a key that
//!    is inserted in the meantime is either ready at once or beyond the bound.
//! 5. **Order within the ready part.** Each of its sources is sorted, and the head is the least of their heads. A slot
//!    joins the stream untouched only if it is in order and begins no earlier than the stream ends.
//!
//! No call does more than its budget allows (apart from the rest of a chunk, or one sort of 4096 keys, about 0.1 ms),
//! however many keys a slot holds: an exam with a million candidates ends in one slot.
//!
//! After G. Varghese and A. Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 7. The choice of the
//! level by `due ^ cursor` is known from the timers of Linux and tokio. Exact order with a million keys in one tick
//! requires the additions: chunks instead of linked timers, bitmaps, jumps instead of ticks, and the sorted ready part.

mod chunk;
mod key;
mod level;
mod pass;
mod ready;
mod sweep;
#[cfg(test)]
mod tests;

pub(crate) use key::Key;
#[allow(unused_imports)] // the type of a result; most callers only use its fields
pub(crate) use sweep::SweepProgress;

use chunk::{Chunk, Pool, Slot};
use level::{LEVEL_BITS, LEVELS, Level};
use pass::Sweep;
use ready::{RUN_KEYS_MAX, Ready};

/// Levels from here up are freed when they become empty. Lower levels become empty so often that freeing them would be
/// slow.
const FREED_LEVELS: usize = 2;

/// A wheel that held more keys than this, a megabyte, is freed when it becomes empty.
const BURST_KEYS: usize = 65_536;

/// The timing wheel. The module's documentation explains how it works and why it is correct.
#[derive(Debug)]
pub(crate) struct Wheel {
    cursor_ms: u64,
    /// The keys due at the cursor are ready too, not only those before it.
    settled: bool,
    levels: [Option<Box<Level>>; LEVELS],
    /// Bit l says that level l holds a key.
    occupied_levels: u32,
    moving: Option<Moving>,
    ready: Ready,
    len: usize,
    /// The largest `len` since the wheel was last empty.
    peak_len: usize,
    pool: Pool,
    sweep: Sweep,
}

impl Wheel {
    /// An empty wheel whose time is `now_ms`.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            cursor_ms: now_ms.min(Key::MAX_DUE_MS),
            settled: true,
            levels: [const { None }; LEVELS],
            occupied_levels: 0,
            moving: None,
            ready: Ready::default(),
            len: 0,
            peak_len: 0,
            pool: Pool::default(),
            sweep: Sweep::default(),
        }
    }

    /// Keys held, stale ones included.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a key with any due time, past ones included. O(1) amortised: of the keys that are due in the past and out
    /// of order, every 4096th call sorts 4096 keys.
    #[inline]
    pub(crate) fn insert(&mut self, key: Key) {
        self.len += 1;
        self.peak_len = self.peak_len.max(self.len);
        let due_ms = key.due_ms();
        if due_ms > self.cursor_ms {
            self.place(key);
        } else if due_ms < self.cursor_ms || self.settled {
            self.ready.insert(key, &mut self.pool);
        } else if self.ripening() {
            // The slot that it belongs to is being moved into the stream, which must not be interrupted.
            self.ready.insert_unordered(key);
        } else {
            self.place(key);
        }
    }

    /// Moves every key due by `now_ms` to the ready part, in at most `budget` units of work (a key or a chunk moved, a
    /// slot visited), which are subtracted from `budget`. Returns whether all is done; if not, call again. With a
    /// `now_ms` before that of an earlier call (the clock stepped back), there is nothing to do.
    pub(crate) fn advance(&mut self, now_ms: u64, budget: &mut usize) -> bool {
        let now_ms = now_ms.min(Key::MAX_DUE_MS);
        loop {
            if now_ms < self.ready_end_ms() {
                return true;
            }
            if !self.finish_move(budget) {
                return false;
            }
            match self.first_slot() {
                Some((level, index)) if self.start_of(level, index) <= now_ms => {
                    if *budget == 0 {
                        return false;
                    }
                    *budget -= 1;
                    self.begin_move(level, index, now_ms, budget);
                }
                _ => {
                    self.cursor_ms = now_ms;
                    self.settled = true;
                    return true;
                }
            }
        }
    }

    /// The smallest ready key, if it is due by `now_ms`.
    ///
    /// Call [`Self::advance`] until it is complete for `now_ms` first: keys that are not prepared yet, and later
    /// ones, are not visible.
    pub(crate) fn peek_due(&self, now_ms: u64) -> Option<Key> {
        let end_ms = self.due_end_ms(now_ms);
        self.ready.head().filter(|key| key.due_ms() < end_ms)
    }

    /// Removes and returns the key that [`Self::peek_due`] returns.
    #[inline]
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<Key> {
        let end_ms = self.due_end_ms(now_ms);
        let key = self.ready.pop_before(end_ms, &mut self.pool)?;
        self.note_dropped(1);
        Some(key)
    }

    /// The smallest due time of all keys held, ready or not, stale ones included.
    ///
    /// While a sweep has stopped half-way, it may be that of a key that was just dropped: too early, never too late.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        let ready = self.ready.head().map(Key::due_ms);
        let moving = self.moving.as_ref().map(|moving| moving.slot.min_due_ms());
        let placed = self.first_slot().and_then(|(level, index)| {
            let level = self.levels[level].as_deref()?;
            Some(level.slot(index).min_due_ms())
        });
        [ready, moving, placed].into_iter().flatten().min()
    }

    /// Everything due before this is ready.
    #[inline]
    fn ready_end_ms(&self) -> u64 {
        self.cursor_ms + u64::from(self.settled)
    }

    #[inline]
    fn due_end_ms(&self, now_ms: u64) -> u64 {
        self.ready_end_ms().min(now_ms.saturating_add(1))
    }

    /// Puts a key into the slot that invariant 1 names.
    #[inline]
    fn place(&mut self, key: Key) {
        let due_ms = key.due_ms();
        let highest_bit = 63 - ((due_ms ^ self.cursor_ms) | 1).leading_zeros();
        let level = (highest_bit / LEVEL_BITS) as usize;
        let index = (due_ms >> (highest_bit / LEVEL_BITS * LEVEL_BITS)) as u8;
        self.occupied_levels |= 1 << level;
        self.levels[level].get_or_insert_with(Level::new).push(usize::from(index), key, &mut self.pool);
    }

    /// The slot with the smallest due of all that are placed.
    #[inline]
    fn first_slot(&self) -> Option<(usize, usize)> {
        if self.occupied_levels == 0 {
            return None;
        }
        let level = self.occupied_levels.trailing_zeros() as usize;
        let index = self.levels[level].as_deref()?.first_occupied(0)?;
        Some((level, index))
    }

    /// The first millisecond that a slot covers: the cursor with that byte replaced, and zeros below it.
    #[inline]
    fn start_of(&self, level: usize, index: usize) -> u64 {
        let shift = level as u32 * LEVEL_BITS;
        (self.cursor_ms >> shift >> LEVEL_BITS << LEVEL_BITS | index as u64) << shift
    }

    /// Takes out the first slot, which begins by `now_ms`. A small slot is handled at once.
    fn begin_move(&mut self, level_index: usize, index: usize, now_ms: u64, budget: &mut usize) {
        let start_ms = self.start_of(level_index, index);
        let Some(level) = self.levels[level_index].as_deref_mut() else { return };
        let slot = level.slot_mut(index);
        if self.sweep.leave(level_index, index) {
            slot.abandon_sweep();
        }
        if let Some(mut keys) = slot.take_only_chunk() {
            if !slot.in_order() {
                keys.sort_unstable();
            }
            level.note_emptied(index);
            self.note_level_emptied(level_index);
            *budget = budget.saturating_sub(keys.len());
            self.move_chunk(keys, now_ms);
            return;
        }
        let slot = level.take(index);
        self.note_level_emptied(level_index);
        let to = if level_index > 0 {
            Target::Levels
        } else if slot.in_order() && slot.first().is_some_and(|key| self.ready.stream.accepts(key)) {
            Target::Stream
        } else {
            Target::Sorted(Vec::new())
        };
        self.cursor_ms = start_ms;
        self.settled = false;
        self.moving = Some(Moving { slot, chunk: Chunk::new(), read: 0, to });
    }

    /// Moves the sorted keys of a first slot that has only one chunk: those due go straight to the ready part,
    /// whatever the level, and the cursor to the last of them. In a wheel with few keys that spares them most levels.
    fn move_chunk(&mut self, keys: Chunk, now_ms: u64) {
        let due = keys.partition_point(|key| key.due_ms() <= now_ms);
        self.cursor_ms = due.checked_sub(1).map_or(now_ms, |last| keys[last].due_ms());
        self.settled = true;
        if due == keys.len() {
            self.ready.add_sorted(keys, &mut self.pool);
            return;
        }
        for &key in &keys[..due] {
            self.ready.insert(key, &mut self.pool);
        }
        for &key in &keys[due..] {
            self.place(key);
        }
        self.pool.give(keys);
    }

    fn note_level_emptied(&mut self, level: usize) {
        if self.levels[level].as_deref().is_some_and(Level::is_empty) {
            self.occupied_levels &= !(1 << level);
            if level >= FREED_LEVELS {
                self.levels[level] = None;
            }
        }
    }

    /// Counts removed keys. After a burst, an empty wheel frees all its memory, so that no memory kept for reuse pins
    /// the burst's pages in the allocator. After fewer keys, it keeps a few tens of KiB for speed.
    #[inline]
    fn note_dropped(&mut self, count: usize) {
        self.len -= count;
        if self.len == 0 {
            if self.peak_len > BURST_KEYS {
                self.levels = [const { None }; LEVELS];
                self.ready.release();
                self.pool = Pool::default();
            }
            self.peak_len = 0;
        }
    }

    /// Whether the keys due at the cursor are being moved to the ready part.
    fn ripening(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| !matches!(moving.to, Target::Levels))
    }

    /// Continues with the slot that is being moved, if any. Returns whether none is left.
    fn finish_move(&mut self, budget: &mut usize) -> bool {
        let Some(mut moving) = self.moving.take() else { return true };
        let done = match moving.to {
            Target::Levels => self.cascade(&mut moving, budget),
            Target::Stream => self.join_stream(&mut moving, budget),
            Target::Sorted(ref mut batch) => {
                let mut batch = std::mem::take(batch);
                let done = self.sort_batches(&mut moving, &mut batch, budget);
                moving.to = Target::Sorted(batch);
                done
            }
        };
        if !done {
            self.moving = Some(moving);
        } else if !matches!(moving.to, Target::Levels) {
            self.settled = true;
        }
        done
    }

    /// Places the keys again, in order of arrival.
    fn cascade(&mut self, moving: &mut Moving, budget: &mut usize) -> bool {
        while moving.load_chunk(&mut self.pool) {
            let keys = moving.next_keys(budget);
            if keys.is_empty() {
                return false;
            }
            for &key in keys {
                self.place(key);
            }
        }
        true
    }

    /// Moves the chunks as they are.
    fn join_stream(&mut self, moving: &mut Moving, budget: &mut usize) -> bool {
        loop {
            if *budget == 0 && !moving.slot.is_empty() {
                return false;
            }
            let Some(chunk) = moving.slot.pop_chunk() else { return true };
            *budget -= 1;
            self.ready.stream.push_chunk(chunk, &mut self.pool);
        }
    }

    /// Collects batches that are small enough to be sorted at once.
    fn sort_batches(&mut self, moving: &mut Moving, batch: &mut Vec<Key>, budget: &mut usize) -> bool {
        while moving.load_chunk(&mut self.pool) {
            let mut room = (*budget).min(RUN_KEYS_MAX - batch.len());
            *budget -= room;
            batch.extend_from_slice(moving.next_keys(&mut room));
            *budget += room;
            if batch.len() == RUN_KEYS_MAX {
                self.add_batch(batch);
            } else if *budget == 0 && moving.read < moving.chunk.len() {
                return false;
            }
        }
        self.add_batch(batch);
        true
    }

    fn add_batch(&mut self, batch: &mut Vec<Key>) {
        batch.sort_unstable();
        self.ready.add_sorted(std::mem::take(batch), &mut self.pool);
    }
}

/// A slot that is being moved, with the chunk that is being read.
#[derive(Debug)]
struct Moving {
    slot: Slot,
    chunk: Chunk,
    /// Keys of `chunk` that have arrived.
    read: usize,
    to: Target,
}

#[derive(Debug)]
enum Target {
    /// Lower levels of the wheel.
    Levels,
    /// The ready stream, chunk by chunk.
    Stream,
    /// The ready part, in sorted batches; this one is being collected.
    Sorted(Vec<Key>),
}

impl Moving {
    /// Makes `chunk` hold an unread key, or returns false if there is none left.
    fn load_chunk(&mut self, pool: &mut Pool) -> bool {
        if self.read < self.chunk.len() {
            return true;
        }
        let next = self.slot.pop_chunk();
        let more = next.is_some();
        pool.give(std::mem::replace(&mut self.chunk, next.unwrap_or_default()));
        self.read = 0;
        more
    }

    /// As many unread keys of `chunk` as the budget pays for.
    fn next_keys(&mut self, budget: &mut usize) -> &[Key] {
        let count = (self.chunk.len() - self.read).min(*budget);
        *budget -= count;
        self.read += count;
        &self.chunk[self.read - count..self.read]
    }
}
