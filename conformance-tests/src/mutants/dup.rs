//! Defects of DUP: leases, fences, attempts and ids.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    Claim, Claimed, ClaimedTask, Disposition, Lease, NewTask, OnConflict, QueueName, Reason, Receipt, Result,
    ScheduleOutcome, Scheduled, TaskId, TaskRef, TaskState,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::defect::{Defect, Inner, Notes, Opened, is_end};

/// A lease that is stale is taken for the one that lives.
#[derive(Default)]
pub(super) struct NoFence {
    current: Notes<Lease>,
}

#[async_trait]
impl Defect for NoFence {
    async fn claim(&self, _: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let claimed = subscription.claim(claim).await?;
        for task in &claimed.deliveries {
            self.current.set(&subscription.queue, &task.lease.id, task.lease.clone());
        }
        Ok(claimed)
    }

    async fn settle(
        &self,
        inner: &Inner,
        queue: &QueueName,
        mut dispositions: Vec<(Lease, Disposition)>,
    ) -> Result<Vec<Result<()>>> {
        for (lease, _) in &mut dispositions {
            *lease = self.current.get(queue, &lease.id).unwrap_or_else(|| lease.clone());
        }
        let answers = inner.settle(queue, dispositions.clone()).await?;
        self.current.settled(queue, &dispositions, &answers, |_| true);
        Ok(answers)
    }

    async fn extend(
        &self,
        inner: &Inner,
        queue: &QueueName,
        leases: Vec<Lease>,
        by: Duration,
    ) -> Result<Vec<Result<Lease>>> {
        let current = |lease: Lease| self.current.get(queue, &lease.id).unwrap_or(lease);
        inner.extend(queue, leases.into_iter().map(current).collect(), by).await
    }
}

/// Every attempt is told to be the first.
#[derive(Default)]
pub(super) struct FirstAttempt;

#[async_trait]
impl Defect for FirstAttempt {
    async fn claim(&self, _: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let mut claimed = subscription.claim(claim).await?;
        claimed.deliveries.iter_mut().for_each(|task| task.lease.attempt = 1);
        Ok(claimed)
    }
}

/// A release does not give its attempt back.
#[derive(Default)]
pub(super) struct ReleaseCounts {
    released: Notes<u32>,
}

#[async_trait]
impl Defect for ReleaseCounts {
    async fn claim(&self, _: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let mut claimed = subscription.claim(claim).await?;
        for task in &mut claimed.deliveries {
            task.lease.attempt += self.released.get(&subscription.queue, &task.lease.id).unwrap_or(0);
        }
        Ok(claimed)
    }

    async fn settle(
        &self,
        inner: &Inner,
        queue: &QueueName,
        dispositions: Vec<(Lease, Disposition)>,
    ) -> Result<Vec<Result<()>>> {
        let answers = inner.settle(queue, dispositions.clone()).await?;
        for ((lease, disposition), answer) in dispositions.iter().zip(&answers) {
            if answer.is_ok() && *disposition == Disposition::Release {
                let before = self.released.get(queue, &lease.id).unwrap_or(0);
                self.released.set(queue, &lease.id, before + 1);
            }
        }
        self.released.settled(queue, &dispositions, &answers, is_end);
        Ok(answers)
    }
}

/// The first `Complete` of each task gives it back instead.
#[derive(Default)]
pub(super) struct CompletedComes {
    again: Notes<()>,
}

#[async_trait]
impl Defect for CompletedComes {
    async fn settle(
        &self,
        inner: &Inner,
        queue: &QueueName,
        mut dispositions: Vec<(Lease, Disposition)>,
    ) -> Result<Vec<Result<()>>> {
        let mut given_back = Vec::new();
        for (lease, disposition) in &mut dispositions {
            if *disposition == Disposition::Complete && self.again.remove(queue, &lease.id).is_none() {
                *disposition = Disposition::Release;
                given_back.push(lease.id.clone());
            }
        }
        let answers = inner.settle(queue, dispositions.clone()).await?;
        for ((lease, disposition), answer) in dispositions.iter().zip(&answers) {
            if answer.is_ok() && *disposition == Disposition::Release && given_back.contains(&lease.id) {
                self.again.set(queue, &lease.id, ());
            }
        }
        Ok(answers)
    }
}

/// The last task that a subscription claimed is given to the next one that claims, too.
#[derive(Default)]
pub(super) struct TwoClaimers {
    last: Mutex<HashMap<QueueName, Handed>>,
}

#[derive(Clone)]
struct Handed {
    task: ClaimedTask,
    to: u64,
    ends: Instant,
}

