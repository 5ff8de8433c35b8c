//! Defects of CANCEL: changes that are answered and not made, made in part, twice, or though they are declared absent.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    Action, Capabilities, Change, ChangeOutcome, Changed, Claim, Claimed, DeadLetterOp, DeadLetterSelect, DeadLetters,
    Error, Lease, NewTask, OperationId, Page, QueueName, Result, Scheduled, Select, Shift, Support, TaskRef, TaskState,
    TaskView,
};
use parking_lot::Mutex;

use super::defect::{Defect, Inner, Notes, Opened};

/// What tells who waits and who is in flight, and leaves all as they are.
const NOTHING: Action = Action::Shift(Shift::Later(Duration::ZERO));

/// Those of some tasks that had this outcome.
fn with_outcome(tasks: &[TaskRef], changed: &Changed, outcome: ChangeOutcome) -> Vec<TaskRef> {
    let had = tasks.iter().zip(&changed.outcomes).filter(|(_, had)| matches!(had, Ok(had) if *had == outcome));
    had.map(|(task, _)| task.clone()).collect()
}

fn as_nothing(change: &Change) -> Change {
    let mut nothing = change.clone();
    nothing.action = NOTHING;
    nothing
}

/// A waiting task that is cancelled stays, and the answer is `Changed`.
#[derive(Default)]
pub(super) struct CancelledComes;

#[async_trait]
impl Defect for CancelledComes {
    async fn change(&self, inner: &Inner, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        match &select {
            Select::Tasks(tasks) if change.action == Action::Cancel => {
                let changed = inner.change(queue, select.clone(), as_nothing(&change)).await?;
                let in_flight = with_outcome(tasks, &changed, ChangeOutcome::InFlight);
                inner.change(queue, Select::Tasks(in_flight), Change::cancel()).await?;
                Ok(changed)
            }
            _ => inner.change(queue, select, change).await,
        }
    }
}

/// A task that is cancelled in flight is shown as such, and comes again if its lease ends without a `Complete`.
#[derive(Default)]
pub(super) struct CancelledInFlightComes {
    marked: Notes<()>,
}

#[async_trait]
impl Defect for CancelledInFlightComes {
    async fn change(&self, inner: &Inner, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        match &select {
            Select::Tasks(tasks) if change.action == Action::Cancel => {
                let changed = inner.change(queue, select.clone(), as_nothing(&change)).await?;
                let waiting = with_outcome(tasks, &changed, ChangeOutcome::Changed);
                inner.change(queue, Select::Tasks(waiting), Change::cancel()).await?;
                for task in with_outcome(tasks, &changed, ChangeOutcome::InFlight) {
                    self.marked.set(queue, &task.id, ());
                }
                Ok(changed)
            }
            _ => inner.change(queue, select, change).await,
        }
    }

    async fn extend(
        &self,
        inner: &Inner,
        queue: &QueueName,
        leases: Vec<Lease>,
        by: Duration,
    ) -> Result<Vec<Result<Lease>>> {
        let mut extended = inner.extend(queue, leases, by).await?;
        for lease in extended.iter_mut().flatten() {
            lease.cancelled |= self.marked.has(queue, &lease.id);
        }
        Ok(extended)
    }

    async fn find(&self, inner: &Inner, queue: &QueueName, id: &delayline_core::TaskId) -> Result<Option<TaskView>> {
        let mut found = inner.find(queue, id).await?;
        if let Some(view) = found.as_mut().filter(|view| view.state == TaskState::InFlight)
            && self.marked.has(queue, id)
        {
            view.state = TaskState::Cancelling;
        }
        Ok(found)
    }

    async fn claim(&self, _: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let claimed = subscription.claim(claim).await?;
        for task in &claimed.deliveries {
            self.marked.remove(&subscription.queue, &task.lease.id);
        }
        Ok(claimed)
    }

