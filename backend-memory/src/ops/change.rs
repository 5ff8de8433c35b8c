//! Changes single tasks, and whole groups in bounded steps.

use delayline_core::{
    Action, Change, ChangeOutcome, Changed, Error, ErrorKind, GroupName, QueueName, Result, Select, TaskRef,
};

use super::CHUNK;
use crate::operations::{Begun, Operations, Progress};
use crate::queues::Queues;
use crate::store::{self, GroupWalk};

/// [`DelayBackend::change`](delayline_core::DelayBackend::change).
pub(crate) async fn change(
    queues: &Queues,
    operations: &Operations,
    queue: &QueueName,
    select: Select,
    change: Change,
) -> Result<Changed> {
    queues.open()?;
    store::check_change(queues.now(), &queues.caps, change.action)?;
    if let Select::Tasks(tasks) = &select {
        queues.caps.check_batch(tasks.len())?;
    }
    let fresh = || match &select {
        Select::Tasks(_) => Ok(Progress::Tasks(Vec::new())),
        Select::Group(_) => Ok(Progress::Group(queues.on_existing(queue, |store| store.walk())?.unwrap_or_default())),
        _ => Err(Error::unsupported("this selection of tasks")),
    };
    let begun = operations.begin(queues.now(), (queue, &select, &change), fresh)?;
    let mut running = match begun {
        Begun::Done(changed) => return Ok(changed),
        Begun::Run(running) => running,
    };
    match (&select, &mut running.progress) {
        (Select::Tasks(tasks), Progress::Tasks(done)) => {
            change_tasks(queues, queue, tasks, change.action, done).await?;
        }
        (Select::Group(group), Progress::Group(walk)) => {
            change_group(queues, queue, group, change.action, walk).await?;
        }
        _ => return Err(Error::new(ErrorKind::Invalid, "the operation was a change of another kind")),
    }
    Ok(running.finish(queues.now()))
}

async fn change_tasks(
    queues: &Queues,
    queue: &QueueName,
    tasks: &[TaskRef],
    action: Action,
    outcomes: &mut Vec<Result<ChangeOutcome>>,
) -> Result<()> {
    let caps = &queues.caps;
    while outcomes.len() < tasks.len() {
        let chunk = &tasks[outcomes.len()..tasks.len().min(outcomes.len() + CHUNK)];
        let now = queues.now();
        let done = queues.on_existing(queue, |store| {
            chunk.iter().for_each(|task| outcomes.push(store.change_task(now, caps, task, action)));
            store.sweep_after(chunk.len());
        })?;
        if done.is_none() {
            outcomes.extend(chunk.iter().map(|_| Ok(ChangeOutcome::NotFound)));
        }
        if outcomes.len() < tasks.len() {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

async fn change_group(
    queues: &Queues,
    queue: &QueueName,
    group: &GroupName,
    action: Action,
    walk: &mut GroupWalk,
) -> Result<()> {
    loop {
        let now = queues.now();
        let through = queues.on_existing(queue, |store| store.change_group(now, &queues.caps, group, action, walk))?;
        if through.unwrap_or(true) {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}
