//! Defects of ORDER: ties swapped, and released tasks put to the back.

use async_trait::async_trait;
use delayline_core::{Claim, Claimed, Disposition, Lease, QueueName, Result};

use super::defect::{Defect, Inner, Notes, Opened};

/// Of tasks that are due at the same millisecond, the first two are swapped.
#[derive(Default)]
pub(super) struct SwappedTies;

#[async_trait]
impl Defect for SwappedTies {
    async fn claim(&self, inner: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let swap = |tasks: &mut Vec<delayline_core::ClaimedTask>| {
            if let Some(at) = tasks.array_windows().position(|[first, second]| first.due_at == second.due_at) {
                tasks.swap(at, at + 1);
            }
        };
        inner.claim_reordered(subscription, claim, swap).await
    }
}

/// A task that was released stands behind others that are due.
#[derive(Default)]
pub(super) struct ReleasedLast {
    released: Notes<()>,
}

#[async_trait]
impl Defect for ReleasedLast {
    async fn settle(
        &self,
        inner: &Inner,
        queue: &QueueName,
        dispositions: Vec<(Lease, Disposition)>,
    ) -> Result<Vec<Result<()>>> {
        let answers = inner.settle(queue, dispositions.clone()).await?;
        for ((lease, disposition), answer) in dispositions.iter().zip(&answers) {
            if answer.is_ok() && *disposition == Disposition::Release {
                self.released.set(queue, &lease.id, ());
            }
        }
        Ok(answers)
    }

    async fn claim(&self, inner: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let queue = subscription.queue.clone();
        let to_the_back = |tasks: &mut Vec<delayline_core::ClaimedTask>| {
            tasks.sort_by_key(|task| self.released.has(&queue, &task.lease.id));
        };
        let claimed = inner.claim_reordered(subscription, claim, to_the_back).await?;
        for task in &claimed.deliveries {
            self.released.remove(&queue, &task.lease.id);
        }
        Ok(claimed)
    }
}
