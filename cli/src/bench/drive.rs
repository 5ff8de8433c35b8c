//! Drives a queue as applications do: many callers schedule, many claim and settle, in batches or one by one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use delayline::{
    Bytes, CancellationToken, Consumer, Delivery, Disposition, Queue, Raw, ScheduleOutcome, Task, TaskRef,
};
use delayline_conformance::ledger::Ledger;
use futures_util::future::try_join_all;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::books::Books;
use super::late::Late;
use crate::exit::Failure;

/// Number of tasks in a batch.
pub(super) const BATCH: usize = 1_000;
/// If nothing is delivered for this long although something should be, the rest counts as lost. This is longer than any
/// store on a server may take after a lost notification.
pub(super) const PATIENCE: Duration = Duration::from_secs(45);
/// After everything is done, the time to wait for deliveries that should not come.
const LINGER: Duration = Duration::from_millis(200);
/// A stream of tasks is sent in pieces of this length, each at a fixed time before it is due.
const TICK: Duration = Duration::from_millis(5);
pub(super) const LEAD: Duration = Duration::from_millis(500);

type Dispositions = Vec<(Delivery<Bytes>, Disposition)>;

/// A queue under load, with the books of one run.
#[derive(Debug)]
pub(super) struct Drive {
    pub(super) queue: Queue<Bytes>,
    pub(super) books: Books,
    pub(super) late: Late,
    pub(super) lease: Duration,
    /// Size of a payload, in bytes.
    payload: usize,
    /// Number of attempts that fail before one succeeds, and the delay of a retry.
    failures: u32,
    retry_after: Duration,
    /// Whether tasks have ids, by which they can be replaced.
    named: bool,
}

/// When tasks are due.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    At(Instant),
    In(Duration),
}

impl When {
    fn after(self, now: Instant) -> Duration {
        match self {
            Self::At(instant) => instant.saturating_duration_since(now),
            Self::In(delay) => delay,
        }
    }
}

impl Drive {
    pub(super) fn new(queue: Queue<Bytes>, tasks: u32, payload: u32) -> Self {
        let lease = Duration::from_secs(60).min(queue.backend().capabilities().lease_max);
        Self {
            books: Books::new(tasks, 1, lease),
            late: Late::new(),
            payload: payload as usize,
            lease,
            failures: 0,
            retry_after: Duration::ZERO,
            named: false,
            queue,
        }
    }

    /// Makes each task fail `failures` times, with a retry after this time.
    pub(super) fn failing(mut self, failures: u32, retry_after: Duration) -> Self {
        self.books = Books::new(self.ledger().len(), failures + 1, self.lease);
        Self { failures, retry_after, ..self }
    }

    /// Gives ids to tasks.
    pub(super) fn named(self) -> Self {
        Self { named: true, ..self }
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.books.ledger
    }

    pub(super) fn task(&self, number: u32, after: Duration) -> Task<Bytes> {
        let mut payload = vec![b'.'; self.payload];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        let task = Task::new(payload.into()).after(after);
        if self.named { task.id(format!("task-{number}")) } else { task }
    }

    /// The number of the task with this payload; `None` if it is not ours.
    fn number(&self, payload: &Bytes) -> Option<u32> {
        let (number, rest) = payload.split_first_chunk::<4>()?;
        let number = u32::from_be_bytes(*number);
        let intact = payload.len() == self.payload && rest.iter().all(|byte| *byte == b'.');
        (intact && number < self.ledger().len()).then_some(number)
    }

    /// Schedules tasks in one call. Each must have the given outcome.
    pub(super) async fn send(
        &self,
        tasks: &[u32],
        when: When,
        outcome: ScheduleOutcome,
    ) -> Result<Vec<TaskRef>, Failure> {
        let sent = Instant::now();
        let after = when.after(sent);
        let new = outcome == ScheduleOutcome::Created;
        let describe = |&number: &u32| {
            // Until the answer arrives, a replaced task may be delivered at the old or the new time.
            if new {
                self.ledger().due(number, sent + after);
            }
            let task = self.task(number, after);
            if new { task } else { task.replace() }
        };
        let described: Vec<Task<Bytes>> = tasks.iter().map(describe).collect();
        let answers = self.queue.schedule_all(described).await?;
        let answered = Instant::now();
        let mut refs = Vec::with_capacity(tasks.len());
        for (&number, answer) in tasks.iter().zip(answers) {
            let answer = answer?;
            if answer.outcome != outcome {
                return Err(Failure::new(format!("task {number}: expected {outcome:?}, found {:?}", answer.outcome)));
            }
            if new {
                self.ledger().accepted(number);
            } else {
                self.ledger().due(number, sent + after);
            }
            if let Some(due_at) = answer.task.due_at {
                self.late.scheduled(sent, answered, after, due_at);
            }
            refs.push(answer.task);
        }
        Ok(refs)
    }

