//! LOSS-4 in the middle of the work: a server that is killed and comes back while others schedule, claim, settle and
//! change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Bytes, CancellationToken, Change, ChangeOutcome, Claim, ClaimedTask, DelayBackend, Disposition, Due, Durability,
    Error, ErrorKind, NewTask, OperationId, Queue, QueueName, Raw, RetryPolicy, Select, Subscription,
    SubscriptionOptions, TaskRef, Worker,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::crew::{all_letters, dead_letter, retry};
use crate::harness::Fault;
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

/// How often the server is killed.
const KILLS: usize = 4;

const PRODUCERS: usize = 3;

/// Number of tasks that all producers schedule.
const TASKS: usize = 720;

/// What is far away until it is moved, or cancelled.
const FAR_TASKS: usize = 60;

/// How far producers may be ahead of the consumers, so that each kill meets work of every kind.
const AHEAD_MAX: usize = 60;

/// Producers, consumers, a worker and one who changes, each with a client that outlives the server. Each repeats only
/// what it was told may be repeated; everything else is the clients' own affair.
pub async fn loss_4_a_server_killed_in_the_middle_of_the_work_loses_nothing(t: &Trial) {
    if t.caps().durability < Durability::Disk {
        return t.untested("the backend does not declare that a task survives a crash of its server");
    }
    let clients = [t.backend(), t.another().await, t.another().await];
    let site = Site::new(t);
    let far = far_away(t, &site, &clients[0]).await;
    let mut rng = t.rng();
    let mut consumers = JoinSet::new();
    for client in &clients {
        consumers.spawn(consume(site.clone(), client.clone(), rng.fork()));
    }
    consumers.spawn(work(site.clone(), t.another().await));
    let mut producers = JoinSet::new();
    for number in 0..PRODUCERS {
        let numbers = (number..TASKS).step_by(PRODUCERS).collect();
        producers.spawn(produce(site.clone(), clients[number % clients.len()].clone(), numbers, rng.fork()));
    }
    let far = far.into_iter().map(|task| (task, t.operation())).collect();
    producers.spawn(change(site.clone(), t.another().await, far));
    for kill in 1..=KILLS {
        site.until("the work to go on", |book| book.handled.len() >= kill * TASKS / (KILLS + 1)).await;
        if !t.inject(Fault::Kill).await {
            return;
        }
    }
    while let Some(done) = producers.join_next().await {
        done.expect("a producer that does not panic");
    }
    site.until("all that was accepted", |book| book.accepted.is_subset(&book.handled)).await;
    site.stop.cancel();
    while let Some(done) = consumers.join_next().await {
        done.expect("a consumer that does not panic");
    }
    look_after(t, &site, &clients[0]).await;
}

/// What is known of the tasks, by their numbers.
#[derive(Debug, Default)]
struct Book {
    /// Those that must come: accepted and due, or moved there.
    accepted: BTreeSet<usize>,
    /// Those that somebody was done with, whether or not the store learned of it.
    handled: BTreeSet<usize>,
    dead_lettered: BTreeSet<usize>,
    cancelled: BTreeSet<usize>,
}

/// Where they all work.
#[derive(Debug)]
struct Site {
    queue: QueueName,
    /// What waits to be settled for no longer than this comes again after it.
    lease: Duration,
    /// The longest delay of a task or retry.
    delay: Duration,
    patience: Duration,
    unique_ids: bool,
    book: Mutex<Book>,
    changes: watch::Sender<()>,
    stop: CancellationToken,
}

impl Site {
    fn new(t: &Trial) -> Arc<Self> {
        Arc::new(Self {
            queue: t.queue("killed"),
            lease: t.units(10).min(t.caps().lease_max),
            delay: t.units(2),
            patience: t.patience(),
            unique_ids: Need::UniqueIds.is_met(t.caps()),
            book: Mutex::default(),
            changes: watch::Sender::new(()),
            stop: CancellationToken::new(),
        })
    }

