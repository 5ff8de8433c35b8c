//! Defects of LOSS: tasks that never come, or not as they were.

use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    Bytes, Change, Claim, Claimed, DeadLetterOp, DeadLetters, Disposition, Lease, NewTask, QueueName, Reason, Result,
    ScheduleOutcome, Scheduled, Select, TaskRef,
};

use super::defect::{Defect, Inner, Notes, Opened, is_end};

/// The last task of a batch of several is accepted and dropped.
#[derive(Default)]
pub(super) struct LastLost;

#[async_trait]
impl Defect for LastLost {
    async fn schedule(&self, inner: &Inner, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        let answers = inner.schedule(queue, tasks).await?;
        if let [_, .., Ok(last)] = &answers[..]
            && last.outcome == ScheduleOutcome::Created
        {
            let _ = inner.change(queue, Select::Tasks(vec![last.into()]), Change::cancel()).await;
        }
        Ok(answers)
    }
}

/// An item that failed in a batch that was accepted otherwise is told to have been accepted.
#[derive(Default)]
pub(super) struct ErrorsAsOk;

#[async_trait]
impl Defect for ErrorsAsOk {
    async fn schedule(&self, inner: &Inner, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        let ids: Vec<_> = tasks.iter().map(|task| task.id.clone()).collect();
        let mut answers = inner.schedule(queue, tasks).await?;
        if answers.iter().any(Result::is_ok) {
            for (answer, id) in answers.iter_mut().zip(ids) {
                if answer.is_err() {
                    let id = id.unwrap_or_else(|| uuid::Uuid::new_v4().into());
                    *answer = Ok(Scheduled::new(TaskRef::from(id), ScheduleOutcome::Created));
                }
            }
        }
        Ok(answers)
    }
}

/// A lease is shown to end when it was asked to, and lasts for as long as one can.
#[derive(Default)]
pub(super) struct EndlessLease;

#[async_trait]
impl Defect for EndlessLease {
    async fn claim(&self, inner: &Inner, subscription: &mut Opened, mut claim: Claim) -> Result<Claimed> {
        inner.capabilities().check_lease(claim.lease)?;
        let asked = std::mem::replace(&mut claim.lease, inner.capabilities().lease_max);
        let mut claimed = subscription.claim(claim).await?;
        let ends_at = inner.wall_in(asked);
        claimed.deliveries.iter_mut().for_each(|task| task.lease.expires_at = ends_at);
        Ok(claimed)
    }

    async fn extend(
        &self,
        inner: &Inner,
        queue: &QueueName,
        leases: Vec<Lease>,
        by: Duration,
    ) -> Result<Vec<Result<Lease>>> {
        let shown: Vec<_> = leases.iter().map(|lease| lease.expires_at).collect();
        let mut extended = inner.extend(queue, leases, by).await?;
        let ends_at = inner.wall_in(by);
        for (lease, before) in extended.iter_mut().zip(shown) {
            if let Ok(lease) = lease {
                lease.expires_at = ends_at.max(before);
            }
        }
        Ok(extended)
    }
}

/// From the second attempt on, the first byte of the payload is another.
#[derive(Default)]
pub(super) struct CorruptRetry;

#[async_trait]
impl Defect for CorruptRetry {
    async fn claim(&self, _: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let mut claimed = subscription.claim(claim).await?;
        for task in claimed.deliveries.iter_mut().filter(|task| task.lease.attempt > 1) {
            let mut bytes = task.payload.to_vec();
            match bytes.first_mut() {
                Some(first) => *first ^= 1,
                None => bytes.push(0),
            }
            task.payload = Bytes::from(bytes);
        }
        Ok(claimed)
    }
}

/// A letter that is redriven begins with the attempts that it had, and is dead-lettered again if none are left.
#[derive(Default)]
pub(super) struct UsedUpRedrive {
    had: Notes<u32>,
}

impl UsedUpRedrive {
    async fn note_attempts(&self, inner: &Inner, queue: &QueueName) -> Result<()> {
        let mut after = None;
        loop {
            let page = inner.dead_letters(queue, DeadLetterOp::List { after, limit: 1_000 }).await?;
            page.letters.iter().for_each(|letter| self.had.set(queue, &letter.id, letter.attempts));
            if page.next.is_none() {
                return Ok(());
            }
            after = page.next;
        }
    }
}

#[async_trait]
impl Defect for UsedUpRedrive {
    async fn dead_letters(&self, inner: &Inner, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        if matches!(op, DeadLetterOp::Redrive { .. }) {
            self.note_attempts(inner, queue).await?;
        }
        inner.dead_letters(queue, op).await
    }

    async fn schedule(&self, inner: &Inner, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        let answers = inner.schedule(queue, tasks).await?;
        for new in answers.iter().flatten().filter(|answer| answer.outcome != ScheduleOutcome::Existing) {
            self.had.remove(queue, new.id());
        }
        Ok(answers)
    }

    async fn claim(&self, inner: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let mut claimed = subscription.claim(claim).await?;
        for task in &mut claimed.deliveries {
            task.lease.attempt += self.had.get(&subscription.queue, &task.lease.id).unwrap_or(0);
        }
        let used_up = claimed.deliveries.extract_if(.., |task| task.lease.attempt > task.attempts_max);
        let dead_lettered: Vec<_> =
            used_up.map(|task| (task.lease, Disposition::DeadLetter { reason: Reason::default() })).collect();
        if !dead_lettered.is_empty() {
            claimed.dead_lettered += dead_lettered.len() as u64;
            claimed.next_due_in = Some(Duration::ZERO);
            let queue = subscription.queue.clone();
            inner.settle_quietly(&queue, dead_lettered).await;
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
        self.had.settled(queue, &dispositions, &answers, is_end);
        Ok(answers)
    }
}
