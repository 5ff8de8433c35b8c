//! Running one handler, and settling its task.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::context::{Context, CurrentLease, InFlight};
use super::handler::{Answer, Handler};
use super::lane::Lane;
use super::outcome::HandlerOutcome;
use super::registry::Key;
use super::report::{Counts, one_more};
use crate::caught::caught_in;
use crate::consume::refused;
use crate::consume::settle::{Settling, settle, settle_one};
use crate::consume::undecoded::{Undecoded, why_dead_lettered, why_retried};
use crate::{Disposition, Error, ErrorKind, Reason, Result};
use bytes::Bytes;

/// A claimed task on its way to its handler.
pub(super) struct Work {
    pub(super) key: Key,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) payload: Bytes,
}

/// How a handler ended.
enum Ended {
    Returned(Answer),
    Panicked(Arc<str>),
    /// The worker shut down before the handler was started.
    NotStarted,
}

/// A disposition to send for a task.
struct Say {
    in_flight: Arc<InFlight>,
    lease: CurrentLease,
    disposition: Disposition,
    done: Done,
    /// Whether it replaces a disposition that was rejected.
    is_replacement: bool,
}

/// What happened to a task once its disposition took effect: one word, and its counter.
type Done = (&'static str, fn(&Counts) -> &AtomicU64);
const COMPLETED: Done = ("completed", |counts| &counts.completed);
const RETRIED: Done = ("retried", |counts| &counts.retried);
const SNOOZED: Done = ("snoozed", |counts| &counts.snoozed);
const DEAD_LETTERED: Done = ("dead-lettered", |counts| &counts.dead_lettered);
const RELEASED: Done = ("released", |counts| &counts.released);
const UNDECODABLE: Done = ("dead-lettered", |counts| &counts.undecodable);

impl Lane {
    /// Runs the handler of one task, and settles the task.
    pub(super) async fn work_one(&self, Work { key, in_flight, payload }: Work) {
        let ended = match &self.handler {
            Handler::One(run) if !self.shared.shutdown.is_cancelled() => {
                let (context, lease) = (Context::new(in_flight.clone()), &in_flight.task.lease);
                let span =
                    tracing::info_span!("task", queue = %self.line.name, id = %lease.id, attempt = lease.attempt);
                // In an async block, because the call itself may also panic, before there is a future.
                match caught_in(span, async { run(payload, context).await }).await {
                    Ok(outcome) => Ended::Returned(outcome),
                    Err(message) => Ended::Panicked(message),
                }
            }
            // `work_many` runs batch handlers.
            Handler::One(_) | Handler::Many { .. } => Ended::NotStarted,
        };
        let lease = self.registry.take(key);
        let Some(say) = self.say(in_flight, lease, ended) else { return };
        tokio::select! {
            biased;
            () = self.settle_one(say) => {}
            () = self.shared.give_up.cancelled() => {}
        }
    }

    async fn settle_one(&self, mut say: Say) {
        loop {
            let answer = settle_one(&self.line, say.settling()).await;
            match self.settled(say, answer) {
                Some(replacement) => say = replacement,
                None => return,
            }
        }
    }

    /// Runs the handler of tasks that were claimed together, and settles them in as few calls as possible.
    pub(super) async fn work_many(&self, works: Vec<Work>) {
        let mut tasks = Vec::with_capacity(works.len());
        let given = works.into_iter().map(|work| {
            tasks.push((work.key, work.in_flight.clone()));
            (work.payload, Context::new(work.in_flight))
        });
        let given = given.collect();
        let ended = self.run_many(given, tasks.len()).await;
        let leases = self.registry.take_all(tasks.iter().map(|(key, _)| *key));
        let say = |(((_, in_flight), lease), ended)| self.say(in_flight, lease, ended);
        let says = tasks.into_iter().zip(leases).zip(ended).filter_map(say).collect();
        tokio::select! {
            biased;
            () = self.settle_many(says) => {}
            () = self.shared.give_up.cancelled() => {}
        }
    }

    async fn settle_many(&self, mut says: Vec<Say>) {
        while !says.is_empty() {
            let settlings: Vec<Settling> = says.iter().map(Say::settling).collect();
            let answers = settle(&self.line, &settlings).await;
            says = says.into_iter().zip(answers).filter_map(|(say, answer)| self.settled(say, answer)).collect();
        }
    }

    async fn run_many(&self, given: Vec<(Bytes, Context)>, count: usize) -> Vec<Ended> {
        let run = match &self.handler {
            Handler::Many { run, .. } if !self.shared.shutdown.is_cancelled() => run,
            Handler::One(_) | Handler::Many { .. } => return (0..count).map(|_| Ended::NotStarted).collect(),
        };
        let span = tracing::info_span!("tasks", queue = %self.line.name, count);
        // Separately from the handler, so that undecodable tasks are known even if the handler panics.
        let decoded = match caught_in(span.clone(), async { run(given) }).await {
            Ok(decoded) => decoded,
            Err(message) => return (0..count).map(|_| Ended::Panicked(message.clone())).collect(),
        };
        let handled = caught_in(span, decoded.handling).await;
        spread(decoded.undecoded, handled)
    }

    /// The disposition to send. `None` if the handler settled the task itself, or the shutdown took it.
    fn say(&self, in_flight: Arc<InFlight>, lease: Option<CurrentLease>, ended: Ended) -> Option<Say> {
        let lease = lease?;
        let (disposition, done) = self.disposition(&in_flight, ended)?;
        Some(Say { in_flight, lease, disposition, done, is_replacement: false })
    }

    fn disposition(&self, task: &InFlight, ended: Ended) -> Option<(Disposition, Done)> {
        let (queue, lease) = (&self.line.name, &task.task.lease);
        let (id, attempt) = (&lease.id, lease.attempt);
        Some(match ended {
            Ended::NotStarted => (Disposition::Release, RELEASED),
            Ended::Panicked(message) => {
                one_more(&self.shared.counts.panicked);
                tracing::warn!(%queue, %id, attempt, %message, "the handler panicked");
                self.retry(task, None, Reason::new(format!("panicked: {message}")))
            }
            Ended::Returned(Answer::Undecoded(Undecoded::Refused(e))) => {
                (Disposition::DeadLetter { reason: why_dead_lettered(queue, lease, &e) }, UNDECODABLE)
            }
            Ended::Returned(Answer::Undecoded(Undecoded::Panicked(message))) => {
                one_more(&self.shared.counts.panicked);
                let reason = why_retried(queue, lease, &message);
                let (after, done) = self.again(task, None, &"the codec panicked");
                (Disposition::Retry { after, reason }, done)
            }
            Ended::Returned(Answer::Given(handled)) => match handled {
                HandlerOutcome::Complete => (Disposition::Complete, COMPLETED),
                HandlerOutcome::Retry { after, reason } => self.retry(task, after, reason),
                HandlerOutcome::Snooze(after) => (Disposition::Snooze { after }, SNOOZED),
                HandlerOutcome::DeadLetter(reason) => {
                    tracing::warn!(%queue, %id, attempt, %reason, "dead-lettered by its handler");
                    (Disposition::DeadLetter { reason }, DEAD_LETTERED)
                }
                HandlerOutcome::AlreadySettled => {
                    one_more(&self.shared.counts.already_settled);
                    return None;
                }
            },
        })
    }

    fn retry(&self, task: &InFlight, after: Option<Duration>, reason: Reason) -> (Disposition, Done) {
        let (after, done) = self.again(task, after, &reason);
        (Disposition::Retry { after, reason }, done)
    }

    /// When a failed task comes again. Logs it, with the part of the reason that may be shown.
    fn again(&self, task: &InFlight, after: Option<Duration>, reason: &dyn Display) -> (Duration, Done) {
        let (queue, id, attempt) = (&self.line.name, &task.task.lease.id, task.task.lease.attempt);
        let after = after.unwrap_or_else(|| self.shared.retry.delay_on(&self.line, attempt));
        let is_last = attempt >= task.task.attempts_max;
        if is_last {
            tracing::warn!(%queue, %id, attempt, %reason, "dead-lettered: its attempts are used up");
        } else {
            tracing::debug!(%queue, %id, attempt, %reason, ?after, "the attempt failed");
        }
        (after, if is_last { DEAD_LETTERED } else { RETRIED })
    }

    /// Counts an answer. A disposition that the store rejects, such as a snooze beyond its range, becomes a retry.
    fn settled(&self, say: Say, answer: Result<()>) -> Option<Say> {
        let counts = &self.shared.counts;
        let (queue, id) = (&self.line.name, &say.lease.lease.id);
        let Err(e) = answer else {
            let (word, count) = say.done;
            tracing::debug!(%queue, %id, "{word}");
            one_more(count(counts));
            return None;
        };
        if refused(&e) && !say.is_replacement {
            tracing::warn!(%queue, %id, error = %e, "the store rejected the disposition; retrying the task instead");
            let (disposition, done) = self.retry(&say.in_flight, None, Reason::new(e.to_string()));
            return Some(Say { disposition, done, is_replacement: true, ..say });
        }
        self.not_settled(&say, &e);
        None
    }

    fn not_settled(&self, say: &Say, e: &Error) {
        let (queue, id) = (&self.line.name, &say.lease.lease.id);
        match e.kind() {
            ErrorKind::LeaseLost => {
                one_more(&self.shared.counts.lease_lost);
                tracing::warn!(%queue, %id, error = %e, "not settled: its lease was lost");
            }
            ErrorKind::Ambiguous => tracing::debug!(%queue, %id, error = %e, "outcome of the settling unknown"),
            _ => tracing::warn!(%queue, %id, error = %e, "not settled: its lease ends by itself"),
        }
    }
}

impl Say {
    fn settling(&self) -> Settling {
        let attempts_max = self.in_flight.task.attempts_max;
        Settling {
            lease: self.lease.lease.clone(),
            ends: self.lease.ends,
            disposition: self.disposition.clone(),
            attempts_max,
        }
    }
}

/// Assigns the outcomes of a batch handler to its tasks. The handler did not get the tasks that can't be decoded.
fn spread(undecoded: Vec<Option<Undecoded>>, handled: Result<Vec<HandlerOutcome>, Arc<str>>) -> Vec<Ended> {
    let given = undecoded.iter().filter(|why| why.is_none()).count();
    let (answers, panicked) = match handled {
        Ok(answers) => (answers, None),
        Err(message) => (Vec::new(), Some(message)),
    };
    let answered = answers.len();
    let mut answers = answers.into_iter();
    let mut one = |undecoded| match (undecoded, &panicked) {
        (Some(why), _) => Ended::Returned(Answer::Undecoded(why)),
        (None, Some(message)) => Ended::Panicked(message.clone()),
        (None, None) => Ended::Returned(Answer::Given(answers.next().unwrap_or_else(|| {
            HandlerOutcome::retry(format!("the batch handler returned {answered} outcomes for {given} tasks"))
        }))),
    };
    undecoded.into_iter().map(&mut one).collect()
}