    fn note<T>(&self, write: impl FnOnce(&mut Book) -> T) {
        write(&mut self.book.lock());
        self.changes.send_replace(());
    }

    /// Waits until the book says so, for as long as anything is written in it.
    async fn until(&self, what: &str, holds: impl Fn(&Book) -> bool) {
        let mut changes = self.changes.subscribe();
        while !holds(&self.book.lock()) {
            if timeout(self.patience, changes.changed()).await.is_err() {
                let book = self.book.lock();
                let missing: Vec<_> = book.accepted.difference(&book.handled).take(10).collect();
                panic!("waited for {what}; nothing goes on any more; of {}, missing: {missing:?}", book.accepted.len());
            }
        }
    }

    /// After an error that may pass: a pause, as core makes one.
    async fn again(&self, e: &Error) {
        assert!(e.retryable(), "{e}");
        sleep(Duration::from_millis(50)).await;
    }

    fn task(&self, number: usize, due: impl Into<Due>) -> NewTask {
        let id = format!("task-{number}").parse().expect("a short id");
        NewTask::new(due, number.to_string()).id(id)
    }

    /// Schedules tasks until each has an answer that is definite. Without unique ids, what may have been accepted is
    /// not sent again, and may come.
    async fn schedule(&self, backend: &Arc<dyn DelayBackend>, mut left: Vec<NewTask>) -> Vec<TaskRef> {
        let mut accepted = Vec::new();
        loop {
            let answers = match backend.schedule(&self.queue, left.clone()).await {
                Ok(answers) => answers,
                Err(e) => left.iter().map(|_| Err(e.clone())).collect(),
            };
            assert_eq!(answers.len(), left.len(), "one answer for each task");
            let mut again = Vec::new();
            let mut failed = None;
            for (task, answer) in left.into_iter().zip(answers) {
                match answer {
                    Ok(scheduled) => accepted.push(scheduled.task),
                    Err(e) => {
                        if self.unique_ids || e.kind() != ErrorKind::Ambiguous {
                            again.push(task);
                        }
                        failed = Some(e);
                    }
                }
            }
            left = again;
            match failed {
                Some(e) => self.again(&e).await,
                None => return accepted,
            }
        }
    }
}

fn number_of(payload: &[u8]) -> usize {
    std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok()).expect("a payload as it was scheduled")
}

fn number_of_id(task: &TaskRef) -> usize {
    let id = task.id.to_string();
    id.strip_prefix("task-").and_then(|number| number.parse().ok()).expect("an id as it was scheduled")
}

/// Tasks that nobody would wait for. They are there before the first kill.
async fn far_away(t: &Trial, site: &Site, backend: &Arc<dyn DelayBackend>) -> Vec<TaskRef> {
    if !Need::Reschedule.is_met(t.caps()) && !Need::Cancel.is_met(t.caps()) {
        return Vec::new();
    }
    let hour = Duration::from_secs(3_600);
    site.schedule(backend, (TASKS..TASKS + FAR_TASKS).map(|number| site.task(number, hour)).collect()).await
}

async fn produce(site: Arc<Site>, backend: Arc<dyn DelayBackend>, numbers: Vec<usize>, mut rng: fastrand::Rng) {
    let longest_us = site.delay.as_micros() as u64;
    let mut numbers = numbers.as_slice();
    while !numbers.is_empty() {
        site.until("the consumers", |book| book.accepted.len() < book.handled.len() + AHEAD_MAX).await;
        let (batch, rest) = numbers.split_at(rng.usize(1..=12).min(numbers.len()));
        numbers = rest;
        let mut due = || if rng.bool() { Duration::ZERO } else { Duration::from_micros(rng.u64(0..longest_us)) };
        let tasks = batch.iter().map(|number| site.task(*number, due())).collect();
        let accepted = site.schedule(&backend, tasks).await;
        site.note(|book| book.accepted.extend(accepted.iter().map(number_of_id)));
    }
}

