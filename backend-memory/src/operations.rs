//! Changes that were given an operation id: how far they came, so that repeating one changes no task twice.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Action, Change, ChangeOutcome, Changed, Error, ErrorKind, OperationId, QueueName, Result, Select,
};
use parking_lot::Mutex;

use crate::now::Now;
use crate::store::GroupWalk;

/// How long an operation is remembered after it was last heard of.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// The most that is remembered: one for an operation, and one for each answer that it holds.
const WEIGHT_MAX: usize = 2_000_000;

#[derive(Debug, Default)]
pub(crate) struct Operations(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    records: HashMap<OperationId, Record>,
    weight: usize,
    /// When it is worth looking for what is past its window again.
    look_at_us: u64,
}

#[derive(Debug)]
struct Record {
    what: What,
    until_us: u64,
    weight: usize,
    state: State,
}

/// What an operation id was given to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct What {
    queue: QueueName,
    action: Action,
    /// Of the group's name, or of all tasks: two changes of one id that differ only here are told apart by it.
    selected: u64,
    answers: usize,
}

#[derive(Debug)]
enum State {
    /// Somebody is at it.
    Running,
    /// It was dropped on the way.
    Stopped(Progress),
    Done(Changed),
}

/// How far a change has come.
#[derive(Debug)]
pub(crate) enum Progress {
    Tasks(Vec<Result<ChangeOutcome>>),
    Group(GroupWalk),
}

/// What a change finds when it begins.
pub(crate) enum Begun {
    /// It is new, or goes on from here.
    Run(Running),
    /// It was done already.
    Done(Changed),
}

/// A change at work. Dropped unfinished, it leaves its progress for a repetition.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) progress: Progress,
    remembered: Option<(OperationId, Arc<Mutex<Table>>)>,
}

impl What {
    fn of(queue: &QueueName, select: &Select, change: &Change) -> Self {
        // The same keys in every process run: it need only tell apart, not withstand anybody.
        let mut hasher = DefaultHasher::new();
        let answers = match select {
            Select::Group(name) => {
                name.hash(&mut hasher);
                0
            }
            Select::Tasks(tasks) => {
                tasks.iter().for_each(|task| (&task.id, &task.receipt).hash(&mut hasher));
                tasks.len()
            }
            // It is refused before it begins.
            _ => 0,
        };
        Self { queue: queue.clone(), action: change.action, selected: hasher.finish(), answers }
    }
}

impl Operations {
    /// Begins a change, with the progress that `fresh` gives if it is new.
    pub(crate) fn begin(
        &self,
        now: Now,
        (queue, select, change): (&QueueName, &Select, &Change),
        fresh: impl FnOnce() -> Result<Progress>,
    ) -> Result<Begun> {
        let Some(id) = change.operation else {
            return Ok(Begun::Run(Running { progress: fresh()?, remembered: None }));
        };
        let what = What::of(queue, select, change);
        let mut table = self.0.lock();
        table.forget_old(now, 1 + what.answers);
        let until_us = now.mono_us + WINDOW.as_micros() as u64;
        let progress = match table.records.get_mut(&id) {
            Some(record) if record.what != what => {
                return Err(Error::new(ErrorKind::Invalid, format!("operation {id} was another change")));
            }
            Some(record) => {
                record.until_us = until_us;
                match std::mem::replace(&mut record.state, State::Running) {
                    State::Running => return Err(Error::new(ErrorKind::Busy, format!("operation {id} is running"))),
                    State::Stopped(progress) => progress,
                    State::Done(changed) => {
                        record.state = State::Done(changed.clone());
                        return Ok(Begun::Done(changed));
                    }
                }
            }
            None => {
                let weight = 1 + what.answers;
                if table.weight + weight > WEIGHT_MAX {
                    let limit = format!("{WEIGHT_MAX} remembered changes; they are forgotten after {WINDOW:?}");
                    return Err(crate::store::full(&limit));
                }
                let progress = fresh()?;
                table.weight += weight;
                table.records.insert(id, Record { what, until_us, weight, state: State::Running });
                progress
            }
        };
        Ok(Begun::Run(Running { progress, remembered: Some((id, self.0.clone())) }))
    }
}

impl Table {
    /// Forgets what is past its window, once a second and when room is wanted: the look costs a look at each.
    fn forget_old(&mut self, now: Now, wanted: usize) {
        if now.mono_us < self.look_at_us && self.weight + wanted <= WEIGHT_MAX {
            return;
        }
        self.look_at_us = now.mono_us + 1_000_000;
        let mut freed = 0;
        self.records.retain(|_, record| {
            let keep = record.until_us > now.mono_us || matches!(record.state, State::Running);
            freed += if keep { 0 } else { record.weight };
            keep
        });
        self.weight -= freed;
        if self.records.capacity() > 64 && self.records.len() * 8 < self.records.capacity() {
            self.records.shrink_to(self.records.len() * 2);
        }
    }
}

impl Running {
    /// Remembers the answer, and gives it.
    pub(crate) fn finish(mut self, now: Now) -> Changed {
        let changed = match std::mem::replace(&mut self.progress, Progress::Tasks(Vec::new())) {
            Progress::Group(walk) => walk.changed,
            Progress::Tasks(outcomes) => {
                let mut changed = Changed::default();
                outcomes.iter().for_each(|outcome| changed.count(outcome));
                changed.outcomes = outcomes;
                changed
            }
        };
        if let Some((id, table)) = self.remembered.take()
            && let Some(record) = table.lock().records.get_mut(&id)
        {
            record.until_us = now.mono_us + WINDOW.as_micros() as u64;
            record.state = State::Done(changed.clone());
        }
        changed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some((id, table)) = self.remembered.take() else { return };
        if let Some(record) = table.lock().records.get_mut(&id) {
            let progress = std::mem::replace(&mut self.progress, Progress::Tasks(Vec::new()));
            record.state = State::Stopped(progress);
        }
    }
}
