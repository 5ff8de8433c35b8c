//! The store and a model beside it: a list of tasks, looked through for every operation.

use std::time::Duration;

use super::super::*;
use super::op::Op;
use delayline_core::{
    Action, Attempts, Capabilities, ChangeOutcome, Claim, DeadLetterCause, Disposition, Due, ErrorKind, GroupName,
    Lease, NewTask, OnConflict, Page, ScheduleOutcome, Shift, TaskId, TaskRef, Timestamp,
};

#[derive(Clone, Debug)]
pub(super) struct Task {
    id: TaskId,
    order: u64,
    place: Place,
    attempt: u32,
    max: u32,
    expires: Option<Place>,
    group: Option<u8>,
    payload: String,
    /// Fence and old place of a lease, expired or not.
    lease: Option<(u64, Place)>,
    cancelled: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct DeadLettered {
    id: TaskId,
    cause: DeadLetterCause,
    payload: String,
    attempts: u32,
    max: u32,
    group: Option<u8>,
}

pub(super) struct Model {
    pub(super) tasks: Vec<Task>,
    dead: Vec<DeadLettered>,
    order: u64,
    fence: u64,
    paused: bool,
}

/// Both sides, the time, and every lease that was ever given.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) model: Model,
    pub(super) caps: Capabilities,
    pub(super) now: Now,
    pub(super) refs: Vec<TaskRef>,
    pub(super) leases: Vec<Lease>,
    /// What the shell would count: reserved less freed.
    used: Usage,
    scheduled: u32,
}

fn group_name(n: u8) -> GroupName {
    GroupName::new(format!("room-{n}")).unwrap()
}

impl World {
    pub(super) fn new() -> Self {
        let now = Now { mono_us: 5_000_300, wall_us: 1_800_000_000_000_700, offset_ms: 1_799_999_995_000 };
        let mut caps = Capabilities::minimal("model");
        caps.lease_hold = delayline_core::LeaseHold::Store;
        caps.groups = delayline_core::Support::Definite;
        caps.replace = delayline_core::Support::Definite;
        caps.delay_max = DELAY_MAX;
        Self {
            store: Store::new(now, Floors::default(), 1000, &mut fastrand::Rng::with_seed(1)),
            model: Model { tasks: vec![], dead: vec![], order: 0, fence: 0, paused: false },
            caps,
            now,
            refs: vec![],
            leases: vec![],
            used: Usage::default(),
            scheduled: 0,
        }
    }

    fn place(&self, at: bool, ms: u64) -> Place {
        // Every fourth wall time lies in the past.
        let wall = if ms % 4 == 3 { self.now.wall_ms().saturating_sub(ms) } else { self.now.wall_ms() + ms };
        if at { Place::wall(wall) } else { Place::mono(self.now.mono_after(Duration::from_millis(ms))) }
    }

    fn due(&self, at: bool, ms: u64) -> Due {
        if at {
            Due::At(Timestamp::from_unix_millis(self.place(true, ms).ms as i64))
        } else {
            Due::After(Duration::from_millis(ms))
        }
    }

    fn leased(&self, task: &Task) -> bool {
        task.lease.is_some() && !self.now.reached(task.place)
    }

    fn rank(&self, task: &Task) -> (i64, u64) {
        (self.now.line_ms(task.place), task.order)
    }

