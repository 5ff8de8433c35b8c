//! The error type of all backends and of this crate.

use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Arc<dyn StdError + Send + Sync + 'static>;

/// What went wrong: a [kind](ErrorKind) that programs decide by, a message for people, and the cause.
///
/// An error is cheap to clone, because one failed batch answers many callers. It is one pointer wide, because batches
/// return a `Result` for each item. Neither the message nor the cause contains a password (CLEAR).
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Source>,
}

/// The kinds of errors. Each has the same meaning on every backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// This backend does not support the operation: see its [`Capabilities`](crate::Capabilities). Nothing was done.
    Unsupported,
    /// The lease no longer belongs to this holder: it expired and the task was claimed again, or the task was replaced,
    /// cancelled or settled. Nothing was changed.
    LeaseLost,
    /// A delay, due time, lease or shift is outside the range of the backend. It is never clamped.
    OutOfRange,
    /// A payload, header, batch or name exceeds its limit. The message states the limit.
    TooLarge,
    /// The store is at its limit of tasks or bytes. It has room again once tasks have been completed.
    Full,
    /// An argument is never valid, such as a malformed name or an expiry before the due time.
    Invalid,
    /// A payload could not be encoded or decoded.
    Codec,
    /// A URL, option or Cargo feature is wrong or missing.
    Config,
    /// The server rejected the credentials, or a permission is missing.
    Denied,
    /// This code can't work with the version of the server or of the data in it.
    Incompatible,
    /// The server can't be reached or can't answer now. The request took no effect.
    Unavailable,
    /// The request was sent, but its answer was lost: it may have taken effect. Each method of
    /// [`DelayBackend`](crate::DelayBackend) documents what repeating it means.
    Ambiguous,
    /// Somebody else currently holds what the call needs, or too many calls wait to be sent. Nothing was done.
    Busy,
    /// Stored data was not written by this library, or is damaged.
    Corrupt,
    /// The backend, queue, subscription or worker was closed.
    Closed,
}

impl ErrorKind {
    /// The kind in words. The text of every error starts with it.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Unsupported => "not supported",
            Self::LeaseLost => "lease lost",
            Self::OutOfRange => "out of range",
            Self::TooLarge => "too large",
            Self::Full => "full",
            Self::Invalid => "invalid",
            Self::Codec => "codec",
            Self::Config => "configuration",
            Self::Denied => "denied",
            Self::Incompatible => "incompatible",
            Self::Unavailable => "unavailable",
            Self::Ambiguous => "outcome unknown",
            Self::Busy => "busy",
            Self::Corrupt => "corrupt data",
            Self::Closed => "closed",
        }
    }

    /// Whether a server refuses what it did before: a password that is being rotated, a permission, another version. It
    /// may pass, so only the start of a consumer or worker fails for it.
    pub(crate) fn is_refusal(self) -> bool {
        matches!(self, Self::Denied | Self::Incompatible | Self::Config | Self::Corrupt)
    }

    /// Whether the same call may succeed later; see [`Error::retryable`].
    #[must_use]
    pub fn retryable(self) -> bool {
        match self {
            Self::Full | Self::Unavailable | Self::Ambiguous | Self::Busy => true,
            Self::Unsupported
            | Self::LeaseLost
            | Self::OutOfRange
            | Self::TooLarge
            | Self::Invalid
            | Self::Codec
            | Self::Config
            | Self::Denied
            | Self::Incompatible
            | Self::Corrupt
            | Self::Closed => false,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

impl Error {
    /// Creates an error with a message that says what was expected, what was found and, if possible, what to do.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: None }))
    }

    /// Adds the cause, which must not contain secrets.
    #[must_use]
    pub fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        inner.source = Some(Arc::new(source));
        Self(Arc::new(inner))
    }

    /// Puts the action that failed in front of the message.
    #[must_use]
    pub fn context(self, doing: impl fmt::Display) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        inner.message = Cow::Owned(format!("{doing}: {}", inner.message));
        Self(Arc::new(inner))
    }

    /// The error for an operation that the backend does not support.
    #[must_use]
    pub fn unsupported(operation: &'static str) -> Self {
        Self::new(ErrorKind::Unsupported, format!("this backend does not support `{operation}`"))
    }

    /// The error for a lease that does not, or no longer, belong to its holder.
    #[must_use]
    pub fn lease_lost() -> Self {
        Self::new(
            ErrorKind::LeaseLost,
            "the task was claimed again, replaced, cancelled or settled since this lease was given",
        )
    }

    /// The kind, which programs decide by.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message for people, without the kind in front.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same call may succeed later without any correction.
    ///
    /// For [`ErrorKind::Ambiguous`], check first what repeating the method means.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.kind().retryable()
    }
}

impl From<Infallible> for Error {
    /// Lets `impl TryInto<QueueName, Error: Into<Error>>` accept a value that is a `QueueName` already.
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind, self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Error");
        s.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            s.field("source", source);
        }
        s.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_1_an_error_names_kind_sentence_and_cause() {
        let cause = std::io::Error::other("the disk is gone");
        let e = Error::new(ErrorKind::Unavailable, "no answer").with_source(cause).context("claiming from `exam`");
        assert_eq!(e.to_string(), "unavailable: claiming from `exam`: no answer");
        assert_eq!(StdError::source(&e).map(ToString::to_string), Some("the disk is gone".into()));
        assert!(e.retryable());
        assert!(!Error::lease_lost().retryable());
    }

    #[test]
    fn an_error_is_one_pointer_so_that_batches_stay_small() {
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }
}