/// Claims and settles, as one who holds a bare subscription does.
async fn consume(site: Arc<Site>, backend: Arc<dyn DelayBackend>, mut rng: fastrand::Rng) {
    let mut subscription = open(&site, &backend).await;
    let fallback_poll_interval = backend.capabilities().fallback_poll_interval;
    while !site.stop.is_cancelled() {
        let claimed = match subscription.claim(Claim::new(rng.usize(1..=10), site.lease)).await {
            Ok(claimed) => claimed,
            Err(e) => {
                site.again(&e).await;
                continue;
            }
        };
        if claimed.deliveries.is_empty() {
            tokio::select! {
                () = site.stop.cancelled() => {}
                () = subscription.wait(claimed.next_due_in.unwrap_or(fallback_poll_interval).min(fallback_poll_interval)) => {}
            }
            continue;
        }
        let judged = claimed.deliveries.into_iter().filter_map(|task| {
            let disposition = judge(&site, &task, &mut rng)?;
            Some((task, disposition))
        });
        settle(&site, &backend, judged.collect()).await;
    }
}

async fn open(site: &Site, backend: &Arc<dyn DelayBackend>) -> Box<dyn Subscription> {
    loop {
        match backend.subscribe(&site.queue, SubscriptionOptions::default()).await {
            Ok(subscription) => return subscription,
            Err(e) => site.again(&e).await,
        }
    }
}

/// Nothing for one that is left to the end of its lease.
fn judge(site: &Site, task: &ClaimedTask, rng: &mut fastrand::Rng) -> Option<Disposition> {
    let after = Duration::from_micros(rng.u64(0..site.delay.as_micros() as u64));
    match rng.u8(0..10) {
        _ if number_of(&task.payload).is_multiple_of(23) => Some(dead_letter("by plan")),
        0 => Some(retry(after)),
        1 => Some(Disposition::Snooze { after }),
        2 => Some(Disposition::Release),
        // Few, as each comes only when its lease has ended.
        3 if task.lease.attempt == 1 && rng.bool() => None,
        _ => Some(Disposition::Complete),
    }
}

/// Sends dispositions until each has an answer that is definite. A lease that was lost after an unknown outcome may be
/// the effect of it.
async fn settle(site: &Site, backend: &Arc<dyn DelayBackend>, judged: Vec<(ClaimedTask, Disposition)>) {
    let mut left: Vec<_> = judged.into_iter().map(|(task, disposition)| (task, disposition, false)).collect();
    while !left.is_empty() {
        let dispositions =
            left.iter().map(|(task, disposition, _)| (task.lease.clone(), disposition.clone())).collect();
        let answers = match backend.settle(&site.queue, dispositions).await {
            Ok(answers) => answers,
            Err(e) => left.iter().map(|_| Err(e.clone())).collect(),
        };
        assert_eq!(answers.len(), left.len(), "one answer for each disposition");
        let mut again = Vec::new();
        let mut failed = None;
        for ((task, disposition, unknown), answer) in left.into_iter().zip(answers) {
            let number = number_of(&task.payload);
            match (answer, &disposition) {
                (Ok(()), Disposition::Complete) => site.note(|book| book.handled.insert(number)),
                (Ok(()), Disposition::DeadLetter { .. }) => {
                    site.note(|book| book.dead_lettered.insert(number) | book.handled.insert(number));
                }
                (Ok(()), _) => {}
                (Err(e), Disposition::Complete | Disposition::DeadLetter { .. })
                    if e.kind() == ErrorKind::LeaseLost && unknown =>
                {
                    site.note(|book| book.handled.insert(number));
                }
                (Err(e), _) if e.kind() == ErrorKind::LeaseLost => {}
                (Err(e), _) => {
                    again.push((task, disposition, unknown || e.kind() == ErrorKind::Ambiguous));
                    failed = Some(e);
                }
            }
        }
        left = again;
        if let Some(e) = failed {
            site.again(&e).await;
        }
    }
}

