//! Claims tasks.

use bytes::Bytes;
use delayline_core::{Claim, Claimed, ClaimedTask, DeadLetterCause, Lease, Reason};

use crate::now::{Now, Place};
use crate::wheel::Key;

use super::leases::Live;
use super::letters::Burial;
use super::task::{Entry, Extra, NOWHERE, index_of};
use super::wheels::{BUDGET, Head};
use super::{Store, WALL_CHECK, receipt};

/// The progress of a claim under one lock.
#[derive(Debug)]
pub(crate) enum ClaimStep {
    Done(Claimed),
    /// Nothing claimed yet, and more to visit: release the lock, then continue. The number counts the tasks that were
    /// dead-lettered so far.
    Again {
        dead_lettered: u64,
    },
}

/// Number of tasks that are looked up together.
const BLOCK: usize = 64;

/// Cost of removing a task, in moved keys.
const BURIAL: usize = 15;

/// Maximum number of tasks that are delivered under one lock.
pub(crate) const CLAIM_MAX: usize = 4_096;

impl Store {
    /// Claims due tasks, at most `max`. The caller has limited `max` to `CLAIM_MAX`.
    pub(crate) fn claim(&mut self, now: Now, claim: Claim) -> ClaimStep {
        let mut claimed = Claimed::default();
        if self.paused || claim.max == 0 {
            return ClaimStep::Done(self.arm(now, claimed));
        }
        let lease = Length::of(now, claim.lease);
        let max = claim.max.min(CLAIM_MAX);
        let full_budget = BUDGET.max(2 * max);
        let mut budget = full_budget;
        let mut bytes = 0;
        let mut finished = false;
        let expected = self.claimed_last.min(max);
        let mut block = Vec::with_capacity(BLOCK.min(max));
        while claimed.deliveries.len() < max && budget > 0 && !finished {
            if !self.end_leases(now, &mut budget) || !self.wheels.advance(now, &mut budget) {
                break;
            }
            self.wheels.take_block(now, BLOCK.min(max - claimed.deliveries.len()), &mut block);
            budget = budget.saturating_sub(block.len());
            finished = block.is_empty();
            claimed.deliveries.reserve(block.len().max(expected - claimed.deliveries.len().min(expected)));
            self.touch(block.iter().map(|head| index_of(head.key)));
            let copies = self.copy_payloads(&block);
            for (at, &head) in block.iter().enumerate() {
                let index = index_of(head.key);
                match self.judge(now, head) {
                    Judged::Stale => self.wheels.took_stale(head.wall),
                    Judged::Cancelled => {
                        self.remove(index);
                        budget = budget.saturating_sub(BURIAL);
                    }
                    Judged::DeadLetter(cause) => {
                        budget = budget.saturating_sub(BURIAL);
                        self.dead_letter(now, index, cause, None);
                        claimed.dead_lettered += 1;
                    }
                    Judged::Deliver(payload_bytes) => {
                        bytes += payload_bytes;
                        if bytes > claim.max_bytes && !claimed.deliveries.is_empty() {
                            block[at..].iter().for_each(|rest| self.wheels.insert(rest.wall, rest.key));
                            finished = true;
                            break;
                        }
                        claimed.deliveries.extend(self.deliver(now, head, lease, copies.get(at)));
                    }
                }
            }
        }
        self.claimed_last = claimed.deliveries.len();
        self.note_work(full_budget - budget);
        self.sweep(claimed.deliveries.len().max(1024));
        if claimed.deliveries.is_empty() && !finished {
            return ClaimStep::Again { dead_lettered: claimed.dead_lettered };
        }
        ClaimStep::Done(self.arm(now, claimed))
    }

    /// Gives keys to tasks whose leases have ended. Returns false if the budget ran out first.
    fn end_leases(&mut self, now: Now, budget: &mut usize) -> bool {
        while *budget > 0 {
            let Some(index) = self.leases.ended(now.mono_ms()) else { return true };
            if let Some(entry) = self.tasks.get(index) {
                self.wheels.insert(false, entry.key(index));
            }
            *budget -= 1;
        }
        false
    }

    /// Loads the memory of some tasks, in loops so short that the processor fetches many at a time. Tasks that are due
    /// together may be anywhere in memory, and waiting for each of them would be most of a claim's time.
    pub(super) fn touch(&self, tasks: impl Iterator<Item = u32> + Clone) {
        let entries = tasks.filter_map(|index| self.tasks.get(index));
        let line = |bytes: &[u8]| bytes.iter().step_by(64).fold(0, |sum, byte| sum ^ byte);
        let payload = |entry: &Entry| line(self.payloads.get(entry.payload()));
        let seqs = entries.clone().fold(0, |sum, entry| sum ^ entry.seq);
        let payloads = entries.fold(0, |sum, entry| sum ^ payload(entry));
        std::hint::black_box((seqs, payloads));
    }

    /// The small payloads of a block in one allocation: one for each would cost as much as the rest of the claim. The
    /// tasks of a block share the copy, 64 KiB at most, until the last is dropped.
    fn copy_payloads(&self, block: &[Head]) -> Copies {
        let own = |head: &Head| self.tasks.get(index_of(head.key)).filter(|entry| entry.owns(head.key, head.wall));
        let payload = |head: &Head| own(head).map_or(&[][..], |entry| self.payloads.get(entry.payload()));
        let mut bytes = Vec::with_capacity(block.iter().map(|head| payload(head).len()).sum());
        let mut ends = Vec::with_capacity(block.len());
        for head in block {
            bytes.extend_from_slice(payload(head));
            ends.push(bytes.len());
        }
        Copies { bytes: bytes.into(), ends }
    }

