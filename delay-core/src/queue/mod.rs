//! The typed queue: what an application schedules into, changes and looks at.

mod change;
mod options;
mod schedule;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::schedule::{Schedule, Scheduling, Task};
use crate::client::answers::only;
use crate::client::line::Line;
use crate::meter::{self, Event, Levels};
use crate::{
    Action, AdminOp, Change, ChangeOutcome, Changed, Codec, ConsumerBuilder, DeadLetterOp, DeadLetters, DeadSelect,
    DelayBackend, Due, Error, GroupName, Json, Page, QueueName, QueueStats, Result, Select, Shift, TaskId, TaskRef,
    TaskView, TraceContext,
};

/// A queue of delayed tasks of one type, on any backend.
///
/// It is a cheap handle: a clone is the same queue, and shares its [group commit](Self::schedule). Nothing is sent when it
/// is made; a queue exists as soon as it is named. Its calls can be made from any number of tasks at once.
///
/// # Errors
/// Every call answers what its method of [`DelayBackend`] answers; [`Capabilities`](crate::Capabilities) tell beforehand
/// what a backend has not.
///
/// # Cancel safety
/// Every future may be dropped at any await point. What it had sent may have taken effect; each method of
/// [`DelayBackend`] says what repeating it means.
pub struct Queue<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    line: Arc<Line>,
    codec: Arc<dyn Codec<T>>,
    trace: Option<Arc<Tracing>>,
}

type Tracing = dyn Fn() -> Option<TraceContext> + Send + Sync;

