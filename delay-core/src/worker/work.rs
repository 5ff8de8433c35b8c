//! Running one handler and settling what came of it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tracing::{Instrument, Span};

use super::context::{CurrentLease, InFlight};
use super::handler::Outcome;
use super::lane::Lane;
use super::registry::Key;
use super::report::{Counts, one_more};
use super::{Context, Handled};
use crate::consume::settle::{Settling, settle};
use crate::consume::{refused, undecodable_verdict};
use crate::{ErrorKind, Reason, Result, Verdict};

/// A claimed task on its way to its handler.
pub(super) struct Work {
    pub(super) key: Key,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) payload: Bytes,
}

/// Which count a task adds to.
type Count = fn(&Counts) -> &AtomicU64;

/// How a handler ended.
enum Ended {
    Returned(Outcome),
    Panicked(Arc<str>),
    /// The worker shut down before it was started.
    NotStarted,
}

/// What is to be said of a task, and which count it adds to once that took effect.
struct Say {
    in_flight: Arc<InFlight>,
    lease: CurrentLease,
    verdict: Verdict,
    counted: Count,
}

impl Lane {
    /// Runs the handler of tasks that came together, and settles them.
    pub(super) async fn work(&self, works: Vec<Work>) {
        let (tasks, payloads): (Vec<_>, Vec<_>) =
            works.into_iter().map(|work| ((work.key, work.in_flight), work.payload)).unzip();
        let ended = self.run_handler(&tasks, payloads).await;
        let say = |((key, in_flight), ended): ((Key, Arc<InFlight>), Ended)| {
            // Where it is not here any more, the shutdown took it.
            let lease = self.registry.take(key)?;
            let (verdict, counted) = self.verdict(&in_flight, ended)?;
            Some(Say { in_flight, lease, verdict, counted })
        };
        let says = tasks.into_iter().zip(ended).filter_map(say).collect();
        tokio::select! {
            biased;
            () = self.settle(says) => {}
            () = self.shared.give_up.cancelled() => {}
        }
    }

    async fn run_handler(&self, tasks: &[(Key, Arc<InFlight>)], payloads: Vec<Bytes>) -> Vec<Ended> {
        if self.shared.shutdown.is_cancelled() {
            return tasks.iter().map(|_| Ended::NotStarted).collect();
        }
        let contexts = tasks.iter().map(|(_, task)| Context::new(task.clone(), self.shared.shutdown.clone()));
        let given = payloads.into_iter().zip(contexts).collect();
        // The call itself may panic too, before there is a future.
        let handling = AssertUnwindSafe(async { (self.handler)(given).await });
        match handling.catch_unwind().instrument(self.span(tasks)).await {
            Ok(outcomes) => outcomes.into_iter().map(Ended::Returned).collect(),
            Err(panic) => {
                let message: Arc<str> = message_of(&*panic).into();
                tasks.iter().map(|_| Ended::Panicked(message.clone())).collect()
            }
        }
    }

    fn span(&self, tasks: &[(Key, Arc<InFlight>)]) -> Span {
        let queue = &self.line.name;
        match tasks {
            [(_, task)] => {
                let lease = &task.task.lease;
                tracing::info_span!("task", %queue, id = %lease.id, attempt = lease.attempt)
            }
            _ => tracing::info_span!("tasks", %queue, count = tasks.len()),
        }
    }