/// A worker, which is told nothing of what happens.
async fn work(site: Arc<Site>, backend: Arc<dyn DelayBackend>) {
    let queue = Queue::<Bytes>::with_codec(backend, &site.queue, Raw).expect("a queue");
    let handler = {
        let site = site.clone();
        move |payload: Bytes, _| {
            site.note(|book| book.handled.insert(number_of(&payload)));
            async {}
        }
    };
    let worker = Worker::builder().concurrency(4).lease(site.lease).retry(RetryPolicy::fixed(site.delay));
    let worker = worker.shutdown(site.stop.clone()).queue(&queue, handler).build().expect("a worker");
    worker.run().await.expect("a worker that goes on");
}

/// Moves tasks to now and cancels others, one after the other for as long as there is work.
async fn change(site: Arc<Site>, backend: Arc<dyn DelayBackend>, far: Vec<(TaskRef, OperationId)>) {
    let caps = backend.capabilities();
    let (moves, cancels) = (Need::Reschedule.is_met(caps), Need::Cancel.is_met(caps));
    for (i, (task, operation)) in far.into_iter().enumerate() {
        site.until("the work to go on", |book| book.handled.len() >= i * TASKS / (FAR_TASKS + 1)).await;
        let to_now = moves && (i % 2 == 0 || !cancels);
        let change = if to_now { Change::move_to(Due::NOW) } else { Change::cancel() };
        let remembered = Need::Operations.is_met(caps);
        let change = if remembered { change.operation(operation) } else { change };
        change_one(&site, &backend, &task, &change, remembered).await;
        let number = number_of_id(&task);
        site.note(|book| if to_now { book.accepted.insert(number) } else { book.cancelled.insert(number) });
    }
}

/// Repeats a change until its outcome is definite, which must be that it was made.
async fn change_one(site: &Site, backend: &Arc<dyn DelayBackend>, task: &TaskRef, change: &Change, remembered: bool) {
    let mut unknown = false;
    loop {
        let answer = backend.change(&site.queue, Select::Tasks(vec![task.clone()]), change.clone()).await;
        let answer = answer.and_then(|mut changed| {
            assert_eq!(changed.outcomes.len(), 1, "one outcome for one task");
            changed.outcomes.remove(0)
        });
        match answer {
            Ok(ChangeOutcome::Changed) => return,
            // What was made before is answered anew only under its operation id.
            Ok(ChangeOutcome::NotFound | ChangeOutcome::InFlight) if unknown && !remembered => return,
            Ok(outcome) => panic!("{change:?} of {}, which nobody else touched: {outcome:?}", task.id),
            Err(e) => {
                unknown |= e.kind() == ErrorKind::Ambiguous;
                site.again(&e).await;
            }
        }
    }
}

/// Takes out what is left, which are tasks whose disposition was lost, and looks at the rest.
async fn look_after(t: &Trial, site: &Site, backend: &Arc<dyn DelayBackend>) {
    let mut subscription = t.subscribe(backend, &site.queue).await;
    let quiet = site.lease + site.delay + t.units(2);
    let mut left = Vec::new();
    loop {
        let some = t.take_some(&mut subscription, 100, LONG_LEASE, quiet).await;
        if some.is_empty() {
            break;
        }
        t.complete(backend, &site.queue, &some).await;
        left.extend(some.iter().map(|task| number_of(&task.payload)));
    }
    t.history().drained(&site.queue);
    let book = std::mem::take(&mut *site.book.lock());
    let cancelled = |number: &&usize| book.cancelled.contains(number);
    assert_eq!(book.handled.iter().chain(&left).find(cancelled), None, "a task came that was cancelled");
    if Need::DeadLetters.is_met(t.caps()) {
        let letters = all_letters(backend, &site.queue, 1_000).await;
        let there: BTreeSet<usize> = letters.iter().map(|letter| number_of(&letter.payload)).collect();
        assert!(
            book.dead_lettered.is_subset(&there),
            "dead-lettered: {:?}; dead letters: {there:?}",
            book.dead_lettered
        );
    }
    t.checked((book.accepted.len() + book.dead_lettered.len() + book.cancelled.len()) as u64);
}
