//! What a handler says of its task.

use std::fmt::Display;
use std::time::Duration;

use crate::Reason;

/// What becomes of a task after its handler ran.
///
/// Handlers may return anything that converts into it: `()` is [`Complete`](Self::Complete), and an `Err` of any error that
/// can be displayed is a [`Retry`](Self::Retry) by the worker's policy with the error's text as the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerOutcome {
    /// Done: it is never delivered again.
    Complete,
    /// Failed: again later; dead-lettered instead, if its attempts are used up.
    Retry {
        /// How long to wait; by the worker's [`RetryPolicy`](crate::RetryPolicy) if `None`.
        after: Option<Duration>,
        /// Why, kept with the task.
        reason: Reason,
    },
    /// Not now: again after this time, with no attempt counted.
    Snooze(Duration),
    /// Never again: to the dead letters.
    DeadLetter(Reason),
    /// The handler settled it itself, in its own transaction say: the worker only lets it go.
    AlreadySettled,
}

impl HandlerOutcome {
    /// Failed: again by the worker's policy.
    pub fn retry(reason: impl Into<Reason>) -> Self {
        Self::Retry { after: None, reason: reason.into() }
    }

    /// Failed: again after this time.
    pub fn retry_after(after: Duration, reason: impl Into<Reason>) -> Self {
        Self::Retry { after: Some(after), reason: reason.into() }
    }

    /// Never again.
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
        // With `#`, errors that know their causes (anyhow's) show them too.
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
