//! The exam: schedules, moves, cancels and shifts tasks at their times, and runs the worker that hands in for those
//! left.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use delayline::{
    CancellationToken, Change, ChangeOutcome, Context, GroupName, HandlerOutcome, Queue, RetryPolicy, ScheduleOutcome,
    Select, Shift, Task, TaskId, TaskRef, Worker, WorkerReport,
};
use tokio::task::{JoinError, JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until};

use super::args::DemoArgs;
use super::books::Books;
use super::panics::panic_on_purpose;
use super::plan::{FirstAttempt, Plan, Visit};
use super::show::{Show, count};
use crate::exit::Failure;
use crate::words::span;

/// Number of calls for single candidates that run at once.
const LANES: usize = 8;
/// The delay after a failure, to which a random part of up to the same length is added.
const RETRY_AFTER: Duration = Duration::from_millis(100);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);
/// If all are due and nothing happens for this long, the rest counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);
const EXAM: &str = "exam-1";
const WARM_UP: &str = "warm-up";
const WARM_UP_TASKS: u32 = 256;
/// Number of candidates that share a call, if their turns came during the previous one. On most stores, each call costs
/// a commit.
const TOGETHER: usize = 500;
/// Duration of the warm-up, if the backend can't tell when it has ended.
const WARM_UP_MAX: Duration = Duration::from_secs(5);
/// If the backend can't count the tasks in the queue, it counts as empty when none has come for this long.
const QUIET: Duration = Duration::from_secs(2);
/// The header that tells the tasks of this run from those of an earlier run, on a backend that can't cancel.
const RUN: &str = "demo-run";

/// One exam.
pub(super) struct Exam {
    pub(super) args: DemoArgs,
    pub(super) plan: Plan,
    pub(super) queue: Queue<u32>,
    pub(super) books: Books,
    pub(super) show: Show,
    /// Unique to this run.
    pub(super) run: String,
}

/// What happens to a candidate, at a time of its own.
#[derive(Clone, Copy, Debug)]
enum Turn {
    GetExtraTime,
    HandIn,
}

