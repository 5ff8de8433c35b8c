//! What happens to a task whose payload can't be decoded: it is never delivered, and holds nothing up (LOSS-10).

use std::error::Error as _;
use std::sync::Arc;

use bytes::Bytes;

use crate::caught::caught;
use crate::{Error, Lease, Queue, QueueName, Reason};

/// Why a payload could not be decoded.
pub(crate) enum Undecoded {
    /// The codec returned an error.
    Refused(Error),
    /// The codec panicked with this message.
    Panicked(Arc<str>),
}

/// Decodes the payload of a claimed task.
pub(crate) fn decode<T: 'static>(queue: &Queue<T>, payload: &Bytes) -> Result<T, Undecoded> {
    match caught(|| queue.decode(payload)) {
        Ok(decoded) => decoded.map_err(Undecoded::Refused),
        Err(message) => Err(Undecoded::Panicked(message)),
    }
}

/// Logs that a task is dead-lettered because the codec rejects its payload, and returns the reason.
pub(crate) fn why_dead_lettered(queue: &QueueName, lease: &Lease, e: &Error) -> Reason {
    tracing::warn!(%queue, id = %lease.id, error = %e, "dead-lettered: its payload can't be decoded");
    // The cause may quote the payload. It is stored next to the payload in the dead letter, but never logged.
    let with_cause = |cause| format!("{}: {cause}", e.message());
    Reason::new(match e.source().map(|cause| caught(|| with_cause(cause))) {
        Some(Ok(text)) => text,
        // There is no cause, or its text panics.
        Some(Err(_)) | None => e.message().to_owned(),
    })
}

/// Logs that a task is retried because the codec panicked, and returns the reason.
pub(crate) fn why_retried(queue: &QueueName, lease: &Lease, message: &str) -> Reason {
    // The message may quote the payload, so it is not logged.
    tracing::warn!(%queue, id = %lease.id, attempt = lease.attempt, "the codec panicked on its payload");
    Reason::new(format!("panicked: {message}"))
}
