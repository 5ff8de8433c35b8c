//! A store in miniature that keeps every promise, unless it is told to break one.

use crate::history::{Change, Content, Delivered, Disposition, Due, Extended, Held, Planned, Tally};
use delayline_core::{GroupName, TaskId, Timestamp};

use super::written::WALL;

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    LosesAtScheduling,
    LosesAtLeaseEnd,
    LeasesNothing,
    IsEarly,
    TurnsTheOrderRound,
    OrdersBySchedulingOnly,
    ForgetsTheOrderWithinACall,
    SettlesStaleLeases,
    RefusesLiveLeases,
    BringsBackTheCompleted,
    BringsBackTheDeadLettered,
    RepeatsFences,
    CountsNoAttempts,
    CountsReleases,
    ChangesContent,
    CreatesTwice,
    RemembersTheEnded,
    IgnoresCancels,
    RedeliversTheCancelled,
    IgnoresExpiry,
    IgnoresExtensions,
    ShortensExtensions,
    IgnoresRetryDelays,
    IgnoresMovesToLater,
    KeepsTheOldOnReplace,
    MakesUpTasks,
}

/// A due time on either clock, in microseconds.
#[derive(Clone, Copy, Debug)]
enum When {
    Mono(u64),
    Wall(i64),
}

#[derive(Clone, Debug)]
struct Stored {
    id: TaskId,
    due: When,
    sequence: u64,
    expires: Option<When>,
    content: Content,
    attempt: u32,
    lease: Option<Leased>,
}

#[derive(Clone, Copy, Debug)]
struct Leased {
    fence: u64,
    ends_us: u64,
    cancelled: bool,
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) fault: Fault,
    tasks: Vec<Stored>,
    dead: Vec<Stored>,
    sequence: u64,
    fence: u64,
    /// From the monotonic to the wall clock.
    pub(super) ahead_us: i64,
    pub(super) rng: fastrand::Rng,
}

fn ceil(us: u64) -> u64 {
    us.div_ceil(1000) * 1000
}

impl Store {
    pub(super) fn new(fault: Fault, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { fault, tasks: vec![], dead: vec![], sequence: 0, fence: 0, ahead_us: WALL * 1000, rng }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn has(&mut self, fault: Fault, one_in: u32) -> bool {
        self.fault == fault && self.rng.u32(0..one_in) == 0
    }

    fn when(due: Due, now: u64) -> When {
        match due {
            Due::AfterUs(after) => When::Mono(ceil(now + after)),
            Due::At(at) => When::Wall(at.unix_millis_ceil() * 1000),
        }
    }

    fn mono(&self, when: When) -> i64 {
        match when {
            When::Mono(us) => us as i64,
            When::Wall(us) => us - self.ahead_us,
        }
    }

    fn visible(&self, task: &Stored) -> i64 {
        task.lease.map_or_else(|| self.mono(task.due), |lease| lease.ends_us as i64)
    }

    /// Tasks that were cancelled in flight end with their lease.
    fn reap(&mut self, now: u64) {
        let keeps = self.fault == Fault::RedeliversTheCancelled;
        let loses = self.fault == Fault::LosesAtLeaseEnd;
        self.tasks.retain(|task| {
            let ended = |lease: Leased| lease.ends_us <= now && (lease.cancelled && !keeps || loses);
            !task.lease.is_some_and(ended)
        });
    }

    pub(super) fn schedule(&mut self, now: u64, planned: &Planned, id: TaskId) -> &'static str {
        self.reap(now);
        self.sequence += 1;
        let found = self.tasks.iter().position(|task| task.id == id);
        let is_there = found.is_some_and(|i| !self.tasks[i].lease.is_some_and(|lease| lease.cancelled));
        if self.fault == Fault::RemembersTheEnded && self.fence > 0 && !is_there && self.rng.u32(0..5) == 0 {
            return "existing";
        }
        let twice = is_there && self.has(Fault::CreatesTwice, 2);
        if is_there && !planned.replace && !twice {
            return "existing";
        }
        if is_there && self.has(Fault::KeepsTheOldOnReplace, 2) {
            return "replaced";
        }
        found.map(|i| self.tasks.remove(i));
        let task = Stored {
            id,
            due: Self::when(planned.due, now),
            sequence: self.sequence,
            expires: planned.expires.map(|expires| Self::when(expires, now)),
            content: planned.content.clone(),
            attempt: 0,
            lease: None,
        };
        if !self.has(Fault::LosesAtScheduling, 10) {
            self.tasks.push(task);
        }
        if is_there && !twice { "replaced" } else { "created" }
    }