impl Exam {
    /// Makes a few calls of each kind, so that everything that is allocated once is allocated.
    pub(super) async fn warm_up(&self) -> Result<(), Failure> {
        let id = |n: u32| TaskId::new(format!("{WARM_UP}/{n}"));
        let tasks = (0..WARM_UP_TASKS).map(|n| {
            let task = Task::new(n).after(Duration::from_millis(20)).id(format!("{WARM_UP}/{n}"));
            let task = self.marked(task, WARM_UP);
            if self.plan.steps.groups { task.group(WARM_UP) } else { task }
        });
        let refs = created(self.queue.schedule_all(tasks).await?)?;
        for n in (0..WARM_UP_TASKS).step_by(4) {
            if self.plan.steps.early {
                self.queue.cancel(self.task(&refs, n, id(n)?)).await?;
            }
            if self.plan.steps.extra {
                self.queue.move_to(self.task(&refs, n + 1, id(n + 1)?), Duration::from_millis(30)).await?;
            }
        }
        if self.plan.steps.groups {
            self.queue.shift_group(&GroupName::new(WARM_UP)?, Shift::Later(Duration::from_millis(5))).await?;
        }
        let ended = CancellationToken::new();
        let mut cancelled = 0;
        if self.plan.steps.early {
            cancelled = WARM_UP_TASKS / 4;
        }
        let left = Arc::new(AtomicU32::new(WARM_UP_TASKS - cancelled));
        let all_came = ended.clone();
        let worker = Worker::builder()
            .queue(&self.queue, move |n: u32, context: Context| {
                let (left, all_came) = (left.clone(), all_came.clone());
                async move {
                    yield_now().await;
                    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        all_came.cancel();
                    }
                    if n == 2 && context.attempt() == 1 {
                        HandlerOutcome::retry_after(RETRY_AFTER / 10, "")
                    } else {
                        HandlerOutcome::Complete
                    }
                }
            })
            .concurrency(self.args.concurrency as usize)
            .until_empty(self.plan.steps.counts)
            .shutdown(if self.plan.steps.counts { CancellationToken::new() } else { ended.clone() })
            .build()?;
        let mut working = pin!(worker.run());
        tokio::select! {
            ended = &mut working => ended?,
            () = sleep(WARM_UP_MAX), if !self.plan.steps.counts => {
                ended.cancel();
                working.await?
            }
        };
        Ok(())
    }

    /// Cancels what may be left in a store that outlives this process.
    pub(super) async fn clear_away(&self) -> delayline::Result<()> {
        if self.plan.steps.groups && self.plan.steps.early {
            for group in [WARM_UP, EXAM] {
                self.queue.cancel_group(&GroupName::new(group)?).await?;
            }
        } else {
            self.show.remark("the scheduled tasks stay until they are due; the next demo ignores them");
        }
        Ok(())
    }

    /// Runs the exam, until everyone is handed in.
    pub(super) async fn play(self: &Arc<Self>) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let refs: Arc<[TaskRef]> = self.schedule(begun).await?.into();
        let mut worker = JoinSet::new();
        let done = CancellationToken::new();
        worker.spawn(self.worker(&done)?.run());
        tokio::try_join!(self.happen(begun, &refs), self.hand_in_all(worker, begun, done))?;
        Ok(begun.elapsed())
    }

    async fn schedule(&self, begun: Instant) -> Result<Vec<TaskRef>, Failure> {
        let end = begun + self.args.exam;
        self.books.everyone_until(end);
        let tasks = (0..self.args.candidates).map(|candidate| {
            self.show.one_more();
            // Computed when the task is about to be sent, so that a task that waits for its turn is due with the
            // others.
            let left = end.saturating_duration_since(Instant::now());
            let task = self.marked(Task::new(candidate).after(left).id(format!("{EXAM}/{candidate}")), EXAM);
            if self.plan.steps.groups { task.group(EXAM) } else { task }
        });
        let refs = created(self.queue.schedule_all(tasks).await?)?;
        (0..self.args.candidates).for_each(|candidate| self.books.accepted(candidate));
        let (scheduled, exam, took) = (count(refs.len() as u64), span(self.args.exam), span(begun.elapsed()));
        self.show.tell(
            begun.elapsed(),
            format_args!("{scheduled} hand-ins scheduled in {took}, for the end of a {exam} exam"),
        );
        // Most backends find a task by its id alone, so the refs need not be kept.
        let needed = self.queue.backend().capabilities().change_needs_receipt;
        Ok(if needed { refs } else { Vec::new() })
    }

    /// Everything that happens until the last candidate's time is up.
    async fn happen(self: &Arc<Self>, begun: Instant, refs: &Arc<[TaskRef]>) -> Result<(), Failure> {
        let steps = self.plan.steps;
        if !steps.early {
            self.show.remark("this backend can't cancel, so nobody hands in early");
        }
        if !steps.extra {
            self.show.remark("this backend can't move tasks, so there is no extra time");
        } else if !steps.groups {
            self.show.remark("this backend has no groups, so there is no more time for everyone");
        }
        if steps.asks {
            self.show.remark(
                "this backend can only request a cancellation or a move, which is too late for a task that is almost due",
            );
        }
        let hand_in = self.turns(Turn::HandIn, begun, refs);
        let extra_time = self.turns(Turn::GetExtraTime, begun, refs);
        let announce = async {
            all(extra_time).await?;
            if !self.plan.extra.is_empty() {
                let (counts, by) = (self.books.counts(), span(self.args.extra_time));
                let (some, have) = if steps.asks { (counts.asked, "asked for") } else { (counts.moved, "got") };
                let some = count(some);
                self.show.tell(
                    begun.elapsed(),
                    format_args!("{some} candidates {have} {by} extra time, each by its own id"),
                );
            }
            let mut end = begun + self.args.exam;
            if steps.groups && self.args.more_time > Duration::ZERO {
                sleep_until(begun + self.args.exam / 2).await;
                self.more_time(begun).await?;
                end += self.args.more_time;
            }
            self.time_is_up(begun, end).await;
            Ok(())
        };
        tokio::try_join!(all(hand_in), announce)?;
        Ok(())
    }

    /// Runs all turns, each at its time.
    fn turns(self: &Arc<Self>, turn: Turn, begun: Instant, refs: &Arc<[TaskRef]>) -> JoinSet<Result<(), Failure>> {
        let mut lanes = JoinSet::new();
        for lane in 0..LANES {
            let (exam, refs) = (self.clone(), refs.clone());
            lanes.spawn(async move {
                let visits = match turn {
                    Turn::GetExtraTime => &exam.plan.extra,
                    Turn::HandIn => &exam.plan.early,
                };
                let mut visits = visits.iter().skip(lane).step_by(LANES).peekable();
                while let Some(&Visit { at, candidate }) = visits.next() {
                    sleep_until(begun + at).await;
                    let mut candidates = vec![candidate];
                    while candidates.len() < TOGETHER
                        && let Some(next) = visits.next_if(|next| begun + next.at <= Instant::now())
                    {
                        candidates.push(next.candidate);
                    }
                    match turn {
                        Turn::GetExtraTime => exam.extra_time(candidates, &refs, begun).await?,
                        Turn::HandIn => exam.hand_in(candidates, &refs).await?,
                    }
                }
                Ok(())
            });
        }
        lanes
    }

    fn task(&self, refs: &[TaskRef], candidate: u32, id: TaskId) -> TaskRef {
        refs.get(candidate as usize).cloned().unwrap_or_else(|| id.into())
    }

    async fn extra_time(&self, mut candidates: Vec<u32>, refs: &[TaskRef], begun: Instant) -> Result<(), Failure> {
        candidates.retain(|candidate| self.books.is_writing(*candidate));
        let until = begun + self.args.exam + self.args.extra_time;
        let left = until.saturating_duration_since(Instant::now());
        for (candidate, answer) in self.change(candidates, refs, Change::move_to(left)).await? {
            if let Some(answer) = answer {
                self.books.moved(candidate, answer, until);
            }
        }
        Ok(())
    }

    async fn hand_in(&self, candidates: Vec<u32>, refs: &[TaskRef]) -> Result<(), Failure> {
        for (candidate, answer) in self.change(candidates, refs, Change::cancel()).await? {
            self.books.cancelled(candidate, answer);
        }
        Ok(())
    }

    /// Changes the candidates' tasks, and returns the answer for each.
    async fn change(
        &self,
        candidates: Vec<u32>,
        refs: &[TaskRef],
        change: Change,
    ) -> Result<Vec<(u32, Option<ChangeOutcome>)>, Failure> {
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let task = |&candidate: &u32| Ok(self.task(refs, candidate, TaskId::new(format!("{EXAM}/{candidate}"))?));
        let tasks = candidates.iter().map(task).collect::<delayline::Result<Vec<TaskRef>>>()?;
        let answers = match self.queue.change(Select::Tasks(tasks), change).await {
            Ok(changed) => changed.outcomes,
            Err(e) => vec![Err(e); candidates.len()],
        };
        candidates.into_iter().zip(answers).map(|(candidate, answer)| Ok((candidate, answered(answer)?))).collect()
    }

    async fn more_time(&self, begun: Instant) -> Result<(), Failure> {
        let asked = Instant::now();
        let shifted = self.queue.shift_group(&GroupName::new(EXAM)?, Shift::Later(self.args.more_time)).await?;
        let now = Instant::now();
        if shifted.refused == 0 && shifted.requested == 0 {
            self.books.shifted(self.args.more_time, now, shifted.changed);
        }
        let (by, changed, took) = (span(self.args.more_time), count(shifted.changed), span(now - asked));
        self.show.tell(
            begun.elapsed(),
            format_args!("{by} more time for everyone in the room: {changed} shifted in {took}"),
        );
        if let Some(refusal) = shifted.first_refusal {
            self.show.remark(format_args!("{} could not be shifted: {refusal}", count(shifted.refused)));
        }
        Ok(())
    }

    async fn time_is_up(&self, begun: Instant, end: Instant) {
        sleep_until(end).await;
        let due = self.books.whose_time_is_up(Instant::now());
        self.show
            .tell(begun.elapsed(), format_args!("time is up: handing in for {} who are still writing", count(due)));
        let counts = self.books.counts();
        if counts.moved + counts.asked > 0 {
            sleep_until(end + self.args.extra_time).await;
            let more = self.books.whose_time_is_up(Instant::now()).saturating_sub(due);
            self.show.tell(begun.elapsed(), format_args!("extra time is up: handing in for {} more", count(more)));
        }
    }

    fn worker(self: &Arc<Self>, done: &CancellationToken) -> Result<Worker, Failure> {
        let exam = self.clone();
        let handler = move |candidate: u32, context: Context| {
            let exam = exam.clone();
            async move { exam.attempt(candidate, &context).await }
        };
        Ok(Worker::builder()
            .queue(&self.queue, handler)
            .concurrency(self.args.concurrency as usize)
            .retry(RetryPolicy::exponential(RETRY_AFTER, RETRY_AFTER_MAX).seeded(self.args.seed))
            .shutdown(done.clone())
            .until_empty(self.plan.steps.counts)
            .build()?)
    }

    /// One attempt to hand in for a candidate.
    async fn attempt(&self, candidate: u32, context: &Context) -> HandlerOutcome {
        if !self.plan.steps.counts && context.headers().get(RUN) != Some(self.mark(EXAM).as_str()) {
            return HandlerOutcome::Complete;
        }
        let Some(&first_attempt) = self.plan.first_attempt.get(candidate as usize) else {
            return HandlerOutcome::retry("no candidate of this exam");
        };
        self.books.begins(candidate, Instant::now(), context.lateness());
        // A real handler would wait for the archive here, while others run.
        yield_now().await;
        match first_attempt {
            FirstAttempt::Fails if context.attempt() == 1 => {
                self.books.fails(candidate, Instant::now() + RETRY_AFTER);
                HandlerOutcome::retry("the archive does not answer")
            }
            FirstAttempt::Panics if context.attempt() == 1 => {
                self.books.fails(candidate, Instant::now() + RETRY_AFTER);
                panic_on_purpose()
            }
            FirstAttempt::Works | FirstAttempt::Fails | FirstAttempt::Panics => {
                self.books.completes(candidate);
                HandlerOutcome::Complete
            }
        }
    }

    /// Waits until the worker has nothing left to do, or makes no progress.
    async fn hand_in_all(
        &self,
        mut worker: JoinSet<delayline::Result<WorkerReport>>,
        begun: Instant,
        done: CancellationToken,
    ) -> Result<(), Failure> {
        tokio::select! {
            Some(ended) = worker.join_next() => {
                ended.map_err(broken)??;
            }
            () = self.quiet(begun), if !self.plan.steps.counts => {
                done.cancel();
                while let Some(ended) = worker.join_next().await {
                    ended.map_err(broken)??;
                }
            }
            () = self.standstill(begun) => {
                self.show.tell(begun.elapsed(), format_args!("nothing has happened for {}", span(PATIENCE)));
            }
        }
        Ok(())
    }

    /// Returns when everyone's time is up, no hand-in is left, and there was none for a while.
    async fn quiet(&self, begun: Instant) {
        sleep_until(begun + self.args.exam + self.args.extra_time).await;
        loop {
            let before = self.books.counts();
            sleep(QUIET).await;
            if self.books.counts() == before && self.books.is_through() {
                return;
            }
        }
    }

    /// Marks a task with the run, if that is needed to tell it from others.
    fn marked(&self, task: Task<u32>, part: &str) -> Task<u32> {
        if self.plan.steps.counts {
            return task;
        }
        task.header(RUN, self.mark(part))
    }

    fn mark(&self, part: &str) -> String {
        format!("{}/{part}", self.run)
    }

    async fn standstill(&self, begun: Instant) {
        sleep_until(begun + self.args.exam + self.args.extra_time + self.args.more_time).await;
        loop {
            let before = self.books.counts();
            sleep(PATIENCE).await;
            if self.books.counts() == before {
                return;
            }
        }
    }
}

