//! Stores the dead letters of a queue, in the order in which they were dead-lettered, up to a limit.

use std::collections::BTreeMap;

use bytes::Bytes;
use delayline_core::{DeadLetter, DeadLetterCause, Reason, TaskId};

use crate::now::{Now, Place};

use super::task::Extra;
use super::usage::{EXTRA_BYTES, TASK_BYTES, Usage};

/// Dead letters in the order in which they were dead-lettered. Beyond `max`, the oldest are dropped.
#[derive(Debug)]
pub(super) struct DeadStore {
    pub(super) letters: BTreeMap<u64, Box<Dead>>,
    /// The number of the next letter.
    pub(super) next: u64,
    max: usize,
    dropped: u64,
}

#[derive(Debug)]
pub(super) struct Dead {
    pub(super) letter: DeadLetter,
    pub(super) attempts_max: Option<u32>,
}

/// A task that was taken out of the store to be dead-lettered.
pub(super) struct Burial {
    pub(super) id: TaskId,
    /// When its last attempt was due.
    pub(super) due: Place,
    pub(super) payload: Bytes,
    pub(super) attempts: u32,
    pub(super) extra: Extra,
    pub(super) cause: DeadLetterCause,
    pub(super) reason: Option<Reason>,
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

    /// Dead-letters a task that was taken out of the store. Returns what it counts, and what was dropped for it.
    pub(super) fn add(&mut self, now: Now, burial: Burial) -> (Usage, Usage) {
        let Burial { id, due, payload, attempts, extra, cause, reason } = burial;
        let reason = reason.or(extra.last_failure).unwrap_or_default();
        let dead_lettered_at = delayline_core::Timestamp::from_unix_micros(now.wall_us as i64);
        let mut letter = DeadLetter::new(id, cause, reason, dead_lettered_at, payload);
        letter.due_at = now.shown(due);
        letter.attempts = attempts;
        letter.headers = extra.headers;
        letter.group = extra.group;
        let dead = Box::new(Dead { letter, attempts_max: extra.attempts_max });
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

    /// Continues the numbers of another store, so that a position in its listing does not exist in this one's.
    pub(super) fn continue_after(&mut self, other: &Self) {
        self.next = other.next;
    }
}

impl Dead {
    pub(super) fn bytes(&self) -> u64 {
        let DeadLetter { id, reason, payload, headers, group, .. } = &self.letter;
        let texts =
            id.as_key().map_or(0, str::len) + reason.as_str().len() + group.as_ref().map_or(0, |g| g.as_str().len());
        TASK_BYTES + EXTRA_BYTES + (payload.len() + texts + headers.byte_len()) as u64
    }
}
