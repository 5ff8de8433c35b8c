//! Schedules the tasks of the input. Each batch that was read is one call, so that its delays count from one instant.

use std::collections::VecDeque;
use std::time::Duration;

use delayline::{Change, Due, ErrorKind, NewTask, Result, ScheduleOutcome, Scheduled, Select, TaskRef};
use tokio::time::Instant;

use super::state::Run;
use crate::exit::Failure;
use crate::input::{Batch, Input};

/// Batches up to this size are kept until the backend has answered, to be tried again if it is full for the moment. If
/// a larger batch does not fit into an empty backend, waiting does not help.
const KEPT_MAX: usize = 100_000;
/// Number of tasks that are tried again in one call.
const AGAIN: usize = 1024;
/// Maximum of tasks with `--strict`, which holds all of them in memory before it runs any.
const STRICT_TASKS_MAX: usize = 10_000_000;
/// Maximum time until a full backend is tried again, even if no task of this program has ended.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);

/// The tasks that were read or are still being read, and were not accepted when the run stopped.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) tasks: VecDeque<NewTask>,
    pub(crate) input: Input,
}

/// The outcome of `--strict`: reading, checking and accepting everything before anything runs.
#[derive(Debug)]
pub(crate) enum Strict {
    Accepted,
    /// Lines are bad. Nothing was scheduled, or it was cancelled again.
    Refused,
    /// The run was stopped before the whole input was read. Nothing was scheduled.
    Stopped(VecDeque<NewTask>),
}

/// Schedules what is read, until the input ends or the run is stopped.
pub(crate) async fn as_it_comes(run: &Run, mut input: Input) -> Result<Rest, Failure> {
    let mut accepter = Accepter::new(run, &input);
    loop {
        let batch = tokio::select! {
            biased;
            () = run.stop.stopped() => break,
            batch = input.batches.recv() => batch,
        };
        let Some(batch) = batch.transpose()? else {
            run.tally.input_ended();
            break;
        };
        accepter.accept(batch).await?;
        if !accepter.waiting.is_empty() {
            break;
        }
    }
    let tasks = accepter.waiting.into_iter().map(|(_, task)| task).collect();
    Ok(Rest { tasks, input })
}

/// Reads the whole input, and then schedules all of it or nothing.
pub(crate) async fn strictly(run: &Run, input: &mut Input) -> Result<Strict, Failure> {
    let (mut batches, mut tasks) = (Vec::new(), 0);
    loop {
        let batch = tokio::select! {
            biased;
            () = run.stop.stopped() => {
                return Ok(Strict::Stopped(batches.into_iter().flat_map(|batch: Batch| batch.tasks).collect()));
            }
            batch = input.batches.recv() => batch,
        };
        let Some(batch) = batch.transpose()? else { break };
        tasks += batch.tasks.len();
        if tasks > STRICT_TASKS_MAX {
            let limit = format!("--strict reads all tasks into memory, at most {STRICT_TASKS_MAX}; the input has more");
            return Err(Failure::new(limit));
        }
        batches.push(batch);
    }
    if run.stop.is_stopped() {
        return Ok(Strict::Stopped(batches.into_iter().flat_map(|batch| batch.tasks).collect()));
    }
    if run.console.bad_lines() > 0 {
        return Ok(Strict::Refused);
    }
    let mut accepter = Accepter::new(run, input);
    accepter.all_or_nothing = true;
    accepter.one_instant = true;
    for batch in batches {
        accepter.accept(batch).await?;
    }
    if run.console.bad_lines() == 0 {
        run.tally.input_ended();
        return Ok(Strict::Accepted);
    }
    accepter.take_back().await?;
    Ok(Strict::Refused)
}

struct Accepter<'a> {
    run: &'a Run,
    name: String,
    /// Whether the delays of the whole input count from one instant, as for a file. For a stream, each batch has its
    /// own.
    one_instant: bool,
    /// The instant from which delays count: the first call.
    from: Option<Instant>,
    /// Tasks that were read and not accepted yet, with their lines, in order.
    waiting: VecDeque<(u64, NewTask)>,
    /// Upper bound of the tasks that were outstanding when the backend was full.
    full_at: u64,
    all_or_nothing: bool,
    accepted: Vec<TaskRef>,
}

impl<'a> Accepter<'a> {
    fn new(run: &'a Run, input: &Input) -> Self {
        Self {
            run,
            name: input.name.clone(),
            one_instant: !input.is_stream,
            from: None,
            waiting: VecDeque::new(),
            full_at: 0,
            all_or_nothing: false,
            accepted: Vec::new(),
        }
    }