    /// Schedules these tasks in batches, by a number of callers at a time. Returns the time it took.
    pub(super) async fn schedule(
        &self,
        tasks: std::ops::Range<u32>,
        callers: u32,
        when: When,
    ) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let batch = BATCH.min(self.queue.backend().capabilities().batch_max) as u32;
        let next = AtomicU32::new(tasks.start);
        let caller = || async {
            loop {
                let from = next.fetch_add(batch, Ordering::Relaxed);
                if from >= tasks.end {
                    return Ok::<_, Failure>(());
                }
                let numbers: Vec<u32> = (from..tasks.end.min(from + batch)).collect();
                self.send(&numbers, when, ScheduleOutcome::Created).await?;
            }
        };
        try_join_all((0..callers).map(|_| caller())).await?;
        Ok(begun.elapsed())
    }

    /// Schedules these tasks one by one, by a number of callers at a time.
    pub(super) async fn schedule_singly(
        self: &Arc<Self>,
        tasks: std::ops::Range<u32>,
        callers: u32,
        when: When,
    ) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let next = Arc::new(AtomicU32::new(tasks.start));
        let mut calling = JoinSet::new();
        for _ in 0..callers {
            let (drive, next, end) = (self.clone(), next.clone(), tasks.end);
            calling.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return Ok::<_, Failure>(());
                    }
                    let sent = Instant::now();
                    let after = when.after(sent);
                    drive.ledger().due(number, sent + after);
                    let payload = drive.task(number, after);
                    drive.queue.schedule(payload.payload()).after(after).await?;
                    drive.ledger().accepted(number);
                }
            });
        }
        join(calling).await?;
        Ok(begun.elapsed())
    }

    /// Schedules tasks at a rate, each at a fixed time before it is due. Returns the maximum by which the callers fell
    /// behind. `told` gets the answers of each piece.
    pub(super) async fn stream(
        self: &Arc<Self>,
        tasks: std::ops::Range<u32>,
        pace: Pace,
        callers: u32,
        told: impl Fn(u32, Vec<TaskRef>) + Send + Sync + 'static,
    ) -> Result<Duration, Failure> {
        let told = Arc::new(told);
        let mut calling = JoinSet::new();
        for caller in 0..callers {
            let (drive, told, tasks) = (self.clone(), told.clone(), tasks.clone());
            calling.spawn(async move {
                let mut behind = Duration::ZERO;
                for tick in (caller..).step_by(callers as usize) {
                    let piece = pace.piece(tick, tasks.len() as u32);
                    if piece.start >= tasks.len() as u32 {
                        return Ok::<_, Failure>(behind);
                    }
                    if piece.is_empty() {
                        continue;
                    }
                    let at = pace.begins + TICK * tick;
                    sleep_until(at).await;
                    behind = behind.max(at.elapsed());
                    let first = tasks.start + piece.start;
                    let numbers: Vec<u32> = (first..tasks.start + piece.end).collect();
                    let refs = drive.send(&numbers, When::At(at + pace.ahead), ScheduleOutcome::Created).await?;
                    told(first, refs);
                }
                Ok(behind)
            });
        }
        let mut behind = Duration::ZERO;
        while let Some(ended) = calling.join_next().await {
            behind = behind.max(ended.map_err(|e| Failure::new(format!("a caller failed: {e}")))??);
        }
        Ok(behind)
    }

    /// The disposition of each delivery, and the tasks that are complete with it.
    fn decide(&self, batch: Vec<Delivery<Bytes>>) -> (Vec<Option<u32>>, Dispositions) {
        let now = Instant::now();
        self.late.delivered(now, batch.iter().map(Delivery::due_at));
        let decide = |delivery: Delivery<Bytes>| match self.arrived(&delivery, now) {
            Some(number) if delivery.attempt() <= self.failures => {
                self.ledger().given_back(number, Instant::now() + self.retry_after);
                (None, (delivery, Disposition::Retry { after: self.retry_after, reason: "it is to fail".into() }))
            }
            number => (number, (delivery, Disposition::Complete)),
        };
        batch.into_iter().map(decide).unzip()
    }

    /// Records the store's answers to the dispositions.
    fn settled(&self, complete: Vec<Option<u32>>, answers: Vec<delayline::Result<()>>) {
        for (number, answer) in complete.into_iter().zip(answers) {
            match (number, answer) {
                (Some(number), Ok(())) => self.ledger().completed(number),
                (None, Ok(())) => {}
                (_, Err(e)) => self.books.refused(e),
            }
        }
    }

    fn arrived(&self, delivery: &Delivery<Bytes>, at: Instant) -> Option<u32> {
        let number = self.number(delivery.payload());
        match number {
            Some(number) => drop(self.ledger().delivered(number, at)),
            None => self.books.strange(),
        }
        number
    }

    async fn consumer(&self) -> Result<Consumer<Bytes>, Failure> {
        Ok(self.queue.consumer().lease(self.lease).open().await?)
    }
}

