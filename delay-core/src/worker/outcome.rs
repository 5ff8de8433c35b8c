//! The outcome of a handler.

use std::fmt::Display;
use std::time::Duration;

use crate::Reason;

/// The outcome of a handler, which decides what happens to its task.
///
/// Handlers may return anything that converts into it: `()` is [`Complete`](Self::Complete). An `Err` with any error
/// that implements `Display` is a [`Retry`](Self::Retry) by the worker's policy, with the error's text as the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerOutcome {
    /// The task is done; it is never delivered again.
    Complete,
    /// The attempt failed. The task is delivered again later, or dead-lettered if it has no attempts left.
    Retry {
        /// Delay. Default: `None`, the delay of the worker's [`RetryPolicy`](crate::RetryPolicy).
        after: Option<Duration>,
        /// Why the attempt failed; stored with the task.
        reason: Reason,
    },
    /// The task is put off: it is delivered again after this delay, and this attempt does not count.
    Snooze(Duration),
    /// The task is dead-lettered, for this reason.
    DeadLetter(Reason),
    /// The handler settled the task itself, for example in its own transaction. The worker does not settle it.
    AlreadySettled,
}

impl HandlerOutcome {
    /// Fails the attempt; the task is retried by the worker's policy.
    pub fn retry(reason: impl Into<Reason>) -> Self {
        Self::Retry { after: None, reason: reason.into() }
    }

    /// Fails the attempt; the task is retried after this delay.
    pub fn retry_after(after: Duration, reason: impl Into<Reason>) -> Self {
        Self::Retry { after: Some(after), reason: reason.into() }
    }

    /// Dead-letters the task.
    pub fn dead_letter(reason: impl Into<Reason>) -> Self {
        Self::DeadLetter(reason.into())
    }
}

impl From<()> for HandlerOutcome {
    fn from((): ()) -> Self {
        Self::Complete
    }
}

impl<E: Display> From<Result<(), E>> for HandlerOutcome {
    fn from(result: Result<(), E>) -> Self {
        result.map(Self::from).into()
    }
}

impl<E: Display> From<Result<HandlerOutcome, E>> for HandlerOutcome {
    fn from(result: Result<HandlerOutcome, E>) -> Self {
        // With `#`, errors such as anyhow's also show their causes.
        result.unwrap_or_else(|e| Self::retry(format!("{e:#}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_handlers_return_converts() {
        assert_eq!(HandlerOutcome::from(()), HandlerOutcome::Complete);
        assert_eq!(HandlerOutcome::from(Ok::<(), String>(())), HandlerOutcome::Complete);
        assert_eq!(HandlerOutcome::from(Err::<(), _>("no space")), HandlerOutcome::retry("no space"));
        assert_eq!(
            HandlerOutcome::from(Ok::<_, crate::Error>(HandlerOutcome::AlreadySettled)),
            HandlerOutcome::AlreadySettled
        );
        assert_eq!(HandlerOutcome::from(Err::<HandlerOutcome, _>("no space")), HandlerOutcome::retry("no space"));
    }
}
