//! The ends of leases, without a key in the wheel for each lease.
//!
//! Most leases are settled long before they end, and their keys would stay in the wheel until then: with a million
//! tasks a second and leases of half a minute, thirty million keys to sweep. But leases of the same duration end in the
//! order in which they begin. So each duration has a linked list of lease records, and only a lease that really ends
//! becomes a key.
//!
//! Invariants:
//! 1. A record is in the list that its `list` names, or in none. In a list, the ends never decrease.
//! 2. A task whose record is in a list has no live key in the wheels, and vice versa.

use crate::arena::Arena;
use crate::now::Place;

use super::task::NOWHERE;

/// Maximum number of lists, one for each lease duration. A lease of a further duration gets a key in the wheel.
const LISTS_MAX: usize = 8;

/// Maximum distance from the end of its list at which a lease is inserted. Beyond it, the lease gets a key in the
/// wheel.
const STEPS_MAX: usize = 16;

/// A lease. Its entry owns it, from the claim until it is settled or claimed again.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) fence: u64,
    /// The task's place when it was claimed, to which a release returns it.
    pub(super) old_place: Place,
    /// The task's place, and when the lease ends, while it is in a list.
    task: u32,
    list: u32,
    ends_ms: u64,
    before: u32,
    after: u32,
}

impl Live {
    pub(super) fn new(fence: u64, old_place: Place) -> Self {
        Self { fence, old_place, task: NOWHERE, list: NOWHERE, ends_ms: 0, before: NOWHERE, after: NOWHERE }
    }
}

/// All leases of a queue.
#[derive(Debug)]
pub(super) struct Leases {
    records: Arena<Live>,
    lists: Vec<List>,
}

#[derive(Debug)]
struct List {
    length_ms: u64,
    first: u32,
    last: u32,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self { records: Arena::new(), lists: Vec::new() }
    }

    pub(super) fn insert(&mut self, live: Live) -> u32 {
        self.records.insert(live)
    }

    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&Live> {
        self.records.get(at)
    }

    /// Removes a record, also from its list.
    pub(super) fn remove(&mut self, at: u32) -> Option<Live> {
        self.unlist(at);
        self.records.remove(at)
    }

    /// Adds the end of a task's lease to a list, if it fits; otherwise the caller gives it a key.
    pub(super) fn enlist(&mut self, at: u32, task: u32, length_ms: u64, ends_ms: u64) -> bool {
        self.unlist(at);
        let Some(list) = self.list_for(length_ms) else { return false };
        // Two callers may get the lock in another order than they read the clock.
        let mut after = self.lists[list].last;
        for _ in 0..STEPS_MAX {
            match self.records.get(after) {
                Some(record) if record.ends_ms > ends_ms => after = record.before,
                Some(_) | None => {
                    self.link(at, task, list, ends_ms, after);
                    return true;
                }
            }
        }
        false
    }

    /// Removes the end of a lease from its list. Returns whether it was in a list and not in the wheel.
    pub(super) fn unlist(&mut self, at: u32) -> bool {
        let Some(record) = self.records.get_mut(at) else { return false };
        if record.list == NOWHERE {
            return false;
        }
        let (list, before, after) = (record.list as usize, record.before, record.after);
        record.list = NOWHERE;
        match self.records.get_mut(before) {
            Some(record) => record.after = after,
            None => self.lists[list].first = after,
        }
        match self.records.get_mut(after) {
            Some(record) => record.before = before,
            None => self.lists[list].last = before,
        }
        true
    }

    /// Removes a lease that has ended from its list, and returns its task.
    pub(super) fn ended(&mut self, now_ms: u64) -> Option<u32> {
        let first = self
            .lists
            .iter()
            .map(|list| list.first)
            .find(|&first| self.records.get(first).is_some_and(|record| record.ends_ms <= now_ms))?;
        let task = self.records.get(first)?.task;
        self.unlist(first);
        Some(task)
    }

    /// When the next lease in a list ends.
    pub(super) fn next_end_ms(&self) -> Option<u64> {
        self.lists.iter().filter_map(|list| self.records.get(list.first)).map(|record| record.ends_ms).min()
    }

    fn list_for(&mut self, length_ms: u64) -> Option<usize> {
        let found = self.lists.iter().position(|list| list.length_ms == length_ms);
        found.or_else(|| {
            let fresh = List { length_ms, first: NOWHERE, last: NOWHERE };
            // An empty list may change its duration.
            if let Some(empty) = self.lists.iter().position(|list| list.first == NOWHERE) {
                self.lists[empty] = fresh;
                return Some(empty);
            }
            (self.lists.len() < LISTS_MAX).then(|| {
                self.lists.push(fresh);
                self.lists.len() - 1
            })
        })
    }

    fn link(&mut self, at: u32, task: u32, list: usize, ends_ms: u64, before: u32) {
        let after = match self.records.get_mut(before) {
            Some(record) => std::mem::replace(&mut record.after, at),
            None => std::mem::replace(&mut self.lists[list].first, at),
        };
        match self.records.get_mut(after) {
            Some(record) => record.before = at,
            None => self.lists[list].last = at,
        }
        if let Some(record) = self.records.get_mut(at) {
            (record.task, record.list, record.ends_ms) = (task, list as u32, ends_ms);
            (record.before, record.after) = (before, after);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// How many leases are in lists; checks the lists on the way.
    #[cfg(test)]
    pub(super) fn listed(&self) -> usize {
        let mut count = 0;
        for (number, list) in self.lists.iter().enumerate() {
            let (mut at, mut before, mut ends_ms) = (list.first, NOWHERE, 0);
            while let Some(record) = self.records.get(at) {
                assert_eq!((record.list as usize, record.before), (number, before));
                assert!(record.ends_ms >= ends_ms, "the ends fall along a list");
                (before, at, ends_ms) = (at, record.after, record.ends_ms);
                count += 1;
            }
            assert_eq!((at, list.last), (NOWHERE, before));
        }
        count
    }
}
