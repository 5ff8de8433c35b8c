//! A task in the hands of a consumer, until it is settled.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::Instrument;

use super::RetryPolicy;
use super::received::received_getters;
use super::settle::{Settling, settle_one};
use crate::client::answers::only;
use crate::client::line::Line;
use crate::meter::Flight;
use crate::{ClaimedTask, Disposition, Error, ErrorKind, Lease, Reason, Result};

/// A task that was delivered, under a lease: settle it before the lease ends, or [extend](Self::extend) that.
///
/// Dropped unsettled, it is retried by the consumer's [`RetryPolicy`], which costs one attempt. That is sent by a task of
/// the current runtime; outside one, the lease simply ends, which is logged as a warning.
///
/// # Errors
/// Every settling answers [`LeaseLost`](ErrorKind::LeaseLost) if the lease ended and the task went to somebody else, or
/// was replaced or cancelled. What fails for a reason that may pass is repeated with back-off until the lease ends.
/// [`Ambiguous`](ErrorKind::Ambiguous): it may have taken effect. A disposition that the backend refuses, such as a snooze
/// beyond its range, is answered with its error, and the task is retried as if the delivery had been dropped.
///
/// # Cancel safety
/// Once polled, a settling goes on in the background when it is dropped: only its outcome is not learnt.
#[must_use = "a delivery that is dropped unsettled is retried"]
pub struct Delivery<T> {
    payload: T,
    hold: Hold,
}

impl<T> Delivery<T> {
    pub(super) fn new(payload: T, hold: Hold) -> Self {
        Self { payload, hold }
    }

    /// What was scheduled.
    pub fn payload(&self) -> &T {
        &self.payload
    }

    /// Takes the payload out; what is left settles the task.
    pub fn into_parts(self) -> (T, Delivery<()>) {
        (self.payload, Delivery { payload: (), hold: self.hold })
    }

    received_getters!();

    /// The lease as it was last given or extended.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.hold.task.lease
    }

    /// Done: it is never delivered again.
    ///
    /// # Errors
    /// As for every [settling](Self#errors).
    pub async fn complete(self) -> Result<()> {
        self.hold.settle(Disposition::Complete).await
    }

    /// Failed: again after this time, or by the consumer's [`RetryPolicy`]; dead-lettered instead, if its attempts are used up.
    ///
    /// # Errors
    /// As for every [settling](Self#errors).
    pub async fn retry(self, after: Option<Duration>, reason: impl Into<Reason>) -> Result<()> {
        let after = after.unwrap_or_else(|| self.hold.policy_delay());
        let reason = reason.into();
        self.hold.settle(Disposition::Retry { after, reason }).await
    }

    /// Not now: again after this time, with no attempt counted.
    ///
    /// # Errors
    /// As for every [settling](Self#errors).
    pub async fn snooze(self, after: Duration) -> Result<()> {
        self.hold.settle(Disposition::Snooze { after }).await
    }

    /// Never again: to the dead letters.
    ///
    /// # Errors
    /// As for every [settling](Self#errors).
    pub async fn dead_letter(self, reason: impl Into<Reason>) -> Result<()> {
        let reason = reason.into();
        self.hold.settle(Disposition::DeadLetter { reason }).await
    }

    /// Given back unworked: visible at once at its old place in the order, with no attempt counted.
    ///
    /// # Errors
    /// As for every [settling](Self#errors).
    pub async fn release(self) -> Result<()> {
        self.hold.settle(Disposition::Release).await
    }

    /// Makes the lease end `by` from now, if that is later than it ends already. Afterwards [`lease`](Self::lease) tells
    /// whether the task was cancelled meanwhile.
    ///
    /// # Errors
    /// [`LeaseLost`](ErrorKind::LeaseLost); [`OutOfRange`](ErrorKind::OutOfRange) for less than 1 ms or more than
    /// [`Capabilities::lease_max`](crate::Capabilities). It is not repeated.
    ///
    /// # Cancel safety
    /// Dropped, the lease was extended or not.
    pub async fn extend(&mut self, by: Duration) -> Result<()> {
        let line = self.hold.line.clone();
        let sent_at = Instant::now();
        let extended = only(line.backend.extend(&line.name, vec![self.lease().clone()], by).await?)?;
        self.hold.task.lease = extended;
        self.hold.ends = self.hold.ends.max(sent_at + by);
        Ok(())
    }

    /// Gives up the payload, for settling many at once.
    pub(super) fn into_hold(self) -> Hold {
        let Self { payload, hold } = self;
        // A local of its own, so that a payload whose drop panics takes nothing with it: the task is retried.
        drop(payload);
        hold
    }

    fn task(&self) -> &ClaimedTask {
        &self.hold.task
    }

    fn line(&self) -> &Line {
        &self.hold.line
    }
}

