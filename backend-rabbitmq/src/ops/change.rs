//! Changes pending tasks. A message inside a broker's queue can't be changed, so a change is a separate message: a
//! *tombstone* travels the same way as its task, one step ahead, and waits for the task at the gate ([`crate::gate`]).
//!
//! The gate cancels the task, or publishes it again with another due time. So a change does not reach a task that is in
//! flight or in the ready queue. A task can be moved to an earlier time only by as much as it arrives early at the
//! gate. And the answer to the caller is only that the change was requested.

use std::sync::Arc;

use delayline_core::{
    Action, Bytes, Change, ChangeOutcome, Changed, Due, Error, ErrorKind, NewTask, QueueName, Result, Select, Shift,
    TaskRef, owned,
};

use crate::codec::kind::{Kind, TombstoneAction};
use crate::codec::message::Message;
use crate::codec::receipt::read_receipt;
use crate::store::Store;

pub(crate) async fn change(store: &Arc<Store>, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
    store.lifecycle.open()?;
    let Select::Tasks(tasks) = select else { return Err(Error::unsupported("changing a group")) };
    store.caps.check_batch(tasks.len())?;
    let (store, queue) = (store.clone(), queue.clone());
    let changing = async move { request(&store, &queue, tasks, change.action).await };
    owned(changing, |_| async {}).await
}

/// Publishes a tombstone for each task. Call it from a task that is not dropped.
///
/// # Errors
/// For a task: [`Invalid`](ErrorKind::Invalid) without the receipt from `schedule`,
/// [`OutOfRange`](ErrorKind::OutOfRange) for a shift, and the errors of publishing. For the whole call:
/// [`OutOfRange`](ErrorKind::OutOfRange) for a move.
pub(crate) async fn request(store: &Store, queue: &QueueName, tasks: Vec<TaskRef>, action: Action) -> Result<Changed> {
    let move_to = match action {
        Action::MoveTo(due) => Some(due_at_ms(store, due)?),
        Action::Cancel | Action::Shift(_) => None,
        _ => return Err(Error::unsupported("this change")),
    };
    let first = store.counters.sequences(tasks.len());
    let tombstones: Vec<Result<Message>> =
        tasks.into_iter().zip(first..).map(|(task, seq)| tombstone(store, task, seq, action, move_to)).collect();
    let sent = tombstones.iter().flatten().map(|message| store.outbox.route(queue, message)).collect();
    let mut answers = store.outbox.publish(queue, sent).await.into_iter();
    let mut changed = Changed::default();
    for tombstone in tombstones {
        let outcome = tombstone.and_then(|_| match answers.next() {
            Some(Ok(())) => Ok(ChangeOutcome::Requested),
            Some(Err(e)) => Err(e.into_error("requesting a change")),
            None => Err(Error::new(ErrorKind::Ambiguous, "requesting a change: no answer")),
        });
        changed.count(&outcome);
        changed.outcomes.push(outcome);
    }
    Ok(changed)
}

/// The millisecond, rounded up, at which a task that is accepted now becomes due.
///
/// # Errors
/// [`OutOfRange`](ErrorKind::OutOfRange).
pub(crate) fn due_at_ms(store: &Store, due: Due) -> Result<i64> {
    store.caps.check_delay(due)?;
    let now = store.time.now();
    let at = due.instant(now);
    if at.saturating_since(now) > store.caps.delay_max {
        return Err(store.caps.out_of_range());
    }
    Ok(at.unix_millis_ceil())
}

fn tombstone(store: &Store, task: TaskRef, seq: u64, action: Action, move_to: Option<i64>) -> Result<Message> {
    let Some((due_ms, target)) = read_receipt(&task.receipt) else {
        return Err(Error::new(
            ErrorKind::Invalid,
            "RabbitMQ requires the receipt of a task to change it: pass the `TaskRef` that `schedule` returned",
        ));
    };
    let action = match (action, move_to) {
        (Action::Cancel, _) => TombstoneAction::Cancel,
        (Action::MoveTo(due), None) => TombstoneAction::MoveTo(due_at_ms(store, due)?),
        (Action::MoveTo(_), Some(ms)) => TombstoneAction::MoveTo(ms),
        (Action::Shift(by), _) => TombstoneAction::Shift(shifted(store, due_ms, by)?),
        _ => return Err(Error::unsupported("this change")),
    };
    let none = NewTask::new(Due::NOW, Bytes::new());
    let message = Message::new(none, task.id, store.ids.number(), due_ms, seq, None);
    Ok(Message { kind: Kind::Tombstone { target, action }, ..message })
}

/// The shift in milliseconds. Later is rounded up, sooner down, so that no task becomes early by rounding.
fn shifted(store: &Store, due_ms: i64, by: Shift) -> Result<i64> {
    let by_ms = by.as_millis();
    let delay_max_ms = i64::try_from(store.caps.delay_max.as_millis()).unwrap_or(i64::MAX);
    if by_ms > 0 && due_ms.saturating_add(by_ms) > store.time.now_ms().saturating_add(delay_max_ms) {
        return Err(store.caps.out_of_range());
    }
    Ok(by_ms)
}