    /// Schedules a batch. While the backend is full, it waits; if the run is stopped then, the rest is in `waiting`.
    async fn accept(&mut self, batch: Batch) -> Result<(), Failure> {
        if !self.one_instant {
            self.from = None;
        }
        let at_once = self.run.backend.capabilities().batch_max;
        let Batch { mut tasks, mut lines } = batch;
        while !tasks.is_empty() {
            let behind = tasks.len().min(at_once);
            // A batch that fits into one call is not copied.
            let (more_tasks, more_lines) = (tasks.split_off(behind), lines.split_off(behind));
            self.call(tasks, lines).await?;
            (tasks, lines) = (more_tasks, more_lines);
        }
        while !self.waiting.is_empty() {
            tokio::select! {
                biased;
                () = self.run.stop.stopped() => return Ok(()),
                () = self.run.tally.less_than(self.full_at) => {}
                () = tokio::time::sleep(ROOM_PATIENCE) => {}
            }
            self.try_again().await?;
        }
        Ok(())
    }

    /// Schedules waiting tasks, as far as the backend has room.
    async fn try_again(&mut self) -> Result<(), Failure> {
        loop {
            let again = self.waiting.len().min(AGAIN);
            let mut behind = self.waiting.split_off(again);
            let (lines, tasks) = std::mem::take(&mut self.waiting).into_iter().unzip();
            self.call(tasks, lines).await?;
            let is_full = !self.waiting.is_empty();
            self.waiting.append(&mut behind);
            if is_full || self.waiting.is_empty() {
                return Ok(());
            }
        }
    }

    /// One call of the backend. Tasks for which it has no room go to `waiting`.
    async fn call(&mut self, mut tasks: Vec<NewTask>, lines: Vec<u64>) -> Result<(), Failure> {
        let run = self.run;
        let there = run.tally.counts().outstanding();
        let may_wait = !self.all_or_nothing && (tasks.len() <= KEPT_MAX || there > 0);
        let kept = if may_wait { tasks.clone() } else { Vec::new() };
        match self.from {
            None => self.from = Some(Instant::now()),
            Some(from) => {
                // The same for all, so that equal due times stay equal.
                let past = from.elapsed();
                tasks.iter_mut().for_each(|task| count_from_before(task, past));
            }
        }
        let answers = match run.backend.schedule(&run.queue, tasks).await {
            Ok(answers) => answers,
            Err(e) if e.retryable() && may_wait && e.kind() != ErrorKind::Ambiguous => {
                self.waiting.extend(lines.into_iter().zip(kept));
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        };
        let mut kept = kept.into_iter();
        let (mut accepted, mut ids) = (0, Vec::new());
        for (answer, line) in answers.into_iter().zip(lines) {
            let task = kept.next();
            match self.judge(answer, line)? {
                Judged::Accepted(task) => {
                    accepted += 1;
                    if run.to_be_saved.is_some() {
                        ids.push(task.id.clone());
                    }
                    if self.all_or_nothing {
                        self.accepted.push(task);
                    }
                }
                Judged::Refused(problem) => run.console.bad_line(&self.name, line, &problem),
                Judged::Full(problem) => match task {
                    // If nothing is outstanding, no room will become free.
                    Some(task) if there + accepted > 0 => {
                        self.waiting.push_back((line, task));
                    }
                    Some(_) | None => run.console.bad_line(&self.name, line, &problem),
                },
            }
        }
        self.full_at = there + accepted;
        run.tally.accepted(accepted);
        run.tally.begin();
        match &run.to_be_saved {
            Some(to_be_saved) => {
                to_be_saved.keep(ids, run.tally.counts().outstanding(), &run.queue, &*run.backend).await
            }
            None => Ok(()),
        }
    }

    fn judge(&self, answer: Result<Scheduled>, line: u64) -> Result<Judged, Failure> {
        match answer {
            Ok(scheduled) if scheduled.outcome == ScheduleOutcome::Existing => {
                Ok(Judged::Refused(format!("id `{}` is in the queue already", scheduled.id())))
            }
            Ok(scheduled) => Ok(Judged::Accepted(scheduled.task)),
            Err(e) if e.kind() == ErrorKind::Ambiguous => Err(Failure::from(
                e.context(format_args!("{}:{line}: it is unknown whether the task was accepted", self.name)),
            )),
            Err(e) if e.retryable() => Ok(Judged::Full(e.message().to_owned())),
            Err(e) => Ok(Judged::Refused(e.message().to_owned())),
        }
    }

    /// Cancels the accepted tasks. None was delivered yet.
    async fn take_back(&mut self) -> Result<(), Failure> {
        let run = self.run;
        let mut accepted = std::mem::take(&mut self.accepted);
        while !accepted.is_empty() {
            let rest = accepted.split_off(accepted.len().min(run.backend.capabilities().batch_max));
            run.backend.change(&run.queue, Select::Tasks(accepted), Change::cancel()).await?;
            accepted = rest;
        }
        run.tally.taken_back();
        Ok(())
    }
}

enum Judged {
    Accepted(TaskRef),
    Refused(String),
    Full(String),
}

/// Makes the delays of a task count from this long ago.
pub(crate) fn count_from_before(task: &mut NewTask, past: Duration) {
    task.due = shorter(task.due, past);
    task.expires = task.expires.map(|expires| shorter(expires, past));
}

fn shorter(due: Due, past: Duration) -> Due {
    match due {
        Due::After(delay) => Due::After(delay.saturating_sub(past)),
        // An instant stays where it is.
        due => due,
    }
}
