//! BOUND: everything has a limit, and a typed error at it.

mod names;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use delayline_core::{
    AdminOp, Attempts, Bytes, CancellationToken, Capabilities, Change, Changed, Claim, Context, DeadLetter,
    DeadLetterCause, DeadLetterOp, DeadLetters, DelayBackend, Disposition, Due, ErrorKind, Headers, Lease, NewTask,
    Page, Queue, QueueName, QueueStats, Raw, Reason, Result, Scheduled, Select, Subscription, SubscriptionOptions,
    Task, TaskId, TaskRef, TaskView, Worker, async_trait, limits,
};
use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::names::*;
use super::crew::{Goal, Hand, dead_letter, until_reached};
use super::order::{numbered, numbered_one};
use crate::history::{Answer, Op, What};
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

/// How much payload one call of a `Queue` carries, unless a single task has more.
const CALL_BYTES_MAX: usize = 16 * 1024 * 1024;

pub async fn bound_2_headers_at_the_limit_travel(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("headers"));
    let printable: String = ('!'..='~').collect();
    let odd = ["", " ", "\0", "\n", "\"'`\\", "é😀\u{10ffff}", "%s{}$1"];
    let mut most = Headers::new();
    most.insert(&printable, &printable).unwrap();
    most.insert("n".repeat(limits::HEADER_NAME_BYTES_MAX), "the longest name").unwrap();
    odd.iter().enumerate().for_each(|(i, value)| most.insert(format!("odd-{i}"), *value).unwrap());
    (most.len()..limits::HEADERS_MAX - 1).for_each(|i| most.insert(format!("h{i}"), "x").unwrap());
    let room = limits::HEADERS_BYTES_MAX - most.byte_len() - "fills".len();
    let mut beyond = most.clone();
    let refused = beyond.insert("fills", "f".repeat(room + 1)).unwrap_err();
    assert_eq!((refused.kind(), &beyond), (ErrorKind::TooLarge, &most), "a byte too much");
    most.insert("fills", "f".repeat(room)).unwrap();
    assert_eq!((most.len(), most.byte_len()), (limits::HEADERS_MAX, limits::HEADERS_BYTES_MAX));
    assert_eq!(most.clone().insert("one-more", "").unwrap_err().kind(), ErrorKind::TooLarge);

    let payload = vec![b'p'; t.caps().payload_bytes_max];
    t.put(&backend, &queue, NewTask::new(Due::NOW, payload).headers(most.clone())).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    for _ in 0..2 {
        let task = t.take(&mut subscription, 1).await.pop().expect("a task with all the headers there may be");
        assert_eq!(task.headers, most);
        t.settle(&backend, &queue, &task, Disposition::Release).await.unwrap();
    }
    drop(subscription);
    assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1);
}

pub async fn bound_3_a_reason_at_the_limit_is_kept(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("reasons"));
    let reasons =
        ["x".repeat(limits::REASON_BYTES_MAX), "é".repeat(5_000), "'\"\\\n{}%s\u{10ffff}".into(), String::new()];
    let mut subscription = t.subscribe(&backend, &queue).await;
    for (i, text) in reasons.iter().enumerate() {
        t.put(&backend, &queue, numbered_one(i, Due::NOW)).await;
        let task = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
        t.settle(&backend, &queue, &task, Disposition::DeadLetter { reason: Reason::new(text.clone()) }).await.unwrap();
    }
    let letters = letters(&backend, &queue, 10).await;
    let kept: Vec<&Reason> = letters.iter().map(|letter| &letter.reason).collect();
    let given: Vec<Reason> = reasons.into_iter().map(Reason::new).collect();
    assert_eq!(kept, given.iter().collect::<Vec<_>>());
    assert!(kept.iter().all(|reason| reason.as_str().len() <= limits::REASON_BYTES_MAX));
}

pub async fn bound_4_a_byte_too_much_is_refused(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("payloads"));
    let most = t.caps().payload_bytes_max;
    let largest: Bytes = t.rng().u64(..).to_le_bytes().repeat(most / 8 + 1)[..most].to_vec().into();
    let too_large = [largest.as_ref(), &[0]].concat();
    let batch = vec![
        numbered_one(0, Due::NOW),
        NewTask::new(Due::NOW, too_large),
        NewTask::new(Due::NOW, largest.clone()),
        NewTask::new(Due::NOW, vec![0; 2 * most]),
        numbered_one(1, Due::NOW),
    ];
    let answers = backend.schedule(&queue, batch).await.unwrap();
    let refused: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().map(|e| e.kind())).collect();
    let too_large = Some(ErrorKind::TooLarge);
    assert_eq!(refused, [None, too_large, None, too_large, None], "payloads of {most} bytes are allowed");
    let taken = t.drain(&backend, &queue, 3).await;
    assert_eq!(taken.len(), 3, "what was refused is not there, and the others are");
    assert!(taken.iter().any(|task| task.payload == largest), "the largest payload came back as another");
}

