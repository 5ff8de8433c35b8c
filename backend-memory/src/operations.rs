//! Changes that were given an operation id: how far they came, so that repeating one changes no task twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Action, ChangeOutcome, Changed, Error, ErrorKind, OperationId, QueueName, Result};
use parking_lot::Mutex;

use crate::now::Now;
use crate::store::GroupWalk;

/// How long an operation is remembered after it was last heard of.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// The most that is remembered: one for an operation, and one for each answer that it holds.
const WEIGHT_MAX: usize = 1_000_000;

#[derive(Debug, Default)]
pub(crate) struct Operations(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    records: HashMap<OperationId, Record>,
    weight: usize,
}

#[derive(Debug)]
struct Record {
    queue: QueueName,
    action: Action,
    until_us: u64,
    weight: usize,
    state: State,
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
#[derive(Clone, Debug)]
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
    pub(crate) progress: Option<Progress>,
    remembered: Option<(OperationId, Arc<Mutex<Table>>)>,
}

impl Operations {
    /// Begins a change, which will hold at most `answers` answers.
    pub(crate) fn begin(
        &self,
        now: Now,
        operation: Option<OperationId>,
        (queue, action): (&QueueName, Action),
        answers: usize,
    ) -> Result<Begun> {
        let Some(id) = operation else { return Ok(Begun::Run(Running { progress: None, remembered: None })) };
        let mut table = self.0.lock();
        table.forget_old(now);
        let progress = match table.records.get_mut(&id) {
            Some(record) if record.queue != *queue || record.action != action => {
                return Err(Error::new(ErrorKind::Invalid, format!("operation {id} was another change")));
            }
            Some(record) => match std::mem::replace(&mut record.state, State::Running) {
                State::Running => return Err(Error::new(ErrorKind::Busy, format!("operation {id} is running"))),
                State::Stopped(progress) => Some(progress),
                State::Done(changed) => {
                    record.state = State::Done(changed.clone());
                    return Ok(Begun::Done(changed));
                }
            },
            None => {
                let weight = 1 + answers;
                if table.weight + weight > WEIGHT_MAX {
                    let what = format!("{WEIGHT_MAX} remembered changes; they are forgotten after {WINDOW:?}");
                    return Err(crate::store::full(&what));
                }
                table.weight += weight;
                let until_us = now.mono_us + WINDOW.as_micros() as u64;
                let record = Record { queue: queue.clone(), action, until_us, weight, state: State::Running };
                table.records.insert(id, record);
                None
            }
        };
        Ok(Begun::Run(Running { progress, remembered: Some((id, self.0.clone())) }))
    }
}

impl Table {
    /// Forgets what is past its window; looks only once that is worth it.
    fn forget_old(&mut self, now: Now) {
        let records = &mut self.records;
        let mut freed = 0;
        records.retain(|_, record| {
            let keep = record.until_us > now.mono_us || matches!(record.state, State::Running);
            freed += if keep { 0 } else { record.weight };
            keep
        });
        self.weight -= freed;
        if records.capacity() > 64 && records.len() * 8 < records.capacity() {
            records.shrink_to(records.len() * 2);
        }
    }
}

impl Running {
    /// Remembers the answer.
    pub(crate) fn finish(mut self, now: Now, changed: &Changed) {
        self.progress = None;
        if let Some((id, table)) = self.remembered.take()
            && let Some(record) = table.lock().records.get_mut(&id)
        {
            record.until_us = now.mono_us + WINDOW.as_micros() as u64;
            record.state = State::Done(changed.clone());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some((id, table)) = self.remembered.take() else { return };
        let mut table = table.lock();
        match (self.progress.take(), table.records.get_mut(&id)) {
            (Some(progress), Some(record)) => record.state = State::Stopped(progress),
            // Nothing was changed yet: as if it had never begun.
            (None, Some(_)) => {
                if let Some(record) = table.records.remove(&id) {
                    table.weight -= record.weight;
                }
            }
            (_, None) => {}
        }
    }
}
