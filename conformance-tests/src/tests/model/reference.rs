//! The reference: a list of tasks that is looked through for every operation. What it expects is what `docs/semantics.md` says,
//! and nothing of it is stored in any clever way.
//!
//! Its times are microseconds since the trace began. Where time is real, a task is known to be due within an interval: the
//! call that set it, and what the backend declares. Tasks whose intervals overlap may come in either order. Where time is
//! virtual, a call takes no time and every interval is a point, so everything is exact.

use std::cmp::Ordering;
use std::collections::HashMap;

use delayline_core::{DeadLetterCause, GroupName, Headers, Order, TaskId};

/// Within so many microseconds, stores tell no two times apart.
pub(super) const MS: i64 = 1_000;

/// When a task is visible or expires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// On the monotonic clock, somewhere from here to there. Places of one call (numbers above 0) that begin together are
    /// one and the same moment.
    Mono { from: i64, to: i64, call: u32 },
    /// On the wall clock: microseconds since 1970, in whole milliseconds.
    Wall(i64),
}

/// A call: from before it was made to after it was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) from: i64,
    pub(super) to: i64,
    /// What the wall clock shows at the trace's begin, by its present setting.
    pub(super) wall: i64,
    /// How much the two clocks may be apart.
    pub(super) slop: i64,
}

/// An answer that may depend on more than is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sure {
    Yes,
    No,
    Maybe,
}

impl Sure {
    pub(super) fn maybe(self) -> bool {
        self != Self::No
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::No, Self::No) => Self::No,
            _ => Self::Maybe,
        }
    }
}

impl From<bool> for Sure {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

impl Now {
    /// Where a place lies on the monotonic clock.
    pub(super) fn span(&self, place: Place) -> (i64, i64) {
        match place {
            Place::Mono { from, to, .. } => (from, to),
            Place::Wall(at) => (at - self.wall - self.slop, at - self.wall + self.slop),
        }
    }

    pub(super) fn reached(&self, place: Place) -> Sure {
        match self.span(place) {
            (_, to) if to <= self.from => Sure::Yes,
            (from, _) if from > self.to => Sure::No,
            _ => Sure::Maybe,
        }
    }

    /// Whether a place's millisecond lies behind.
    fn passed(&self, place: Place) -> Sure {
        match self.span(place) {
            (_, to) if to + MS <= self.from => Sure::Yes,
            (from, _) if from + MS > self.to => Sure::No,
            _ => Sure::Maybe,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    /// Its number in the trace, which its payload begins with.
    pub(super) number: usize,
    pub(super) id: TaskId,
    /// Its place in the order of acceptance.
    pub(super) seq: u64,
    pub(super) place: Place,
    pub(super) attempt: u32,
    pub(super) attempts_max: u32,
    pub(super) expires: Option<Place>,
    pub(super) group: Option<GroupName>,
    pub(super) headers: Headers,
    pub(super) bytes: usize,
    pub(super) last_failure: Option<String>,
    /// The lease that is on it, ended or not.
    pub(super) lease: Option<Held>,
    /// The client that holds it, or that sent it back to wait.
    pub(super) known_to: Option<usize>,
    pub(super) cancelled: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) fence: u64,
    /// Where the task was before.
    pub(super) old: Place,
}

/// A dead letter.
#[derive(Clone, Debug)]
pub(super) struct Dead {
    pub(super) task: Task,
    /// None where either would be right.
    pub(super) cause: Option<DeadLetterCause>,
    /// What it was dead-lettered with, where that is said.
    pub(super) reason: Option<String>,
    /// The call that dead-lettered it.
    pub(super) call: u32,
    /// When, on the wall clock as it was set then.
    pub(super) at: (i64, i64),
}

#[derive(Debug, Default)]
pub(super) struct Reference {
    pub(super) tasks: Vec<Task>,
    pub(super) dead: Vec<Dead>,
    pub(super) paused: bool,
    /// The highest fence of each id.
    pub(super) fences: HashMap<TaskId, u64>,
    /// When ids were completed, for stores that remember them.
    pub(super) completed: Vec<(TaskId, i64)>,
    seq: u64,
}

impl Task {
    /// Whether it is under a lease that has not ended.
    pub(super) fn leased(&self, now: &Now) -> Sure {
        match (self.lease, now.reached(self.place)) {
            (None, _) | (Some(_), Sure::Yes) => Sure::No,
            (Some(_), Sure::No) => Sure::Yes,
            (Some(_), Sure::Maybe) => Sure::Maybe,
        }
    }