    /// What to tell the store; nothing, where the handler has settled its task itself.
    fn verdict(&self, task: &InFlight, ended: Ended) -> Option<(Verdict, Count)> {
        let lease = &task.task.lease;
        let (queue, id, attempt) = (&self.line.name, &lease.id, lease.attempt);
        Some(match ended {
            Ended::NotStarted => (Verdict::Release, |counts| &counts.released),
            Ended::Panicked(message) => {
                one_more(&self.shared.counts.panicked);
                tracing::warn!(%queue, %id, attempt, %message, "the handler panicked");
                self.retry(task, None, Reason::new(format!("panicked: {message}")))
            }
            Ended::Returned(Outcome::Undecodable(e)) => {
                (undecodable_verdict(&self.line, id, &e), |counts| &counts.undecodable)
            }
            Ended::Returned(Outcome::Handled(handled)) => match handled {
                Handled::Complete => {
                    tracing::debug!(%queue, %id, attempt, "completed");
                    (Verdict::Complete, |counts| &counts.completed)
                }
                Handled::Retry { after, reason } => self.retry(task, after, reason),
                Handled::Snooze(after) => {
                    tracing::debug!(%queue, %id, attempt, ?after, "snoozed");
                    (Verdict::Snooze { after }, |counts| &counts.snoozed)
                }
                Handled::Bury(reason) => {
                    tracing::warn!(%queue, %id, attempt, %reason, "buried by its handler");
                    (Verdict::Bury { reason }, |counts| &counts.buried)
                }
                Handled::AlreadySettled => {
                    one_more(&self.shared.counts.already_settled);
                    return None;
                }
            },
        })
    }

    fn retry(&self, task: &InFlight, after: Option<Duration>, reason: Reason) -> (Verdict, Count) {
        let (queue, id, attempt) = (&self.line.name, &task.task.lease.id, task.task.lease.attempt);
        let after = after.unwrap_or_else(|| self.line.retry_delay(&self.shared.retry, attempt));
        if attempt >= task.task.max_attempts {
            tracing::warn!(%queue, %id, attempt, %reason, "buried, because its attempts are used up");
            return (Verdict::Retry { after, reason }, |counts| &counts.buried);
        }
        tracing::debug!(%queue, %id, attempt, %reason, ?after, "to be tried again");
        (Verdict::Retry { after, reason }, |counts| &counts.retried)
    }

    async fn settle(&self, says: Vec<Say>) {
        let settlings = says.iter().map(Say::settling).collect();
        let answers = settle(&self.line, settlings).await;
        let refused = says.into_iter().zip(answers).filter_map(|(say, answer)| self.settled(say, answer)).collect();
        let again: Vec<Say> = refused;
        let settlings = again.iter().map(Say::settling).collect();
        for (say, answer) in again.into_iter().zip(settle(&self.line, settlings).await) {
            self.settled(say, answer);
        }
    }

    /// Counts an answer. A verdict that the store refuses, such as a snooze beyond its range, becomes a retry.
    fn settled(&self, say: Say, answer: Result<()>) -> Option<Say> {
        let counts = &self.shared.counts;
        let (queue, id) = (&self.line.name, &say.lease.lease.id);
        let Err(e) = answer else {
            one_more((say.counted)(counts));
            return None;
        };
        if refused(&e) {
            tracing::warn!(%queue, %id, error = %e, "the verdict was refused; the task is tried again instead");
            let (verdict, counted) = self.retry(&say.in_flight, None, Reason::new(e.to_string()));
            return Some(Say { verdict, counted, ..say });
        }
        match e.kind() {
            ErrorKind::LeaseLost => {
                one_more(&counts.lease_lost);
                tracing::warn!(%queue, %id, error = %e, "not settled, because its lease was lost");
            }
            ErrorKind::Ambiguous => {
                one_more(&counts.unsettled);
                tracing::debug!(%queue, %id, error = %e, "not known to be settled");
            }
            _ => {
                one_more(&counts.unsettled);
                tracing::warn!(%queue, %id, error = %e, "not settled; its lease ends by itself");
            }
        }
        None
    }
}

impl Say {
    fn settling(&self) -> Settling {
        Settling { lease: self.lease.lease.clone(), ends: self.lease.ends, verdict: self.verdict.clone() }
    }
}

/// What a panic says.
fn message_of(panic: &(dyn Any + Send)) -> &str {
    if let Some(message) = panic.downcast_ref::<&str>() {
        return message;
    }
    panic.downcast_ref::<String>().map_or("without a message", String::as_str)
}
