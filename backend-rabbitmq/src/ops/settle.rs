//! Settles and extends leases. The message that replaces a task is published and confirmed before the task is
//! acknowledged. So a failure in between may leave both, but never loses the task.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{DeadLetterCause, Disposition, Due, Error, ErrorKind, Lease, QueueName, Result, owned};

use crate::codec::message::Message;
use crate::consuming::giving;
use crate::consuming::line::{Held, Leased, Line, Looked, unclear};
use crate::consuming::lines::Lines;
use crate::store::Store;
use crate::transport::publisher::Outgoing;

/// A disposition under way.
struct Ending {
    at: usize,
    fence: u64,
    leased: Leased,
    /// The message that replaces the task; `None` if the task is completed.
    instead: Option<Message>,
    /// Its destination: this queue, or, for `None`, by its due time.
    to: Option<String>,
}

pub(crate) async fn settle(
    store: &Arc<Store>,
    lines: &Arc<Lines>,
    queue: &QueueName,
    dispositions: Vec<(Lease, Disposition)>,
) -> Result<Vec<Result<()>>> {
    store.lifecycle.open()?;
    store.caps.check_batch(dispositions.len())?;
    if dispositions.is_empty() {
        return Ok(Vec::new());
    }
    let (store, lines, queue) = (store.clone(), lines.clone(), queue.clone());
    let settling = async move { Ok(end(&store, &lines, &queue, dispositions).await) };
    owned(settling, |_| async {}).await
}

pub(crate) fn extend(
    store: &Store,
    lines: &Lines,
    queue: &QueueName,
    leases: Vec<Lease>,
    by: Duration,
) -> Result<Vec<Result<Lease>>> {
    store.lifecycle.open()?;
    store.caps.check_batch(leases.len())?;
    store.caps.check_lease(by)?;
    let line = lines.get(queue);
    let extended = |mut lease: Lease| {
        let looked = line.as_ref().map_or(Looked::Lost, |line| line.extend(store, &lease, by));
        match looked {
            Looked::Live(Some(expires_at)) => {
                lease.expires_at = expires_at;
                Ok(lease)
            }
            Looked::Live(None) => Err(Error::new(
                ErrorKind::OutOfRange,
                format!("a lease may last at most {:?}, extensions included", store.config.hold_time_max()),
            )),
            Looked::Lost => Err(Error::lease_lost()),
            Looked::Unclear => Err(unclear()),
        }
    };
    Ok(leases.into_iter().map(extended).collect())
}

/// Settles leases, each with its disposition.
///
/// # Cancel safety
/// If dropped, a disposition may be half done, and its task be delivered twice. Call it from a task that is not
/// dropped.
pub(crate) async fn end(
    store: &Arc<Store>,
    lines: &Lines,
    queue: &QueueName,
    dispositions: Vec<(Lease, Disposition)>,
) -> Vec<Result<()>> {
    let mut results: Vec<Result<()>> = dispositions.iter().map(|_| Err(Error::lease_lost())).collect();
    let Some(line) = lines.get(queue) else {
        if let Err(closed) = store.lifecycle.open() {
            results.fill_with(|| Err(closed.clone()));
        }
        return results;
    };
    let mut endings = Vec::with_capacity(dispositions.len());
    for (at, (lease, disposition)) in dispositions.into_iter().enumerate() {
        match begin(store, &line, at, &lease, disposition) {
            Ok(ending) => endings.push(ending),
            Err(e) => results[at] = Err(e),
        }
    }
    // In the order of delivery, so that released tasks keep their order.
    endings.sort_by_key(|ending| ending.instead.as_ref().map(|instead| (instead.due_ms, instead.seq)));
    let published = publish(store, &line, endings, &mut results).await;
    let held: Vec<&Held> = published.iter().map(|ending| &ending.leased.held).collect();
    if held.is_empty() {
        return results;
    }
    let acknowledged = giving::acknowledge_for_certain(store, &line, line.channels(), &held).await;
    for (ending, acknowledged) in published.iter().zip(acknowledged) {
        results[ending.at] = match (acknowledged, &ending.instead) {
            (Ok(()), _) => Ok(()),
            // The acknowledgement was not sent: the channel is lost, and the lease with it.
            (Err(None), None) => Err(store.lifecycle.open().err().unwrap_or_else(Error::lease_lost)),
            (Err(Some(e)), None) => {
                line.note_unclear(ending.fence);
                Err(e)
            }
            // The disposition took effect, but the task itself may be delivered again, in addition to its replacement.
            (Err(e), Some(_)) => {
                line.note_unclear(ending.fence);
                Err(e.unwrap_or_else(unclear))
            }
        };
    }
    line.ended(published.len());
    results
}