impl<T: 'static> Queue<T> {
    /// A queue whose payloads are JSON.
    ///
    /// # Errors
    /// Of the name, as in [`QueueName::new`].
    pub fn new(backend: Arc<dyn DelayBackend>, name: impl TryInto<QueueName, Error: Into<Error>>) -> Result<Self>
    where
        T: Serialize + DeserializeOwned,
    {
        Self::with_codec(backend, name, Json)
    }

    /// A queue whose payloads are written and read by `codec`.
    ///
    /// # Errors
    /// Of the name, as in [`QueueName::new`].
    pub fn with_codec(
        backend: Arc<dyn DelayBackend>,
        name: impl TryInto<QueueName, Error: Into<Error>>,
        codec: impl Codec<T>,
    ) -> Result<Self> {
        let line = Arc::new(Line::new(backend, name.try_into().map_err(Into::into)?));
        Ok(Self { inner: Arc::new(Inner { line, codec: Arc::new(codec), trace: None }) })
    }

    /// The same queue, whose tasks carry the trace that `current` tells when they are described, in their headers
    /// `traceparent` and `tracestate`. A task that was given a `traceparent` keeps its own. Handlers read it with
    /// [`Context::trace_context`](crate::Context::trace_context).
    ///
    /// ```
    /// # use delayline_core::{Queue, TraceContext};
    /// # fn current_traceparent() -> Option<String> { None }
    /// # fn example(queue: Queue<String>) -> Queue<String> {
    /// // What a tracing library calls its propagator, text map or carrier writes this text.
    /// queue.trace_with(|| TraceContext::new(current_traceparent()?).ok())
    /// # }
    /// ```
    #[must_use]
    pub fn trace_with(&self, current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        let Inner { line, codec, .. } = &*self.inner;
        let trace: Option<Arc<Tracing>> = Some(Arc::new(current));
        Self { inner: Arc::new(Inner { line: line.clone(), codec: codec.clone(), trace }) }
    }

    /// The same queue with another limit, in bytes of payload and headers, to the single calls that wait to be sent while
    /// another is under way: those of [`schedule`](Self::schedule), and as many again of settlings. Default: 64 MiB.
    ///
    /// Beyond it a call of `schedule` answers [`Busy`](crate::ErrorKind::Busy) at once; a settling is repeated until its lease
    /// ends. One that is larger by itself goes through when nothing else waits. The queue that is returned joins its own
    /// calls, apart from those of `self`.
    #[must_use]
    pub fn joined_bytes_max(&self, bytes: usize) -> Self {
        let Inner { line, codec, trace } = &*self.inner;
        let line = Arc::new(line.with_joined_bytes_max(bytes));
        Self { inner: Arc::new(Inner { line, codec: codec.clone(), trace: trace.clone() }) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &QueueName {
        &self.inner.line.name
    }

    /// Its backend.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn DelayBackend> {
        &self.inner.line.backend
    }

    /// Describes one task; awaiting the answer schedules it.
    ///
    /// The payload is encoded at once, and what is wrong with it or with an option is reported when awaited. Calls that
    /// are made at the same time through one `Queue` and its clones travel as one (group commit), without a linger: while
    /// one is under way, what arrives forms the next. So many concurrent callers are nearly as fast as
    /// [`schedule_all`](Self::schedule_all), and a lone one pays nothing.
    ///
    /// ```no_run
    /// # use std::{sync::Arc, time::Duration};
    /// # use delayline_core::{DelayBackend, Queue, Result};
    /// # async fn example(queue: Queue<String>) -> Result<()> {
    /// let scheduled = queue.schedule(&"anna".to_string()).after(Duration::from_secs(5400)).group("exam-7").await?;
    /// queue.cancel(&scheduled).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`DelayBackend::schedule`], and [`Codec`](crate::ErrorKind::Codec). [`Ambiguous`](crate::ErrorKind::Ambiguous)
    /// after 30 s without an answer, and [`Busy`](crate::ErrorKind::Busy) where more calls wait than
    /// [`joined_bytes_max`](Self::joined_bytes_max) allows.
    pub fn schedule(&self, payload: &T) -> Schedule<'_, T> {
        Schedule::new(self, self.encode(payload))
    }

    /// Schedules many tasks, with one answer for each, in order.
    ///
    /// They travel in calls of [`Capabilities::batch_max`](crate::Capabilities) tasks and at most 16 MiB, and are taken
    /// from the iterator as they are sent.
    ///
    /// # Errors
    /// An outer `Err` means that nothing has taken effect. When a later call fails, its tasks and all that were not sent
    /// yet have its error as their own. A payload that can't be encoded or an option that is wrong is the error of that
    /// task alone.
    ///
    /// # Cancel safety
    /// Dropped, the tasks of some calls were accepted. To be able to repeat it, give the tasks ids.
    pub async fn schedule_all(
        &self,
        tasks: impl IntoIterator<Item = Task<T>>,
    ) -> Result<Vec<Result<crate::Scheduled>>> {
        schedule::schedule_all(self.line(), tasks.into_iter().map(|task| task.into_new(self))).await
    }

    /// Cancels a task.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`].
    pub async fn cancel(&self, task: impl Into<TaskRef>) -> Result<ChangeOutcome> {
        self.change_one(task.into(), Change::cancel()).await
    }

    /// Makes a waiting task due then.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`].
    pub async fn move_to(&self, task: impl Into<TaskRef>, due: impl Into<Due>) -> Result<ChangeOutcome> {
        self.change_one(task.into(), Change::move_to(due)).await
    }

    /// Makes a waiting task due later or sooner.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`].
    pub async fn shift(&self, task: impl Into<TaskRef>, by: Shift) -> Result<ChangeOutcome> {
        self.change_one(task.into(), Change::shift(by)).await
    }

    /// Cancels all tasks of a group.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`].
    pub async fn cancel_group(&self, group: &GroupName) -> Result<Changed> {
        self.change(Select::Group(group.clone()), Change::cancel()).await
    }

    /// Makes all waiting tasks of a group due then.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`].
    pub async fn move_group(&self, group: &GroupName, due: impl Into<Due>) -> Result<Changed> {
        self.change(Select::Group(group.clone()), Change::move_to(due)).await
    }

    /// Makes all waiting tasks of a group due later or sooner.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`].
    pub async fn shift_group(&self, group: &GroupName, by: Shift) -> Result<Changed> {
        self.change(Select::Group(group.clone()), Change::shift(by)).await
    }

    /// A change under an operation id of one's own, which can be repeated until it is known to be complete.
    ///
    /// Any number of tasks travel in calls of [`Capabilities::batch_max`](crate::Capabilities), one after the other; a delay to
    /// move them by counts anew for each call. A group is one call.
    ///
    /// # Errors
    /// Those of [`DelayBackend::change`], where the first call fails. When a later call fails, its tasks and all that were not
    /// sent yet have its error as their own; repeated with the same tasks and operation id, the change goes on there.
    ///
    /// # Cancel safety
    /// Dropped, some of the tasks may have been changed; with an operation id, repeat it to finish.
    pub async fn change(&self, select: Select, change: Change) -> Result<Changed> {
        let action = change.action;
        let changed = match select {
            Select::Tasks(tasks) => change::change_tasks(self.line(), tasks, change).await?,
            Select::Group(_) => self.backend().change(self.name(), select, change).await?,
        };
        let what = match action {
            Action::Cancel => Event::Cancelled,
            Action::MoveTo(_) | Action::Shift(_) => Event::Moved,
        };
        meter::count(self.name().as_str(), what, changed.changed);
        Ok(changed)
    }

    /// Shows a task that is pending or in flight.
    ///
    /// # Errors
    /// Those of [`DelayBackend::find`].
    pub async fn find(&self, id: &TaskId) -> Result<Option<TaskView>> {
        self.backend().find(self.name(), id).await
    }

    /// Shows a page of the tasks that are pending or in flight, by the time they are next visible.
    ///
    /// # Errors
    /// Those of [`DelayBackend::list`].
    pub async fn list(&self, page: Page) -> Result<Vec<TaskView>> {
        self.backend().list(self.name(), page).await
    }

    /// Counts its tasks.
    ///
    /// # Errors
    /// Those of [`DelayBackend::stats`].
    pub async fn stats(&self) -> Result<QueueStats> {
        let stats = self.backend().stats(self.name()).await?;
        let QueueStats { scheduled, due, in_flight, dead, paused, .. } = stats;
        let oldest_due = stats.oldest_due.unwrap_or_default();
        meter::levels(self.name().as_str(), Levels { scheduled, due, in_flight, dead, paused, oldest_due });
        Ok(stats)
    }

    /// Stops hand-out until [`resume`](Self::resume); everything else goes on.
    ///
    /// # Errors
    /// Those of [`DelayBackend::administer`].
    pub async fn pause(&self) -> Result<()> {
        self.backend().administer(self.name(), AdminOp::Pause).await
    }

    /// Hands out again.
    ///
    /// # Errors
    /// Those of [`DelayBackend::administer`].
    pub async fn resume(&self) -> Result<()> {
        self.backend().administer(self.name(), AdminOp::Resume).await
    }

    /// Deletes all its tasks and dead letters; leases on them are lost.
    ///
    /// # Errors
    /// Those of [`DelayBackend::administer`].
    pub async fn delete(&self) -> Result<()> {
        self.backend().administer(self.name(), AdminOp::Delete).await
    }

    /// Shows at most `limit` dead letters, the oldest first, from the place on that the page before named as its
    /// [`next`](DeadLetters::next).
    ///
    /// # Errors
    /// Those of [`DelayBackend::dead_letters`].
    pub async fn dead_letters(&self, after: Option<u64>, limit: usize) -> Result<DeadLetters> {
        self.backend().dead_letters(self.name(), DeadLetterOp::List { after, limit }).await
    }

    /// Schedules dead letters again, at most `rate` of them a second.
    ///
    /// # Errors
    /// Those of [`DelayBackend::dead_letters`].
    pub async fn redrive(&self, select: DeadSelect, rate: Option<f64>) -> Result<DeadLetters> {
        self.backend().dead_letters(self.name(), DeadLetterOp::Redrive { select, rate }).await
    }

    /// Deletes dead letters.
    ///
    /// # Errors
    /// Those of [`DelayBackend::dead_letters`].
    pub async fn purge(&self, select: DeadSelect) -> Result<DeadLetters> {
        self.backend().dead_letters(self.name(), DeadLetterOp::Purge { select }).await
    }

    /// The value in a payload, such as a [`TaskView`]'s or a dead letter's.
    ///
    /// # Errors
    /// [`Codec`](crate::ErrorKind::Codec).
    pub fn decode(&self, payload: &Bytes) -> Result<T> {
        self.inner.codec.decode(payload)
    }

    /// Begins to consume it by pulling. To have tasks run instead, see [`Worker`](crate::Worker).
    pub fn consumer(&self) -> ConsumerBuilder<T> {
        ConsumerBuilder::new(self.clone())
    }

    pub(crate) fn encode(&self, payload: &T) -> Result<Bytes> {
        self.inner.codec.encode(payload)
    }

    /// The trace that a task which is described now belongs to.
    pub(crate) fn current_trace(&self) -> Option<TraceContext> {
        self.inner.trace.as_ref().and_then(|current| current())
    }

    pub(crate) fn line(&self) -> &Arc<Line> {
        &self.inner.line
    }

    async fn change_one(&self, task: TaskRef, change: Change) -> Result<ChangeOutcome> {
        only(self.change(Select::Tasks(vec![task]), change).await?.outcomes)
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T: 'static> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("backend", &self.backend().capabilities().name)
            .field("name", self.name())
            .finish_non_exhaustive()
    }
}
