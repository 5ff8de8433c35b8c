//! Progress of changes with operation ids, so that a repeated change changes no task twice.

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

/// Time for which an operation is remembered after its last use.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// Maximum size of the memory: an operation counts one, and each stored answer counts one.
const WEIGHT_MAX: usize = 2_000_000;

#[derive(Debug, Default)]
pub(crate) struct Operations(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    records: HashMap<OperationId, Record>,
    weight: usize,
    /// Time of the next search for expired operations.
    look_at_us: u64,
}

#[derive(Debug)]
struct Record {
    what: What,
    until_us: u64,
    weight: usize,
    state: State,
}

/// The change that an operation id stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct What {
    queue: QueueName,
    action: Action,
    /// Hash of the group's name, or of all tasks. It distinguishes two changes with the same id that differ only here.
    selected: u64,
    answers: usize,
}

#[derive(Debug)]
enum State {
    /// A caller is running it.
    Running,
    /// Its caller was dropped before the end.
    Stopped(Progress),
    Done(Changed),
}

/// The progress of a change.
#[derive(Debug)]
pub(crate) enum Progress {
    Tasks(Vec<Result<ChangeOutcome>>),
    Group(GroupWalk),
}

/// The state of an operation when a change begins.
pub(crate) enum Begun {
    /// It is new, or continues from here.
    Run(Running),
    /// It is already done.
    Done(Changed),
}

/// A running change. If it is dropped before its end, it stores its progress for a repeated call.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) progress: Progress,
    remembered: Option<(OperationId, Arc<Mutex<Table>>)>,
}

impl What {
    fn of(queue: &QueueName, select: &Select, change: &Change) -> Self {
        // Fixed keys, the same in every run: the hash must only distinguish, not resist attacks.
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
            // Refused before it begins.
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
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("operation id {id} was used for a different change: use a new id"),
                ));
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
                    let limit = format!("{WEIGHT_MAX} changes with an operation id");
                    return Err(crate::store::full_for_now(&limit, &format!("they are forgotten, after {WINDOW:?}")));
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
    /// Forgets expired operations, at most once a second, and when room is needed: it visits every operation.
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
    /// Stores the answer and returns it.
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