/// Takes the lease, and creates the message that replaces the task.
fn begin(store: &Store, line: &Line, at: usize, lease: &Lease, disposition: Disposition) -> Result<Ending> {
    let leased = match line.take(lease) {
        Looked::Live(leased) => leased,
        Looked::Lost => {
            // Closing the backend has ended all leases.
            store.lifecycle.open()?;
            return Err(Error::lease_lost());
        }
        Looked::Unclear => return Err(unclear()),
    };
    let message = Message { fence: lease.fence, ..leased.held.message.clone() };
    let given_back = leased.held.attempts;
    let dead = || Some(store.names.dead(&line.queue));
    let (instead, to) = match disposition {
        Disposition::Complete => (None, None),
        Disposition::Retry { reason, .. } if leased.attempt >= message.attempts_max => {
            let cause = DeadLetterCause::AttemptsUsedUp;
            (Some(giving::as_dead(store, &message, leased.attempt, cause, reason.as_str().to_owned())), dead())
        }
        Disposition::DeadLetter { reason } => {
            let cause = DeadLetterCause::Requested;
            (Some(giving::as_dead(store, &message, leased.attempt, cause, reason.as_str().to_owned())), dead())
        }
        Disposition::Retry { after, reason } => match due_in(store, after) {
            Ok(due_ms) => {
                let failure = Some(reason.as_str().to_owned());
                (Some(Message { due_ms, attempts: leased.attempt, failure, ..message }), None)
            }
            Err(e) => {
                line.put_back(lease.fence, leased);
                return Err(e);
            }
        },
        Disposition::Snooze { after } => match due_in(store, after) {
            Ok(due_ms) => (Some(Message { due_ms, attempts: given_back, ..message }), None),
            Err(e) => {
                line.put_back(lease.fence, leased);
                return Err(e);
            }
        },
        Disposition::Release => (Some(Message { attempts: given_back, ..message }), None),
        _ => {
            line.put_back(lease.fence, leased);
            return Err(Error::unsupported("this disposition"));
        }
    };
    Ok(Ending { at, fence: lease.fence, leased, instead, to })
}

fn due_in(store: &Store, after: Duration) -> Result<i64> {
    store.caps.check_delay(Due::After(after))?;
    Ok(store.time.now().saturating_add(after).unix_millis_ceil())
}

/// Publishes the messages that replace the tasks, and returns the dispositions whose tasks can be acknowledged now.
async fn publish(store: &Arc<Store>, line: &Line, endings: Vec<Ending>, results: &mut [Result<()>]) -> Vec<Ending> {
    let outgoing: Vec<Outgoing> = endings
        .iter()
        .filter_map(|ending| {
            let instead = ending.instead.as_ref()?;
            Some(match &ending.to {
                Some(name) => store.outbox.to_queue(name.clone(), instead),
                None => store.outbox.route(&line.queue, instead),
            })
        })
        .collect();
    // Before publishing, because the task may arrive again before the confirmation.
    let now_ms = store.time.now_ms();
    let comes_at = |ending: &Ending| {
        let instead = ending.instead.as_ref().filter(|_| ending.to.is_none())?;
        Some(instead.due_ms).filter(|due_ms| *due_ms > now_ms)
    };
    endings.iter().filter_map(comes_at).for_each(|due_ms| line.expect(due_ms));
    let mut answers = store.outbox.publish(&line.queue, outgoing).await.into_iter();
    let mut done = Vec::with_capacity(endings.len());
    for ending in endings {
        let answer = if ending.instead.is_some() { answers.next().unwrap_or(Ok(())) } else { Ok(()) };
        match answer.map_err(giving::unpublished) {
            Ok(()) => done.push(ending),
            Err(e) => {
                // The task is still here, whether or not a copy was published. Its lease continues.
                comes_at(&ending).into_iter().for_each(|due_ms| line.expect_not(due_ms));
                if e.kind() == ErrorKind::Ambiguous {
                    line.note_unclear(ending.fence);
                }
                results[ending.at] = Err(e);
                line.put_back(ending.fence, ending.leased);
            }
        }
    }
    done
}
