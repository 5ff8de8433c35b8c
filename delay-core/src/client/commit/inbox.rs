//! The items that wait to be sent, and their callers. Synchronous, under the committer's lock.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::Result;
use crate::client::size::CALL_BYTES_MAX;

type Caller<A> = oneshot::Sender<Result<A>>;

pub(super) struct Inbox<I, A> {
    /// In the order of their numbers.
    entries: VecDeque<Entry<I, A>>,
    /// Total size of all items here.
    bytes: usize,
    last_number: u64,
    /// Whether there is a task that empties this inbox, or one is about to be spawned.
    has_task: bool,
    out: Out,
}

struct Entry<I, A> {
    number: u64,
    bytes: usize,
    item: I,
    caller: Caller<A>,
}

/// The batch that was sent last.
#[derive(Default)]
struct Out {
    /// First number of its items; with `last`, both inclusive.
    first: u64,
    last: u64,
    /// Number of its callers that have not left.
    waiting: usize,
}

/// The items that are sent in one call.
pub(super) struct Batch<I, A> {
    pub(super) items: Vec<I>,
    pub(super) callers: Vec<Caller<A>>,
}

impl<I, A> Inbox<I, A> {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, last_number: 0, has_task: false, out: Out::default() }
    }

    /// The number of bytes that wait here, if they leave no room for `bytes` more. A single item of any size is
    /// accepted if nothing else waits.
    pub(super) fn too_full_for(&self, bytes: usize, bytes_max: usize) -> Option<usize> {
        let has_room = self.entries.is_empty() || self.bytes.saturating_add(bytes) <= bytes_max;
        (!has_room).then_some(self.bytes)
    }

    /// Adds an item. Returns its number, and whether the task must be spawned now.
    pub(super) fn push(&mut self, item: I, bytes: usize, caller: Caller<A>) -> (u64, bool) {
        self.last_number += 1;
        self.bytes += bytes;
        self.entries.push_back(Entry { number: self.last_number, bytes, item, caller });
        let is_first = !std::mem::replace(&mut self.has_task, true);
        (self.last_number, is_first)
    }

    /// Removes the item of a caller that leaves, if it was not sent yet. Also returns whether that was the last caller
    /// of the batch that is under way.
    pub(super) fn leave(&mut self, number: u64) -> (Option<I>, bool) {
        if let Ok(place) = self.entries.binary_search_by_key(&number, |entry| entry.number) {
            let left = self.entries.remove(place);
            self.bytes -= left.as_ref().map_or(0, |entry| entry.bytes);
            return (left.map(|entry| entry.item), false);
        }
        // Otherwise it was answered, in an earlier batch.
        if number >= self.out.first && number <= self.out.last {
            self.out.waiting -= 1;
            return (None, self.out.waiting == 0);
        }
        (None, false)
    }

    /// Whether all callers of the batch that is under way have left.
    pub(super) fn is_abandoned(&self) -> bool {
        self.out.waiting == 0
    }

    /// Takes the next items, oldest first: at most `batch_max` items, and at most the bytes that a call may have. If
    /// there are none, the task ends.
    pub(super) fn next_batch(&mut self, batch_max: usize) -> Option<Batch<I, A>> {
        let mut bytes = 0;
        let fits = |entry: &&Entry<I, A>| {
            bytes += entry.bytes;
            bytes <= CALL_BYTES_MAX
        };
        // One item is always sent, however large.
        let len = self.entries.iter().take(batch_max).take_while(fits).count().max(1).min(self.entries.len());
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.get(len.wrapping_sub(1))) else {
            self.has_task = false;
            self.give_memory_back();
            return None;
        };
        self.out = Out { first: first.number, last: last.number, waiting: len };
        let waiting = &mut self.bytes;
        let take = |Entry { bytes, item, caller, .. }| {
            *waiting -= bytes;
            (item, caller)
        };
        let (items, callers) = self.entries.drain(..len).map(take).unzip();
        Some(Batch { items, callers })
    }

    /// The task has ended. Returns all callers that still wait.
    pub(super) fn abort(&mut self) -> Vec<Caller<A>> {
        self.has_task = false;
        self.bytes = 0;
        self.entries.drain(..).map(|entry| entry.caller).collect()
    }

    /// Used by a planted fault, like the next function.
    #[cfg(delayline_interleaved)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(delayline_interleaved)]
    pub(super) fn end(&mut self) {
        self.has_task = false;
    }

    /// Frees memory after a burst.
    fn give_memory_back(&mut self) {
        const KEPT_MAX: usize = 64;
        self.entries.shrink_to(KEPT_MAX);
    }
}
