//! The connection between a [`Queue`](crate::Queue), with everything made from it, and its store.

use std::fmt;
use std::sync::Arc;

use super::answers::spread;
use super::commit::{Committer, Kind, Limits, Sending, Submit, submit};
use super::size;
use crate::limits::JOINED_BYTES_MAX_DEFAULT;
use crate::meter::{self, Event};
use crate::{DelayBackend, Disposition, Lease, NewTask, QueueName, Result, ScheduleOutcome, Scheduled};

/// One queue on one backend, shared by a `Queue`, its clones, consumers and deliveries.
pub(crate) struct Line {
    pub(crate) backend: Arc<dyn DelayBackend>,
    pub(crate) name: QueueName,
    /// Maximum number of bytes that wait to be sent in joined calls, for each kind.
    pub(crate) joined_bytes_max: usize,
    schedules: Committer<NewTask, Scheduled>,
    settles: Committer<(Lease, Disposition), ()>,
}

impl Line {
    pub(crate) fn new(backend: Arc<dyn DelayBackend>, name: QueueName) -> Self {
        let joined_bytes_max = JOINED_BYTES_MAX_DEFAULT;
        Self { backend, name, joined_bytes_max, schedules: Committer::default(), settles: Committer::default() }
    }

    /// The same line with another limit, and therefore with separate joined calls.
    pub(crate) fn with_joined_bytes_max(&self, bytes: usize) -> Self {
        Self { joined_bytes_max: bytes, ..Self::new(self.backend.clone(), self.name.clone()) }
    }

    /// Schedules many tasks in one call.
    pub(crate) fn schedule_all(&self, tasks: Vec<NewTask>) -> Sending<'_, Scheduled> {
        meter::noting(self.backend.schedule(&self.name, tasks), |answers| {
            let accepted = answers.iter().flatten().flatten().filter(|scheduled| is_new(scheduled.outcome)).count();
            meter::count(self.name.as_str(), Event::Scheduled, accepted as u64);
        })
    }

    /// Schedules one task, joined with those that others schedule at the same time.
    pub(crate) fn schedule(self: &Arc<Self>, task: NewTask) -> Submit<'_, OneTask> {
        submit(self, task)
    }

    /// Settles one lease, joined with those that others settle at the same time.
    pub(crate) fn settle_one(self: &Arc<Self>, disposition: (Lease, Disposition)) -> Submit<'_, OneDisposition> {
        submit(self, disposition)
    }

    /// Settles many leases, in calls of at most `batch_max`. Returns one answer for each, in order. If a whole call
    /// failed, its items get its error.
    pub(crate) async fn settle(&self, mut dispositions: Vec<(Lease, Disposition)>) -> Vec<Result<()>> {
        let mut answers = Vec::with_capacity(dispositions.len());
        while !dispositions.is_empty() {
            let later = dispositions.split_off(dispositions.len().min(self.batch_max()));
            let chunk = std::mem::replace(&mut dispositions, later);
            let asked = chunk.len();
            answers.extend(spread(self.backend.settle(&self.name, chunk).await, asked));
        }
        answers
    }

    /// Maximum number of items in one call; at least one, whatever the backend declares.
    pub(crate) fn batch_max(&self) -> usize {
        self.backend.capabilities().batch_max.max(1)
    }

    fn limits(&self) -> Limits<'_> {
        Limits { queue: &self.name, batch_max: self.batch_max(), bytes_max: self.joined_bytes_max }
    }

    /// Whether both refer to the same queue of the same backend.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.name == other.name && std::ptr::addr_eq(Arc::as_ptr(&self.backend), Arc::as_ptr(&other.backend))
    }
}

/// Whether a new task was accepted.
fn is_new(outcome: ScheduleOutcome) -> bool {
    match outcome {
        ScheduleOutcome::Created | ScheduleOutcome::Replaced => true,
        ScheduleOutcome::Existing => false,
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("backend", &self.backend.capabilities().name)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Scheduling one task, as a call that can be joined.
pub(crate) struct OneTask;

impl Kind for OneTask {
    type Way = Line;
    type Item = NewTask;
    type Answer = Scheduled;

    fn committer(line: &Line) -> &Committer<NewTask, Scheduled> {
        &line.schedules
    }

    fn limits(line: &Line) -> Limits<'_> {
        line.limits()
    }

    fn size(task: &NewTask) -> usize {
        size::of_task(task)
    }

    fn send(line: &Line, tasks: Vec<NewTask>) -> Sending<'_, Scheduled> {
        line.schedule_all(tasks)
    }
}

/// Settling one lease, as a call that can be joined.
pub(crate) struct OneDisposition;

impl Kind for OneDisposition {
    type Way = Line;
    type Item = (Lease, Disposition);
    type Answer = ();

    fn committer(line: &Line) -> &Committer<(Lease, Disposition), ()> {
        &line.settles
    }

    fn limits(line: &Line) -> Limits<'_> {
        line.limits()
    }

    fn size(disposition: &(Lease, Disposition)) -> usize {
        size::of_disposition(disposition)
    }

    fn send(line: &Line, dispositions: Vec<Self::Item>) -> Sending<'_, ()> {
        line.backend.settle(&line.name, dispositions)
    }
}
