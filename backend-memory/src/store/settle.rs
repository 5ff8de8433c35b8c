//! Ends and extends leases.

use std::time::Duration;

use delayline_core::{Capabilities, DeadLetterCause, Disposition, Due, Error, Lease, Reason, Result};

use crate::now::{Now, Place};

use super::Store;
use super::claim::Length;
use super::schedule::place_of;

impl Store {
    /// Ends one lease. Finds the task by the lease's receipt, not by the map of ids.
    pub(crate) fn settle(
        &mut self,
        now: Now,
        caps: &Capabilities,
        lease: &Lease,
        disposition: Disposition,
    ) -> Result<()> {
        let index = self.leased_at(lease).ok_or_else(Error::lease_lost)?;
        let cancelled = self.tasks.get(index).is_some_and(super::task::Entry::cancelled);
        match disposition {
            // A cancelled task ends with its lease, whatever the disposition.
            _ if cancelled => self.finish(index),
            Disposition::Complete => self.finish(index),
            Disposition::Retry { after, reason } => {
                let place = place_of(now, caps, Due::After(after))?;
                self.retry(now, index, place, reason);
            }
            Disposition::Snooze { after } => {
                let place = place_of(now, caps, Due::After(after))?;
                self.give_back(now, index, |_| place);
            }
            Disposition::DeadLetter { reason } => {
                self.hide(index);
                self.dead_letter(now, index, DeadLetterCause::Requested, Some(reason));
            }
            Disposition::Release => self.give_back(now, index, |old| old),
            _ => return Err(Error::unsupported("this disposition")),
        }
        Ok(())
    }

    /// Sets the end of one lease to `by` from now, if that is later than its end.
    pub(crate) fn extend(&mut self, now: Now, lease: &Lease, by: Duration) -> Result<Lease> {
        let index = self.leased_at(lease).ok_or_else(Error::lease_lost)?;
        let length = Length::of(now, by);
        let entry = self.tasks.get(index).ok_or_else(Error::lease_lost)?;
        let mut extended = lease.clone();
        extended.cancelled = entry.cancelled();
        extended.expires_at = now.shown(entry.place());
        if length.ends_ms > entry.place().ms {
            extended.expires_at = now.shown(Place::mono(length.ends_ms));
            self.hide(index);
            self.show_at_end(now, index, length.ms, length.ends_ms);
        }
        Ok(extended)
    }

    /// Loads the tasks of some leases, before they are settled one by one.
    pub(crate) fn touch_leased<'l>(&self, leases: impl Iterator<Item = &'l Lease> + Clone) {
        let index = |lease: &Lease| lease.receipt.words().and_then(|[index, _]| u32::try_from(index).ok());
        self.touch(leases.filter_map(index));
    }

    /// Sweeps in proportion to `settled` leases.
    pub(crate) fn sweep_after(&mut self, settled: usize) {
        self.note_work(settled);
        self.sweep((settled * 4).max(64));
    }

    /// The location of a lease's task, if the lease is still valid: not claimed again since, whether it has expired or
    /// not.
    fn leased_at(&self, lease: &Lease) -> Option<u32> {
        let index = self.by_receipt(&lease.receipt)?;
        let entry = self.tasks.get(index)?;
        let live = self.leases.get(entry.live)?;
        // Another queue's lease may have the same receipt and fence.
        (entry.in_flight() && live.fence == lease.fence && self.id_of(index, entry) == lease.id).then_some(index)
    }

    fn retry(&mut self, now: Now, index: u32, place: Place, reason: Reason) {
        self.hide(index);
        let used_up = self.tasks.get(index).is_some_and(|entry| entry.attempt() >= self.max_attempts_of(entry));
        if used_up {
            return self.dead_letter(now, index, DeadLetterCause::AttemptsUsedUp, Some(reason));
        }
        self.end_lease(index);
        if !reason.as_str().is_empty() {
            self.note_failure(index, reason);
        }
        self.show_at(now, index, place);
    }

    fn note_failure(&mut self, index: u32, reason: Reason) {
        let bytes = |store: &Self| store.tasks.get(index).map_or(0, |entry| store.bytes_of(entry));
        let before = bytes(self);
        if let Some(extra) = self.extra_mut(index) {
            extra.last_failure = Some(reason);
        }
        self.freed.bytes += before;
        self.grown.bytes += bytes(self);
    }

    /// Ends a lease without counting its attempt.
    fn give_back(&mut self, now: Now, index: u32, place: impl FnOnce(Place) -> Place) {
        self.hide(index);
        let Some(live) = self.end_lease(index) else { return };
        if let Some(entry) = self.tasks.get_mut(index) {
            entry.set_attempt(entry.attempt().saturating_sub(1));
        }
        self.show_at(now, index, place(live.old_place));
    }
}