    pub(super) fn claim(&mut self, now: u64, max: usize, lease_us: u64) -> (Vec<Delivered>, u64) {
        self.reap(now);
        let early = if self.fault == Fault::IsEarly { 15_000 } else { 0 };
        let mut visible: Vec<usize> = (0..self.tasks.len()).collect();
        visible.retain(|i| self.visible(&self.tasks[*i]) <= now as i64 + early);
        match self.fault {
            Fault::OrdersBySchedulingOnly => visible.sort_by_key(|i| self.tasks[*i].sequence),
            Fault::ForgetsTheOrderWithinACall => {
                visible.sort_by_key(|i| (self.visible(&self.tasks[*i]), u64::MAX - self.tasks[*i].sequence));
            }
            _ => visible.sort_by_key(|i| (self.visible(&self.tasks[*i]), self.tasks[*i].sequence)),
        }
        let (mut deliveries, mut ended, mut dead_lettered) = (Vec::new(), Vec::new(), 0);
        for i in visible {
            if deliveries.len() == max {
                break;
            }
            let task = &self.tasks[i];
            let has_expired = task.expires.is_some_and(|at| self.mono(at) < now as i64 / 1000 * 1000);
            if has_expired && self.fault != Fault::IgnoresExpiry || task.attempt >= task.content.attempts_max {
                ended.push(task.id.clone());
                dead_lettered += 1;
                continue;
            }
            deliveries.push(self.lease(now, i, lease_us));
        }
        for id in ended {
            self.dead_letter(&id);
        }
        if self.fault == Fault::TurnsTheOrderRound {
            deliveries.reverse();
        }
        if self.has(Fault::MakesUpTasks, 5)
            && let Some(mut made_up) = deliveries.first().cloned()
        {
            made_up.lease.id = TaskId::new(format!("made-up-{now}")).unwrap();
            deliveries.push(made_up);
        }
        (deliveries, dead_lettered)
    }

    fn lease(&mut self, now: u64, i: usize, lease_us: u64) -> Delivered {
        let repeats = self.has(Fault::RepeatsFences, 2);
        let forgets = self.has(Fault::CountsNoAttempts, 2);
        let garbles = self.has(Fault::ChangesContent, 5);
        let leases = !self.has(Fault::LeasesNothing, 5);
        let before = self.visible(&self.tasks[i]);
        let task = &mut self.tasks[i];
        self.fence += 1;
        let mut fence = self.fence;
        if let Some(lease) = task.lease {
            // Its place is where the lease ended.
            task.due = When::Mono(before.max(0) as u64);
            fence = if repeats { lease.fence } else { fence };
        }
        task.attempt += u32::from(!forgets || task.attempt == 0);
        let ends_us = if leases { ceil(now + lease_us) } else { now };
        task.lease = Some(Leased { fence, ends_us, cancelled: false });
        let mut content = task.content.clone();
        content.payload_hash += u64::from(garbles);
        Delivered {
            lease: Held { id: task.id.clone(), fence },
            attempt: task.attempt,
            lease_expires: Timestamp::from_unix_micros(ends_us as i64 + self.ahead_us),
            due_at: Timestamp::from_unix_micros(before + self.ahead_us),
            lateness_us: 0,
            expires_at: None,
            content,
        }
    }

    fn dead_letter(&mut self, id: &TaskId) {
        let i = self.tasks.iter().position(|task| task.id == *id).unwrap();
        let task = self.tasks.remove(i);
        self.dead.push(task);
    }

    /// What a claim that nobody received had taken goes back to its place.
    pub(super) fn give_back(&mut self, taken: &[Delivered]) {
        for delivered in taken {
            let Some(i) = self.held(&delivered.lease) else { continue };
            if self.tasks[i].lease.is_some_and(|lease| lease.cancelled) {
                self.tasks.remove(i);
            } else {
                self.tasks[i].lease = None;
                self.tasks[i].attempt -= 1;
            }
        }
    }

    fn held(&self, held: &Held) -> Option<usize> {
        let is_held = |task: &Stored| task.id == held.id && task.lease.is_some_and(|lease| lease.fence == held.fence);
        self.tasks.iter().position(is_held)
    }

