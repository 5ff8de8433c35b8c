//! `delayline push`: reads tasks as `run` does, and schedules them in a store that outlives the process.
//!
//! A thread reads the input ([`crate::input`]). This module sends the tasks to the store in calls of bounded size, in
//! order, and writes the answers of each call before it makes the next. So every answered task is in the store, and the
//! outcome is unknown for the tasks of at most one call.

pub(crate) mod args;

use std::sync::Arc;
use std::time::Duration;

use delayline::{
    Clock, ErrorKind, Headers, NewTask, OnConflict, Result as CoreResult, ScheduleOutcome, Scheduled, Support,
    SystemClock, TaskId, Timestamp, TraceContext,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::args::PushArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::input::{self, Batch, Input, Rules, Source};
use crate::output::{Ended, Lines, Output};
use crate::run::accept::count_from_before;
use crate::signal::{Cause, Stop};
use crate::start::{self, Logs, Started, Threads};
use crate::store::refs;
use crate::store::session::{Session, hinted};
use crate::words::{many, span};

/// Maximum of tasks and payload bytes in one call: if an answer is lost, the outcome of this many is unknown.
const CALL_TASKS_MAX: usize = 1_000;
const CALL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Maximum of tasks with `--strict`, which holds all of them in memory before it sends any.
const STRICT_TASKS_MAX: usize = 10_000_000;
/// How long calls are retried while the store is full or unreachable.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// One task that is in the store now. The order of the fields is part of the contract.
#[derive(Serialize)]
struct Line<'a> {
    line: u64,
    id: &'a TaskId,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<Timestamp>,
    r#ref: String,
}

/// Runs the command.
pub(crate) fn main(global: &Global, args: PushArgs) -> Result<Exit, Failure> {
    let console = start::console(global, args.quiet, Logs::Usual)?;
    let started = Started::new(console.clone(), Threads::Few(2), || {})?;
    let stop = started.stop.clone();
    started.run(push(global, args, console, stop))
}

async fn push(global: &Global, args: PushArgs, console: Arc<Console>, stop: Stop) -> Result<Exit, Failure> {
    let session = Session::open(global, "push", console.clone()).await?;
    let capabilities = session.backend.capabilities();
    if args.replace {
        session.needs_for("--replace", capabilities.replace, "replace a task")?;
    }
    let source = Source::named(args.file.clone());
    if source == Source::Stdin && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        console.note("reading tasks from the terminal, one JSON object per line; Ctrl-D ends the input");
    }
    let options = input::Options {
        format: args.format.unwrap_or_else(|| source.format()),
        rules: Rules::new(capabilities.clone(), args.attempts_max),
        to_the_end: false,
    };
    let input = input::open(&source, options, console.clone(), stop.clone())?;
    let mut pusher = Pusher {
        output: Output::open(console.clone(), stop.clone())?,
        trace: trace_of_environment(),
        name: input.name.clone(),
        one_instant: !input.is_stream,
        from: None,
        counts: Counts::default(),
        clock: SystemClock::new(),
        session,
        args,
        stop,
    };
    let began = Instant::now();
    let pushed = pusher.all(input).await;
    pusher.session.close().await;
    pusher.finish(pushed, began.elapsed())
}

/// The trace context that programs with OpenTelemetry pass to those that they start.
fn trace_of_environment() -> Option<TraceContext> {
    let trace = TraceContext::new(std::env::var("TRACEPARENT").ok()?).ok()?;
    Some(std::env::var("TRACESTATE").into_iter().fold(trace, TraceContext::state))
}

#[derive(Debug, Default)]
struct Counts {
    created: u64,
    existing: u64,
    replaced: u64,
    /// Number of tasks of a call whose answer was lost, and the line of the first.
    unknown: Option<(u64, u64)>,
    /// The store has answered for the lines up to this one.
    last_line: u64,
}

impl Counts {
    fn there(&self) -> u64 {
        self.created + self.existing + self.replaced
    }
}

struct Pusher {
    session: Session,
    args: PushArgs,
    output: Output,
    stop: Stop,
    trace: Option<TraceContext>,
    name: String,
    /// Whether the delays of the whole input count from one instant, as for a file. For a stream, each batch has its
    /// own.
    one_instant: bool,
    /// The instant from which delays count: the first call.
    from: Option<Instant>,
    counts: Counts,
    clock: SystemClock,
}

