//! The layout of a task in memory: 40 bytes, its payload, and a second record only for the fields that most tasks don't
//! use.

use bytes::Bytes;
use delayline_core::{Attempts, GroupName, Headers, NewTask, Reason, TaskId};

use crate::now::Place;
use crate::payloads::{PayloadAt, SMALL_BYTES_MAX};
use crate::wheel::Key;

/// An index that refers to nothing.
pub(super) const NOWHERE: u32 = u32::MAX;

const MS_BITS: u32 = 44;
const MS_MASK: u64 = (1 << MS_BITS) - 1;
const WALL: u64 = 1 << MS_BITS;
const IN_FLIGHT: u64 = 1 << (MS_BITS + 1);
const CANCELLED: u64 = 1 << (MS_BITS + 2);
const GENERATED: u64 = 1 << (MS_BITS + 3);
const TURN_SHIFT: u32 = MS_BITS + 4;
const TURN_MASK: u64 = 0xf << TURN_SHIFT;

/// Bits of a key's slot that hold the index of the task. The bits above hold its turn.
const INDEX_BITS: u32 = 28;

/// Maximum number of tasks in a queue, so that every index fits.
pub(super) const TASKS_MAX: usize = (1 << INDEX_BITS) - 1024;

/// The index of a key's task.
pub(super) fn index_of(key: Key) -> u32 {
    key.slot() & ((1 << INDEX_BITS) - 1)
}

const ATTEMPT_BITS: u32 = 16;

/// A task that is pending or in flight.
///
/// At every moment, either one key in the wheels belongs to it, the one with its `visible` place and its `seq`, or its
/// lease is in a list. A change of `visible` makes the old key stale without touching it.
#[derive(Debug)]
pub(super) struct Entry {
    /// When it is next visible, in the low 44 bits (due, retry or lease end), and flags: on which clock, in flight,
    /// cancelled in flight, generated id. Above them its turn: 4 bits that count its changes of place, so that a
    /// task which is moved away and back does not make its old key valid again.
    visible: u64,
    /// Assigned at acceptance, never twice in a queue; kept until the task ends.
    pub(super) seq: u64,
    /// For a generated id: its milliseconds, in the high 48 bits. Below: attempts so far.
    id_ms_and_attempt: u64,
    /// The index of the `Extra`, or `NOWHERE`.
    pub(super) extra: u32,
    /// The index of the `Live`, or `NOWHERE`. There is one while `in_flight`.
    pub(super) live: u32,
    /// The location of a small payload. A large one is in `Extra`; then this is empty.
    payload_index: u32,
    payload_len: u16,
}

/// The fields that most tasks don't use. Its entry owns it.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// The custom id; `None` for a generated one.
    pub(super) id: Option<TaskId>,
    /// A payload that is too large for `Payloads`.
    pub(super) payload: Option<Bytes>,
    pub(super) headers: Headers,
    pub(super) group: Option<GroupName>,
    pub(super) expires: Option<Place>,
    /// `None` for the default number.
    pub(super) attempts_max: Option<u32>,
    pub(super) last_failure: Option<Reason>,
}

/// Whether a task needs no `Extra`.
pub(super) fn is_plain(task: &NewTask) -> bool {
    task.id.is_none()
        && task.group.is_none()
        && task.expires.is_none()
        && task.headers.is_empty()
        && task.payload.len() <= SMALL_BYTES_MAX
        && task.attempts_max == Attempts::default()
}

impl Entry {
    pub(super) fn new(place: Place, seq: u64, payload: PayloadAt) -> Self {
        let mut entry = Self {
            visible: 0,
            seq,
            id_ms_and_attempt: 0,
            extra: NOWHERE,
            live: NOWHERE,
            payload_index: payload.index,
            payload_len: payload.len,
        };
        entry.set_place(place);
        entry
    }

    pub(super) fn payload(&self) -> PayloadAt {
        PayloadAt { index: self.payload_index, len: self.payload_len }
    }

    pub(super) fn place(&self) -> Place {
        Place { wall: self.visible & WALL != 0, ms: self.visible & MS_MASK }
    }

