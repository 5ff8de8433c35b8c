//! Scheduling tasks: one with [`Schedule`], many with [`Task`]s.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tracing::Span;

use super::handle::Queue;
use super::options::{Options, task_options};
use crate::client::answers::{spread, unanswered};
use crate::client::commit::Submit;
use crate::client::line::{Line, OneTask};
use crate::client::size::{self, CALL_BYTES_MAX};
use crate::{Error, NewTask, Result, Scheduled};

impl<T: 'static> Queue<T> {
    /// Describes one task; awaiting the result schedules it.
    ///
    /// The payload is encoded at once. An encoding error or an invalid option is reported when the result is awaited.
    ///
    /// Calls that are made at the same time through one `Queue` and its clones travel as one (group commit): while one
    /// call is under way, the calls that arrive meanwhile form the next one. Nothing lingers to wait for company. Many
    /// concurrent callers are therefore nearly as fast as [`schedule_all`](Self::schedule_all), and a lone caller does
    /// not wait.
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
    /// Those of [`DelayBackend::schedule`](crate::DelayBackend::schedule), and [`Codec`](crate::ErrorKind::Codec).
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous) after 30 s without an answer. [`Busy`](crate::ErrorKind::Busy) if
    /// more calls wait than [`joined_bytes_max`](Self::joined_bytes_max) allows.
    pub fn schedule(&self, payload: &T) -> Schedule<'_, T> {
        Schedule::new(self, self.encode(payload))
    }

    /// Schedules many tasks and returns one result for each, in order.
    ///
    /// Each call to the store carries at most [`Capabilities::batch_max`](crate::Capabilities) tasks and 16 MiB. Tasks
    /// are taken from the iterator as they are sent.
    ///
    /// # Errors
    /// An outer `Err` means that nothing has taken effect; an unknown outcome is the result of its tasks. If a later call fails, its error is the result of its tasks
    /// and of all tasks that were not sent yet. An encoding error or an invalid option is the result of that task
    /// alone.
    ///
    /// # Cancel safety
    /// If the call is dropped, some of its tasks may have been accepted. On a backend with unique ids, give the tasks
    /// ids, so that the call can be repeated.
    pub async fn schedule_all(&self, tasks: impl IntoIterator<Item = Task<T>>) -> Result<Vec<Result<Scheduled>>> {
        schedule_all(self.line(), tasks.into_iter().map(|task| task.into_new(self))).await
    }
}

/// One task to schedule, as a builder; awaiting it schedules the task. Made by [`Queue::schedule`].
#[must_use = "a task is scheduled when this is awaited"]
pub struct Schedule<'q, T> {
    queue: &'q Queue<T>,
    payload: Result<Bytes>,
    options: Options,
}

impl<'q, T: 'static> Schedule<'q, T> {
    fn new(queue: &'q Queue<T>, payload: Result<Bytes>) -> Self {
        Self { queue, payload, options: Options::new() }
    }

    task_options!();
}

impl<'q, T: 'static> IntoFuture for Schedule<'q, T> {
    type Output = Result<Scheduled>;
    type IntoFuture = Scheduling<'q>;

    fn into_future(self) -> Scheduling<'q> {
        let line = self.queue.line();
        let task = self.options.into_task(self.payload, self.queue.current_trace());
        let span = tracing::debug_span!("schedule", queue = %line.name);
        Scheduling { span, call: task.map(|task| line.schedule(task)).map_err(Some) }
    }
}

impl<T: 'static> fmt::Debug for Schedule<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").field("queue", self.queue.name()).field("options", &self.options).finish()
    }
}

/// The future of a [`Schedule`].
///
/// # Cancel safety
/// If the future is dropped, the task was either accepted or not. On a backend with unique ids, give the task an
/// id, so that the call can be repeated.
#[must_use = "futures do nothing unless polled"]
pub struct Scheduling<'q> {
    span: Span,
    /// The call, or the error of a task that can't be sent.
    call: Result<Submit<'q, OneTask>, Option<Error>>,
}