    fn judge(&self, now: Now, head: Head) -> Judged {
        let Some(entry) = self.tasks.get(index_of(head.key)).filter(|entry| entry.owns(head.key, head.wall)) else {
            return Judged::Stale;
        };
        if entry.cancelled() {
            return Judged::Cancelled;
        }
        let extra = self.extra(entry);
        if extra.and_then(|extra| extra.expires).is_some_and(|expires| now.passed(expires)) {
            return Judged::DeadLetter(DeadLetterCause::Expired);
        }
        if entry.attempt() >= self.max_attempts_of(entry) {
            return Judged::DeadLetter(DeadLetterCause::AttemptsUsedUp);
        }
        Judged::Deliver(
            extra
                .and_then(|extra| extra.payload.as_ref())
                .map_or(usize::from(entry.payload().len), |large| large.len()),
        )
    }

    /// Puts a task whose key was taken out under a lease.
    fn deliver(&mut self, now: Now, head: Head, lease: Length, small: Bytes) -> Option<ClaimedTask> {
        let index = index_of(head.key);
        let due = Place { wall: head.wall, ms: head.key.due_ms() };
        self.last_fence = now.wall_us.max(self.last_fence + 1);
        let fence = self.last_fence;
        let live = self.leases.insert(Live::new(fence, due));
        let entry = self.tasks.get_mut(index)?;
        // A lease that ended unsettled still has its `Live`.
        let ended = std::mem::replace(&mut entry.live, live);
        entry.set_in_flight(true);
        entry.set_attempt(entry.attempt() + 1);
        if ended != NOWHERE {
            self.leases.remove(ended);
        }
        self.show_at_end(now, index, lease.ms, lease.ends_ms);
        let entry = self.tasks.get(index)?;
        let ends_at = now.shown(Place::mono(lease.ends_ms));
        let lease = Lease::new(self.id_of(index, entry), fence, entry.attempt(), ends_at, receipt(index, entry.seq));
        let payload = match self.extra(entry) {
            Some(Extra { payload: Some(large), .. }) => large.clone(),
            Some(_) | None => small,
        };
        let mut task = ClaimedTask::new(lease, now.shown(due), now.since(due), payload);
        task.attempts_max = self.max_attempts_of(entry);
        if let Some(extra) = self.extra(entry) {
            task.expires_at = extra.expires.map(|expires| now.shown(expires));
            task.headers = extra.headers.clone();
            task.group = extra.group.clone();
        }
        Some(task)
    }

    /// Records when the claiming subscription will wake by itself, and returns it.
    fn arm(&mut self, now: Now, mut claimed: Claimed) -> Claimed {
        // Keys of ended tasks, such as the ends of their leases, don't count.
        let nothing = self.paused || self.tasks.len() == 0;
        let (mono, wall) = if nothing { (None, None) } else { self.wheels.next() };
        let lease = if nothing { None } else { self.leases.next_end_ms().map(Place::mono) };
        let wall_check = WALL_CHECK;
        let in_mono = mono.map(|place| now.until(place));
        let in_wall = wall.map(|place| now.until(place).min(wall_check));
        claimed.next_due_in = in_mono.into_iter().chain(in_wall).chain(lease.map(|end| now.until(end))).min();
        let wakes_at_us = claimed
            .next_due_in
            .map_or(u64::MAX, |wait| now.mono_us.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)));
        self.armed_us = self.armed_us.max(wakes_at_us);
        claimed
    }

    /// Moves a task whose key has been taken out or declared stale to the dead letters.
    pub(super) fn dead_letter(&mut self, now: Now, index: u32, cause: DeadLetterCause, reason: Option<Reason>) {
        let Some(entry) = self.tasks.get(index) else { return };
        let (id, due, payload) = (self.id_of(index, entry), self.due_of(entry), self.payload_of(entry));
        if let Some((entry, extra)) = self.detach(index) {
            self.free(&entry, extra.as_ref());
            let extra = extra.unwrap_or_default();
            let attempts = entry.attempt();
            let (added, dropped) = self.dead.add(now, Burial { id, due, payload, attempts, extra, cause, reason });
            self.grown += added;
            self.freed += dropped;
        }
    }
}

/// The small payloads of a block.
struct Copies {
    bytes: Bytes,
    /// The end of each payload, where the next begins.
    ends: Vec<usize>,
}

impl Copies {
    fn get(&self, at: usize) -> Bytes {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.bytes.slice(start..self.ends[at])
    }
}

/// The duration of a lease, and the end of one that begins now.
#[derive(Clone, Copy)]
pub(super) struct Length {
    pub(super) ms: u64,
    pub(super) ends_ms: u64,
}

impl Length {
    pub(super) fn of(now: Now, lease: std::time::Duration) -> Self {
        let ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        Self { ms, ends_ms: now.mono_after(lease).min(Key::MAX_DUE_MS) }
    }
}

enum Judged {
    Stale,
    Cancelled,
    DeadLetter(DeadLetterCause),
    Deliver(usize),
}