    pub(super) fn run(&mut self, op: Op) {
        match op {
            Op::Schedule { name, at, ms, group, expires, attempts, replace } => {
                self.schedule(name, at, ms, group, expires, attempts, replace);
            }
            Op::Claim { max, lease } => self.claim(max, lease),
            Op::Settle { pick, disposition, ms } => self.settle(pick, disposition, ms),
            Op::Extend { pick, ms } => self.extend(pick, ms),
            Op::Change { pick, by_name, action, ms } => self.change(pick, by_name, action, ms),
            Op::ChangeGroup { group, action, ms } => self.change_group(group, action, ms),
            Op::Pass { ms } => {
                let us = ms * 1000 + ms % 7 * 100;
                // Room for a few jumps over the whole range; what lies behind is another test's.
                if self.now.wall_us + us < 8_000_000_000_000_000 {
                    self.now.mono_us += us;
                    self.now.wall_us += us;
                }
            }
            Op::StepWall { ms, back } => {
                let us = ms * 1000;
                self.now.wall_us = if back {
                    self.now.wall_us.saturating_sub(us).max(1_000_000)
                } else {
                    (self.now.wall_us + us).min(8_000_000_000_000_000)
                };
                self.now.offset_ms = self.now.wall_ms() as i64 - self.now.mono_ms() as i64;
            }
            Op::Pause(yes) => {
                self.store.pause(yes);
                self.model.paused = yes;
            }
            Op::Purge => {
                let mut walk = self.store.dead_walk();
                assert!(self.store.purge(&DeadFilter::All, &mut walk));
                assert_eq!(walk.affected, self.model.dead.len() as u64);
                self.model.dead.clear();
            }
            Op::Redrive => self.redrive(),
            Op::Look => self.look(),
        }
        self.check();
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn schedule(
        &mut self,
        name: Option<u8>,
        at: bool,
        ms: u64,
        group: Option<u8>,
        expires: Option<u64>,
        attempts: u32,
        replace: bool,
    ) {
        self.scheduled += 1;
        // Now and then a payload of the shared kind.
        let payload = format!("task {}", self.scheduled).repeat(if ms.is_multiple_of(5) { 200 } else { 1 });
        let mut new = NewTask::new(self.due(at, ms), payload.clone()).attempts_max(Attempts::new(attempts).unwrap());
        new.id = name.map(|n| TaskId::new(format!("key-{n}")).unwrap());
        new.group = group.map(group_name);
        new.expires = expires.map(|ms| self.due(at, ms));
        new.on_conflict = if replace { OnConflict::Replace } else { OnConflict::Keep };
        let bytes = bytes_of(&new);
        let (place, expires) = (self.place(at, ms), expires.map(|ms| self.place(at, ms)));
        let id = new.id.clone();
        let result = self.store.schedule(self.now, &self.caps, new);
        if expires.is_some_and(|expires| expires.ms < place.ms) {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Invalid);
            return;
        }
        let scheduled = result.unwrap();
        self.make_way(id.as_ref());
        let there = id.as_ref().and_then(|id| self.model.tasks.iter().position(|t| t.id == *id));
        match (there, replace) {
            (Some(there), false) => {
                assert_eq!(scheduled.outcome, ScheduleOutcome::Existing);
                assert_eq!(scheduled.id(), &self.model.tasks[there].id);
                return;
            }
            (Some(there), true) => {
                assert_eq!(scheduled.outcome, ScheduleOutcome::Replaced);
                self.model.tasks.remove(there);
            }
            (None, _) => assert_eq!(scheduled.outcome, ScheduleOutcome::Created),
        }
        assert_eq!(scheduled.task.due_at, Some(self.now.shown(place)));
        if let Some(id) = id {
            assert_eq!(*scheduled.id(), id);
        }
        self.used.add(bytes);
        self.model.order += 1;
        let order = self.model.order;
        self.model.tasks.push(Task {
            id: scheduled.id().clone(),
            order,
            place,
            attempt: 0,
            max: attempts,
            expires,
            group,
            payload,
            lease: None,
            cancelled: false,
        });
        self.refs.push(scheduled.task);
    }

    /// A task that was cancelled in flight has no claim on its id.
    fn make_way(&mut self, id: Option<&TaskId>) {
        self.model.tasks.retain(|task| !(task.cancelled && Some(&task.id) == id));
    }

