//! What becomes of a task whose payload can't be decoded: it never surfaces, and holds nothing up (LOSS-10).

use std::error::Error as _;
use std::sync::Arc;

use bytes::Bytes;

use crate::caught::caught;
use crate::{Error, Lease, Queue, QueueName, Reason};

/// Why a payload could not be decoded.
pub(crate) enum Undecoded {
    /// The codec says so.
    Refused(Error),
    /// The codec panicked, and said this.
    Panicked(Arc<str>),
}

/// The value in the payload of a task that was claimed.
pub(crate) fn decode<T: 'static>(queue: &Queue<T>, payload: &Bytes) -> Result<T, Undecoded> {
    match caught(|| queue.decode(payload)) {
        Ok(decoded) => decoded.map_err(Undecoded::Refused),
        Err(message) => Err(Undecoded::Panicked(message)),
    }
}

/// Logs that a task is dead-lettered, because its codec refuses the payload, and says why.
pub(crate) fn why_dead_lettered(queue: &QueueName, lease: &Lease, e: &Error) -> Reason {
    tracing::warn!(%queue, id = %lease.id, error = %e, "dead-lettered, because its payload can't be decoded");
    // The cause may quote the payload; it stands beside the payload in the dead letter, never in the log.
    let with_cause = |cause| format!("{}: {cause}", e.message());
    Reason::new(match e.source().map(|cause| caught(|| with_cause(cause))) {
        Some(Ok(text)) => text,
        // Without a cause, or with one whose text panics.
        Some(Err(_)) | None => e.message().to_owned(),
    })
}

/// Logs that a task is retried, because its codec panicked, and says why.
pub(crate) fn why_retried(queue: &QueueName, lease: &Lease, message: &str) -> Reason {
    // The message may quote the payload, as a cause may.
    tracing::warn!(%queue, id = %lease.id, attempt = lease.attempt, "the codec panicked on its payload");
    Reason::new(format!("panicked: {message}"))
}
