//! CLEAR: answers and reports are true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    AdminOp, Change, DelayBackend, Disposition, Due, Error, ErrorKind, NewTask, Page, Queue, QueueName, Raw, Select,
    Task, TaskId, TaskRef, TaskState, TaskView, Timestamp,
};

use tokio::time::Instant;

use super::order::{check_ranks, numbered, numbered_one};
use crate::need::Need;
use crate::trial::Trial;

const HOUR: Duration = Duration::from_secs(3600);

/// What no error may repeat.
const SECRET: &str = "s3cr3t-pa55word";

pub async fn clear_1_an_error_has_a_kind_and_a_sentence_and_says_whether_to_try_again(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("errors"));
    for (kind, e) in provoked(t, &backend, &queue).await {
        assert_eq!(e.kind(), kind, "{e}");
        assert_eq!(e.retryable(), kind.retryable(), "{e}");
        let (sentence, whole) = (e.message(), e.to_string());
        assert!(sentence.len() >= 10 && sentence.contains(' '), "`{sentence}` is no sentence");
        assert!(whole.starts_with(kind.describe()) && whole.ends_with(sentence), "{whole}");
        assert!(whole.len() <= 400 && !whole.chars().any(char::is_control), "{whole:?} is no line for a log");
        t.checked(1);
    }
}

pub async fn clear_4_no_error_repeats_a_payload(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("errors"));
    for (_, e) in provoked(t, &backend, &queue).await {
        // The sentence, and what a log of it with all its causes would show.
        assert!(!format!("{e} {e:?}").contains(SECRET), "an error repeats a payload: {e:?}");
        t.checked(1);
    }
}

pub async fn clear_6_a_wrong_option_is_that_tasks_error_and_nothing_is_sent(t: &Trial) {
    let queue = Queue::with_codec(t.backend(), t.queue("options"), Raw).unwrap();
    let task = |text: &'static str| Task::new(text.into()).after(Duration::ZERO);
    let tasks = [
        (task("good").id("1"), None),
        (task("bad").id("a\nb"), Some(ErrorKind::Invalid)),
        (task("bad").group(""), Some(ErrorKind::Invalid)),
        (task("bad").header("a b", "x"), Some(ErrorKind::Invalid)),
        (task("bad").header("a", "x".repeat(20_000)), Some(ErrorKind::TooLarge)),
        (task("bad").attempts_max(0), Some(ErrorKind::OutOfRange)),
        (task("bad").attempts_max(10_001).id("2"), Some(ErrorKind::OutOfRange)),
        (task("good").attempts_max(10_000).id("3"), None),
    ];
    let (tasks, wrong): (Vec<_>, Vec<_>) = tasks.into_iter().unzip();
    let answers = queue.schedule_all(tasks).await.unwrap();
    assert_eq!(answers.into_iter().map(|answer| answer.err().map(|e| e.kind())).collect::<Vec<_>>(), wrong);
    let alone = queue.schedule(&"bad".into()).attempts_max(0).await;
    assert_eq!(alone.map_err(|e| e.kind()), Err(ErrorKind::OutOfRange));
    let taken = t.drain(queue.backend(), queue.name(), 2).await;
    assert_eq!(taken.iter().map(|task| &task.payload[..]).collect::<Vec<_>>(), [b"good"; 2]);
}

pub async fn clear_7_text_from_outside_is_cut_and_cleaned(t: &Trial) {
    let queue = Queue::with_codec(t.backend(), t.queue("texts"), Raw).unwrap();
    let rude = format!("\u{1b}[31m\r\n{}", "x".repeat(5_000));
    let told = [
        Queue::<String>::new(t.backend(), rude.as_str()).unwrap_err(),
        queue.schedule(&"x".into()).id(rude.as_str()).await.unwrap_err(),
        queue.schedule(&"x".into()).group(rude.as_str()).await.unwrap_err(),
        queue.schedule(&"x".into()).header(rude.as_str(), "x").await.unwrap_err(),
    ];
    for e in told {
        let whole = e.to_string();
        assert!(whole.len() <= 400 && !whole.chars().any(char::is_control), "{whole:?}");
        t.checked(1);
    }
}

