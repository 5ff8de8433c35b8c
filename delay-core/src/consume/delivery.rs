//! A delivered task, until its consumer settles it.

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

/// A delivered task, under a lease. Settle it before the lease ends, or [extend](Self::extend) the lease.
///
/// A delivery that is dropped unsettled is retried by the consumer's [`RetryPolicy`], which costs one attempt. A task
/// spawned on the current runtime sends that retry. Outside a runtime, nothing is sent: the lease simply ends, and a
/// warning is logged.
///
/// # Errors
/// Every settling returns [`LeaseLost`](ErrorKind::LeaseLost) if the lease ended and somebody else claimed the task, or
/// if the task was replaced or cancelled. A settling that fails for a reason that may pass is retried with back-off
/// until the lease ends. [`Ambiguous`](ErrorKind::Ambiguous) means that it may have taken effect. If the backend
/// rejects a disposition, such as a snooze beyond its range, the settling returns that error, and the task is retried
/// as if the delivery had been dropped.
///
/// # Cancel safety
/// Once polled, a settling that is dropped continues in the background. Only its outcome is then unknown.
#[must_use = "a delivery that is dropped unsettled is retried"]
pub struct Delivery<T> {
    payload: T,
    hold: Hold,
}

impl<T> Delivery<T> {
    pub(super) fn new(payload: T, hold: Hold) -> Self {
        Self { payload, hold }
    }

    /// The payload.
    pub fn payload(&self) -> &T {
        &self.payload
    }

    /// Separates the payload from the rest of the delivery, which settles the task.
    pub fn into_parts(self) -> (T, Delivery<()>) {
        (self.payload, Delivery { payload: (), hold: self.hold })
    }

    received_getters!();

    /// The lease, as it was last given or extended.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.hold.task.lease
    }

    /// Completes the task: it is never delivered again.
    ///
    /// # Errors
    /// Those of every [settling](Self#errors).
    pub async fn complete(self) -> Result<()> {
        self.hold.settle(Disposition::Complete).await
    }

    /// Fails the attempt. The task is delivered again after `after`, or after the delay of the consumer's
    /// [`RetryPolicy`] if `after` is `None`. If it has no attempts left, it is dead-lettered instead.
    ///
    /// # Errors
    /// Those of every [settling](Self#errors).
    pub async fn retry(self, after: Option<Duration>, reason: impl Into<Reason>) -> Result<()> {
        let after = after.unwrap_or_else(|| self.hold.policy_delay());
        let reason = reason.into();
        self.hold.settle(Disposition::Retry { after, reason }).await
    }

    /// Puts the task off: it is delivered again after this delay, and this attempt does not count.
    ///
    /// # Errors
    /// Those of every [settling](Self#errors).
    pub async fn snooze(self, after: Duration) -> Result<()> {
        self.hold.settle(Disposition::Snooze { after }).await
    }

    /// Dead-letters the task.
    ///
    /// # Errors
    /// Those of every [settling](Self#errors).
    pub async fn dead_letter(self, reason: impl Into<Reason>) -> Result<()> {
        let reason = reason.into();
        self.hold.settle(Disposition::DeadLetter { reason }).await
    }

    /// Gives the task back unprocessed: it is visible at once, at its old place in the order, and this attempt does not
    /// count.
    ///
    /// # Errors
    /// Those of every [settling](Self#errors).
    pub async fn release(self) -> Result<()> {
        self.hold.settle(Disposition::Release).await
    }

    /// Extends the lease: it then ends `by` from now, unless it already ends later. After the call,
    /// [`lease`](Self::lease) shows whether the task was cancelled in the meantime.
    ///
    /// # Errors
    /// [`LeaseLost`](ErrorKind::LeaseLost). [`OutOfRange`](ErrorKind::OutOfRange) for less than 1 ms or more than
    /// [`Capabilities::lease_max`](crate::Capabilities). A failed call is not retried.
    ///
    /// # Cancel safety
    /// After a dropped call, the lease was either extended or not.
    pub async fn extend(&mut self, by: Duration) -> Result<()> {
        let line = self.hold.line.clone();
        let sent_at = Instant::now();
        let extended = only(line.backend.extend(&line.name, vec![self.lease().clone()], by).await?)?;
        self.hold.task.lease = extended;
        self.hold.ends = self.hold.ends.max(sent_at + by);
        Ok(())
    }

    /// Drops the payload, to settle many deliveries at once.
    pub(super) fn into_hold(self) -> Hold {
        let Self { payload, hold } = self;
        // In a local variable, so that the task is retried if the drop of the payload panics.
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

/// The right and the duty to settle one claimed task. If it is dropped, it settles the task in the background.
pub(super) struct Hold {
    line: Arc<Line>,
    retry: RetryPolicy,
    /// The task without its payload.
    task: ClaimedTask,
    /// When the lease ends on this process's clock, at the earliest.
    ends: Instant,
    on_drop: OnDrop,
    _flight: Flight,
}

enum OnDrop {
    /// No disposition was given.
    Retry,
    /// This disposition was given, and may not have been sent.
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

    /// Records what is about to be sent.
    pub(super) fn say(&mut self, disposition: Disposition) -> Settling {
        self.on_drop = OnDrop::Send(disposition.clone());
        let (lease, attempts_max) = (self.task.lease.clone(), self.task.attempts_max);
        Settling { lease, ends: self.ends, disposition, attempts_max }
    }

    /// Records the answer.
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

/// Whether the backend rejected the disposition itself, so that the lease is unchanged.
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
            tracing::warn!(%queue, %id, "a delivery was dropped outside a tokio runtime: its task waits until its lease ends");
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
                tracing::debug!(queue = %line.name, %id, error = %e, "could not settle a dropped delivery");
            }
        };
        runtime.spawn(settled.in_current_span());
    }
}
