//! Defects of TIME: early, late, clamped, expired.

use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{Claim, Claimed, Due, NewTask, QueueName, Result, Scheduled};

use super::defect::{Defect, Inner, Notes, Opened};

/// Due times are kept 5 ms too early.
#[derive(Default)]
pub(super) struct Early;

#[async_trait]
impl Defect for Early {
    async fn schedule(
        &self,
        inner: &Inner,
        queue: &QueueName,
        mut tasks: Vec<NewTask>,
    ) -> Result<Vec<Result<Scheduled>>> {
        const AHEAD: Duration = Duration::from_millis(5);
        for task in &mut tasks {
            // One that is too far stays too far.
            if inner.capabilities().check_delay(task.due).is_ok() {
                task.due = match task.due {
                    Due::After(delay) => Due::After(delay.saturating_sub(AHEAD)),
                    Due::At(at) => Due::At(at.saturating_sub(AHEAD)),
                    _ => unreachable!("one that the suite does not know"),
                };
            }
        }
        inner.schedule(queue, tasks).await
    }
}

/// A wait that nothing ends goes on for too long.
#[derive(Default)]
pub(super) struct Late;

#[async_trait]
impl Defect for Late {
    async fn wait(&self, inner: &Inner, subscription: &mut Opened, at_most: Duration) {
        subscription.wait(at_most.saturating_add(50 * inner.unit())).await;
    }
}

/// A delay beyond the largest is made the largest.
#[derive(Default)]
pub(super) struct Clamping;

#[async_trait]
impl Defect for Clamping {
    async fn schedule(
        &self,
        inner: &Inner,
        queue: &QueueName,
        mut tasks: Vec<NewTask>,
    ) -> Result<Vec<Result<Scheduled>>> {
        let longest = inner.capabilities().delay_max;
        let latest = inner.harness.wall().saturating_add(longest).saturating_sub(Duration::from_millis(1));
        for task in &mut tasks {
            task.due = match task.due {
                Due::After(delay) => Due::After(delay.min(longest)),
                Due::At(at) => Due::At(at.min(latest)),
                _ => unreachable!("one that the suite does not know"),
            };
        }
        inner.schedule(queue, tasks).await
    }
}

/// What expires is kept for 300 days longer, and still shown as it was.
#[derive(Default)]
pub(super) struct NoExpiry {
    lengthened: Notes<()>,
}

const LONGER: Duration = Duration::from_secs(300 * 86_400);

#[async_trait]
impl Defect for NoExpiry {
    async fn schedule(
        &self,
        inner: &Inner,
        queue: &QueueName,
        mut tasks: Vec<NewTask>,
    ) -> Result<Vec<Result<Scheduled>>> {
        let mut lengthened = Vec::with_capacity(tasks.len());
        for task in &mut tasks {
            let longer = match (task.expires, task.due) {
                // One that expires before it is due stays invalid.
                (Some(Due::After(expires)), Due::After(due)) if expires < due => None,
                (Some(Due::At(expires)), Due::At(due)) if expires < due => None,
                (Some(Due::After(expires)), _) => Some(Due::After(expires.saturating_add(LONGER))),
                (Some(Due::At(expires)), _) => Some(Due::At(expires.saturating_add(LONGER))),
                (None, _) => None,
                _ => unreachable!("one that the suite does not know"),
            };
            task.expires = longer.or(task.expires);
            lengthened.push(longer.is_some());
        }
        let answers = inner.schedule(queue, tasks).await?;
        for (answer, longer) in answers.iter().zip(lengthened) {
            if let (Ok(scheduled), true) = (answer, longer) {
                self.lengthened.set(queue, scheduled.id(), ());
            }
        }
        Ok(answers)
    }

    async fn claim(&self, _: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let mut claimed = subscription.claim(claim).await?;
        for task in &mut claimed.deliveries {
            if self.lengthened.has(&subscription.queue, &task.lease.id) {
                task.expires_at = task.expires_at.map(|at| at.saturating_sub(LONGER));
            }
        }
        Ok(claimed)
    }
}
