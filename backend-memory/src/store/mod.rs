//! One queue as a pure, synchronous state machine: every operation gets the time; none waits or reads a clock.
//!
//! Invariants:
//! 1. A task is an [`Entry`] in `tasks`. Either one key in `wheels` belongs to it (place and sequence are equal), or
//!    its lease is in a list of `leases`. Every other key is stale, is counted as such, and is dropped when it is found
//!    or swept.
//! 2. A lease is a later due time: a claim moves the entry to the lease's end, so that a task whose lease ends becomes
//!    due. `in_flight` says that the place is a lease's end; exactly then, there is a `Live`.
//! 3. `keys`, `groups`, `extras` and `payloads` contain exactly what the entries refer to. Only `detach` removes an
//!    entry.
//! 4. `armed_us`, on the monotonic clock, is no earlier than any time at which a sleeping subscription wakes by itself.
//!    A task that becomes visible before it sets `notification`, which the caller sends after it has released the lock.
//!
//! Work that grows with the number of tasks is cut by a budget, so that no call holds the lock for more than a few
//! milliseconds.

mod change;
mod claim;
mod dead;
mod ids;
mod leases;
mod letters;
mod schedule;
mod settle;
mod task;
mod usage;
mod view;
mod wheels;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use delayline_core::{GroupName, Receipt, TaskId, TaskRef};

use crate::arena::Arena;
use crate::now::{Now, Place};
use crate::payloads::Payloads;

pub(crate) use change::GroupWalk;
pub(crate) use change::check as check_change;
pub(crate) use claim::{CLAIM_MAX, ClaimStep};
pub(crate) use dead::{DeadFilter, DeadWalk};
use ids::{IdCodec, KeyMap};
use leases::{Leases, Live};
use letters::DeadStore;
use task::{Entry, Extra, NOWHERE, index_of};
use usage::{TASK_BYTES, extra_bytes};
pub(crate) use usage::{Usage, bytes_of, full, full_for_now};
pub(crate) use view::{ListScan, StatsScan, rank_of};
use wheels::Wheels;

/// Maximum delay: 2^40 - 1 ms, 34.8 years.
pub(crate) const DELAY_MAX: Duration = Duration::from_millis((1 << 40) - 1);

/// Time within which a step of the wall clock is noticed: no sleep is longer while tasks wait for the wall clock.
pub(crate) const WALL_CHECK: Duration = Duration::from_secs(30);

/// Number of tasks or keys that count as long work: about 0.1 ms.
const LONG: usize = 512;

/// One queue.
#[derive(Debug)]
pub(crate) struct Store {
    tasks: Arena<Entry>,
    extras: Arena<Extra>,
    leases: Leases,
    payloads: Payloads,
    wheels: Wheels,
    keys: KeyMap,
    codec: IdCodec,
    groups: HashMap<GroupName, BTreeMap<u64, u32>>,
    dead: DeadStore,
    next_seq: u64,
    last_fence: u64,
    paused: bool,
    armed_us: u64,
    notification: bool,
    /// Whether the work under this lock was long; then a waiting thread gets the lock next.
    long: bool,
    /// Number of tasks in the last claim: an estimate for the next.
    claimed_last: usize,
    /// Tasks and bytes that left since the caller last asked, and those that were added without a reservation.
    freed: Usage,
    grown: Usage,
    /// Number of open subscriptions, maintained by the caller.
    pub(crate) subscriptions: usize,
    /// Set by the caller when this store is no longer in its registry. A call that finds it set looks the queue up
    /// again.
    pub(crate) retired: bool,
}

/// Counters that must not restart when a queue is created again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Floors {
    pub(crate) seq: u64,
    pub(crate) fence: u64,
}

impl Floors {
    pub(crate) fn raise(&mut self, to: Self) {
        self.seq = self.seq.max(to.seq);
        self.fence = self.fence.max(to.fence);
    }
}

impl Store {
    pub(crate) fn new(now: Now, floors: Floors, dead_max: usize, rng: &mut fastrand::Rng) -> Self {
        Self {
            tasks: Arena::new(),
            extras: Arena::new(),
            leases: Leases::new(),
            payloads: Payloads::default(),
            wheels: Wheels::new(now),
            keys: KeyMap::new(),
            codec: IdCodec::new(rng),
            groups: HashMap::new(),
            dead: DeadStore::new(dead_max),
            next_seq: floors.seq,
            last_fence: floors.fence,
            paused: false,
            armed_us: 0,
            notification: false,
            long: false,
            claimed_last: 0,
            freed: Usage::default(),
            grown: Usage::default(),
            subscriptions: 0,
            retired: false,
        }
    }

    pub(crate) fn floors(&self) -> Floors {
        Floors { seq: self.next_seq, fence: self.last_fence }
    }