/// The tasks, if the backend accepted all of them as new.
fn created(answers: Vec<delayline::Result<delayline::Scheduled>>) -> Result<Vec<TaskRef>, Failure> {
    let all = answers.len();
    let refused = answers.iter().filter(|answer| answer.is_err()).count() as u64;
    let mut refs = Vec::with_capacity(all);
    for answer in answers {
        let scheduled = answer.map_err(|e| {
            Failure::from(e.context(format_args!("{} of {} tasks were refused", count(refused), count(all as u64))))
        })?;
        if scheduled.outcome != ScheduleOutcome::Created {
            let id = scheduled.id().to_text();
            return Err(Failure::new(format!("task `{id}` exists already; choose another queue with --queue")));
        }
        refs.push(scheduled.task);
    }
    Ok(refs)
}

/// The answer to a change; `None` if it was lost, or if the store could not be reached just now.
fn answered(answer: delayline::Result<ChangeOutcome>) -> Result<Option<ChangeOutcome>, Failure> {
    match answer {
        Ok(outcome) => Ok(Some(outcome)),
        Err(e) if e.retryable() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Waits for all tasks that make the calls.
async fn all(mut lanes: JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    while let Some(lane) = lanes.join_next().await {
        lane.map_err(broken)??;
    }
    Ok(())
}

fn broken(e: JoinError) -> Failure {
    Failure::new(format!("a part of the demo failed: {e}"))
}