pub async fn clear_8_find_shows_a_task_exactly_while_it_is_there(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("found"));
    let shows = Shows { t, backend: &backend, queue: &queue, id: t.id("one") };
    shows.nothing("before it is scheduled").await;
    let wall = t.wall();
    let due = wall.saturating_add(t.units(2));
    let task = NewTask::new(due, "payload").id(shows.id.clone()).expires(wall.saturating_add(HOUR));
    t.put(&backend, &queue, task).await;
    let view = shows.task(TaskState::Pending, "scheduled").await;
    let ceil = |at: Timestamp| Timestamp::from_unix_millis(at.unix_millis_ceil());
    assert_eq!((view.attempt, view.attempts_max, view.visible_at), (0, 20, ceil(due)));
    assert_eq!((view.payload.as_ref(), view.expires_at), (&b"payload"[..], Some(ceil(wall.saturating_add(HOUR)))));
    assert_eq!(backend.find(&t.queue("other"), &shows.id).await.unwrap(), None, "it is in another queue too");

    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    let view = shows.task(TaskState::InFlight, "claimed").await;
    assert_eq!(view.attempt, 1);
    assert_near(view.visible_at, held.lease.expires_at);
    t.settle(&backend, &queue, &held, Disposition::Release).await.unwrap();
    assert_eq!(shows.task(TaskState::Pending, "released").await.attempt, 0);

    let held = t.take(&mut subscription, 1).await.pop().expect("a task that was released");
    let retry = Disposition::Retry { after: t.units(1), reason: "the reason".into() };
    t.settle(&backend, &queue, &held, retry).await.unwrap();
    let view = shows.task(TaskState::Pending, "retried").await;
    assert_eq!((view.attempt, view.last_failure.as_deref()), (1, Some("the reason")));

    // A lease that has ended is one no more, though nobody has noticed its end.
    let held = t.take_within(&mut subscription, 1, t.units(1), t.patience()).await.pop().expect("the retry");
    assert_eq!(held.lease.attempt, 2);
    assert_near(view.visible_at, held.due_at);
    tokio::time::sleep(t.units(2)).await;
    assert_eq!(shows.task(TaskState::Pending, "left by its holder").await.attempt, 2);
    let held = t.take(&mut subscription, 1).await;
    t.complete(&backend, &queue, &held).await;
    shows.nothing("once it is completed").await;
}

pub async fn clear_8_find_shows_no_task_that_was_cancelled_or_dead_lettered(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("gone"));
    let shows = Shows { t, backend: &backend, queue: &queue, id: t.id("one") };
    let put =
        async |due: Due| TaskRef::from(t.put(&backend, &queue, NewTask::new(due, "x").id(shows.id.clone())).await);
    let mut subscription = t.subscribe(&backend, &queue).await;
    put(Due::NOW).await;
    let held = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    t.settle(&backend, &queue, &held, Disposition::DeadLetter { reason: "buried".into() }).await.unwrap();
    shows.nothing("once it is dead-lettered").await;
    if Need::Cancel.is_met(t.caps()) {
        let cancel = async |task| backend.change(&queue, Select::Tasks(vec![task]), Change::cancel()).await.unwrap();
        assert_eq!(cancel(put(HOUR.into()).await).await.changed, 1);
        shows.nothing("once it is cancelled").await;

        let there = put(Due::NOW).await;
        let held = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
        assert_eq!(cancel(there).await.in_flight, 1);
        shows.task(TaskState::Cancelling, "cancelled in flight").await;
        t.settle(&backend, &queue, &held, Disposition::Release).await.unwrap();
        shows.nothing("once what was cancelled in flight has ended").await;

        let there = put(Due::NOW).await;
        t.take_within(&mut subscription, 1, t.units(1), t.patience()).await;
        cancel(there).await;
        tokio::time::sleep(t.units(2)).await;
        shows.nothing("once the lease of what was cancelled has ended").await;
    }
    if Need::Delete.is_met(t.caps()) {
        put(HOUR.into()).await;
        backend.administer(&queue, AdminOp::Delete).await.unwrap();
        shows.nothing("once its queue is deleted").await;
    }
}