impl TwoClaimers {
    /// A task that another subscription holds at this moment.
    fn held_by_another(&self, subscription: &Opened) -> Option<ClaimedTask> {
        let mut last = self.last.lock();
        let held = last
            .get(&subscription.queue)
            .is_some_and(|held| held.to != subscription.number && Instant::now() < held.ends);
        if held { last.remove(&subscription.queue).map(|held| held.task) } else { None }
    }
}

#[async_trait]
impl Defect for TwoClaimers {
    async fn claim(&self, _: &Inner, subscription: &mut Opened, mut claim: Claim) -> Result<Claimed> {
        let again = if claim.max > 0 { self.held_by_another(subscription) } else { None };
        claim.max -= usize::from(again.is_some());
        let mut claimed = subscription.claim(claim).await?;
        if let Some(last) = claimed.deliveries.last() {
            let handed = Handed { task: last.clone(), to: subscription.number, ends: Instant::now() + claim.lease };
            self.last.lock().insert(subscription.queue.clone(), handed);
        }
        claimed.deliveries.splice(0..0, again);
        Ok(claimed)
    }

    async fn settle(
        &self,
        inner: &Inner,
        queue: &QueueName,
        dispositions: Vec<(Lease, Disposition)>,
    ) -> Result<Vec<Result<()>>> {
        // What is settled is held by nobody.
        let settles = |held: &Handed| dispositions.iter().any(|(lease, _)| lease.id == held.task.lease.id);
        self.last.lock().retain(|of, held| of != queue || !settles(held));
        inner.settle(queue, dispositions).await
    }
}

/// An extension to before the lease's end makes it end sooner.
#[derive(Default)]
pub(super) struct Shortened {
    short: Notes<(Lease, Instant)>,
}

#[async_trait]
impl Defect for Shortened {
    async fn extend(
        &self,
        inner: &Inner,
        queue: &QueueName,
        leases: Vec<Lease>,
        by: Duration,
    ) -> Result<Vec<Result<Lease>>> {
        let mut extended = inner.extend(queue, leases, by).await?;
        let ends_at = inner.wall_in(by);
        for lease in extended.iter_mut().flatten() {
            self.short.remove(queue, &lease.id);
            if lease.expires_at > ends_at {
                lease.expires_at = ends_at;
                self.short.set(queue, &lease.id, (lease.clone(), Instant::now() + by));
            }
        }
        Ok(extended)
    }

    async fn claim(&self, inner: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let now = Instant::now();
        let ended = self.short.remove_where(&subscription.queue, |(_, ends)| *ends <= now);
        let retry = |lease| (lease, Disposition::Retry { after: Duration::ZERO, reason: Reason::default() });
        let queue = subscription.queue.clone();
        inner.settle_quietly(&queue, ended.into_iter().map(|(lease, _)| retry(lease)).collect()).await;
        subscription.claim(claim).await
    }

    async fn settle(
        &self,
        inner: &Inner,
        queue: &QueueName,
        dispositions: Vec<(Lease, Disposition)>,
    ) -> Result<Vec<Result<()>>> {
        let answers = inner.settle(queue, dispositions.clone()).await?;
        self.short.settled(queue, &dispositions, &answers, |_| true);
        Ok(answers)
    }
}

/// Each task's fence begins at 1, also where an earlier task had its id. A receipt tells which of them a lease is of.
#[derive(Default)]
pub(super) struct FenceFromOne {
    /// What is to be added to a lease's fence to have the backend's own.
    hidden: Mutex<HashMap<(QueueName, TaskId, Receipt), u64>>,
}

impl FenceFromOne {
    fn hide(&self, queue: &QueueName, lease: &mut Lease) {
        let of = (queue.clone(), lease.id.clone(), lease.receipt.clone());
        lease.fence -= *self.hidden.lock().entry(of).or_insert(lease.fence - 1);
    }

    fn show(&self, queue: &QueueName, lease: &mut Lease) {
        let of = (queue.clone(), lease.id.clone(), lease.receipt.clone());
        lease.fence += self.hidden.lock().get(&of).copied().unwrap_or(0);
    }
}

#[async_trait]
impl Defect for FenceFromOne {
    async fn claim(&self, _: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let mut claimed = subscription.claim(claim).await?;
        claimed.deliveries.iter_mut().for_each(|task| self.hide(&subscription.queue, &mut task.lease));
        Ok(claimed)
    }