impl<T> fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("queue", self.queue())
            .field("lease", self.lease())
            .field("due_at", &self.due_at())
            .finish_non_exhaustive()
    }
}

/// The right to settle one claimed task, and the duty: dropped, it does so in the background.
pub(super) struct Hold {
    line: Arc<Line>,
    retry: RetryPolicy,
    /// Without its payload.
    task: ClaimedTask,
    /// When the lease ends on this process's clock, at the earliest.
    ends: Instant,
    on_drop: OnDrop,
    _flight: Flight,
}

enum OnDrop {
    /// Nobody said anything of the task.
    Retry,
    /// This was said, and may not have been sent.
    Send(Disposition),
    Nothing,
}

impl Hold {
    pub(super) fn new(line: Arc<Line>, retry: RetryPolicy, task: ClaimedTask, ends: Instant) -> Self {
        let _flight = Flight::new(line.name.as_str());
        Self { line, retry, task, ends, on_drop: OnDrop::Retry, _flight }
    }

    async fn settle(mut self, disposition: Disposition) -> Result<()> {
        let line = self.line.clone();
        let settling = self.say(disposition);
        let answer = settle_one(&line, settling).await;
        self.heard(&answer);
        answer
    }

    /// Notes what is about to be sent.
    pub(super) fn say(&mut self, disposition: Disposition) -> Settling {
        self.on_drop = OnDrop::Send(disposition.clone());
        let (lease, attempts_max) = (self.task.lease.clone(), self.task.attempts_max);
        Settling { lease, ends: self.ends, disposition, attempts_max }
    }

    /// Notes the answer.
    pub(super) fn heard(&mut self, answer: &Result<()>) {
        self.on_drop = match answer {
            Err(e) if refused(e) => OnDrop::Retry,
            Ok(()) | Err(_) => OnDrop::Nothing,
        };
    }

    pub(super) fn same_queue(&self, line: &Line) -> bool {
        self.line.same(line)
    }

    fn policy_delay(&self) -> Duration {
        self.retry.delay_on(&self.line, self.task.lease.attempt)
    }
}

/// Whether the disposition itself was wrong, so that the lease is as it was.
pub(crate) fn refused(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::OutOfRange | ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Unsupported)
}

impl Drop for Hold {
    fn drop(&mut self) {
        let on_drop = std::mem::replace(&mut self.on_drop, OnDrop::Nothing);
        if matches!(on_drop, OnDrop::Nothing) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            let (queue, id) = (&self.line.name, &self.task.lease.id);
            tracing::warn!(%queue, %id, "a delivery was dropped outside a tokio runtime: its task waits for its lease to end");
            return;
        };
        let disposition = match on_drop {
            OnDrop::Nothing => return,
            OnDrop::Send(disposition) => disposition,
            OnDrop::Retry => Disposition::Retry {
                after: self.policy_delay(),
                reason: Reason::new("dropped unsettled by its consumer"),
            },
        };
        let settling = self.say(disposition);
        self.on_drop = OnDrop::Nothing;
        let line = self.line.clone();
        let settled = async move {
            let id = settling.lease.id.clone();
            if let Err(e) = settle_one(&line, settling).await {
                tracing::debug!(queue = %line.name, %id, error = %e, "a dropped delivery could not be settled");
            }
        };
        runtime.spawn(settled.in_current_span());
    }
}