/// The pace of a stream of tasks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) begins: Instant,
    /// Tasks per second.
    pub(super) rate: u32,
    /// Time from scheduling a task until it is due.
    pub(super) ahead: Duration,
}

impl Pace {
    /// The tasks of a piece of time, out of `tasks` in all.
    fn piece(self, tick: u32, of: u32) -> std::ops::Range<u32> {
        let until = |tick: u32| {
            let n = u128::from(tick) * TICK.as_micros() * u128::from(self.rate) / 1_000_000;
            u32::try_from(n).unwrap_or(u32::MAX).min(of)
        };
        until(tick)..until(tick + 1)
    }

    /// The instants at which the tasks are due, one for each piece.
    pub(super) fn instants(self, tasks: u32) -> impl Iterator<Item = Instant> + Send + 'static {
        let busy = move |tick: &u32| !self.piece(*tick, tasks).is_empty();
        let ends = (u64::from(tasks) * 1_000_000 / u64::from(self.rate.max(1)) / TICK.as_micros() as u64) as u32 + 2;
        (0..ends).filter(busy).map(move |tick| self.begins + TICK * tick + self.ahead)
    }
}

/// Consumers that claim and settle until they are told to end.
#[derive(Debug)]
pub(super) struct Crew {
    end: CancellationToken,
    lanes: JoinSet<Result<(), Failure>>,
}

impl Crew {
    /// Opens this many consumers, and starts them.
    pub(super) async fn begin(drive: &Arc<Drive>, lanes: u32) -> Result<Self, Failure> {
        let mut crew = Self { end: CancellationToken::new(), lanes: JoinSet::new() };
        for _ in 0..lanes {
            let mut consumer = drive.consumer().await?;
            let (drive, end) = (drive.clone(), crew.end.clone());
            crew.lanes.spawn(async move {
                // Claimed tasks are settled before the consumer checks whether to end.
                while let Some(batch) = end.run_until_cancelled(consumer.next_batch(BATCH)).await {
                    let (complete, dispositions) = drive.decide(batch?);
                    let settling = consumer.settle_all(dispositions);
                    drive.settled(complete, settling.await?);
                }
                Ok(consumer.close().await?)
            });
        }
        Ok(crew)
    }

    /// Waits until everything is done, and a little longer for deliveries that should not come; then ends the
    /// consumers.
    pub(super) async fn finish(mut self, drive: &Drive) -> Result<(), Failure> {
        tokio::select! {
            ended = self.lanes.join_next() => return match ended {
                Some(Ok(Err(failure))) => Err(failure),
                Some(Err(e)) => Err(Failure::new(format!("a consumer failed: {e}"))),
                Some(Ok(Ok(()))) | None => Err(Failure::new("a consumer ended by itself")),
            },
            () = drive.ledger().drained(PATIENCE) => {}
        }
        sleep(LINGER).await;
        self.end.cancel();
        join(self.lanes).await
    }
}

