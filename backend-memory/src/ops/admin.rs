//! Pauses, resumes and deletes queues.

use delayline_core::{AdminOp, Error, QueueName, Result};

use crate::queues::Queues;

/// [`DelayBackend::administer`](delayline_core::DelayBackend::administer).
pub(crate) fn administer(queues: &Queues, queue: &QueueName, op: AdminOp) -> Result<()> {
    match op {
        AdminOp::Pause => queues.on_queue(queue, |store| store.pause(true)),
        AdminOp::Resume => queues.on_existing(queue, |store| store.pause(false)).map(|_| ()),
        AdminOp::Delete => queues.delete(queue),
        _ => Err(Error::unsupported("this operation on a queue")),
    }
}
