//! Settling with retries: a settling that fails for a reason that may pass is repeated until its lease ends. A refusal
//! counts as such a reason: the task was claimed, so the server has not refused everything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::retry::outage_delays;
use crate::client::answers::only;
use crate::client::line::Line;
use crate::meter::{self, Event};
use crate::{Disposition, Error, ErrorKind, Lease, Result};

/// A settling without an answer is given up after this time or at the end of its lease, whichever is later.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Maximum number of times that a disposition with an unknown outcome is sent: repeating it more often would not tell
/// more.
const UNKNOWN_MAX: u32 = 5;

/// One lease to be settled.
#[derive(Clone, Debug)]
pub(crate) struct Settling {
    pub(crate) lease: Lease,
    /// When the lease ends on this process's clock, at the earliest.
    pub(crate) ends: Instant,
    pub(crate) disposition: Disposition,
    /// Maximum number of attempts of the task.
    pub(crate) attempts_max: u32,
}

/// Settles leases of one queue, and returns one answer for each, in order. A settling that fails for a reason that may
/// pass is repeated with back-off until its lease ends.
///
/// `Ambiguous` means that the disposition may have taken effect. A `LeaseLost` after it is therefore returned as
/// `Ambiguous`: the first try may have ended the lease.
pub(crate) async fn settle(line: &Arc<Line>, settlings: &[Settling]) -> Vec<Result<()>> {
    let dispositions = settlings.iter().map(|one| (one.lease.clone(), one.disposition.clone())).collect();
    let last_end = settlings.iter().map(|one| one.ends).max().unwrap_or_else(Instant::now);
    let first = match timeout(patience(last_end), line.settle(dispositions)).await {
        Ok(answers) => answers,
        Err(_) => settlings.iter().map(|_| Err(no_answer())).collect(),
    };
    let answers = repeat(line, settlings, first).await;
    settlings.iter().zip(&answers).for_each(|(one, answer)| note(line, one, answer));
    answers
}

/// Settles one lease in the same way, joined with those that others settle at the same time.
pub(crate) async fn settle_one(line: &Arc<Line>, one: Settling) -> Result<()> {
    let disposition = (one.lease.clone(), one.disposition.clone());
    match timeout(patience(one.ends), line.settle_one(disposition)).await.unwrap_or_else(|_| Err(no_answer())) {
        Ok(()) => {
            note(line, &one, &Ok(()));
            Ok(())
        }
        // Boxed, because it is rare and large, and would otherwise enlarge the task of every handler.
        Err(e) => {
            let answer = only(Box::pin(repeat(line, std::slice::from_ref(&one), vec![Err(e)])).await);
            note(line, &one, &answer);
            answer
        }
    }
}

/// Counts the final outcome of a disposition, however often it was sent.
fn note(line: &Line, one: &Settling, answer: &Result<()>) {
    let what = match answer {
        Ok(()) => match one.disposition {
            Disposition::Complete => Event::Completed,
            Disposition::Retry { .. } if one.lease.attempt >= one.attempts_max => Event::DeadLettered,
            Disposition::Retry { .. } => Event::Retried,
            Disposition::Snooze { .. } => Event::Snoozed,
            Disposition::DeadLetter { .. } => Event::DeadLettered,
            Disposition::Release => Event::Released,
        },
        Err(e) if e.kind() == ErrorKind::LeaseLost => Event::LeaseLost,
        Err(_) => return,
    };
    meter::count(line.name.as_str(), what, 1);
}

/// Repeats the settlings whose answers are errors that may pass.
async fn repeat(line: &Arc<Line>, settlings: &[Settling], mut answers: Vec<Result<()>>) -> Vec<Result<()>> {
    // Keyed by position in `settlings`.
    let mut unknown: HashMap<usize, Unknown> = HashMap::new();
    // Created on first use: most settlings succeed at once.
    let mut delays = None;
    while answers.iter().any(Result::is_err) {
        for (place, answer) in answers.iter().enumerate() {
            if let Err(e) = answer
                && e.kind() == ErrorKind::Ambiguous
            {
                unknown.entry(place).or_insert_with(|| Unknown { first: e.clone(), count: 0 }).count += 1;
            }
        }
        let delay = delays.get_or_insert_with(outage_delays).next().unwrap_or(ANSWER_PATIENCE);
        let again = to_repeat(settlings, &answers, Instant::now() + delay, &unknown);
        if again.is_empty() {
            break;
        }
        sleep(delay).await;
        // One by one, so that each can be joined with those of others.
        let one_more = again.iter().map(|place| {
            let one = &settlings[*place];
            let disposition = (one.lease.clone(), one.disposition.clone());
            timeout(patience(one.ends), line.settle_one(disposition))
        });
        for (place, answer) in again.iter().zip(join_all(one_more).await) {
            answers[*place] = answer.unwrap_or_else(|_| Err(no_answer()));
        }
    }
    for (place, unknown) in unknown {
        if answers[place].is_err() {
            answers[place] = Err(unknown.first);
        }
    }
    answers
}

/// The answers after which a disposition may have taken effect.
struct Unknown {
    first: Error,
    count: u32,
}

/// The positions of the settlings to repeat.
fn to_repeat(
    settlings: &[Settling],
    answers: &[Result<()>],
    at: Instant,
    unknown: &HashMap<usize, Unknown>,
) -> Vec<usize> {
    let may_pass = |(place, answer): (usize, &Result<()>)| {
        let retryable = answer.as_ref().is_err_and(|e| e.retryable() || e.kind().is_refusal());
        let asked_enough = unknown.get(&place).is_some_and(|unknown| unknown.count >= UNKNOWN_MAX);
        (retryable && !asked_enough && at < settlings[place].ends).then_some(place)
    };
    answers.iter().enumerate().filter_map(may_pass).collect()
}

/// How long to wait for an answer.
fn patience(ends: Instant) -> Duration {
    ends.saturating_duration_since(Instant::now()).max(ANSWER_PATIENCE)
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Ambiguous, "the store did not answer the settling in time")
}