    async fn settle(
        &self,
        inner: &Inner,
        queue: &QueueName,
        mut dispositions: Vec<(Lease, Disposition)>,
    ) -> Result<Vec<Result<()>>> {
        dispositions.iter_mut().for_each(|(lease, _)| self.show(queue, lease));
        let answers = inner.settle(queue, dispositions.clone()).await?;
        for ((lease, disposition), answer) in dispositions.into_iter().zip(&answers) {
            if answer.is_ok() && is_end(&disposition) {
                self.hidden.lock().remove(&(queue.clone(), lease.id, lease.receipt));
            }
        }
        Ok(answers)
    }

    async fn extend(
        &self,
        inner: &Inner,
        queue: &QueueName,
        mut leases: Vec<Lease>,
        by: Duration,
    ) -> Result<Vec<Result<Lease>>> {
        leases.iter_mut().for_each(|lease| self.show(queue, lease));
        let mut extended = inner.extend(queue, leases, by).await?;
        extended.iter_mut().flatten().for_each(|lease| self.hide(queue, lease));
        Ok(extended)
    }
}

/// The task that takes another's place has that one's payload.
#[derive(Default)]
pub(super) struct OldPayload;

#[async_trait]
impl Defect for OldPayload {
    async fn schedule(
        &self,
        inner: &Inner,
        queue: &QueueName,
        mut tasks: Vec<NewTask>,
    ) -> Result<Vec<Result<Scheduled>>> {
        for task in tasks.iter_mut().filter(|task| task.on_conflict == OnConflict::Replace) {
            if let Some(id) = &task.id
                && let Some(there) = inner.find(queue, id).await?
                && there.state != TaskState::Cancelling
            {
                task.payload = there.payload;
            }
        }
        inner.schedule(queue, tasks).await
    }
}

/// A task whose id is there already is put beside the other, and comes under the same id.
#[derive(Default)]
pub(super) struct SecondCopy {
    /// The id that the caller gave, by the one that the backend knows the copy by.
    shown: Notes<TaskId>,
    /// The backend's, by the lease that was given.
    known: Notes<(Receipt, TaskId)>,
}

impl SecondCopy {
    fn as_known(&self, queue: &QueueName, lease: &mut Lease) {
        if let Some((receipt, id)) = self.known.get(queue, &lease.id)
            && receipt == lease.receipt
        {
            lease.id = id;
        }
    }
}

#[async_trait]
impl Defect for SecondCopy {
    async fn schedule(&self, inner: &Inner, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        let mut answers = inner.schedule(queue, tasks.clone()).await?;
        for (answer, mut task) in answers.iter_mut().zip(tasks) {
            let Ok(there) = answer else { continue };
            if there.outcome != ScheduleOutcome::Existing {
                continue;
            }
            task.id = None;
            if let Some(Ok(copy)) = inner.schedule(queue, vec![task]).await?.pop() {
                self.shown.set(queue, copy.id(), there.task.id.clone());
                let mut shown = TaskRef::from(&there.task.id);
                shown.due_at = copy.task.due_at;
                shown.receipt = copy.task.receipt;
                *answer = Ok(Scheduled::new(shown, ScheduleOutcome::Created));
            }
        }
        Ok(answers)
    }

    async fn claim(&self, _: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let mut claimed = subscription.claim(claim).await?;
        for ClaimedTask { lease, .. } in &mut claimed.deliveries {
            if let Some(shown) = self.shown.get(&subscription.queue, &lease.id) {
                self.known.set(&subscription.queue, &shown, (lease.receipt.clone(), lease.id.clone()));
                lease.id = shown;
            }
        }
        Ok(claimed)
    }

    async fn settle(
        &self,
        inner: &Inner,
        queue: &QueueName,
        mut dispositions: Vec<(Lease, Disposition)>,
    ) -> Result<Vec<Result<()>>> {
        dispositions.iter_mut().for_each(|(lease, _)| self.as_known(queue, lease));
        let answers = inner.settle(queue, dispositions.clone()).await?;
        self.shown.settled(queue, &dispositions, &answers, is_end);
        Ok(answers)
    }

    async fn extend(
        &self,
        inner: &Inner,
        queue: &QueueName,
        mut leases: Vec<Lease>,
        by: Duration,
    ) -> Result<Vec<Result<Lease>>> {
        leases.iter_mut().for_each(|lease| self.as_known(queue, lease));
        let mut extended = inner.extend(queue, leases, by).await?;
        for lease in extended.iter_mut().flatten() {
            lease.id = self.shown.get(queue, &lease.id).unwrap_or_else(|| lease.id.clone());
        }
        Ok(extended)
    }
}
