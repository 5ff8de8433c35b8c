//! Tasks that will not run any more: kept, bounded, shown, redriven, purged.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use delayline_core::{Attempts, BuryCause, DeadLetter, Due, NewTask, OnConflict, Reason, TaskId};

use crate::now::{Now, Place};

use super::task::Extra;
use super::{EXTRA_BYTES, Store, TASK_BYTES, Usage};

/// Dead letters handled under one lock.
const CHUNK: usize = 1024;

/// Dead letters by the order of their burial. The oldest are dropped beyond `max`.
#[derive(Debug)]
pub(super) struct DeadStore {
    letters: BTreeMap<u64, Box<Dead>>,
    next: u64,
    max: usize,
    dropped: u64,
}

#[derive(Debug)]
struct Dead {
    letter: DeadLetter,
    max_attempts: Option<u32>,
}

/// A task on its way to the dead letters, taken out of the store.
pub(super) struct Burial {
    pub(super) id: TaskId,
    /// When its last attempt was due.
    pub(super) due: Place,
    pub(super) payload: Bytes,
    pub(super) attempts: u32,
    pub(super) extra: Extra,
    pub(super) cause: BuryCause,
    pub(super) reason: Option<Reason>,
}

/// Which dead letters.
#[derive(Debug)]
pub(crate) enum DeadFilter {
    All,
    Ids(HashSet<TaskId>),
}

/// How far a redrive or purge has come.
#[derive(Debug)]
pub(crate) struct DeadWalk {
    from: u64,
    until: u64,
    /// Letters redriven so far, which the rate staggers.
    pub(crate) affected: u64,
    pub(crate) kept: u64,
}

impl DeadStore {
    pub(super) fn new(max: usize) -> Self {
        Self { letters: BTreeMap::new(), next: 0, max, dropped: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.letters.values().for_each(|dead| usage.add(dead.bytes()));
        usage
    }

    /// Buries a task that was taken out of the store; answers what that counts, and what had to be dropped for it.
    pub(super) fn add(&mut self, now: Now, burial: Burial) -> (Usage, Usage) {
        let Burial { id, due, payload, attempts, extra, cause, reason } = burial;
        let reason = reason.or(extra.last_failure).unwrap_or_default();
        let buried_at = delayline_core::Timestamp::from_unix_micros(now.wall_us as i64);
        let mut letter = DeadLetter::new(id, cause, reason, buried_at, payload);
        letter.due_at = now.shown(due);
        letter.attempts = attempts;
        letter.headers = extra.headers;
        letter.group = extra.group;
        let dead = Box::new(Dead { letter, max_attempts: extra.max_attempts });
        let (mut added, mut dropped) = (Usage::default(), Usage::default());
        added.add(dead.bytes());
        self.letters.insert(self.next, dead);
        self.next += 1;
        while self.letters.len() > self.max {
            if let Some((_, oldest)) = self.letters.pop_first() {
                dropped.add(oldest.bytes());
                self.dropped += 1;
            }
        }
        (added, dropped)
    }

    /// Goes on with the numbers of another store, so that a place in its listing is no place in this one's.
    pub(super) fn continue_after(&mut self, other: &Self) {
        self.next = other.next;
    }
}

impl Dead {
    fn bytes(&self) -> u64 {
        let DeadLetter { id, reason, payload, headers, group, .. } = &self.letter;
        let texts =
            id.as_key().map_or(0, str::len) + reason.as_str().len() + group.as_ref().map_or(0, |g| g.as_str().len());
        TASK_BYTES + EXTRA_BYTES + (payload.len() + texts + headers.byte_len()) as u64
    }

    fn is_in(&self, filter: &DeadFilter) -> bool {
        match filter {
            DeadFilter::All => true,
            DeadFilter::Ids(ids) => ids.contains(&self.letter.id),
        }
    }
}

impl Store {
    /// A page of dead letters, the oldest first, and where the next page starts.
    pub(crate) fn dead_page(&self, after: Option<u64>, limit: usize) -> (Vec<DeadLetter>, Option<u64>) {
        let from = after.map_or(0, |after| after.saturating_add(1));
        let mut page = self.dead.letters.range(from..);
        let shown: Vec<_> = page.by_ref().take(limit).collect();
        let next = shown.last().map(|(at, _)| **at).filter(|_| page.next().is_some());
        (shown.into_iter().map(|(_, dead)| dead.letter.clone()).collect(), next)
    }

    /// Begins a redrive or purge of what is buried now.
    pub(crate) fn dead_walk(&self) -> DeadWalk {
        DeadWalk { from: 0, until: self.dead.next, affected: 0, kept: 0 }
    }

    /// Deletes the next dead letters; true when it is through.
    pub(crate) fn purge(&mut self, filter: &DeadFilter, walk: &mut DeadWalk) -> bool {
        let (chunk, through) = self.dead_chunk(filter, walk);
        self.note_work(CHUNK);
        for at in chunk {
            if let Some(dead) = self.dead.letters.remove(&at) {
                self.freed.add(dead.bytes());
                walk.affected += 1;
            }
        }
        through
    }

    /// Schedules the next dead letters again, the i-th after `i` times `gap_us`; true when it is through.
    pub(crate) fn redrive(&mut self, now: Now, filter: &DeadFilter, gap_us: f64, walk: &mut DeadWalk) -> bool {
        let (chunk, through) = self.dead_chunk(filter, walk);
        self.note_work(CHUNK);
        for at in chunk {
            let Some(dead) = self.dead.letters.remove(&at) else { continue };
            if !self.can_accept() || !self.make_way(&dead.letter.id) {
                self.dead.letters.insert(at, dead);
                walk.kept += 1;
                continue;
            }
            self.freed.add(dead.bytes());
            let wait = std::time::Duration::from_micros((walk.affected as f64 * gap_us) as u64);
            let Dead { letter, max_attempts } = *dead;
            let mut task = NewTask::new(Due::NOW, letter.payload).id(letter.id).headers(letter.headers);
            task.group = letter.group;
            task.on_conflict = OnConflict::Keep;
            task.max_attempts = max_attempts.and_then(|n| Attempts::new(n).ok()).unwrap_or_default();
            self.grown.add(super::bytes_of(&task));
            self.accept(now, Place::mono(now.mono_after(wait)), None, task);
            walk.affected += 1;
        }
        through
    }

    pub(crate) fn dead_len(&self) -> u64 {
        self.dead.len() as u64
    }

    pub(super) fn dead_dropped(&self) -> u64 {
        self.dead.dropped()
    }

    /// The selected ones among the next letters, and whether they were the last.
    fn dead_chunk(&self, filter: &DeadFilter, walk: &mut DeadWalk) -> (Vec<u64>, bool) {
        let mut seen = 0;
        let mut chunk = Vec::new();
        for (at, dead) in self.dead.letters.range(walk.from..walk.until).take(CHUNK) {
            seen += 1;
            walk.from = at + 1;
            if dead.is_in(filter) {
                chunk.push(*at);
            }
        }
        (chunk, seen < CHUNK)
    }
}