    async fn schedule(&self, inner: &Inner, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        // The id of a cancelled task is free, so the one that has it goes.
        for id in tasks.iter().filter_map(|task| task.id.as_ref()) {
            if self.marked.remove(queue, id).is_some() {
                inner.change(queue, Select::Tasks(vec![id.into()]), Change::cancel()).await?;
            }
        }
        inner.schedule(queue, tasks).await
    }
}

/// A group's shift leaves out one of its members, and counts it.
#[derive(Default)]
pub(super) struct PartOfGroup {
    begun: Mutex<HashSet<OperationId>>,
}

#[async_trait]
impl Defect for PartOfGroup {
    async fn change(&self, inner: &Inner, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        let changed = inner.change(queue, select.clone(), change.clone()).await?;
        let (Select::Group(group), Action::Shift(by)) = (&select, change.action) else { return Ok(changed) };
        if change.operation.is_some_and(|operation| !self.begun.lock().insert(operation)) {
            return Ok(changed);
        }
        let back = match by {
            Shift::Later(by) => Shift::Sooner(by),
            Shift::Sooner(by) => Shift::Later(by),
            _ => unreachable!("one that the suite does not know"),
        };
        if let Some(member) = second_member(inner, queue, group).await? {
            inner.change(queue, Select::Tasks(vec![member]), Change::shift(back)).await?;
        }
        Ok(changed)
    }
}

/// The second waiting member of a group: of a group of one, the whole is changed.
async fn second_member(inner: &Inner, queue: &QueueName, group: &delayline_core::GroupName) -> Result<Option<TaskRef>> {
    let mut page = Page::first(1_000);
    let mut seen = 0;
    loop {
        let tasks = inner.list(queue, page).await?;
        for task in &tasks {
            if task.group.as_ref() == Some(group) && task.state == TaskState::Pending {
                seen += 1;
                if seen == 2 {
                    return Ok(Some(task.task.clone()));
                }
            }
        }
        let Some(last) = tasks.last() else { return Ok(None) };
        page = Page::after(last, 1_000);
    }
}

/// A shift that is repeated under its operation id is made again, and answered as it was.
#[derive(Default)]
pub(super) struct ShiftedTwice {
    made: Mutex<HashSet<OperationId>>,
}

#[async_trait]
impl Defect for ShiftedTwice {
    async fn change(&self, inner: &Inner, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        let changed = inner.change(queue, select.clone(), change.clone()).await?;
        if let (Action::Shift(_), Some(operation)) = (change.action, change.operation)
            && !self.made.lock().insert(operation)
        {
            inner.change(queue, select, Change::of(change.action)).await?;
        }
        Ok(changed)
    }
}

/// Cancelling is declared as absent, and works.
#[derive(Default)]
pub(super) struct UndeclaredCancel;

#[async_trait]
impl Defect for UndeclaredCancel {
    fn capabilities(&self, declared: &Capabilities) -> Capabilities {
        without_cancel(declared)
    }
}

/// Cancelling is declared as absent, answers so, and is done all the same.
#[derive(Default)]
pub(super) struct DeniedCancel;

#[async_trait]
impl Defect for DeniedCancel {
    fn capabilities(&self, declared: &Capabilities) -> Capabilities {
        without_cancel(declared)
    }

    async fn change(&self, inner: &Inner, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        let is_cancel = change.action == Action::Cancel;
        let changed = inner.change(queue, select, change).await?;
        if is_cancel { Err(Error::unsupported("cancel")) } else { Ok(changed) }
    }
}

/// Of what it declares it knows one operation less: as a backend would that met a new one with an arm for the rest.
#[derive(Default)]
pub(super) struct OneOperationLess;

#[async_trait]
impl Defect for OneOperationLess {
    async fn dead_letters(&self, inner: &Inner, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        match op {
            DeadLetterOp::Purge { select: DeadLetterSelect::Ids(_) } => Err(Error::unsupported("this operation")),
            op => inner.dead_letters(queue, op).await,
        }
    }
}

fn without_cancel(declared: &Capabilities) -> Capabilities {
    let mut caps = declared.clone();
    caps.cancel = Support::Unsupported;
    caps
}