    pub(super) fn set_place(&mut self, place: Place) {
        debug_assert!(place.ms <= MS_MASK, "a due time beyond the wheel");
        let turn = (self.visible >> TURN_SHIFT).wrapping_add(1) << TURN_SHIFT & TURN_MASK;
        let flags = self.visible & !(MS_MASK | WALL | TURN_MASK) | turn;
        self.visible = flags | (if place.wall { WALL } else { 0 }) | (place.ms & MS_MASK);
    }

    /// The wheel's key of this entry at `index`.
    pub(super) fn key(&self, index: u32) -> Key {
        Key::new(self.visible & MS_MASK, self.seq, self.turn() << INDEX_BITS | index)
    }

    /// Whether a key from the wheel of one clock is the current key of this entry.
    pub(super) fn owns(&self, key: Key, wall: bool) -> bool {
        self.seq == key.seq()
            && self.visible & (MS_MASK | WALL) == key.due_ms() | if wall { WALL } else { 0 }
            && self.turn() == key.slot() >> INDEX_BITS
    }

    fn turn(&self) -> u32 {
        ((self.visible & TURN_MASK) >> TURN_SHIFT) as u32
    }

    pub(super) fn in_flight(&self) -> bool {
        self.visible & IN_FLIGHT != 0
    }

    pub(super) fn set_in_flight(&mut self, yes: bool) {
        self.set(IN_FLIGHT, yes);
    }

    pub(super) fn cancelled(&self) -> bool {
        self.visible & CANCELLED != 0
    }

    pub(super) fn set_cancelled(&mut self) {
        self.set(CANCELLED, true);
    }

    /// The milliseconds of a generated id; `None` for a custom one.
    pub(super) fn generated_ms(&self) -> Option<u64> {
        (self.visible & GENERATED != 0).then_some(self.id_ms_and_attempt >> ATTEMPT_BITS)
    }

    pub(super) fn set_generated_ms(&mut self, ms: u64) {
        self.set(GENERATED, true);
        self.id_ms_and_attempt = ms << ATTEMPT_BITS | u64::from(self.attempt());
    }

    pub(super) fn attempt(&self) -> u32 {
        (self.id_ms_and_attempt & ((1 << ATTEMPT_BITS) - 1)) as u32
    }

    pub(super) fn set_attempt(&mut self, attempt: u32) {
        debug_assert!(attempt < 1 << ATTEMPT_BITS, "attempts are limited to far less");
        self.id_ms_and_attempt = self.id_ms_and_attempt >> ATTEMPT_BITS << ATTEMPT_BITS | u64::from(attempt);
    }

    fn set(&mut self, flag: u64, yes: bool) {
        self.visible = if yes { self.visible | flag } else { self.visible & !flag };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_40_bytes_and_its_fields_do_not_touch_each_other() {
        assert_eq!(size_of::<Entry>(), 40);
        let mut entry = Entry::new(Place::wall(MS_MASK), 7, PayloadAt { index: u32::MAX, len: 1024 });
        entry.set_generated_ms((1 << 48) - 1);
        entry.set_attempt(10_000);
        entry.set_in_flight(true);
        entry.set_cancelled();
        assert_eq!(entry.place(), Place::wall(MS_MASK));
        entry.set_place(Place::mono(3));
        assert_eq!(
            (entry.place(), entry.attempt(), entry.generated_ms()),
            (Place::mono(3), 10_000, Some((1 << 48) - 1))
        );
        assert!(entry.in_flight() && entry.cancelled());
        let key = entry.key(5);
        assert_eq!((key.due_ms(), key.seq(), index_of(key)), (3, 7, 5));
        assert!(entry.owns(key, false) && !entry.owns(key, true));
        entry.set_place(Place::mono(4));
        entry.set_place(Place::mono(3));
        assert!(!entry.owns(key, false), "away and back is another turn");
        entry.set_in_flight(false);
        entry.set_attempt(1);
        assert_eq!((entry.place(), entry.attempt(), entry.generated_ms()), (Place::mono(3), 1, Some((1 << 48) - 1)));
    }
}
