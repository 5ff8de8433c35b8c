//! Schedules tasks. Each becomes a message with a number, a sequence and a due time, which the broker confirms.

use std::sync::Arc;

use delayline_core::{
    Due, Error, ErrorKind, NewTask, QueueName, Result, ScheduleOutcome, Scheduled, TaskRef, Timestamp, owned,
};

use crate::codec::message::Message;
use crate::codec::receipt::receipt;
use crate::store::Store;
use crate::transport::publisher::NotPublished;

pub(crate) async fn schedule(
    store: &Arc<Store>,
    queue: &QueueName,
    tasks: Vec<NewTask>,
) -> Result<Vec<Result<Scheduled>>> {
    store.lifecycle.open()?;
    store.caps.check_batch(tasks.len())?;
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let (store, queue) = (store.clone(), queue.clone());
    let scheduling = async move {
        store.topology.ensure(&queue).await?;
        all_answered(send(&store, &queue, tasks).await)
    };
    owned(scheduling, |_| async {}).await
}

/// Accepts tasks and publishes them.
async fn send(store: &Store, queue: &QueueName, tasks: Vec<NewTask>) -> Vec<Result<Scheduled>> {
    let (now, first) = (store.time.now(), store.counters.sequences(tasks.len().max(1)));
    let accepted: Vec<Result<Message>> =
        (first..).zip(tasks).map(|(seq, task)| accept(store, task, now, seq)).collect();
    let messages = accepted.iter().filter_map(|accepted| accepted.as_ref().ok());
    let outgoing = messages.map(|message| store.outbox.route(queue, message)).collect();
    let mut answers = store.outbox.publish(queue, outgoing).await.into_iter();
    let scheduled = accepted.into_iter().map(|accepted| {
        let message = accepted?;
        let answer = answers.next().unwrap_or(Err(NotPublished::Refused));
        answer.map_err(|e| e.into_error("scheduling"))?;
        let receipt = receipt(message.due_ms, message.number);
        let task = TaskRef::new(message.id, Timestamp::from_unix_millis(message.due_ms), receipt);
        Ok(Scheduled::new(task, ScheduleOutcome::Created))
    });
    scheduled.collect()
}

/// The message of a task that is accepted at this instant.
fn accept(store: &Store, task: NewTask, now: Timestamp, seq: u64) -> Result<Message> {
    store.caps.check(&task)?;
    let ms = |due: Due| due.instant(now).unix_millis_ceil();
    let due_ms = ms(task.due);
    let delay_max = i64::try_from(store.caps.delay_max.as_millis()).unwrap_or(i64::MAX);
    // An instant is measured from the start of the current millisecond.
    if matches!(task.due, Due::At(_)) && due_ms > now.unix_millis_floor().saturating_add(delay_max) {
        return Err(store.caps.out_of_range());
    }
    if let Some(Due::After(expires)) = task.expires
        && expires > store.caps.delay_max
    {
        return Err(store.caps.out_of_range());
    }
    let expires_ms = task.expires.map(ms);
    if expires_ms.is_some_and(|expires| expires < due_ms) {
        return Err(Error::new(ErrorKind::Invalid, "the task expires before it is due"));
    }
    let id = task.id.clone().unwrap_or_else(|| store.ids.task_id());
    Ok(Message::new(task, id, store.ids.number(), due_ms, seq, expires_ms))
}

/// One answer for each item. If all items failed with the same error and none can have taken effect, the error of the
/// whole call.
fn all_answered<T>(answers: Vec<Result<T>>) -> Result<Vec<Result<T>>> {
    let whole = |e: &Error| matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::Closed);
    match answers.first() {
        Some(Err(first)) if whole(first) => {
            let alike = |answer: &Result<T>| answer.as_ref().is_err_and(|e| e.kind() == first.kind());
            if answers.iter().all(alike) { Err(first.clone()) } else { Ok(answers) }
        }
        _ => Ok(answers),
    }
}