pub async fn bound_4_every_byte_travels_in_a_payload(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("bytes"));
    let every: Vec<u8> = (0..=255).collect();
    let mut payloads: Vec<Vec<u8>> = vec![vec![], every.clone(), b"null".to_vec(), b"0".to_vec(), every.repeat(2)];
    payloads.extend(every.iter().map(|byte| vec![*byte]));
    let payloads: BTreeSet<Bytes> = payloads.into_iter().map(Bytes::from).collect();
    t.put_all(&backend, &queue, payloads.iter().map(|payload| NewTask::new(Due::NOW, payload.clone()))).await;
    let taken = t.drain(&backend, &queue, payloads.len()).await;
    assert_eq!(taken.len(), payloads.len());
    assert_eq!(taken.into_iter().map(|task| task.payload).collect::<BTreeSet<_>>(), payloads);
}

pub async fn bound_4_an_empty_batch_does_nothing(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("empty"));
    assert!(backend.schedule(&queue, vec![]).await.unwrap().is_empty());
    assert!(backend.settle(&queue, vec![]).await.unwrap().is_empty());
    if Need::Extend.is_met(t.caps()) {
        assert!(backend.extend(&queue, vec![], LONG_LEASE.min(t.caps().lease_max)).await.unwrap().is_empty());
    }
    if Need::Cancel.is_met(t.caps()) {
        let changed = backend.change(&queue, Select::Tasks(vec![]), Change::cancel()).await.unwrap();
        assert_eq!((changed.outcomes.len(), changed.changed, changed.not_found), (0, 0, 0));
    }
    let mut subscription = t.subscribe(&backend, &queue).await;
    t.put(&backend, &queue, NewTask::new(Due::NOW, "there")).await;
    assert!(t.claim(&mut subscription, 0).await.is_empty(), "a claim of no task brought one");
    drop(subscription);
    let taken = t.drain(&backend, &queue, 1).await;
    assert_eq!(taken.iter().map(|task| task.lease.attempt).collect::<Vec<_>>(), [1], "a claim of no task counted");
}

pub async fn bound_4_a_full_batch_is_taken_and_one_more_is_refused_whole(t: &Trial) {
    // Measured, not noted: it may be a million.
    let (backend, queue) = (t.bare(), t.queue("batches"));
    let most = t.caps().batch_max;
    let far = t.caps().delay_max / 2;
    let tasks = |n: usize| vec![NewTask::new(far, Bytes::new()); n];
    let refused = backend.schedule(&queue, tasks(most + 1)).await;
    assert_eq!(refused.map_err(|e| e.kind()).err(), Some(ErrorKind::TooLarge), "{most} tasks are allowed in a call");
    if Need::Stats.is_met(t.caps()) {
        assert_eq!(backend.stats(&queue).await.unwrap().scheduled, 0, "a batch is refused whole");
    }
    let answers = backend.schedule(&queue, tasks(most)).await.expect("a full batch");
    assert_eq!(answers.len(), most);
    let mut refs: Vec<TaskRef> =
        answers.into_iter().map(|answer| answer.expect("a task of a full batch").task).collect();

    let short = t.queue("leases");
    t.put(&backend, &short, NewTask::new(Due::NOW, "held")).await;
    let mut subscription = t.subscribe(&backend, &short).await;
    let held = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    let refused = backend.settle(&short, vec![(held.lease.clone(), Disposition::Complete); most + 1]).await;
    assert_eq!(refused.map_err(|e| e.kind()).err(), Some(ErrorKind::TooLarge), "settling");
    if Need::Extend.is_met(t.caps()) {
        let refused = backend.extend(&short, vec![held.lease.clone(); most + 1], Duration::from_secs(1)).await;
        assert_eq!(refused.map_err(|e| e.kind()).err(), Some(ErrorKind::TooLarge), "extending");
    }
    t.complete(&backend, &short, &[held]).await;
    if Need::Cancel.is_met(t.caps()) {
        // Of a million, once is enough.
        if most <= 100_000 {
            let all = Select::Tasks(refs.clone());
            let changed = backend.change(&queue, all, Change::cancel()).await.expect("a full batch");
            assert_eq!((changed.changed, changed.outcomes.len()), (most as u64, most), "a full batch of cancels");
        }
        refs.push(refs[0].clone());
        let refused = backend.change(&queue, Select::Tasks(refs), Change::cancel()).await;
        assert_eq!(refused.map_err(|e| e.kind()).err(), Some(ErrorKind::TooLarge), "cancelling");
    }
    t.checked(most as u64);
}

