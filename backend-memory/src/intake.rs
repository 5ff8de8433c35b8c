//! One consumption of a queue in memory: claims under the queue's lock, and sleeps on its bell.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{Claim, Claimed, Intake, IntakeOptions, Result};
use tokio::sync::watch;

use crate::shared::{QueueSlot, Shared};
use crate::store::{CLAIM_MAX, ClaimStep};

/// Holds nothing but its place on the bell: tasks are either in the store or with the caller.
pub(crate) struct MemoryIntake {
    shared: Arc<Shared>,
    slot: Arc<QueueSlot>,
    /// Remembers the last ring that a claim has seen, so that one between claim and wait is not lost.
    bell: watch::Receiver<()>,
    consumer: Option<String>,
}

impl MemoryIntake {
    pub(crate) fn open(shared: Arc<Shared>, queue: &delayline_core::QueueName, options: IntakeOptions) -> Result<Self> {
        let (slot, bell) = shared.enter(queue)?;
        Ok(Self { shared, slot, bell, consumer: options.consumer })
    }
}

#[async_trait]
impl Intake for MemoryIntake {
    async fn claim(&mut self, mut claim: Claim) -> Result<Claimed> {
        self.shared.caps.check_lease(claim.lease)?;
        claim.max = claim.max.min(CLAIM_MAX);
        let mut buried_before = 0;
        loop {
            // Before any look, so that what rings during it is seen again rather than missed.
            self.bell.borrow_and_update();
            self.shared.open()?;
            let now = self.shared.now();
            match self.shared.on_slot(&self.slot, |store| store.claim(now, claim)) {
                ClaimStep::Done(mut claimed) => {
                    claimed.buried += buried_before;
                    return Ok(claimed);
                }
                // Nothing has been taken, so this is a safe place to be dropped at.
                ClaimStep::Again { buried } => {
                    buried_before += buried;
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn wait(&mut self, at_most: Duration) {
        // A claim that found it closed has seen that ring, and there is no other to wait for.
        if self.shared.open().is_err() {
            return;
        }
        // Either way the caller claims next. The bell is there for as long as the intake, which holds its queue.
        let _ = tokio::time::timeout(at_most, self.bell.changed()).await;
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for MemoryIntake {
    fn drop(&mut self) {
        self.shared.leave(&self.slot);
    }
}

impl std::fmt::Debug for MemoryIntake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryIntake").field("queue", &self.slot.name).field("consumer", &self.consumer).finish()
    }
}