/// Claims this many due tasks, all before any is completed, and then completes them; both with this many callers at a
/// time. Returns the time of each.
pub(super) async fn claim_then_complete(
    drive: &Arc<Drive>,
    tasks: u32,
    callers: u32,
    batch: usize,
) -> Result<[Duration; 2], Failure> {
    let claims = Arc::new(Claims {
        wanted: tasks,
        taken: AtomicU32::new(0),
        enough: CancellationToken::new(),
        gate: Barrier::new(callers as usize),
    });
    let mut calling = JoinSet::new();
    for _ in 0..callers {
        let consumer = drive.consumer().await?;
        calling.spawn(claim_and_complete(drive.clone(), claims.clone(), consumer, batch));
    }
    let all = async {
        let mut spans: [Option<(Instant, Instant)>; 2] = [None; 2];
        while let Some(ended) = calling.join_next().await {
            let [claimed, completed] = ended.map_err(|e| Failure::new(format!("a caller failed: {e}")))??;
            for (span, (begun, ended)) in spans.iter_mut().zip([claimed, completed]) {
                *span = Some(span.map_or((begun, ended), |(first, last)| (first.min(begun), last.max(ended))));
            }
        }
        Ok(spans.map(|span| span.map_or(Duration::ZERO, |(begun, ended)| ended - begun)))
    };
    match timeout(PATIENCE * 4, all).await {
        Ok(spans) => spans,
        Err(_) => {
            let taken = claims.taken.load(Ordering::Relaxed);
            Err(Failure::new(format!("only {taken} of {tasks} tasks could be claimed and completed")))
        }
    }
}

/// The state that callers who claim together share.
struct Claims {
    wanted: u32,
    taken: AtomicU32,
    enough: CancellationToken,
    gate: Barrier,
}

/// One caller's part: returns when it claimed and when it completed.
async fn claim_and_complete(
    drive: Arc<Drive>,
    claims: Arc<Claims>,
    mut consumer: Consumer<Bytes>,
    batch: usize,
) -> Result<[(Instant, Instant); 2], Failure> {
    let mut held = VecDeque::new();
    claims.gate.wait().await;
    let mut claiming = (Instant::now(), Instant::now());
    while let Some(claimed) = claims.enough.run_until_cancelled(consumer.next_batch(batch)).await {
        let (claimed, now) = (claimed?, Instant::now());
        for delivery in &claimed {
            drive.arrived(delivery, now);
        }
        claiming.1 = now;
        let count = claimed.len() as u32;
        held.extend(claimed);
        if claims.taken.fetch_add(count, Ordering::AcqRel) + count >= claims.wanted {
            claims.enough.cancel();
        }
    }
    claims.gate.wait().await;
    let begun = Instant::now();
    while !held.is_empty() {
        // In the order in which they came, as usual.
        let mut some: Vec<_> = held.drain(..batch.min(held.len())).collect();
        let numbers = some.iter().map(|delivery| drive.number(delivery.payload())).collect();
        let answers = match some.pop() {
            // As a handler completes its task: such calls may be joined.
            Some(delivery) if batch == 1 => vec![delivery.complete().await],
            last => {
                some.extend(last);
                let dispositions = some.into_iter().map(|delivery| (delivery, Disposition::Complete)).collect();
                let settling = consumer.settle_all(dispositions);
                settling.await?
            }
        };
        drive.settled(numbers, answers);
    }
    let completing = (begun, Instant::now());
    consumer.close().await?;
    Ok([claiming, completing])
}

/// Waits for all; the first failure ends the others.
async fn join(mut calling: JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    while let Some(ended) = calling.join_next().await {
        ended.map_err(|e| Failure::new(format!("a caller failed: {e}")))??;
    }
    Ok(())
}

/// A queue for payloads as they are.
pub(super) fn queue(backend: Arc<dyn delayline::DelayBackend>, name: &str) -> Result<Queue<Bytes>, Failure> {
    Ok(Queue::with_codec(backend, name, Raw)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_has_every_task_once_at_its_rate() {
        for (rate, tasks) in [(200, 1_000), (1_000, 4_999), (37, 100), (123_457, 50_000)] {
            let pace = Pace { begins: Instant::now(), rate, ahead: LEAD };
            let pieces: Vec<_> =
                (0..20_000).map(|tick| pace.piece(tick, tasks)).filter(|piece| !piece.is_empty()).collect();
            assert_eq!(pieces.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..tasks).collect::<Vec<_>>());
            let instants: Vec<_> = pace.instants(tasks).collect();
            assert_eq!(instants.len(), pieces.len(), "{rate}");
            let span = *instants.last().unwrap() - pace.begins - LEAD;
            assert!(span.as_secs_f64() >= (f64::from(tasks) / f64::from(rate) - 0.05) * 0.95, "{rate}: {span:?}");
        }
    }
}
