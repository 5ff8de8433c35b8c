//! The ready part: keys in delivery order. It is filled a piece at a time, so that no call takes long.
//!
//! Three sources, each sorted in itself; the head is the smallest of their heads:
//!
//! - the *stream*, a queue of chunks. Slots that fall due in order join it without a key being touched.
//! - the *heap*, at most [`RUN_KEYS_MAX`] keys that arrived out of order: due in the past, or with an old sequence.
//! - the *runs*: a full heap, or an unordered batch of a large slot, is sorted (about 0.1 ms) and becomes a run. A heap
//!   over the runs' heads merges them. A heap of a million keys would have 20 cache misses for each pop; the heads of
//!   250 runs stay in the cache.

use std::cmp::{Ordering, Reverse};
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};
use std::mem;

use super::chunk::{CHUNK_KEYS, Chunk, Pool, Swept};
use super::key::Key;

/// Maximum number of keys that are sorted at once. Small in tests, so that a few hundred keys already make runs.
pub(super) const RUN_KEYS_MAX: usize = if cfg!(test) { 64 } else { 4096 };

/// A batch of at most this many keys is copied to the end of the stream. As a chunk, it would be mostly empty.
const COPIED_KEYS_MAX: usize = CHUNK_KEYS / 2;

/// Buffers with a larger capacity are freed when they become empty.
const IDLE_CAPACITY_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Ready {
    pub(super) stream: Stream,
    heap: BinaryHeap<Reverse<Key>>,
    runs: BinaryHeap<Run>,
    /// The number of the current or last sweep.
    sweep: u64,
}

impl Ready {
    /// The smallest key.
    #[inline]
    pub(super) fn head(&self) -> Option<Key> {
        self.smallest().map(|(key, _)| key)
    }

    /// Removes and returns the smallest key if it is due before `end_ms`.
    #[inline]
    pub(super) fn pop_before(&mut self, end_ms: u64, pool: &mut Pool) -> Option<Key> {
        let (key, source) = self.smallest()?;
        if key.due_ms() >= end_ms {
            return None;
        }
        match source {
            Source::Stream => self.stream.drop_front(pool),
            Source::Heap => self.drop_heap_top(),
            Source::Runs => self.drop_run_top(),
        }
        Some(key)
    }

    /// Adds one key wherever it sorts: at the end of the stream if it belongs there.
    pub(super) fn insert(&mut self, key: Key, pool: &mut Pool) {
        if self.stream.accepts(key) {
            self.stream.push(key, pool);
        } else {
            self.insert_unordered(key);
        }
    }

    /// Adds one key without touching the stream.
    pub(super) fn insert_unordered(&mut self, key: Key) {
        if self.heap.len() == RUN_KEYS_MAX {
            let keys = mem::take(&mut self.heap).into_iter().map(|Reverse(key)| key).collect();
            self.add_run(keys);
        }
        self.heap.push(Reverse(key));
    }

    /// Adds a sorted batch of at most [`RUN_KEYS_MAX`] keys.
    pub(super) fn add_sorted(&mut self, keys: Vec<Key>, pool: &mut Pool) {
        debug_assert!(keys.is_sorted());
        match keys.first() {
            None => {}
            Some(&first) if !self.stream.accepts(first) => self.add_run(keys),
            Some(_) if keys.len() > COPIED_KEYS_MAX => self.stream.push_chunk(keys, pool),
            Some(_) => {
                keys.iter().for_each(|&key| self.stream.push(key, pool));
                pool.give(keys);
            }
        }
    }

    /// Frees the buffers of an empty ready part.
    pub(super) fn release(&mut self) {
        debug_assert!(self.head().is_none());
        self.stream.front = Chunk::new();
        self.stream.read = 0;
        self.stream.rest = VecDeque::new();
        self.heap = BinaryHeap::new();
        self.runs = BinaryHeap::new();
    }

    pub(super) fn begin_sweep(&mut self) {
        self.sweep += 1;
    }