    pub(super) fn settle(&mut self, now: u64, held: &Held, disposition: Disposition) -> bool {
        self.reap(now);
        let by_id = || self.tasks.iter().position(|task| task.id == held.id);
        let found = if self.fault == Fault::SettlesStaleLeases { by_id() } else { self.held(held) };
        let Some(i) = found.filter(|_| self.fault != Fault::RefusesLiveLeases || !held.fence.is_multiple_of(10)) else {
            return false;
        };
        let (id, attempts) = (self.tasks[i].id.clone(), self.tasks[i].content.attempts_max);
        let keeps_delay = self.fault != Fault::IgnoresRetryDelays;
        let counts = self.fault == Fault::CountsReleases;
        let resurrects = self.has(Fault::BringsBackTheCompleted, 10);
        let exhumes = self.has(Fault::BringsBackTheDeadLettered, 2);
        let task = &mut self.tasks[i];
        let later = |after: u64| When::Mono(ceil(now + if keeps_delay { after } else { 0 }));
        let cancelled = task.lease.is_some_and(|lease| lease.cancelled);
        task.lease = None;
        match disposition {
            _ if cancelled => drop(self.tasks.remove(i)),
            Disposition::Complete if resurrects => {}
            Disposition::Complete => drop(self.tasks.remove(i)),
            Disposition::Retry(_) if task.attempt >= attempts => self.dead_letter(&id),
            Disposition::Retry(after) => task.due = later(after),
            Disposition::Snooze(after) => {
                task.due = later(after);
                task.attempt = task.attempt.saturating_sub(u32::from(!counts));
            }
            Disposition::DeadLetter if exhumes => {}
            Disposition::DeadLetter => self.dead_letter(&id),
            Disposition::Release => task.attempt = task.attempt.saturating_sub(u32::from(!counts)),
        }
        true
    }

    pub(super) fn extend(&mut self, now: u64, held: &Held, by_us: u64) -> Option<Extended> {
        self.reap(now);
        let ahead = self.ahead_us;
        let (ignores, shortens) = (self.fault == Fault::IgnoresExtensions, self.fault == Fault::ShortensExtensions);
        let i = self.held(held)?;
        let lease = self.tasks[i].lease.as_mut()?;
        let ends = ceil(now + by_us);
        let ends = if shortens { ends } else { ends.max(lease.ends_us) };
        if !ignores {
            lease.ends_us = ends;
        }
        let lease_expires = Timestamp::from_unix_micros(ends as i64 + ahead);
        Some(Extended { lease_expires, cancelled: lease.cancelled })
    }

    pub(super) fn change(&mut self, now: u64, id: &TaskId, change: Change) -> &'static str {
        self.reap(now);
        let Some(i) = self.tasks.iter().position(|task| task.id == *id) else { return "not_found" };
        let visible = self.visible(&self.tasks[i]);
        if let Some(lease) = &mut self.tasks[i].lease {
            if lease.cancelled {
                return if change == Change::Cancel { "in_flight" } else { "not_found" };
            }
            if lease.ends_us > now {
                lease.cancelled = change == Change::Cancel;
                return "in_flight";
            }
            self.tasks[i].due = When::Mono(visible.max(0) as u64);
            self.tasks[i].lease = None;
        }
        let ignores_later = self.fault == Fault::IgnoresMovesToLater;
        let ignores = self.fault == Fault::IgnoresCancels;
        let task = &mut self.tasks[i];
        match change {
            Change::Cancel if ignores => {}
            Change::Cancel => drop(self.tasks.remove(i)),
            Change::MoveTo(Due::AfterUs(after)) if ignores_later && ceil(now + after) as i64 > visible => {}
            Change::Shift(by) if ignores_later && by > 0 => {}
            Change::MoveTo(due) => task.due = Self::when(due, now),
            Change::Shift(by) => {
                task.due = match task.due {
                    When::Mono(us) => When::Mono(shifted(us as i64, by).max(0) as u64),
                    When::Wall(us) => When::Wall(shifted(us, by)),
                }
            }
        }
        "changed"
    }

    pub(super) fn change_group(&mut self, now: u64, group: &GroupName, change: Change) -> Tally {
        self.reap(now);
        let is_member = |task: &&Stored| task.content.group.as_ref() == Some(group);
        let members: Vec<TaskId> = self.tasks.iter().filter(is_member).map(|task| task.id.clone()).collect();
        let mut tally = Tally::default();
        for id in members {
            match self.change(now, &id, change) {
                "changed" => tally.changed += 1,
                "in_flight" => tally.in_flight += 1,
                _ => {}
            }
        }
        tally
    }

    pub(super) fn redrive(&mut self, now: u64) -> (u64, u64) {
        self.reap(now);
        let dead = std::mem::take(&mut self.dead);
        let mut affected = 0;
        for mut letter in dead {
            let holder = self.tasks.iter().position(|task| task.id == letter.id);
            if holder.is_some() {
                self.dead.push(letter);
                continue;
            }
            affected += 1;
            self.sequence += 1;
            (letter.attempt, letter.expires, letter.lease) = (0, None, None);
            (letter.due, letter.sequence) = (When::Mono(ceil(now)), self.sequence);
            self.tasks.push(letter);
        }
        (affected, self.dead.len() as u64)
    }

    pub(super) fn delete(&mut self) {
        self.tasks.clear();
        self.dead.clear();
    }
}

/// Later is rounded up to the millisecond, sooner down.
fn shifted(us: i64, by: i64) -> i64 {
    let ms = (us + by).div_euclid(1000) * 1000;
    if by > 0 && ms < us + by { ms + 1000 } else { ms }
}