pub async fn clear_9_a_listing_shows_each_task_once_in_order(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("listed"));
    let mut rng = t.rng();
    let tasks = t.size(2_300, 700);
    let start = t.wall().saturating_add(HOUR).unix_millis_floor();
    // Few enough instants that many tasks share one, and some that are due, of which a part is in flight.
    let at = |ms: i64| Due::At(Timestamp::from_unix_millis(ms));
    let due: Vec<Due> =
        (0..tasks).map(|i| if i % 10 == 0 { at(i as i64) } else { at(start + rng.i64(0..300)) }).collect();
    let new = due.iter().enumerate().map(|(i, due)| numbered_one(i, *due));
    let sequence = t.put_all(&backend, &queue, new).await;
    let sequence: BTreeMap<TaskId, usize> = sequence.into_iter().zip(0..).map(|(one, i)| (one.task.id, i)).collect();
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, tasks / 20).await;
    for limit in [1_000, 100, 37] {
        let listed = list_all(&backend, &queue, limit, async |_| {}).await;
        assert_eq!(listed.len(), tasks, "tasks listed by pages of {limit}");
        let each: BTreeSet<&TaskId> = listed.iter().map(|view| &view.task.id).collect();
        assert_eq!(each.len(), tasks, "tasks listed once by pages of {limit}");
        let ranks: Vec<_> = listed.iter().map(|view| (view.visible_at, sequence[&view.task.id])).collect();
        let unordered = ranks.windows(2).find(|pair| pair[0].0 > pair[1].0);
        assert!(unordered.is_none(), "by pages of {limit}, visible at is not rising: {unordered:?}");
        // Of one instant, by sequence as far as the backend declares that.
        for tied in ranks.chunk_by(|a, b| a.0 == b.0) {
            let tied: Vec<(i64, usize)> = tied.iter().map(|(_, sequence)| (0, *sequence)).collect();
            check_ranks(t.caps().order, &tied);
        }
        let in_flight = listed.iter().filter(|view| view.state == TaskState::InFlight).count();
        assert_eq!(in_flight, held.len(), "tasks listed as in flight");
    }
}

pub async fn clear_9_a_task_that_stays_is_listed_once_while_others_come_and_go(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("busy"));
    let mut rng = t.rng();
    let tasks = t.size(1_000, 300);
    let start = t.wall().saturating_add(HOUR);
    let mut when = move || start.saturating_add(Duration::from_millis(rng.u64(0..500)));
    let stay = t.put_all(&backend, &queue, (0..tasks).map(|i| numbered_one(i, when()))).await;
    let stay: BTreeSet<TaskId> = stay.into_iter().map(|one| one.task.id).collect();
    t.put_all(&backend, &queue, numbered(0..tasks, Due::NOW)).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut rng = t.rng();
    let between = async |_: usize| {
        let come = (0..5).map(|i| numbered_one(i, start.saturating_add(Duration::from_millis(rng.u64(0..500)))));
        t.put_all(&backend, &queue, come).await;
        let go = t.take(&mut subscription, 7).await;
        t.complete(&backend, &queue, &go).await;
    };
    let listed = list_all(&backend, &queue, 50, between).await;
    let mut seen: BTreeMap<TaskId, u32> = BTreeMap::new();
    listed.into_iter().for_each(|view| *seen.entry(view.task.id).or_default() += 1);
    for id in &stay {
        assert_eq!(seen.get(id), Some(&1), "how often a task was listed that stayed where it is");
    }
    t.checked(stay.len() as u64);
}