impl Future for Scheduling<'_> {
    type Output = Result<Scheduled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let _in_span = this.span.enter();
        match &mut this.call {
            Ok(call) => Pin::new(call).poll(cx),
            Err(refused) => refused.take().map_or(Poll::Pending, |e| Poll::Ready(Err(e))),
        }
    }
}

impl fmt::Debug for Scheduling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduling").finish_non_exhaustive()
    }
}

/// One of many tasks to schedule with [`Queue::schedule_all`].
///
/// ```
/// # use std::time::Duration;
/// use delayline_core::Task;
/// let task = Task::new("submit").after(Duration::from_secs(90 * 60)).id("exam-7/anna").group("exam-7");
/// ```
#[must_use = "a task is scheduled by `Queue::schedule_all`"]
#[derive(Clone)]
pub struct Task<T> {
    payload: T,
    options: Options,
}

impl<T: 'static> Task<T> {
    /// Creates a task with this payload. By default it is due at once.
    pub fn new(payload: T) -> Self {
        Self { payload, options: Options::new() }
    }

    /// The payload.
    pub fn payload(&self) -> &T {
        &self.payload
    }

    task_options!();

    fn into_new(self, queue: &Queue<T>) -> Result<NewTask> {
        let payload = queue.encode(&self.payload);
        self.options.into_task(payload, queue.current_trace())
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Schedules what the iterator yields, in calls of bounded size; see [`Queue::schedule_all`].
async fn schedule_all(line: &Line, tasks: impl Iterator<Item = Result<NewTask>>) -> Result<Vec<Result<Scheduled>>> {
    let mut tasks = tasks.peekable();
    let mut answers = Vec::with_capacity(tasks.size_hint().0.min(line.batch_max()));
    let mut any_sent = false;
    while tasks.peek().is_some() {
        let (chunk, places) = next_chunk(&mut tasks, line.batch_max());
        let asked = chunk.len();
        let answer = if asked == 0 { Ok(Vec::new()) } else { line.schedule_all(chunk).await };
        match answer {
            Ok(_) => any_sent |= asked > 0,
            Err(e) if !any_sent => return Err(e),
            Err(ref e) => {
                fill(&mut answers, places, spread(answer.clone(), asked));
                // What was not sent yet would most likely fail in the same way, each call after its own timeout.
                answers.extend(tasks.map(|task| Err(task.err().unwrap_or_else(|| e.clone()))));
                return Ok(answers);
            }
        }
        fill(&mut answers, places, spread(answer, asked));
    }
    Ok(answers)
}

/// The next tasks that fit into one call, and for each position in the answer its error, if it already has one.
fn next_chunk(
    tasks: &mut std::iter::Peekable<impl Iterator<Item = Result<NewTask>>>,
    batch_max: usize,
) -> (Vec<NewTask>, Vec<Option<Error>>) {
    let (mut chunk, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
    while chunk.len() < batch_max {
        let fits = |task: &Result<NewTask>| match task {
            Ok(task) => bytes == 0 || bytes + size::of_task(task) <= CALL_BYTES_MAX,
            Err(_) => true,
        };
        match tasks.next_if(fits) {
            Some(Ok(task)) => {
                bytes += size::of_task(&task);
                chunk.push(task);
                places.push(None);
            }
            Some(Err(e)) => places.push(Some(e)),
            None => break,
        }
    }
    (chunk, places)
}

fn fill(answers: &mut Vec<Result<Scheduled>>, places: Vec<Option<Error>>, sent: Vec<Result<Scheduled>>) {
    let mut sent = sent.into_iter();
    answers.extend(places.into_iter().map(|place| match place {
        Some(e) => Err(e),
        None => sent.next().unwrap_or_else(|| Err(unanswered())),
    }));
}