    /// Whether it was cancelled in flight and its lease has ended: there is no such task any more, though whatever the store
    /// keeps of it goes when somebody meets it.
    pub(super) fn over(&self, now: &Now) -> bool {
        self.cancelled && self.leased(now) == Sure::No
    }

    /// Whether a claim that meets it dead-letters it.
    pub(super) fn doomed(&self, now: &Now) -> Sure {
        self.expired(now).or((self.attempt >= self.attempts_max).into())
    }

    pub(super) fn expired(&self, now: &Now) -> Sure {
        self.expires.map_or(Sure::No, |expires| now.passed(expires))
    }

    /// The reason for which a claim dead-letters it.
    pub(super) fn cause(&self, now: &Now) -> Option<DeadLetterCause> {
        match (self.expired(now), self.attempt >= self.attempts_max) {
            (Sure::No, _) => Some(DeadLetterCause::AttemptsUsedUp),
            (_, false) => Some(DeadLetterCause::Expired),
            (_, true) => None,
        }
    }
}

/// How the moments of two places lie to each other, where that is certain.
fn moments(now: &Now, a: &Task, b: &Task) -> Option<Ordering> {
    match (a.place, b.place) {
        (Place::Wall(a), Place::Wall(b)) => return Some(a.cmp(&b)),
        (Place::Mono { from, call, .. }, Place::Mono { from: other, call: other_call, .. })
            if call > 0 && call == other_call && from == other =>
        {
            return Some(Ordering::Equal);
        }
        _ => {}
    }
    let ((a_from, a_to), (b_from, b_to)) = (now.span(a.place), now.span(b.place));
    let points = a_from == a_to && b_from == b_to;
    if points && a_from == b_from {
        Some(Ordering::Equal)
    } else if a_to < b_from {
        Some(Ordering::Less)
    } else if b_to < a_from {
        Some(Ordering::Greater)
    } else {
        None
    }
}

/// Whether one task surely stands before another in the order of (visible at, sequence).
pub(super) fn before(now: &Now, a: &Task, b: &Task) -> bool {
    match moments(now, a, b) {
        Some(Ordering::Equal) => a.seq < b.seq,
        certain => certain == Some(Ordering::Less),
    }
}

/// Whether tasks may be listed one after the other: by time exactly, and where times are equal as far as the backend declares
/// an order.
pub(super) fn check_listing(now: &Now, order: Order, tasks: &[&Task]) -> Result<(), String> {
    no_pair(now, tasks, |first, later| moments(now, later, first) == Some(Ordering::Less))?;
    check_order(now, order, tasks)
}

/// Whether tasks may be delivered one after the other, as far as the backend declares an order.
pub(super) fn check_order(now: &Now, order: Order, tasks: &[&Task]) -> Result<(), String> {
    let shards = match order {
        Order::Exact => 1,
        Order::PerShard(shards) => shards as usize,
        Order::Within(by) => {
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            let wrong = |a: &Task, b: &Task| now.span(b.place).1.saturating_add(by) < now.span(a.place).0;
            return no_pair(now, tasks, wrong);
        }
        _ => return Ok(()),
    };
    if shards == 1 {
        return no_pair(now, tasks, |a, b| before(now, b, a));
    }
    // Tasks of one shard are in order, so among more tasks than shards that go backwards, two are of one shard.
    let mut chains: Vec<usize> = Vec::new();
    for (at, task) in tasks.iter().enumerate() {
        let longest = (0..at).filter(|&i| before(now, task, tasks[i])).map(|i| chains[i]).max();
        chains.push(1 + longest.unwrap_or(0));
    }
    match chains.iter().max() {
        Some(&longest) if longest > shards => Err(format!("{longest} tasks go backwards in {shards} shards")),
        _ => Ok(()),
    }
}

fn no_pair(now: &Now, tasks: &[&Task], wrong: impl Fn(&Task, &Task) -> bool) -> Result<(), String> {
    for (at, later) in tasks.iter().enumerate() {
        if let Some(first) = tasks[..at].iter().find(|first| wrong(first, later)) {
            return Err(format!("{} comes before {}", line(now, first), line(now, later)));
        }
    }
    Ok(())
}

/// A task in words.
pub(super) fn line(now: &Now, task: &Task) -> String {
    let (from, to) = now.span(task.place);
    let held = match task.lease {
        Some(_) if task.cancelled => ", leased and cancelled",
        Some(_) => ", leased",
        None => "",
    };
    format!("task {} ({}, visible at {from}..{to} us, sequence {}{held})", task.number, task.id, task.seq)
}

impl Reference {
    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub(super) fn by_number(&self, number: usize) -> Option<usize> {
        self.tasks.iter().position(|task| task.number == number)
    }