pub async fn clear_10_stats_count_each_task_once(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("counted"));
    let counts = async || {
        let stats = backend.stats(&queue).await.unwrap();
        (stats.scheduled, stats.due, stats.in_flight)
    };
    assert_eq!(counts().await, (0, 0, 0));
    t.put_all(&backend, &queue, numbered(0..10, HOUR.into())).await;
    t.put_all(&backend, &queue, numbered(10..17, Due::NOW)).await;
    t.put_all(&backend, &queue, numbered(17..20, Due::At(t.wall().saturating_sub(HOUR)))).await;
    // So that a real clock has reached what is due at once, too.
    tokio::time::sleep(t.units(1)).await;
    assert_eq!(counts().await, (10, 10, 0), "(scheduled, due, in flight)");
    let stats = backend.stats(&queue).await.unwrap();
    let (oldest, next) = (stats.oldest_due.unwrap_or_default(), stats.next_due_in.unwrap_or_default());
    assert!(oldest >= HOUR && oldest < HOUR * 2, "the oldest due task has waited for {oldest:?}");
    assert!(next <= HOUR && next > HOUR / 2, "the next task is due in {next:?}");
    assert!(backend.queues().await.unwrap().contains(&queue), "a queue that holds tasks is not listed");

    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, 6).await;
    assert_eq!(counts().await, (10, 4, 6));
    t.complete(&backend, &queue, &held[..1]).await;
    t.settle(&backend, &queue, &held[1], Disposition::Retry { after: HOUR, reason: "later".into() }).await.unwrap();
    t.settle(&backend, &queue, &held[2], Disposition::Snooze { after: HOUR }).await.unwrap();
    t.settle(&backend, &queue, &held[3], Disposition::Release).await.unwrap();
    t.settle(&backend, &queue, &held[4], Disposition::DeadLetter { reason: "enough".into() }).await.unwrap();
    assert_eq!(counts().await, (12, 5, 1), "after a completion, a retry, a snooze, a release and a burial");
    if Need::DeadLetters.is_met(t.caps()) {
        assert_eq!(backend.stats(&queue).await.unwrap().dead, 1, "dead letters");
    }
    t.complete(&backend, &queue, &held[5..]).await;
    // A lease that ends unsettled leaves a task that is due.
    let (began, lease) = (Instant::now(), t.units(3));
    let left = t.take_within(&mut subscription, 2, lease, t.patience()).await;
    let counted = counts().await;
    // A machine that slept through the leases proves nothing.
    assert!((counted, left.len()) == ((12, 3, 2), 2) || began.elapsed() >= lease, "two of five in flight: {counted:?}");
    tokio::time::sleep(lease + t.units(1)).await;
    assert_eq!(counts().await, (12, 5, 0), "leases that have ended");
    t.checked(8);
}

pub async fn clear_10_stats_tell_how_many_are_due_how_soon(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("soon"));
    let began = Instant::now();
    let (second, minute, day) = (Duration::from_secs(1), Duration::from_secs(60), HOUR * 24);
    let waits = [(2, Duration::ZERO), (3, second), (4, minute), (5, HOUR), (6, day), (7, day * 2)];
    for (number, (tasks, wait)) in (0..).step_by(10).zip(waits) {
        // A little sooner, so that nothing is rounded up beyond its time.
        let wait = wait.saturating_sub(t.caps().resolution * 10);
        t.put_all(&backend, &queue, numbered(number..number + tasks, wait.into())).await;
    }
    // A lease ends soon too, and its task is not scheduled.
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take_within(&mut subscription, 1, minute / 2, t.patience()).await;
    let stats = backend.stats(&queue).await.unwrap();
    let Some(within) = stats.due_within else { return t.checked(1) };
    // Those that were due within a second may be due by now.
    let come_due = (stats.due + stats.in_flight).saturating_sub(2);
    let counts = within.counts().map(|count| count + come_due);
    let in_time = began.elapsed() < minute / 3;
    assert!(counts == [3, 7, 12, 18] || !in_time, "due within {within:?}, and {come_due} came due: {stats:?}");
    t.complete(&backend, &queue, &held).await;
    t.checked(4);
}

pub async fn clear_10_stats_tell_of_a_pause(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("paused"));
    let paused = async || backend.stats(&queue).await.unwrap().paused;
    assert!(!paused().await);
    backend.administer(&queue, AdminOp::Pause).await.unwrap();
    assert!(paused().await);
    assert!(backend.queues().await.unwrap().contains(&queue), "a queue that is paused is not listed");
    backend.administer(&queue, AdminOp::Resume).await.unwrap();
    assert!(!paused().await);
}

