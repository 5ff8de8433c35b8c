//! Defects of BOUND and CLEAR: limits that are none, and looks that show what is not so.

use std::collections::VecDeque;

use async_trait::async_trait;
use delayline_core::{
    Bytes, Claim, Claimed, Disposition, Lease, NewTask, Page, QueueName, QueueStats, Result, Scheduled, TaskId,
    TaskState, TaskView,
};
use parking_lot::Mutex;

use super::defect::{Defect, Inner, Notes, Opened};

/// A payload of any size is accepted, and delivered as it was.
#[derive(Default)]
pub(super) struct AnySize {
    oversized: Notes<Bytes>,
}

#[async_trait]
impl Defect for AnySize {
    async fn schedule(
        &self,
        inner: &Inner,
        queue: &QueueName,
        mut tasks: Vec<NewTask>,
    ) -> Result<Vec<Result<Scheduled>>> {
        let largest = inner.capabilities().payload_bytes_max;
        let whole: Vec<Bytes> = tasks.iter().map(|task| task.payload.clone()).collect();
        tasks.iter_mut().for_each(|task| task.payload.truncate(largest));
        let answers = inner.schedule(queue, tasks).await?;
        for (answer, payload) in answers.iter().zip(whole) {
            if let Ok(scheduled) = answer
                && payload.len() > largest
            {
                self.oversized.set(queue, scheduled.id(), payload);
            }
        }
        Ok(answers)
    }

    async fn claim(&self, _: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let mut claimed = subscription.claim(claim).await?;
        for task in &mut claimed.deliveries {
            if let Some(whole) = self.oversized.get(&subscription.queue, &task.lease.id) {
                task.payload = whole;
            }
        }
        Ok(claimed)
    }
}

/// `find` still shows the last hundred tasks that were completed.
#[derive(Default)]
pub(super) struct CompletedShown {
    completed: Mutex<VecDeque<(QueueName, TaskView)>>,
}

#[async_trait]
impl Defect for CompletedShown {
    async fn settle(
        &self,
        inner: &Inner,
        queue: &QueueName,
        dispositions: Vec<(Lease, Disposition)>,
    ) -> Result<Vec<Result<()>>> {
        let mut views = Vec::with_capacity(dispositions.len());
        for (lease, disposition) in &dispositions {
            views.push(if *disposition == Disposition::Complete { inner.find(queue, &lease.id).await? } else { None });
        }
        let answers = inner.settle(queue, dispositions).await?;
        let mut completed = self.completed.lock();
        for (view, answer) in views.into_iter().zip(&answers) {
            if let (Some(mut view), Ok(())) = (view, answer) {
                view.state = TaskState::Pending;
                completed.push_back((queue.clone(), view));
            }
        }
        while completed.len() > 100 {
            completed.pop_front();
        }
        Ok(answers)
    }

    async fn find(&self, inner: &Inner, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        if let Some(view) = inner.find(queue, id).await? {
            return Ok(Some(view));
        }
        let completed = self.completed.lock();
        Ok(completed.iter().find(|(of, view)| of == queue && view.task.id == *id).map(|(_, view)| view.clone()))
    }
}

/// Every page but the first leaves out the entry that it should begin with.
#[derive(Default)]
pub(super) struct SkippingList;

#[async_trait]
impl Defect for SkippingList {
    async fn list(&self, inner: &Inner, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        let begun = page.after.is_some();
        let mut tasks = inner.list(queue, page).await?;
        if begun && !tasks.is_empty() {
            tasks.remove(0);
        }
        Ok(tasks)
    }
}

/// A task in flight is counted as due as well.
#[derive(Default)]
pub(super) struct CountedTwice;

#[async_trait]
impl Defect for CountedTwice {
    async fn stats(&self, inner: &Inner, queue: &QueueName) -> Result<QueueStats> {
        let mut stats = inner.stats(queue).await?;
        stats.due += stats.in_flight;
        Ok(stats)
    }
}
