//! Settling with patience: what fails for a reason that may pass is repeated until the lease ends.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::retry::outage_delays;
use crate::queue::line::Line;
use crate::{Error, ErrorKind, Lease, Result, Verdict};

/// A settling that gets no answer is given up after this long or at the lease's end, whichever is later.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// How many answers of "outcome unknown" to one verdict are taken before that is the outcome.
const UNKNOWN_MAX: u32 = 5;

/// One lease to be settled.
#[derive(Clone, Debug)]
pub(crate) struct Settling {
    pub(crate) lease: Lease,
    /// When the lease ends on this process's clock, at the earliest.
    pub(crate) ends: Instant,
    pub(crate) verdict: Verdict,
}

/// Settles leases of one queue, each with one answer, in order. What fails for a reason that may pass is repeated with
/// back-off until its lease ends.
///
/// `Ambiguous` means that the verdict may have taken effect. So a `LeaseLost` after it is answered as `Ambiguous`: the
/// first try may be what ended the lease.
pub(crate) async fn settle(line: &Line, settlings: Vec<Settling>) -> Vec<Result<()>> {
    let mut answers: Vec<Option<Result<()>>> = settlings.iter().map(|_| None).collect();
    let mut open: Vec<Open> =
        settlings.into_iter().enumerate().map(|(place, settling)| Open { place, settling, unknown: None }).collect();
    let mut delays = outage_delays();
    let mut unknown_count = 0;
    while !open.is_empty() {
        let tried = attempt(line, &open).await;
        unknown_count += u32::from(tried.iter().any(|answer| kind_of(answer) == Some(ErrorKind::Ambiguous)));
        let delay = delays.next().unwrap_or(ANSWER_PATIENCE);
        let again_at = Instant::now() + delay;
        open = open
            .into_iter()
            .zip(tried)
            .filter_map(|(item, answer)| {
                let may_repeat = again_at < item.settling.ends && unknown_count < UNKNOWN_MAX;
                item.answered(answer, may_repeat, &mut answers)
            })
            .collect();
        if !open.is_empty() {
            sleep(delay).await;
        }
    }
    let unanswered = || Err(crate::queue::line::unanswered());
    answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
}

/// A settling without its final answer.
struct Open {
    place: usize,
    settling: Settling,
    /// The first answer by which it may have taken effect.
    unknown: Option<Error>,
}

impl Open {
    /// Takes an answer, and comes back if it is to be tried again.
    fn answered(mut self, answer: Result<()>, may_repeat: bool, answers: &mut [Option<Result<()>>]) -> Option<Self> {
        let last = match answer {
            Err(e) if e.retryable() && may_repeat => {
                if e.kind() == ErrorKind::Ambiguous {
                    self.unknown.get_or_insert(e);
                }
                return Some(self);
            }
            Err(e) => Err(self.unknown.take().unwrap_or(e)),
            Ok(()) => Ok(()),
        };
        answers[self.place] = Some(last);
        None
    }
}

async fn attempt(line: &Line, open: &[Open]) -> Vec<Result<()>> {
    let verdicts = open.iter().map(|o| (o.settling.lease.clone(), o.settling.verdict.clone())).collect();
    let last_end = open.iter().map(|o| o.settling.ends).max().unwrap_or_else(Instant::now);
    let patience = last_end.saturating_duration_since(Instant::now()).max(ANSWER_PATIENCE);
    match timeout(patience, line.settle(verdicts)).await {
        Ok(answers) => answers,
        Err(_) => {
            let e = Error::new(ErrorKind::Ambiguous, format!("settling got no answer within {patience:?}"));
            open.iter().map(|_| Err(e.clone())).collect()
        }
    }
}

fn kind_of(answer: &Result<()>) -> Option<ErrorKind> {
    answer.as_ref().err().map(Error::kind)
}
