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

/// A call without an answer for this long is given up, so that a call that hangs does not hold up the next one forever.
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
            // This fails if the caller is gone.
            let _ = caller.send(answer);
        }
        // Callers that just got an answer may send more at once: let them, instead of sending the few items that are
        // here already.
        yield_now().await;
    }
}

/// The task that empties the inbox, as a value: however the task ends, no caller is left waiting.
pub(super) struct Carrier<K: Kind> {
    way: Arc<K::Way>,
    /// Whether the task has seen the inbox empty, so that later items belong to another task.
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

    /// Takes the next items. If there are none, returns nothing, and the task ends.
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

    /// Sends a batch, and gives it up when nobody waits for its answer any longer.
    async fn send(&self, items: Vec<K::Item>) -> Option<Result<Vec<Result<K::Answer>>>> {
        let mut answer = pin!(timeout(ANSWER_PATIENCE, K::send(&self.way, items)));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return Some(answer.unwrap_or_else(|_| Err(too_late()))),
                () = self.committer().abandoned.notified() => {}
            }
            // The notice may have been meant for the previous batch.
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
            let _ = caller.send(Err(Error::new(ErrorKind::Unavailable, "the task that sends joined calls died")));
        }
    }
}
