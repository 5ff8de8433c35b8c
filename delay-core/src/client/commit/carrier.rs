//! The task that empties an inbox.

use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::timeout;

use super::committer::Committer;
use super::inbox::Batch;
use super::kind::Kind;
use crate::client::answers::spread;
#[cfg(delayline_interleaved)]
use crate::faults::{Fault, is_planted};
use crate::{Error, ErrorKind, Result};

/// A call without an answer for this long is given up, so that one that hangs does not hold up the next for ever.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn too_late() -> Error {
    Error::new(ErrorKind::Ambiguous, format!("no answer within {ANSWER_PATIENCE:?}"))
}

/// Sends batches until the inbox is empty.
pub(super) async fn empty<K: Kind>(mut carrier: Carrier<K>) {
    while let Some(Batch { items, callers }) = carrier.next_batch() {
        let asked = items.len();
        let Some(answer) = carrier.send(items).await else { continue };
        for (caller, answer) in callers.into_iter().zip(spread(answer, asked)) {
            // Gone, where it does not want to know any more.
            let _ = caller.send(answer);
        }
        // Those who were answered may have more to say at once: let them, rather than send the few who are here already.
        yield_now().await;
    }
}

/// The task that empties the inbox, as a value: however it ends, nobody is left waiting.
pub(super) struct Carrier<K: Kind> {
    way: Arc<K::Way>,
    /// Whether it has seen the inbox empty, so that what is there now is another's.
    ended: bool,
    kind: PhantomData<K>,
}

impl<K: Kind> Carrier<K> {
    pub(super) fn new(way: Arc<K::Way>) -> Self {
        K::committer(&way).begun();
        Self { way, ended: false, kind: PhantomData }
    }

    fn committer(&self) -> &Committer<K::Item, K::Answer> {
        K::committer(&self.way)
    }

    /// The next items; nothing, and the end of the task, if there are none.
    pub(super) fn next_batch(&mut self) -> Option<Batch<K::Item, K::Answer>> {
        #[cfg(delayline_interleaved)]
        if is_planted(Fault::CommitEndsLate) && self.committer().inbox.lock().is_empty() {
            self.ended = true;
            self.committer().inbox.lock().end();
            return None;
        }
        let batch = self.committer().inbox.lock().next_batch(K::limits(&self.way).batch_max);
        self.ended = batch.is_none();
        batch
    }

    /// Sends a batch, and gives it up when nobody waits for its answer any more.
    async fn send(&self, items: Vec<K::Item>) -> Option<Result<Vec<Result<K::Answer>>>> {
        let mut answer = pin!(timeout(ANSWER_PATIENCE, K::send(&self.way, items)));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return Some(answer.unwrap_or_else(|_| Err(too_late()))),
                () = self.committer().abandoned.notified() => {}
            }
            // The notice may have been meant for the batch before.
            if self.committer().inbox.lock().is_abandoned() {
                return None;
            }
        }
    }
}

impl<K: Kind> Drop for Carrier<K> {
    fn drop(&mut self) {
        self.committer().ended();
        let left = if self.ended { Vec::new() } else { self.committer().inbox.lock().abort() };
        for caller in left {
            let _ = caller.send(Err(Error::new(ErrorKind::Unavailable, "the task that carries such calls died")));
        }
    }
}