pub async fn bound_4_a_page_holds_at_most_a_thousand_tasks(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("pages"));
    let tasks = limits::PAGE_MAX + 200;
    let hour = Duration::from_secs(3600);
    t.put_all(&backend, &queue, numbered(0..tasks, Due::After(hour))).await;
    let mut asked = Page::first(usize::MAX);
    assert_eq!(asked.limit, limits::PAGE_MAX);
    // As somebody might ask who does not go through the constructor.
    asked.limit = usize::MAX;
    let page = backend.list(&queue, asked).await.unwrap();
    assert!((1..=limits::PAGE_MAX).contains(&page.len()), "a page of {} tasks", page.len());
    let mut none = Page::first(1);
    none.limit = 0;
    assert!(backend.list(&queue, none).await.unwrap().is_empty(), "a page of no task");
    t.checked(2);
}

pub async fn bound_4_a_page_holds_at_most_a_thousand_dead_letters(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("pages"));
    let tasks = limits::PAGE_MAX + 200;
    t.put_all(&backend, &queue, numbered(0..tasks, Due::NOW)).await;
    let (goal, mut hands) = (Goal::new(tasks), JoinSet::new());
    // By several at once, for the letters of one to come between those of another.
    for client in [t.another().await, backend.clone(), backend.clone()] {
        let hand = Hand { backend: client, queue: queue.clone(), goal: goal.clone(), lease: LONG_LEASE, max: 20 };
        hands.spawn(hand.work(|_, _| Some(dead_letter("full"))));
    }
    until_reached(t, &goal, hands).await;
    // What was listed before changes nothing.
    for limit in [usize::MAX, 300, 300] {
        let (mut after, mut seen) = (None, BTreeSet::new());
        loop {
            let page = backend.dead_letters(&queue, DeadLetterOp::List { after, limit }).await.unwrap();
            let most = limits::PAGE_MAX.min(limit);
            assert!(page.letters.len() <= most, "a page of {} dead letters", page.letters.len());
            for letter in page.letters {
                assert!(seen.insert(letter.payload.clone()), "a dead letter stands on two pages");
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), tasks, "dead letters on all pages");
    }
}

pub async fn bound_4_a_queue_cuts_what_it_is_given_into_calls(t: &Trial) {
    let queue = Queue::with_codec(t.backend(), t.queue("cut"), Raw).unwrap();
    for payloads in [more_than_a_batch(t), more_bytes_than_a_call(t)] {
        let tasks = payloads.len();
        let answers = queue.schedule_all(payloads.into_iter().map(Task::new)).await.unwrap();
        assert_eq!(answers.len(), tasks);
        answers.into_iter().for_each(|answer| drop(answer.unwrap()));
        assert_eq!(t.drain(queue.backend(), queue.name(), tasks).await.len(), tasks);
    }
    assert_no_call_carries_too_much(t);
}

pub async fn bound_8_single_calls_travel_in_calls_that_are_not_too_large(t: &Trial) {
    let queue = Queue::with_codec(Arc::new(Unhurried(t.backend())), t.queue("joined"), Raw).unwrap();
    for payloads in [more_than_a_batch(t), more_bytes_than_a_call(t)] {
        let answers = join_all(payloads.iter().map(|payload| async { queue.schedule(payload).await })).await;
        let ids: BTreeSet<_> = answers.into_iter().map(|answer| answer.unwrap().task.id).collect();
        assert_eq!(ids.len(), payloads.len(), "each of the single calls has an answer of its own");
        let taken = t.drain(&t.backend(), queue.name(), payloads.len()).await;
        assert_eq!(taken.len(), payloads.len());
    }
    assert_no_call_carries_too_much(t);
}