/// Checks that two instants are one, as shown on a wall clock that may be disciplined in between.
fn assert_near(one: Timestamp, other: Timestamp) {
    let apart = one.saturating_since(other).max(other.saturating_since(one));
    assert!(apart <= Duration::from_millis(5), "{one} and {other} are {apart:?} apart");
}

/// One task, as `find` is to show it.
struct Shows<'t> {
    t: &'t Trial,
    backend: &'t Arc<dyn DelayBackend>,
    queue: &'t QueueName,
    id: TaskId,
}

impl Shows<'_> {
    async fn task(&self, state: TaskState, what: &str) -> TaskView {
        let found = self.backend.find(self.queue, &self.id).await.unwrap();
        let view = found.unwrap_or_else(|| panic!("a task that is {what} is not found"));
        assert_eq!((&view.task.id, view.state), (&self.id, state), "a task that is {what}");
        self.t.checked(1);
        view
    }

    async fn nothing(&self, when: &str) {
        let found = self.backend.find(self.queue, &self.id).await.unwrap();
        assert!(found.is_none(), "a task is found {when}: {found:?}");
        self.t.checked(1);
    }
}

/// Errors of the calls that every backend has, by the kinds that they are to have; what was scheduled holds the secret.
async fn provoked(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName) -> Vec<(ErrorKind, Error)> {
    let (max, secret) = (t.caps().delay_max, NewTask::new(Due::NOW, SECRET));
    let mut large = SECRET.repeat(t.caps().payload_bytes_max / SECRET.len() + 1);
    large.push('!');
    let refused = [
        (ErrorKind::TooLarge, NewTask::new(Due::NOW, large)),
        (ErrorKind::OutOfRange, NewTask::new(max.saturating_mul(2), SECRET)),
        (ErrorKind::Invalid, NewTask::new(HOUR, SECRET).expires(Duration::from_secs(1))),
    ];
    let mut told = Vec::new();
    for (kind, task) in refused {
        told.push((kind, t.try_put(backend, queue, task).await.expect_err("a task that can't be")));
    }
    t.put(backend, queue, secret).await;
    let mut subscription = t.subscribe(backend, queue).await;
    let held = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
    let far = t.settle(backend, queue, &held, Disposition::Snooze { after: max.saturating_mul(2) }).await;
    told.push((ErrorKind::OutOfRange, far.expect_err("a delay that can't be")));
    t.complete(backend, queue, std::slice::from_ref(&held)).await;
    let again = t.settle(backend, queue, &held, Disposition::Complete).await;
    told.push((ErrorKind::LeaseLost, again.expect_err("a lease that has ended")));
    let long = subscription.claim(delayline_core::Claim::new(1, t.caps().lease_max.saturating_mul(2))).await;
    told.push((ErrorKind::OutOfRange, long.expect_err("a lease that can't be")));
    for need in [Need::Groups, Need::Replace] {
        if need.declared(t.caps()) == delayline_core::Support::Unsupported {
            let task = NewTask::new(Due::NOW, SECRET).id(t.id("one"));
            let task = if need == Need::Groups { task.group("g".try_into().unwrap()) } else { task.replace() };
            told.push((ErrorKind::Unsupported, t.try_put(backend, queue, task).await.expect_err("what is not there")));
        }
    }
    told
}

/// The whole listing, page by page, and something done between two pages.
async fn list_all(
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    limit: usize,
    mut between: impl AsyncFnMut(usize),
) -> Vec<TaskView> {
    let mut listed: Vec<TaskView> = Vec::new();
    let mut page = backend.list(queue, Page::first(limit)).await.unwrap();
    while let Some(last) = page.last() {
        assert!(page.len() <= limit, "a page of {} tasks; {limit} were asked for", page.len());
        let next = Page::after(last, limit);
        listed.append(&mut page);
        between(listed.len()).await;
        page = backend.list(queue, next).await.unwrap();
    }
    listed
}
