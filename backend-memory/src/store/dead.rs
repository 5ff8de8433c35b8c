//! Lists, redrives and purges dead letters.

use std::collections::HashSet;

use delayline_core::{Attempts, DeadLetter, Due, NewTask, OnConflict, TaskId};

use crate::now::{Now, Place};

use super::Store;
use super::letters::Dead;
use super::usage::bytes_of;

/// Number of dead letters that are handled under one lock.
const CHUNK: usize = 1024;

/// A selection of dead letters.
#[derive(Debug)]
pub(crate) enum DeadFilter {
    All,
    Ids(HashSet<TaskId>),
}

impl DeadFilter {
    fn takes(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => ids.contains(&letter.id),
        }
    }
}

/// The progress of a redrive or purge.
#[derive(Debug)]
pub(crate) struct DeadWalk {
    from: u64,
    until: u64,
    /// Number of letters redriven so far, for the stagger of the rate.
    pub(crate) affected: u64,
    pub(crate) kept: u64,
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

    /// Begins a redrive or purge of the letters that exist now.
    pub(crate) fn dead_walk(&self) -> DeadWalk {
        DeadWalk { from: 0, until: self.dead.next, affected: 0, kept: 0 }
    }

    /// Deletes the next dead letters. Returns true at the end.
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

    /// Schedules the next dead letters again, the i-th after `i` times `gap_us`. Returns true at the end.
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
            let Dead { letter, attempts_max } = *dead;
            let mut task = NewTask::new(Due::NOW, letter.payload).id(letter.id).headers(letter.headers);
            task.group = letter.group;
            task.on_conflict = OnConflict::Keep;
            task.attempts_max = attempts_max.and_then(|n| Attempts::new(n).ok()).unwrap_or_default();
            self.grown.add(bytes_of(&task));
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
            if filter.takes(&dead.letter) {
                chunk.push(*at);
            }
        }
        (chunk, seen < CHUNK)
    }
}
