//! Schedules tasks: a batch in chunks, each under one lock.

use delayline_core::{NewTask, OnConflict, QueueName, Result, ScheduleOutcome, Scheduled};

use super::CHUNK;
use crate::now::Now;
use crate::queues::Queues;
use crate::store::{self, Usage};

/// [`DelayBackend::schedule`](delayline_core::DelayBackend::schedule).
pub(crate) async fn schedule(
    queues: &Queues,
    queue: &QueueName,
    tasks: Vec<NewTask>,
) -> Result<Vec<Result<Scheduled>>> {
    queues.open()?;
    queues.caps.check_batch(tasks.len())?;
    let mut results = Vec::with_capacity(tasks.len());
    // One instant for the whole batch, even if it takes several locks.
    let now = queues.now();
    let mut tasks = tasks.into_iter();
    while tasks.len() > 0 {
        let left = tasks.len();
        if let Err(e) = schedule_chunk(queues, queue, now, &mut tasks, &mut results) {
            if results.is_empty() {
                return Err(e);
            }
            results.resize_with(results.len() + left, || Err(e.clone()));
            return Ok(results);
        }
        if tasks.len() > 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(results)
}

/// Schedules a chunk at one instant, up to the limits of the store.
fn schedule_chunk(
    queues: &Queues,
    queue: &QueueName,
    now: Now,
    tasks: &mut std::vec::IntoIter<NewTask>,
    results: &mut Vec<Result<Scheduled>>,
) -> Result<()> {
    let chunk = tasks.len().min(CHUNK);
    let wanted = Usage { tasks: chunk as u64, bytes: tasks.as_slice()[..chunk].iter().map(store::bytes_of).sum() };
    let all_fit = queues.room.reserve(wanted, Usage::default()).is_ok();
    let mut unused = Usage::default();
    let done = queues.on_queue(queue, |store| {
        for task in tasks.take(chunk) {
            let bytes = store::bytes_of(&task);
            // A task with an existing id needs no room, or only the difference to the task that it replaces. So a
            // repeated call works in a full store, too.
            let there = if all_fit { None } else { store.held_by(&task) };
            if !all_fit && let Err(never) = queues.caps.check(&task) {
                results.push(Err(never));
                continue;
            }
            let one = Usage { tasks: 1, bytes };
            let kept = there.is_some() && task.on_conflict == OnConflict::Keep;
            if !all_fit
                && !kept
                && let Err(full) = queues.room.reserve(one, there.unwrap_or_default())
            {
                results.push(Err(full));
                continue;
            }
            let result = store.schedule(now, &queues.caps, task);
            let taken = result
                .as_ref()
                .is_ok_and(|s| matches!(s.outcome, ScheduleOutcome::Created | ScheduleOutcome::Replaced));
            if !taken && !kept {
                unused.add(bytes);
            }
            if !all_fit {
                // The replaced task makes room for the next.
                queues.room.moved(store.take_moved());
            }
            results.push(result);
        }
        // A replacement leaves a stale key, too.
        store.sweep_after(chunk);
    });
    if done.is_err() && all_fit {
        unused = wanted;
    }
    queues.room.release(unused);
    done
}
