//! Changes pending tasks, one at a time, or a group in bounded chunks.

use delayline_core::{Action, Capabilities, ChangeOutcome, Changed, Error, GroupName, Result, Shift, TaskRef};

use crate::now::{Now, Place};

use super::Store;
use super::schedule::{in_range, place_of};
use super::task::Entry;

/// Number of members that are changed under one lock.
const CHUNK: usize = 4096;

/// The progress of a group change, kept between its chunks and under its operation id.
#[derive(Debug, Default)]
pub(crate) struct GroupWalk {
    /// The next sequence to visit.
    from: u64,
    /// The sequence at which the change began. Later tasks are not changed.
    until: u64,
    pub(crate) changed: Changed,
}

impl Store {
    /// Begins a change of the tasks that are in a group now.
    pub(crate) fn walk(&self) -> GroupWalk {
        GroupWalk { from: 0, until: self.next_seq, changed: Changed::default() }
    }

    /// Changes the next members of a group. Returns true at the end.
    pub(crate) fn change_group(
        &mut self,
        now: Now,
        caps: &Capabilities,
        group: &GroupName,
        action: Action,
        walk: &mut GroupWalk,
    ) -> bool {
        let chunk: Vec<(u64, u32)> = match self.groups.get(group) {
            Some(members) => members.range(walk.from..walk.until).take(CHUNK).map(|(seq, at)| (*seq, *at)).collect(),
            None => Vec::new(),
        };
        self.touch(chunk.iter().map(|(_, index)| *index));
        for (seq, index) in &chunk {
            let outcome = self.change_at(now, caps, *index, action);
            walk.changed.count(&outcome);
            walk.from = seq + 1;
        }
        self.note_work(chunk.len());
        self.sweep(4 * chunk.len());
        chunk.len() < CHUNK
    }

    /// Changes one task.
    pub(crate) fn change_task(
        &mut self,
        now: Now,
        caps: &Capabilities,
        task: &TaskRef,
        action: Action,
    ) -> Result<ChangeOutcome> {
        match self.by_ref(task) {
            Some(index) => self.change_at(now, caps, index, action),
            None => Ok(ChangeOutcome::NotFound),
        }
    }

    fn change_at(&mut self, now: Now, caps: &Capabilities, index: u32, action: Action) -> Result<ChangeOutcome> {
        let Some(entry) = self.tasks.get(index) else { return Ok(ChangeOutcome::NotFound) };
        let (place, leased, cancelled) = (entry.place(), self.leased(now, entry), entry.cancelled());
        if cancelled && !leased {
            // Its lease ended after the cancel: there is nothing left to change.
            self.finish(index);
            return Ok(ChangeOutcome::NotFound);
        }
        let target = match action {
            Action::Cancel if leased => {
                if let Some(entry) = self.tasks.get_mut(index) {
                    entry.set_cancelled();
                }
                return Ok(ChangeOutcome::InFlight);
            }
            Action::Cancel => {
                self.finish(index);
                return Ok(ChangeOutcome::Changed);
            }
            Action::MoveTo(_) | Action::Shift(_) if leased => return Ok(ChangeOutcome::InFlight),
            Action::MoveTo(due) => place_of(now, caps, due)?,
            Action::Shift(by) => shifted(now, caps, place, by)?,
            _ => return Err(unsupported()),
        };
        if target == place && !self.tasks.get(index).is_some_and(Entry::in_flight) {
            return Ok(ChangeOutcome::Changed);
        }
        self.hide(index);
        // The move invalidates a lease that ended unsettled.
        self.end_lease(index);
        self.show_at(now, index, target);
        Ok(ChangeOutcome::Changed)
    }
}

/// A place shifted on its clock, within the range from now.
fn shifted(now: Now, caps: &Capabilities, place: Place, by: Shift) -> Result<Place> {
    in_range(now, caps, Place { wall: place.wall, ms: place.ms.saturating_add_signed(by.as_millis()) })
}

/// Checks a change as far as possible before any task is touched.
pub(crate) fn check(now: Now, caps: &Capabilities, action: Action) -> Result<(), Error> {
    match action {
        Action::MoveTo(due) => place_of(now, caps, due).map(drop),
        Action::Cancel | Action::Shift(_) => Ok(()),
        _ => Err(unsupported()),
    }
}

fn unsupported() -> Error {
    Error::unsupported("this change")
}