    fn claim(&mut self, max: usize, lease: u64) {
        let claim = Claim::new(max, Duration::from_millis(lease));
        let ClaimStep::Done(claimed) = self.store.claim(self.now, claim) else {
            panic!("a small store needs one step")
        };
        let mut expected = vec![];
        let mut dead_lettered = 0;
        while !self.model.paused && expected.len() < max {
            let due = (0..self.model.tasks.len()).filter(|&i| self.now.reached(self.model.tasks[i].place));
            let Some(first) = due.min_by_key(|&i| self.rank(&self.model.tasks[i])) else { break };
            let task = self.model.tasks[first].clone();
            let gone = if task.cancelled {
                self.model.tasks.remove(first);
                continue;
            } else if task.expires.is_some_and(|expires| self.now.passed(expires)) {
                Some(DeadLetterCause::Expired)
            } else {
                (task.attempt >= task.max).then_some(DeadLetterCause::AttemptsUsedUp)
            };
            if let Some(cause) = gone {
                self.model.tasks.remove(first);
                self.dead_letter(task, cause);
                dead_lettered += 1;
                continue;
            }
            let now = self.now;
            let task = &mut self.model.tasks[first];
            self.model.fence = now.wall_us.max(self.model.fence + 1);
            let due = task.place;
            task.lease = Some((self.model.fence, due));
            task.attempt += 1;
            task.place = Place::mono(now.mono_after(Duration::from_millis(lease)));
            expected.push((
                task.id.clone(),
                task.payload.clone(),
                task.attempt,
                self.model.fence,
                now.shown(due),
                now.since(due),
            ));
        }
        let got: Vec<_> = claimed
            .deliveries
            .iter()
            .map(|d| {
                let payload = String::from_utf8(d.payload.to_vec()).unwrap();
                (d.lease.id.clone(), payload, d.lease.attempt, d.lease.fence, d.due_at, d.lateness)
            })
            .collect();
        assert_eq!(got, expected);
        assert_eq!(claimed.dead_lettered, dead_lettered);
        self.leases.extend(claimed.deliveries.into_iter().map(|d| d.lease));
        self.check_next_due(claimed.next_due_in);
    }

    /// A sleeper wakes at the next visible task at the latest. It may wake earlier for a key that went stale.
    fn check_next_due(&self, told: Option<Duration>) {
        let next = self.model.tasks.iter().map(|task| self.now.until(task.place)).min();
        match (next, told) {
            _ if self.model.paused => assert_eq!(told, None),
            (Some(next), told) => assert!(told.is_some_and(|told| told <= next), "told {told:?}, due in {next:?}"),
            (None, told) => assert_eq!(told, None, "nothing is in sight"),
        }
    }

    fn dead_letter(&mut self, task: Task, cause: DeadLetterCause) {
        let Task { id, payload, attempt, max, group, .. } = task;
        self.model.dead.push(DeadLettered { id, cause, payload, attempts: attempt, max, group });
    }

    /// The model's task under a lease, if the lease still counts.
    fn holder(&self, lease: &Lease) -> Option<usize> {
        self.model.tasks.iter().position(|t| t.id == lease.id && t.lease.is_some_and(|(fence, _)| fence == lease.fence))
    }