    /// The task that was accepted, or redriven, as this one in the order.
    pub(super) fn by_seq(&self, seq: u64) -> Option<usize> {
        self.tasks.iter().position(|task| task.seq == seq)
    }

    /// The task of an id; where several may have it, one of them.
    pub(super) fn by_id(&self, id: &TaskId) -> Option<usize> {
        self.tasks.iter().position(|task| task.id == *id)
    }

    /// A task that was cancelled in flight has no claim on its id.
    pub(super) fn make_way(&mut self, id: &TaskId) {
        self.tasks.retain(|task| !(task.cancelled && task.id == *id));
    }

    pub(super) fn dead_letter(
        &mut self,
        now: &Now,
        call: u32,
        task: usize,
        cause: Option<DeadLetterCause>,
        reason: Option<String>,
    ) {
        let mut task = self.tasks.remove(task);
        task.lease = None;
        let at = (now.wall + now.from - now.slop, now.wall + now.to + now.slop);
        self.dead.push(Dead { task, cause, reason, call, at });
    }

    /// Places in the list of tasks that are there, by the order of the queue.
    pub(super) fn ranked(&self, now: &Now, which: impl Fn(&Task) -> bool) -> Vec<usize> {
        let mut found: Vec<usize> = (0..self.tasks.len()).filter(|&i| which(&self.tasks[i])).collect();
        found.sort_by_key(|&i| (now.span(self.tasks[i].place).0, self.tasks[i].seq));
        found
    }

    /// Whether nothing of the queue is left, and nothing that may be.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.dead.is_empty() && !self.paused
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A task whose place is one of the wall clock.
    fn task(ms: i64, seq: u64) -> Task {
        Task {
            number: seq as usize,
            id: TaskId::new(seq.to_string()).unwrap(),
            seq,
            place: Place::Wall(ms * MS),
            attempt: 0,
            attempts_max: 20,
            expires: None,
            group: None,
            headers: Headers::new(),
            bytes: 0,
            last_failure: None,
            lease: None,
            known_to: None,
            cancelled: false,
        }
    }

    #[test]
    fn a_listing_goes_by_time_exactly_and_by_sequence_as_declared() {
        let now = Now { from: 0, to: 0, wall: 0, slop: 0 };
        let agrees = |order, places: &[(i64, u64)]| {
            let tasks: Vec<Task> = places.iter().map(|(ms, seq)| task(*ms, *seq)).collect();
            check_listing(&now, order, &tasks.iter().collect::<Vec<_>>()).is_ok()
        };
        let within = Order::Within(Duration::from_millis(10));
        for order in [Order::Exact, Order::PerShard(2), within, Order::Any] {
            assert!(agrees(order, &[(1, 2), (2, 1), (2, 3)]), "{order:?}");
            assert!(!agrees(order, &[(2, 1), (1, 2)]), "{order:?}: a later time first");
            assert_eq!(agrees(order, &[(1, 2), (1, 1)]), order != Order::Exact, "{order:?}: a tie of two");
        }
        assert!(!agrees(Order::PerShard(2), &[(1, 3), (1, 2), (1, 1)]), "two of these are of one shard");
    }
}