/// Why pushing ended before the input.
enum Broken {
    Stopped,
    Failed(Failure),
    /// Lines are bad, and with `--strict` nothing is pushed.
    Refused,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Pusher {
    async fn all(&mut self, mut input: Input) -> Result<(), Broken> {
        let mut held = Vec::new();
        let mut tasks = 0;
        loop {
            let batch = tokio::select! {
                biased;
                () = self.stop.stopped() => return Err(Broken::Stopped),
                batch = input.batches.recv() => batch,
            };
            let Some(batch) = batch.transpose()? else { break };
            if !self.args.strict {
                self.batch(batch).await?;
                continue;
            }
            tasks += batch.tasks.len();
            if tasks > STRICT_TASKS_MAX {
                let limit =
                    format!("--strict reads all tasks into memory, at most {STRICT_TASKS_MAX}; the input has more");
                return Err(Failure::new(limit).into());
            }
            held.push(batch);
        }
        if self.stop.is_stopped() {
            return Err(Broken::Stopped);
        }
        if self.args.strict && self.session.console.bad_lines() > 0 {
            return Err(Broken::Refused);
        }
        self.one_instant |= self.args.strict;
        for batch in held {
            self.batch(batch).await?;
        }
        Ok(())
    }

    async fn batch(&mut self, batch: Batch) -> Result<(), Broken> {
        if !self.one_instant {
            self.from = None;
        }
        let mut rest = batch.tasks.into_iter().zip(batch.lines).peekable();
        let call_max = CALL_TASKS_MAX.min(self.session.backend.capabilities().batch_max).max(1);
        while rest.peek().is_some() {
            let (mut call, mut bytes) = (Vec::new(), 0);
            while call.len() < call_max
                && let Some((task, line)) =
                    rest.next_if(|(task, _)| bytes == 0 || bytes + task.payload.len() <= CALL_BYTES_MAX)
            {
                bytes += task.payload.len().max(1);
                call.push((self.dressed(task), line));
            }
            self.call(call).await?;
            if self.stop.is_stopped() {
                return Err(Broken::Stopped);
            }
        }
        Ok(())
    }

    /// The task with the options of the command line. It gets an id, so that it can be sent again.
    fn dressed(&self, mut task: NewTask) -> NewTask {
        task.id.get_or_insert_with(|| TaskId::from_uuid(new_id(&self.clock)));
        if self.args.replace {
            task.on_conflict = OnConflict::Replace;
        }
        if let Some(trace) = &self.trace {
            let mut headers = Headers::new();
            if trace.write(&mut headers).is_ok() {
                task.headers = headers;
            }
        }
        task
    }

    /// One call of the store. It is repeated for tasks that could not be accepted for now, until the time limit is
    /// over.
    async fn call(&mut self, mut tasks: Vec<(NewTask, u64)>) -> Result<(), Broken> {
        let began = Instant::now();
        let mut pause = PAUSE_FIRST;
        loop {
            let again = self.try_call(tasks).await?;
            let Some((rest, e)) = again else { return Ok(()) };
            if began.elapsed() + pause > PATIENCE {
                return Err(self.broken(e).into());
            }
            tracing::info!(error = %e, tasks = rest.len(), "tasks were not accepted, retrying");
            tokio::select! {
                biased;
                () = self.stop.stopped() => return Err(Broken::Stopped),
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
            tasks = rest;
        }
    }

    /// Returns the tasks to try again, and why.
    async fn try_call(
        &mut self,
        tasks: Vec<(NewTask, u64)>,
    ) -> Result<Option<(Vec<(NewTask, u64)>, delayline::Error)>, Broken> {
        let past = self.from.get_or_insert_with(Instant::now).elapsed();
        let sent = tasks.iter().map(|(task, _)| {
            let mut task = task.clone();
            count_from_before(&mut task, past);
            task
        });
        let answers = match self.session.backend.schedule(&self.args.queue, sent.collect()).await {
            Ok(answers) => answers,
            Err(e) if e.retryable() && e.kind() != ErrorKind::Ambiguous => return Ok(Some((tasks, e))),
            Err(e) => {
                let why = e.clone();
                (0..tasks.len()).map(|_| Err(why.clone())).collect()
            }
        };
        self.take(tasks, answers).await
    }

    async fn take(
        &mut self,
        tasks: Vec<(NewTask, u64)>,
        answers: Vec<CoreResult<Scheduled>>,
    ) -> Result<Option<(Vec<(NewTask, u64)>, delayline::Error)>, Broken> {
        let (mut lines, mut again, mut broken) = (Lines::default(), Vec::new(), None);
        let mut why = None;
        for ((task, line), answer) in tasks.into_iter().zip(answers) {
            match answer {
                Ok(scheduled) => self.there(&scheduled, line, &mut lines)?,
                Err(e) if e.kind() == ErrorKind::Ambiguous => {
                    self.counts.unknown.get_or_insert((0, line)).0 += 1;
                    broken.get_or_insert(e);
                }
                Err(e) if e.retryable() => {
                    again.push((task, line));
                    why.get_or_insert(e);
                }
                // The error concerns this task; any other would concern all.
                Err(e) if is_the_tasks(e.kind()) => self.session.console.bad_line(&self.name, line, e.message()),
                Err(e) => {
                    broken.get_or_insert(e);
                }
            }
        }
        if !self.args.quiet {
            match self.output.write(lines).await.ended {
                None => {}
                Some(Ended::Stopped) => return Err(Broken::Stopped),
                Some(Ended::Closed) => {
                    self.stop.stop(Cause::OutputClosed);
                    return Err(Broken::Stopped);
                }
                Some(Ended::Failed(failure)) => return Err(failure.into()),
            }
        }
        match broken {
            Some(e) => Err(self.broken(e).into()),
            None => Ok(why.map(|why| (again, why))),
        }
    }

    fn there(&mut self, scheduled: &Scheduled, line: u64, lines: &mut Lines) -> Result<(), Failure> {
        let count = match scheduled.outcome {
            ScheduleOutcome::Existing => &mut self.counts.existing,
            ScheduleOutcome::Replaced => &mut self.counts.replaced,
            _ => &mut self.counts.created,
        };
        *count += 1;
        self.counts.last_line = self.counts.last_line.max(line);
        let id = scheduled.id();
        if self.args.json {
            let due_at = scheduled.task.due_at;
            return lines.json(&Line {
                line,
                id,
                outcome: scheduled.outcome.as_str(),
                due_at,
                r#ref: refs::text(&scheduled.task),
            });
        }
        lines.text(&id.to_text());
        Ok(())
    }

    fn broken(&self, e: delayline::Error) -> Failure {
        if e.kind() != ErrorKind::Ambiguous {
            return hinted(e.context(format_args!("queue `{}`", self.args.queue)));
        }
        let (tasks, line) = self.counts.unknown.unwrap_or_default();
        let unique = self.session.backend.capabilities().unique_ids == Support::Definite;
        let what_to_do = match unique {
            true => "tasks with ids can be pushed again: those that are there stay unchanged",
            false => "check before you push them again: this backend would accept them twice",
        };
        let tasks = many(tasks, "task", "tasks");
        Failure::new(format!(
            "{}; it is unknown whether {tasks} from {}:{line} on were accepted; {what_to_do}",
            Failure::from(e),
            self.name
        ))
    }

    /// Reports the result, and determines the exit code.
    fn finish(&self, pushed: Result<(), Broken>, took: Duration) -> Result<Exit, Failure> {
        let (console, bad) = (&self.session.console, self.session.console.bad_lines());
        let ended = match pushed {
            Ok(()) if bad > 0 => Exit::BadLines,
            Ok(()) => Exit::Done,
            Err(Broken::Refused) => {
                let bad = many(bad, "bad line", "bad lines");
                console.say(format_args!("{}: {bad}, so nothing was pushed (--strict)", self.name));
                return Ok(Exit::BadLines);
            }
            Err(Broken::Failed(failure)) => {
                console.say(format_args!("{failure}; {}", self.how_far()));
                return Ok(failure.exits());
            }
            Err(Broken::Stopped) => {
                let (why, exit) = match self.stop.cause() {
                    Some(Cause::Signal(signal)) => ("interrupted", Exit::Interrupted(*signal)),
                    Some(Cause::Failed(_)) => ("stopped by an error", Exit::Failed),
                    Some(Cause::OutputClosed) | None => ("stdout was closed", Exit::Failed),
                };
                console.say(format_args!("{why}; {}", self.how_far()));
                return Ok(exit);
            }
        };
        if self.counts.there() == 0 && bad == 0 {
            console.note(format_args!("{} holds no tasks, so there was nothing to push", self.name));
        } else {
            console.note(format_args!("{} in {}", self.summary(bad), span(took)));
        }
        Ok(ended)
    }

    fn how_far(&self) -> String {
        match self.counts.there() {
            0 => "no task is known to be pushed".to_owned(),
            there => format!(
                "{} up to {}:{} {} in `{}`",
                many(there, "task", "tasks"),
                self.name,
                self.counts.last_line,
                if there == 1 { "is" } else { "are" },
                self.args.queue
            ),
        }
    }

    fn summary(&self, bad: u64) -> String {
        let Counts { created, existing, replaced, .. } = self.counts;
        let mut text = format!("{created} pushed into `{}`", self.args.queue);
        for (count, what) in [(existing, "there already"), (replaced, "replaced")] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        if bad > 0 {
            text.push_str(&format!(", {}", many(bad, "bad line", "bad lines")));
        }
        text
    }
}

/// A UUIDv7, as a backend would generate it.
fn new_id(clock: &SystemClock) -> Uuid {
    let millis = u64::try_from(clock.wall().unix_millis_floor()).unwrap_or_default();
    let mut random = [0; 10];
    // The parts of one of version 4 that are random.
    let source = Uuid::new_v4().into_bytes();
    random[..6].copy_from_slice(&source[..6]);
    random[6..].copy_from_slice(&source[12..]);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// Whether an error concerns its task alone.
fn is_the_tasks(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TooLarge | ErrorKind::OutOfRange | ErrorKind::Invalid | ErrorKind::Codec | ErrorKind::Unsupported
    )
}