    pub(super) fn settle(&mut self, pick: usize, disposition: u8, ms: u64) {
        if self.leases.is_empty() {
            return;
        }
        let lease = self.leases[pick % self.leases.len()].clone();
        let after = Duration::from_millis(ms);
        let disposition = match disposition {
            0 => Disposition::Complete,
            1 => Disposition::Retry { after, reason: "failed".into() },
            2 => Disposition::Snooze { after },
            3 => Disposition::DeadLetter { reason: "poison".into() },
            _ => Disposition::Release,
        };
        let result = self.store.settle(self.now, &self.caps, &lease, disposition.clone());
        let Some(at) = self.holder(&lease) else {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::LeaseLost);
            return;
        };
        result.unwrap();
        let place = Place::mono(self.now.mono_after(after));
        let task = self.model.tasks[at].clone();
        let old = task.lease.unwrap().1;
        match disposition {
            _ if task.cancelled => drop(self.model.tasks.remove(at)),
            Disposition::Complete => drop(self.model.tasks.remove(at)),
            Disposition::Retry { .. } if task.attempt >= task.max => {
                self.model.tasks.remove(at);
                self.dead_letter(task, DeadLetterCause::AttemptsUsedUp);
            }
            Disposition::DeadLetter { .. } => {
                self.model.tasks.remove(at);
                self.dead_letter(task, DeadLetterCause::Requested);
            }
            Disposition::Retry { .. } => self.model.tasks[at] = Task { place, lease: None, ..task },
            Disposition::Snooze { .. } => {
                self.model.tasks[at] = Task { place, lease: None, attempt: task.attempt - 1, ..task }
            }
            Disposition::Release => {
                self.model.tasks[at] = Task { place: old, lease: None, attempt: task.attempt - 1, ..task }
            }
            _ => unreachable!("one that the suite does not know"),
        }
    }

    fn extend(&mut self, pick: usize, ms: u64) {
        if self.leases.is_empty() {
            return;
        }
        let lease = self.leases[pick % self.leases.len()].clone();
        let result = self.store.extend(self.now, &lease, Duration::from_millis(ms));
        let Some(at) = self.holder(&lease) else {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::LeaseLost);
            return;
        };
        let extended = result.unwrap();
        let task = &mut self.model.tasks[at];
        task.place.ms = task.place.ms.max(self.now.mono_after(Duration::from_millis(ms)));
        assert_eq!((extended.expires_at, extended.cancelled), (self.now.shown(task.place), task.cancelled));
        assert_eq!((extended.fence, extended.attempt), (lease.fence, lease.attempt));
    }

    fn action(&self, action: u8, ms: u64) -> Action {
        match action {
            0 => Action::Cancel,
            1 => Action::MoveTo(self.due(false, ms)),
            2 => Action::MoveTo(self.due(true, ms)),
            3 => Action::Shift(Shift::Later(Duration::from_millis(ms))),
            _ => Action::Shift(Shift::Sooner(Duration::from_millis(ms))),
        }
    }

    /// What the model makes of a change of one task; the target place of a shift may be out of range.
    fn change_model(&mut self, at: Option<usize>, action: u8, ms: u64) -> Result<ChangeOutcome, ErrorKind> {
        let Some(at) = at else { return Ok(ChangeOutcome::NotFound) };
        let task = self.model.tasks[at].clone();
        let leased = self.leased(&task);
        if task.cancelled && !leased {
            self.model.tasks.remove(at);
            return Ok(ChangeOutcome::NotFound);
        }
        let target = match action {
            0 if leased => {
                self.model.tasks[at].cancelled = true;
                return Ok(ChangeOutcome::InFlight);
            }
            0 => {
                self.model.tasks.remove(at);
                return Ok(ChangeOutcome::Changed);
            }
            1 => self.place(false, ms),
            2 => self.place(true, ms),
            3 => Place { ms: task.place.ms + ms, ..task.place },
            _ => Place { ms: task.place.ms.saturating_sub(ms), ..task.place },
        };
        if leased {
            return Ok(ChangeOutcome::InFlight);
        }
        if action >= 3 && self.now.until(target) > DELAY_MAX {
            return Err(ErrorKind::OutOfRange);
        }
        self.model.tasks[at] = Task { place: target, lease: None, ..task };
        Ok(ChangeOutcome::Changed)
    }

    fn change(&mut self, pick: usize, by_name: bool, action: u8, ms: u64) {
        if self.refs.is_empty() {
            return;
        }
        let task = self.refs[pick % self.refs.len()].clone();
        let by_ref = if by_name { TaskRef::from(&task.id) } else { task.clone() };
        let result = self.store.change_task(self.now, &self.caps, &by_ref, self.action(action, ms));
        // A reference with a receipt means that very task; a key means whoever has it now.
        let order = by_ref.receipt.words().map(|[_, seq]| seq + 1);
        let at = self.model.tasks.iter().position(|t| t.id == task.id && order.is_none_or(|order| order == t.order));
        assert_eq!(result.map_err(|e| e.kind()), self.change_model(at, action, ms));
    }

    fn change_group(&mut self, group: u8, action: u8, ms: u64) {
        let mut walk = self.store.walk();
        let chosen = self.action(action, ms);
        assert!(self.store.change_group(self.now, &self.caps, &group_name(group), chosen, &mut walk));
        let mut members: Vec<_> = self.model.tasks.iter().filter(|t| t.group == Some(group)).map(|t| t.order).collect();
        members.sort_unstable();
        let (mut changed, mut in_flight, mut refused, mut not_found) = (0, 0, 0, 0);
        for order in members {
            let at = self.model.tasks.iter().position(|t| t.order == order);
            match self.change_model(at, action, ms) {
                Ok(ChangeOutcome::Changed) => changed += 1,
                Ok(ChangeOutcome::InFlight) => in_flight += 1,
                Ok(_) => not_found += 1,
                Err(_) => refused += 1,
            }
        }
        let told = &walk.changed;
        assert_eq!(
            (told.changed, told.in_flight, told.refused, told.not_found),
            (changed, in_flight, refused, not_found)
        );
    }

    fn redrive(&mut self) {
        let mut walk = self.store.dead_walk();
        assert!(self.store.redrive(self.now, &DeadFilter::All, 1000.0, &mut walk));
        let mut affected = 0;
        let dead = std::mem::take(&mut self.model.dead);
        for dead_lettered in dead {
            self.make_way(Some(&dead_lettered.id));
            if self.model.tasks.iter().any(|t| t.id == dead_lettered.id) {
                self.model.dead.push(dead_lettered);
                continue;
            }
            self.model.order += 1;
            let place = Place::mono(self.now.mono_after(Duration::from_millis(affected)));
            let DeadLettered { id, payload, max, group, .. } = dead_lettered;
            let order = self.model.order;
            self.model.tasks.push(Task {
                id,
                order,
                place,
                attempt: 0,
                max,
                expires: None,
                group,
                payload,
                lease: None,
                cancelled: false,
            });
            affected += 1;
        }
        assert_eq!((walk.affected, walk.kept), (affected, self.model.dead.len() as u64));
    }

    fn look(&mut self) {
        for task in &self.model.tasks {
            let view = self.store.find(self.now, &task.id);
            if task.cancelled && !self.leased(task) {
                assert_eq!(view, None);
            } else {
                let view = view.unwrap();
                assert_eq!((view.attempt, view.attempts_max), (task.attempt, task.max));
                assert_eq!(view.visible_at, self.now.shown(task.place));
                assert_eq!(view.payload, task.payload);
            }
        }
        let mut expected: Vec<_> = self.model.tasks.iter().filter(|t| !t.cancelled || self.leased(t)).collect();
        expected.sort_by_key(|task| self.rank(task));
        // Pages of three give the same as one of all.
        let mut listed = vec![];
        let mut page = Page::first(3);
        loop {
            let mut scan = ListScan::new(page.limit, page.after.as_ref().map(rank_of));
            assert!(self.store.list_piece(self.now, &mut scan));
            let views = self.store.list_done(self.now, scan);
            let Some(last) = views.last() else { break };
            page = Page::after(last, 3);
            listed.extend(views);
        }
        let ids = |tasks: Vec<&TaskId>| tasks.into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(ids(listed.iter().map(|v| &v.task.id).collect()), ids(expected.iter().map(|t| &t.id).collect()));
        let mut scan = StatsScan::default();
        assert!(self.store.stats_piece(self.now, &mut scan));
        let count = |f: &dyn Fn(&&Task) -> bool| self.model.tasks.iter().filter(f).count() as u64;
        assert_eq!(scan.stats.in_flight, count(&|t| self.leased(t)));
        assert_eq!(scan.stats.due, count(&|t| !self.leased(t) && !t.cancelled && self.now.reached(t.place)));
        assert_eq!(scan.stats.scheduled, count(&|t| !self.leased(t) && !t.cancelled && !self.now.reached(t.place)));
        assert_eq!(scan.stats.dead, self.model.dead.len() as u64);
    }

    /// The invariants at the top of the store, and its accounts.
    fn check(&mut self) {
        let store = &mut self.store;
        assert_eq!(store.tasks.len(), self.model.tasks.len());
        let keys: usize = store.wheels.counts().iter().map(|(keys, stale)| keys - stale).sum();
        assert_eq!(keys + store.leases.listed(), store.tasks.len(), "one live key, or place in a list, for each task");
        let leases = self.model.tasks.iter().filter(|t| t.lease.is_some()).count();
        assert_eq!(store.leases.len(), leases, "one lease record for each lease");
        let grouped = self.model.tasks.iter().filter(|t| t.group.is_some()).count();
        assert_eq!(store.groups.values().map(BTreeMap::len).sum::<usize>(), grouped);
        assert!(store.groups.values().all(|members| !members.is_empty()));
        let (freed, grown) = store.take_moved();
        self.used += grown;
        self.used.tasks -= freed.tasks;
        self.used.bytes -= freed.bytes;
        assert_eq!(self.used, store.usage(), "what was reserved and not freed is what is there");
        let (page, next) = store.dead_page(None, 1000);
        let dead: Vec<_> = page.iter().map(|d| (d.id.clone(), d.cause, d.payload.to_vec(), d.attempts)).collect();
        let expected: Vec<_> = self
            .model
            .dead
            .iter()
            .map(|d| (d.id.clone(), d.cause, d.payload.clone().into_bytes(), d.attempts))
            .collect();
        assert_eq!((dead, next), (expected, None));
    }
}
