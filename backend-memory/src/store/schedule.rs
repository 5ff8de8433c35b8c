//! Schedules tasks.

use delayline_core::{
    Capabilities, Due, Error, ErrorKind, NewTask, OnConflict, Result, ScheduleOutcome, Scheduled, TaskId,
};

use crate::now::{Now, Place};
use crate::payloads::SMALL_BYTES_MAX;
use crate::wheel::Key;

use super::task::{Entry, Extra, TASKS_MAX, is_plain};
use super::usage::{Usage, full_for_now};
use super::{DELAY_MAX, Store};

impl Store {
    /// Accepts one task for which there is room. `freed` reports a task that it replaced.
    pub(crate) fn schedule(&mut self, now: Now, caps: &Capabilities, task: NewTask) -> Result<Scheduled> {
        caps.check(&task)?;
        let place = place_of(now, caps, task.due)?;
        let expires = task.expires.map(|expires| place_of(now, caps, expires)).transpose()?;
        if expires.is_some_and(|expires| now.line_ms(expires) < now.line_ms(place)) {
            return Err(Error::new(ErrorKind::Invalid, "the task expires before it is due"));
        }
        let mut outcome = ScheduleOutcome::Created;
        if !self.can_accept() {
            return Err(full_for_now("places in one queue, which is fixed", "its tasks end"));
        }
        if let Some(id) = &task.id
            && !self.make_way(id)
            && let Some(there) = self.by_id(id)
        {
            match task.on_conflict {
                OnConflict::Keep => return self.existing(now, there),
                OnConflict::Replace => {
                    self.finish(there);
                    outcome = ScheduleOutcome::Replaced;
                }
                _ => return Err(Error::unsupported("this conflict policy for ids")),
            }
        }
        let index = self.accept(now, place, expires, task);
        let entry = self.tasks.get(index).ok_or_else(vanished)?;
        Ok(Scheduled::new(self.task_ref(now, index, entry, place), outcome))
    }

    /// Whether there is a number and a place for one more task: after 142 years at a million a second, or for more than
    /// 268 million tasks at once, there is not.
    pub(super) fn can_accept(&self) -> bool {
        self.next_seq <= Key::MAX_SEQ && self.tasks.len() < TASKS_MAX
    }

    /// Inserts a task whose id is free: a new task, or a redriven dead letter. There must be room.
    pub(super) fn accept(&mut self, now: Now, place: Place, expires: Option<Place>, task: NewTask) -> u32 {
        let seq = self.next_seq;
        self.next_seq += 1;
        let plain = is_plain(&task);
        let (small, large) = match task.payload.len() {
            0..=SMALL_BYTES_MAX => (self.payloads.insert(&task.payload), None),
            _ => (self.payloads.insert(&[]), Some(task.payload)),
        };
        let mut entry = Entry::new(place, seq, small);
        if task.id.is_none() {
            entry.set_generated_ms(now.wall_ms());
        }
        if plain {
            let index = self.tasks.insert(entry);
            self.show_at(now, index, place);
            return index;
        }
        let attempts = task.attempts_max.get();
        let extra = Extra {
            id: task.id,
            payload: large,
            headers: task.headers,
            group: task.group,
            expires,
            attempts_max: (attempts != delayline_core::limits::ATTEMPTS_DEFAULT).then_some(attempts),
            last_failure: None,
        };
        let index = self.tasks.insert(entry);
        if let Some(id) = &extra.id {
            self.keys.insert(id, index);
        }
        if let Some(group) = &extra.group {
            self.groups.entry(group.clone()).or_default().insert(seq, index);
        }
        let at = self.extras.insert(extra);
        if let Some(entry) = self.tasks.get_mut(index) {
            entry.extra = at;
        }
        self.show_at(now, index, place);
        index
    }

    /// Whether an id is free. A task that was cancelled in flight does not keep its id: it is removed, and its lease is
    /// lost.
    pub(super) fn make_way(&mut self, id: &TaskId) -> bool {
        match self.by_id(id) {
            None => true,
            Some(there) if self.tasks.get(there).is_some_and(Entry::cancelled) => {
                self.finish(there);
                true
            }
            Some(_) => false,
        }
    }

    /// What the existing task with this id counts, if there is one.
    pub(crate) fn held_by(&self, task: &NewTask) -> Option<Usage> {
        let entry = self.tasks.get(self.by_id(task.id.as_ref()?)?)?;
        if entry.cancelled() {
            return None;
        }
        Some(Usage { tasks: 1, bytes: self.bytes_of(entry) })
    }

    fn existing(&self, now: Now, index: u32) -> Result<Scheduled> {
        let entry = self.tasks.get(index).ok_or_else(vanished)?;
        Ok(Scheduled::new(self.task_ref(now, index, entry, self.due_of(entry)), ScheduleOutcome::Existing))
    }
}

/// The place of a due time, checked against the range from now.
pub(super) fn place_of(now: Now, caps: &Capabilities, due: Due) -> Result<Place> {
    let place = match due {
        Due::After(delay) if delay > DELAY_MAX => return Err(caps.out_of_range()),
        Due::After(delay) => return in_wheel(caps, Place::mono(now.mono_after(delay))),
        Due::At(at) => Place::wall(u64::try_from(at.unix_millis_ceil()).unwrap_or(0)),
        _ => return Err(Error::unsupported("this kind of due time")),
    };
    in_range(now, caps, place)
}

/// Returns a place if it is within the range from now.
pub(super) fn in_range(now: Now, caps: &Capabilities, place: Place) -> Result<Place> {
    if now.until(place) > DELAY_MAX { Err(caps.out_of_range()) } else { in_wheel(caps, place) }
}

/// Returns a place if the wheel can hold it: up to the year 2527, or as long after the start.
fn in_wheel(caps: &Capabilities, place: Place) -> Result<Place> {
    if place.ms > Key::MAX_DUE_MS { Err(caps.out_of_range()) } else { Ok(place) }
}

fn vanished() -> Error {
    Error::new(ErrorKind::Corrupt, "a task vanished while it was being scheduled")
}