    /// Replaces this store by an empty one, which keeps its subscriptions and continues its numbers. Returns the old
    /// one.
    pub(crate) fn replace_with(&mut self, mut fresh: Self) -> Self {
        fresh.subscriptions = self.subscriptions;
        fresh.retired = self.retired;
        fresh.next_seq = self.next_seq;
        fresh.last_fence = self.last_fence;
        fresh.dead.continue_after(&self.dead);
        fresh.notification = true;
        std::mem::replace(self, fresh)
    }

    /// Whether this queue can be forgotten without losing anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.len() == 0 && self.dead.len() == 0 && !self.paused && self.subscriptions == 0
    }

    /// Whether [`queues`](delayline_core::DelayBackend::queues) lists this queue.
    pub(crate) fn is_shown(&self) -> bool {
        !self.retired && !self.is_idle()
    }

    pub(crate) fn pause(&mut self, paused: bool) {
        self.notification |= self.paused && !paused;
        self.paused = paused;
    }

    /// Whether subscriptions must be woken since the last call.
    pub(crate) fn take_notification(&mut self) -> bool {
        std::mem::take(&mut self.notification)
    }

    /// Whether the work since the last call was long.
    pub(crate) fn take_long(&mut self) -> bool {
        std::mem::take(&mut self.long)
    }

    /// What left, and what was added without a reservation, since the last call.
    pub(crate) fn take_moved(&mut self) -> (Usage, Usage) {
        (std::mem::take(&mut self.freed), std::mem::take(&mut self.grown))
    }

    /// All tasks and bytes, as `max_tasks` and `max_bytes` count them.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = self.dead.usage();
        for index in 0..self.tasks.end() {
            if let Some(entry) = self.tasks.get(index) {
                usage.add(self.bytes_of(entry));
            }
        }
        usage
    }

    // ---- what the operations share ----

    fn extra(&self, entry: &Entry) -> Option<&Extra> {
        self.extras.get(entry.extra)
    }

    /// The entry's extra part. Creates it if there is none.
    fn extra_mut(&mut self, index: u32) -> Option<&mut Extra> {
        let entry = self.tasks.get_mut(index)?;
        if entry.extra == NOWHERE {
            entry.extra = self.extras.insert(Extra::default());
        }
        self.extras.get_mut(entry.extra)
    }

    fn bytes_of(&self, entry: &Entry) -> u64 {
        TASK_BYTES + u64::from(entry.payload().len) + self.extra(entry).map_or(0, extra_bytes)
    }

    fn id_of(&self, index: u32, entry: &Entry) -> TaskId {
        match (entry.generated_ms(), self.extra(entry)) {
            (Some(ms), _) => TaskId::from_uuid(self.codec.id(ms, index, entry.seq)),
            (None, Some(Extra { id: Some(id), .. })) => id.clone(),
            (None, _) => unreachable!("an id that we did not give is in the extra part"),
        }
    }

    fn payload_of(&self, entry: &Entry) -> Bytes {
        match self.extra(entry) {
            Some(Extra { payload: Some(large), .. }) => large.clone(),
            Some(_) | None => Bytes::copy_from_slice(self.payloads.get(entry.payload())),
        }
    }

    fn max_attempts_of(&self, entry: &Entry) -> u32 {
        self.extra(entry).and_then(|extra| extra.attempts_max).unwrap_or(delayline_core::limits::ATTEMPTS_DEFAULT)
    }

    fn task_ref(&self, now: Now, index: u32, entry: &Entry, due: Place) -> TaskRef {
        TaskRef::new(self.id_of(index, entry), now.shown(due), receipt(index, entry.seq))
    }

    /// The task of a receipt, if it still exists.
    fn by_receipt(&self, receipt: &Receipt) -> Option<u32> {
        let [index, seq] = receipt.words()?;
        let index = u32::try_from(index).ok()?;
        (self.tasks.get(index)?.seq == seq).then_some(index)
    }

    fn by_id(&self, id: &TaskId) -> Option<u32> {
        if let Some(uuid) = id.as_uuid() {
            let told = self.codec.read(uuid);
            let given = self.tasks.get(told.index).is_some_and(|entry| {
                entry.generated_ms() == Some(told.ms) && self.codec.id(told.ms, told.index, entry.seq) == uuid
            });
            if given {
                return Some(told.index);
            }
        }
        self.keys.find(id, |index| {
            let entry = self.tasks.get(index);
            entry.and_then(|entry| self.extra(entry)).is_some_and(|extra| extra.id.as_ref() == Some(id))
        })
    }

    /// Finds a task by its receipt, if given, which needs no map. A receipt of another task than `id` finds nothing.
    fn by_ref(&self, task: &TaskRef) -> Option<u32> {
        if task.receipt == Receipt::NONE {
            return self.by_id(&task.id);
        }
        let index = self.by_receipt(&task.receipt)?;
        (self.id_of(index, self.tasks.get(index)?) == task.id).then_some(index)
    }

    /// Whether it is under a lease that has not ended.
    fn leased(&self, now: Now, entry: &Entry) -> bool {
        entry.in_flight() && !now.reached(entry.place())
    }

    /// Makes an entry visible at a place. It must have been taken out or hidden from where it was visible before.
    fn show_at(&mut self, now: Now, index: u32, place: Place) {
        let Some(entry) = self.tasks.get_mut(index) else { return };
        entry.set_place(place);
        self.wheels.insert(place.wall, entry.key(index));
        self.ring_for(now, place);
    }

    /// Makes an entry under a lease visible at the lease's end. It must have been taken out or hidden from where it was
    /// visible before.
    fn show_at_end(&mut self, now: Now, index: u32, length_ms: u64, ends_ms: u64) {
        let Some(entry) = self.tasks.get_mut(index) else { return };
        entry.set_place(Place::mono(ends_ms));
        if !self.leases.enlist(entry.live, index, length_ms, ends_ms) {
            self.wheels.insert(false, entry.key(index));
        }
        self.ring_for(now, Place::mono(ends_ms));
    }

    /// Requests a notification, if subscriptions sleep beyond the time at which a task has become visible.
    fn ring_for(&mut self, now: Now, place: Place) {
        let wait = if place.wall { now.until(place).min(WALL_CHECK) } else { now.until(place) };
        let wake_at_us = now.mono_us.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
        if wake_at_us < self.armed_us {
            self.armed_us = 0;
            self.notification = true;
        }
    }

    /// Hides an entry: removes it from its list, or declares its key stale.
    fn hide(&mut self, index: u32) {
        if let Some(entry) = self.tasks.get(index)
            && !self.leases.unlist(entry.live)
        {
            self.wheels.gone_stale(entry.place().wall);
        }
    }

    /// Ends a lease. The caller decides when the task is visible.
    fn end_lease(&mut self, index: u32) -> Option<Live> {
        let entry = self.tasks.get_mut(index)?;
        entry.set_in_flight(false);
        let live = std::mem::replace(&mut entry.live, NOWHERE);
        self.leases.remove(live)
    }

    /// Removes a task whose key was taken out or declared stale.
    fn remove(&mut self, index: u32) {
        if let Some((entry, extra)) = self.detach(index) {
            self.free(&entry, extra.as_ref());
        }
    }

    /// Ends a task in any state.
    fn finish(&mut self, index: u32) {
        self.hide(index);
        self.remove(index);
    }

    /// Frees the small payload of a removed task, and counts it as removed.
    fn free(&mut self, entry: &Entry, extra: Option<&Extra>) {
        self.freed.add(TASK_BYTES + u64::from(entry.payload().len) + extra.map_or(0, extra_bytes));
        self.payloads.remove(entry.payload());
        if self.tasks.len() == 0 {
            self.payloads.trim();
        }
    }

    /// Removes a task whose key was taken out or declared stale. Its small payload, and what the task counts, stay
    /// until `free`.
    fn detach(&mut self, index: u32) -> Option<(Entry, Option<Extra>)> {
        let entry = self.tasks.remove(index)?;
        self.leases.remove(entry.live);
        let Some(extra) = self.extras.remove(entry.extra) else { return Some((entry, None)) };
        if let Some(id) = &extra.id {
            self.keys.remove(id, index);
        }
        if let Some(name) = &extra.group {
            self.leave_group(name, entry.seq);
        }
        Some((entry, Some(extra)))
    }

    fn leave_group(&mut self, name: &GroupName, seq: u64) {
        let Some(members) = self.groups.get_mut(name) else { return };
        members.remove(&seq);
        if members.is_empty() {
            self.groups.remove(name);
            if self.groups.capacity() > 64 && self.groups.len() * 8 < self.groups.capacity() {
                self.groups.shrink_to(self.groups.len() * 2);
            }
        }
    }

    /// Records how much was done under this lock: tasks, or moved keys.
    fn note_work(&mut self, units: usize) {
        self.long |= units >= LONG;
    }

    /// Drops stale keys once they outnumber the live ones. Each call does a bounded part of that work.
    fn sweep(&mut self, share: usize) {
        let tasks = &self.tasks;
        self.wheels.sweep(share, |key, wall| tasks.get(index_of(key)).is_some_and(|entry| entry.owns(key, wall)));
    }
}

/// The location of a task: an index, and the sequence that distinguishes it from later tasks at that index.
fn receipt(index: u32, seq: u64) -> Receipt {
    Receipt::from_words([u64::from(index), seq])
}

#[cfg(test)]
mod tests;