    pub(super) fn sweep_heap(&mut self, live: &mut impl FnMut(Key) -> bool) -> Swept {
        let visited = self.heap.len();
        self.heap.retain(|&Reverse(key)| live(key));
        if self.heap.is_empty() {
            self.heap = BinaryHeap::new();
        }
        Swept { visited, dropped: visited - self.heap.len(), done: true }
    }

    /// Sweeps runs until `visits_max` keys have been visited; the last run is finished.
    pub(super) fn sweep_runs(&mut self, live: &mut impl FnMut(Key) -> bool, visits_max: usize) -> Swept {
        let mut swept = Swept { done: true, ..Swept::default() };
        let mut runs = mem::take(&mut self.runs).into_vec();
        for run in runs.iter_mut().filter(|run| run.swept_by != self.sweep) {
            if swept.visited >= visits_max {
                swept.done = false;
                break;
            }
            run.swept_by = self.sweep;
            swept.visited += run.keys.len();
            let before = run.keys.len();
            run.keys.retain(|&key| live(key));
            run.keys.shrink_to_fit();
            swept.dropped += before - run.keys.len();
        }
        runs.retain_mut(|run| match run.keys.last() {
            Some(&head) => {
                run.head = head;
                true
            }
            None => false,
        });
        self.runs = BinaryHeap::from(runs);
        swept
    }

    #[inline]
    fn smallest(&self) -> Option<(Key, Source)> {
        let mut smallest = self.stream.front().map(|key| (key, Source::Stream));
        let heap = self.heap.peek().map(|&Reverse(key)| (key, Source::Heap));
        let runs = self.runs.peek().map(|run| (run.head, Source::Runs));
        for (key, source) in heap.into_iter().chain(runs) {
            if smallest.is_none_or(|(least, _)| key < least) {
                smallest = Some((key, source));
            }
        }
        smallest
    }

    fn drop_heap_top(&mut self) {
        self.heap.pop();
        if self.heap.is_empty() && self.heap.capacity() > IDLE_CAPACITY_MAX {
            self.heap = BinaryHeap::new();
        }
    }

    fn drop_run_top(&mut self) {
        let Some(mut top) = self.runs.peek_mut() else { return };
        top.keys.pop();
        match top.keys.last() {
            Some(&head) => {
                top.head = head;
                return;
            }
            None => drop(PeekMut::pop(top)),
        }
        if self.runs.is_empty() {
            self.runs = BinaryHeap::new();
        }
    }

    fn add_run(&mut self, mut keys: Vec<Key>) {
        keys.sort_unstable_by_key(|&key| Reverse(key));
        if let Some(&head) = keys.last() {
            self.runs.push(Run { head, keys, swept_by: 0 });
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.stream.bytes()
            + self.heap.capacity() * size_of::<Key>()
            + self.runs.capacity() * size_of::<Run>()
            + self.runs.iter().map(|run| super::chunk::bytes_of(&run.keys)).sum::<usize>()
    }
}

#[derive(Clone, Copy)]
enum Source {
    Stream,
    Heap,
    Runs,
}

/// A sorted queue of keys in chunks.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The chunk that is being read. It is used up only if `rest` is empty.
    front: Chunk,
    /// Keys of `front` that have been read.
    read: usize,
    rest: VecDeque<Chunk>,
    /// No smaller than any key in the stream.
    last: Option<Key>,
    /// Number of chunks that were read to their end. It numbers the chunks for the sweep.
    fronts_dropped: u64,
}

impl Stream {
    #[inline]
    pub(super) fn front(&self) -> Option<Key> {
        self.front.get(self.read).copied()
    }

    /// Whether `key` may be pushed.
    #[inline]
    pub(super) fn accepts(&self, key: Key) -> bool {
        self.front().is_none() || self.last.is_none_or(|last| last <= key)
    }