/// A backend that answers no call at once, so that what is scheduled meanwhile forms the next.
#[derive(Debug)]
struct Unhurried(Arc<dyn DelayBackend>);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DelayBackend for Unhurried {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        tokio::task::yield_now().await;
        self.0.schedule(queue, tasks).await
    }

    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        self.0.subscribe(queue, options).await
    }

    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        self.0.settle(queue, dispositions).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.0.extend(queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        self.0.change(queue, select, change).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        self.0.find(queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        self.0.list(queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.0.dead_letters(queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.0.stats(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.0.queues().await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.0.administer(queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

pub async fn bound_9_a_claim_brings_at_most_max_and_max_bytes(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("claims"));
    let bytes = t.caps().payload_bytes_max.min(1_000);
    let tasks = 60;
    let payload = |i: usize| vec![i as u8; if i.is_multiple_of(7) { bytes } else { bytes / 2 }];
    t.put_all(&backend, &queue, (0..tasks).map(|i| NewTask::new(Due::NOW, payload(i)))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let (began, mut came) = (Instant::now(), Vec::new());
    let limits = [
        (usize::MAX, bytes),
        (3, usize::MAX),
        (usize::MAX, 2 * bytes + bytes / 4),
        (5, 0),
        (usize::MAX, bytes + bytes / 4),
        (1, 1),
        (4, 2 * bytes),
    ];
    for (max, max_bytes) in limits.into_iter().cycle() {
        let claim = Claim::new(max, LONG_LEASE.min(t.caps().lease_max)).max_bytes(max_bytes);
        let claimed = subscription.claim(claim).await.unwrap();
        let (n, sum) =
            (claimed.deliveries.len(), claimed.deliveries.iter().map(|task| task.payload.len()).sum::<usize>());
        assert!(n <= max, "a claim of {max} tasks brought {n}");
        assert!(n <= 1 || sum <= max_bytes, "a claim of {max_bytes} bytes brought {n} tasks of {sum}");
        t.complete(&backend, &queue, &claimed.deliveries).await;
        came.extend(claimed.deliveries.into_iter().map(|task| task.payload));
        if came.len() >= tasks {
            break;
        }
        if n == 0 {
            assert!(began.elapsed() < t.patience(), "{} of {tasks} tasks that are due came", came.len());
            subscription.wait(claimed.next_due_in.unwrap_or(t.caps().fallback_poll_interval).min(t.units(1))).await;
        }
    }
    came.sort_unstable();
    let mut all: Vec<Bytes> = (0..tasks).map(|i| Bytes::from(payload(i))).collect();
    all.sort_unstable();
    assert_eq!(came, all);
    t.history().drained(&queue);
}

pub async fn bound_12_a_worker_runs_no_more_handlers_than_told(t: &Trial) {
    let queue = Queue::with_codec(t.backend(), t.queue("worker"), Raw).unwrap();
    let (tasks, slots, long) = (30, 3, t.units(1) / 4);
    t.put_all(queue.backend(), queue.name(), numbered(0..tasks, Due::NOW)).await;
    let (seen, enough) = (Arc::new(Seen::default()), CancellationToken::new());
    let handler = {
        let (seen, enough) = (seen.clone(), enough.clone());
        move |_: Bytes, _: Context| {
            let (seen, enough) = (seen.clone(), enough.clone());
            async move {
                seen.most.fetch_max(seen.running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::time::sleep(long).await;
                seen.running.fetch_sub(1, Ordering::Relaxed);
                if seen.done.fetch_add(1, Ordering::Relaxed) + 1 == tasks {
                    enough.cancel();
                }
            }
        }
    };
    let worker = Worker::builder().queue(&queue, handler).concurrency(slots).shutdown(enough).build().unwrap();
    let report = tokio::time::timeout(t.patience(), worker.run()).await.expect("a worker that ends").unwrap();
    assert_eq!(report.completed, tasks as u64);
    let most = seen.most.load(Ordering::Relaxed);
    assert!(most <= slots, "a worker of {slots} slots ran {most} handlers");
    let asked = most_asked_for(t);
    assert!(asked <= slots, "a worker of {slots} slots asked for so many that it would have held {asked} tasks");
}

/// How many tasks the worker would have held if each claim had brought what it asked for: nor are tasks claimed that would have
/// to wait for a slot. A settling counts from its beginning, because its slot may be free before the answer is noted.
fn most_asked_for(t: &Trial) -> usize {
    let (mut held, mut most) = (0_usize, 0);
    for event in t.recording().events {
        match event.what {
            What::Invoked { op: Op::Claim { max, .. }, .. } => most = most.max(held + max),
            What::Ok(Answer::Claim { deliveries, .. }) => held += deliveries.len(),
            What::Invoked { op: Op::Settle(dispositions), .. } => held = held.saturating_sub(dispositions.len()),
            _ => {}
        }
    }
    most
}

/// What handlers saw.
#[derive(Default)]
struct Seen {
    running: AtomicUsize,
    most: AtomicUsize,
    done: AtomicUsize,
}

pub async fn bound_13_a_task_may_be_attempted_once_or_ten_thousand_times(t: &Trial) {
    let most = limits::ATTEMPTS_MAX;
    for wrong in [0, most + 1, u32::MAX] {
        assert_eq!(Attempts::new(wrong).map_err(|e| e.kind()), Err(ErrorKind::OutOfRange), "{wrong} attempts");
    }
    let (backend, queue) = (t.backend(), t.queue("attempts"));
    let task = |attempts: u32| NewTask::new(Due::NOW, "x").attempts_max(Attempts::new(attempts).unwrap());
    // All ten thousand where each costs next to nothing; otherwise as many as show that they are not the usual twenty.
    for (attempts, tried) in [(1, 1), (2, 2), (most, t.size(most as usize, 30) as u32)] {
        t.put(&backend, &queue, task(attempts)).await;
        try_in_vain(t, &backend, &queue, attempts, tried).await;
        if tried < attempts {
            assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1, "a task was given up after {tried} attempts");
        } else {
            assert_given_up(t, &backend, &queue, attempts).await;
        }
    }
}

pub async fn bound_13_a_task_is_attempted_twenty_times_unless_told(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("attempts"));
    t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await;
    try_in_vain(t, &backend, &queue, 20, 20).await;
    assert_given_up(t, &backend, &queue, 20).await;
}

/// Claims a task that may have `attempts` and gives up so often, and checks the count.
async fn try_in_vain(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName, attempts: u32, times: u32) {
    let mut subscription = t.subscribe(backend, queue).await;
    for attempt in 1..=times {
        let task =
            t.take(&mut subscription, 1).await.pop().unwrap_or_else(|| panic!("no attempt {attempt} of {attempts}"));
        assert_eq!((task.lease.attempt, task.attempts_max), (attempt, attempts));
        let retry = Disposition::Retry { after: Duration::ZERO, reason: "in vain".into() };
        t.settle(backend, queue, &task, retry).await.unwrap();
    }
}

/// Checks that the task is a dead letter after so many attempts, as far as that can be seen.
async fn assert_given_up(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName, attempts: u32) {
    assert!(t.drain(backend, queue, 0).await.is_empty(), "a task came after its {attempts} attempts");
    if Need::DeadLetters.is_met(t.caps()) {
        let letters = letters(backend, queue, 10).await;
        let last = letters.last().expect("a task that was given up is a dead letter");
        assert_eq!((last.cause, last.attempts), (DeadLetterCause::AttemptsUsedUp, attempts));
    }
}

async fn letters(backend: &Arc<dyn DelayBackend>, queue: &QueueName, limit: usize) -> Vec<DeadLetter> {
    backend.dead_letters(queue, DeadLetterOp::List { after: None, limit }).await.unwrap().letters
}

/// Two batches and a task; of one so large that it would take long, some.
fn more_than_a_batch(t: &Trial) -> Vec<Bytes> {
    let tasks = t.caps().batch_max.min(1_000) * 2 + 1;
    (0..tasks).map(|i| Bytes::from(i.to_string())).collect()
}

/// Two tasks more than fit into the bytes of one call; few, where payloads are so small that it would take long.
fn more_bytes_than_a_call(t: &Trial) -> Vec<Bytes> {
    let payload = Bytes::from(vec![b'x'; t.caps().payload_bytes_max.min(1 << 20)]);
    let tasks = CALL_BYTES_MAX / payload.len().max(1) + 2;
    vec![payload; tasks.min(1_000)]
}

/// Looks through the history for a call of more tasks or bytes than travel together.
fn assert_no_call_carries_too_much(t: &Trial) {
    for event in t.recording().events {
        if let What::Invoked { op: Op::Schedule(tasks), .. } = event.what {
            let (n, bytes) = (tasks.len(), tasks.iter().map(|task| task.content.payload_len).sum::<usize>());
            assert!(n <= t.caps().batch_max, "one call carried {n} tasks");
            assert!(n == 1 || bytes <= CALL_BYTES_MAX, "one call carried {n} tasks of {bytes} bytes");
        }
    }
}
