//! A subscription of a queue: claims under the queue's lock, and waits without it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
#[cfg(delayline_interleaved)]
use delayline_core::faults::{Fault, is_planted};
use delayline_core::{Claim, Claimed, QueueName, Result, Subscription, SubscriptionOptions};

use crate::notify::Listener;
use crate::queues::{QueueSlot, Queues};
use crate::store::{CLAIM_MAX, ClaimStep};

/// Holds no tasks, only its receiver of notifications: a task is either in the store or with the caller.
pub(crate) struct MemorySubscription {
    queues: Arc<Queues>,
    slot: Arc<QueueSlot>,
    listener: Listener,
    consumer: Option<String>,
}

impl MemorySubscription {
    pub(crate) fn open(queues: Arc<Queues>, queue: &QueueName, options: SubscriptionOptions) -> Result<Self> {
        let (slot, listener) = queues.enter(queue)?;
        Ok(Self { queues, slot, listener, consumer: options.consumer })
    }
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn claim(&mut self, mut claim: Claim) -> Result<Claimed> {
        self.queues.caps.check_lease(claim.lease)?;
        claim.max = claim.max.min(CLAIM_MAX);
        let mut dead_lettered_before = 0;
        loop {
            self.listener.see();
            self.queues.open()?;
            let now = self.queues.now();
            match self.queues.on_slot(&self.slot, |store| store.claim(now, claim)) {
                ClaimStep::Done(mut claimed) => {
                    claimed.dead_lettered += dead_lettered_before;
                    return Ok(claimed);
                }
                // Nothing has been claimed yet, so the call may be dropped here.
                ClaimStep::Again { dead_lettered } => {
                    dead_lettered_before += dead_lettered;
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn wait(&mut self, at_most: Duration) {
        // A claim that found the backend closed has already seen the last notification.
        if self.queues.open().is_err() {
            return;
        }
        #[cfg(delayline_interleaved)]
        if is_planted(Fault::NotificationForgotten) {
            self.listener.see();
        }
        // Either way the caller claims next. The subscription holds its queue, and the queue owns the notifier.
        let _ = tokio::time::timeout(at_most, self.listener.notified()).await;
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        self.queues.leave(&self.slot);
    }
}

impl std::fmt::Debug for MemorySubscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemorySubscription").field("queue", &self.slot.name).field("consumer", &self.consumer).finish()
    }
}