    /// Appends a key that the stream accepts.
    #[inline]
    pub(super) fn push(&mut self, key: Key, pool: &mut Pool) {
        debug_assert!(self.accepts(key));
        self.last = Some(key);
        let back = self.rest.back_mut().unwrap_or(&mut self.front);
        if back.len() < CHUNK_KEYS && back.capacity() > 0 {
            back.push(key);
            return;
        }
        let mut chunk = pool.take();
        chunk.push(key);
        self.attach(chunk, pool);
    }

    /// Appends a sorted chunk whose first key the stream accepts.
    pub(super) fn push_chunk(&mut self, chunk: Chunk, pool: &mut Pool) {
        debug_assert!(chunk.first().is_none_or(|&first| self.accepts(first)));
        debug_assert!(chunk.is_sorted());
        if let Some(&last) = chunk.last() {
            self.last = Some(last);
            self.attach(chunk, pool);
        }
    }

    /// Drops the first key.
    #[inline]
    fn drop_front(&mut self, pool: &mut Pool) {
        self.read += 1;
        if self.read >= self.front.len() {
            self.next_front(pool);
        }
    }

    /// Sweeps the chunk with the number `next`, or the first one after it, and moves `next` on.
    pub(super) fn sweep_chunk(&mut self, next: &mut u64, live: &mut impl FnMut(Key) -> bool, pool: &mut Pool) -> Swept {
        let number = (*next).max(self.fronts_dropped);
        *next = number + 1;
        let at = (number - self.fronts_dropped) as usize;
        let chunk = if at == 0 {
            self.front.drain(..self.read);
            self.read = 0;
            &mut self.front
        } else {
            match self.rest.get_mut(at - 1) {
                Some(chunk) => chunk,
                None => {
                    self.rest.retain(|chunk| !chunk.is_empty());
                    self.rest.shrink_to_fit();
                    return Swept { done: true, ..Swept::default() };
                }
            }
        };
        let visited = chunk.len();
        chunk.retain(|&key| live(key));
        if chunk.len() < chunk.capacity() / 2 {
            chunk.shrink_to_fit();
        }
        let dropped = visited - chunk.len();
        if self.front.is_empty() {
            self.next_front(pool);
        }
        Swept { visited, dropped, done: false }
    }

    fn attach(&mut self, chunk: Chunk, pool: &mut Pool) {
        self.rest.push_back(chunk);
        if self.read >= self.front.len() {
            self.next_front(pool);
        }
    }

    /// Advances to the next chunk with keys. A sweep may have left empty chunks.
    fn next_front(&mut self, pool: &mut Pool) {
        self.read = 0;
        while let Some(next) = self.rest.pop_front() {
            self.fronts_dropped += 1;
            pool.give(mem::replace(&mut self.front, next));
            if !self.front.is_empty() {
                return;
            }
        }
        // In a wheel with few keys, which has one key at a time, the same chunk is reused again and again.
        self.front.clear();
        if self.front.capacity() > CHUNK_KEYS {
            self.front = Chunk::new();
        }
        self.last = None;
        if self.rest.capacity() > IDLE_CAPACITY_MAX {
            self.rest = VecDeque::new();
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.rest.capacity() * size_of::<Chunk>()
            + self.rest.iter().chain([&self.front]).map(super::chunk::bytes_of).sum::<usize>()
    }
}

/// Sorted keys, largest first, so that the smallest is popped from the end.
#[derive(Debug)]
struct Run {
    /// A copy of the smallest key, so that a comparison of runs has no second cache miss.
    head: Key,
    keys: Vec<Key>,
    /// The number of the last sweep that visited this run.
    swept_by: u64,
}

/// The run with the smallest head compares greatest, because `BinaryHeap` pops the greatest.
impl Ord for Run {
    fn cmp(&self, other: &Self) -> Ordering {
        other.head.cmp(&self.head)
    }
}

impl PartialOrd for Run {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.head == other.head
    }
}

impl Eq for Run {}
