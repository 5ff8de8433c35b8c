//! TIME: never early, late only as declared.

mod range;
mod takes;

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Change, Claim, DeadLetterCause, DeadLetterOp, DelayBackend, Disposition, Due, ErrorKind, NewTask, QueueName,
    Select, Shift, Subscription, TaskRef, Timestamp,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use self::range::*;
use self::takes::{claim_all, late_max, take_after};
use super::order::{number_of, numbered, numbered_one};
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

const HOUR: Duration = Duration::from_secs(3600);

pub async fn time_1_a_task_is_never_delivered_early(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("mixed"));
    let mut rng = t.rng();
    let unit_us = t.units(1).as_micros() as u64;
    let (began, wall) = (Instant::now(), t.wall());
    let delays: Vec<Duration> =
        (0..t.size(3_000, 300)).map(|_| Duration::from_micros(rng.u64(0..20 * unit_us))).collect();
    let due = |i: usize| match i % 3 {
        0 => Due::At(wall.saturating_add(delays[i])),
        _ => Due::After(delays[i]),
    };
    t.put_all(&backend, &queue, (0..delays.len()).map(|i| numbered_one(i, due(i)))).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut came = 0;
    while came < delays.len() {
        let some = t.take_some(&mut subscription, 100, LONG_LEASE, t.patience()).await;
        assert!(!some.is_empty(), "{came} of {} tasks have come", delays.len());
        // Read after the claim, so that only a task that was early looks early.
        let (elapsed, wall_now) = (began.elapsed(), t.wall());
        for task in &some {
            let i = number_of(task);
            match due(i) {
                Due::At(at) => assert!(wall_now >= at, "a task due at {at} came at {wall_now}"),
                Due::After(delay) => assert!(elapsed >= delay, "a task due after {delay:?} came after {elapsed:?}"),
                _ => unreachable!("one that the suite does not know"),
            }
        }
        t.complete(&backend, &queue, &some).await;
        came += some.len();
    }
    t.history().drained(&queue);
}

pub async fn time_3_an_instant_is_compared_with_the_wall_clock_again_at_every_delivery(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("wall"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    t.put(&backend, &queue, NewTask::new(t.wall().saturating_add(HOUR), "in an hour")).await;
    assert!(t.claim(&mut subscription, 1).await.is_empty(), "a task came an hour early");
    if !t.step_wall(Shift::Later(HOUR)) {
        return;
    }
    let forward = t.take(&mut subscription, 1).await;
    assert_eq!(forward.len(), 1, "a wall clock that was set forward makes its task due");
    t.complete(&backend, &queue, &forward).await;

    t.put(&backend, &queue, NewTask::new(t.wall().saturating_add(t.units(2)), "soon")).await;
    assert!(t.step_wall(Shift::Sooner(HOUR)));
    tokio::time::sleep(t.units(4)).await;
    assert!(t.claim(&mut subscription, 1).await.is_empty(), "a wall clock that was set back holds its task back");
    assert!(t.step_wall(Shift::Later(HOUR)));
    drop(subscription);
    assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1, "what was held back comes when its time has come");
}

pub async fn time_4_times_are_kept_in_whole_milliseconds_rounded_up(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("rounding"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let micro = Duration::from_micros(1);
    let whole = |at: Timestamp, what: &str| assert_eq!(at.unix_micros() % 1000, 0, "{what} is {at}");
    for odd in [Duration::from_nanos(1), micro, 999 * micro, 1_001 * micro, Duration::from_nanos(1_999_999)] {
        let wall = t.wall().saturating_add(2 * micro);
        let began = Instant::now();
        let scheduled = t.put(&backend, &queue, NewTask::new(odd, "after")).await;
        scheduled.task.due_at.iter().for_each(|at| whole(*at, "a due time after a delay"));
        let first = take_after(t, &mut subscription, began, odd).await;
        whole(first.due_at, "a task's due time");
        whole(first.lease.expires_at, "a lease's end");

        let began = Instant::now();
        let retry = Disposition::Retry { after: odd, reason: "odd".into() };
        t.settle(&backend, &queue, &first, retry).await.unwrap();
        let again = take_after(t, &mut subscription, began, odd).await;
        whole(again.due_at, "a retry's due time");
        t.complete(&backend, &queue, &[again]).await;

        let at = wall.saturating_add(odd + t.units(1));
        let scheduled = t.put(&backend, &queue, NewTask::new(at, "at")).await;
        let rounded_up = Timestamp::from_unix_millis(at.unix_millis_ceil());
        assert_eq!(scheduled.task.due_at.unwrap_or(rounded_up), rounded_up, "{at} was not rounded up");
        let wall_task = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
        assert_eq!(wall_task.due_at, rounded_up, "{at} was not rounded up");
        t.complete(&backend, &queue, &[wall_task]).await;
    }
}

pub async fn time_4_no_delay_is_due_at_once(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("zero"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    for _ in 0..t.size(20, 5) {
        let began = Instant::now();
        t.put(&backend, &queue, NewTask::new(Due::NOW, "now")).await;
        let first = take_after(t, &mut subscription, began, Duration::ZERO).await;
        let began = Instant::now();
        t.settle(&backend, &queue, &first, Disposition::Snooze { after: Duration::ZERO }).await.unwrap();
        let again = take_after(t, &mut subscription, began, Duration::ZERO).await;
        t.complete(&backend, &queue, &[again]).await;
        tokio::time::sleep(Duration::from_micros(1_300)).await;
    }
}

pub async fn time_5_a_batch_is_accepted_at_one_instant(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("batch"));
    // Large, so that one task accepted at a time of its own shows in milliseconds.
    let tasks = t.caps().batch_max.min(20_000);
    let batch = numbered(0..tasks, Due::After(t.units(1))).collect();
    let scheduled = backend.schedule(&queue, batch).await.unwrap();
    let due: Vec<Timestamp> = scheduled.into_iter().filter_map(|one| one.unwrap().task.due_at).collect();
    let apart = |due: &[Timestamp]| {
        let first = due.iter().min().copied().unwrap_or_default();
        due.iter().max().copied().unwrap_or_default().saturating_since(first)
    };
    assert_eq!(apart(&due), Duration::ZERO, "{tasks} tasks of one call are due at different times");
    let taken = t.drain(&backend, &queue, tasks).await;
    assert_eq!(taken.len(), tasks);
    // Shown on a wall clock that may be disciplined between two claims.
    let due: Vec<Timestamp> = taken.iter().map(|task| task.due_at).collect();
    assert!(apart(&due) <= Duration::from_millis(5), "tasks of one call came due {:?} apart", apart(&due));
}

pub async fn time_5_a_step_of_the_wall_clock_touches_no_delay_and_no_lease(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("monotonic"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let wait = t.units(3);
    for step in [Shift::Later(HOUR), Shift::Sooner(2 * HOUR), Shift::Later(HOUR)] {
        let began = Instant::now();
        t.put(&backend, &queue, NewTask::new(wait, "scheduled")).await;
        if !t.step_wall(step) {
            return;
        }
        let task = take_after(t, &mut subscription, began, wait).await;

        let began = Instant::now();
        t.settle(&backend, &queue, &task, Disposition::Retry { after: wait, reason: "later".into() }).await.unwrap();
        assert!(t.step_wall(step));
        let task = take_after(t, &mut subscription, began, wait).await;

        t.settle(&backend, &queue, &task, Disposition::Release).await.unwrap();
        let began = Instant::now();
        let left = t.take_within(&mut subscription, 1, wait, t.patience()).await;
        assert_eq!(left.len(), 1, "a released task comes again");
        assert!(t.step_wall(step));
        let task = take_after(t, &mut subscription, began, wait).await;
        t.complete(&backend, &queue, &[task]).await;
    }
}

pub async fn time_6_a_due_time_in_the_past_is_due_at_once(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("past"));
    let wall = t.wall();
    let past = [
        wall.saturating_sub(Duration::from_millis(1)),
        wall.saturating_sub(Duration::from_secs(365 * 86_400)),
        Timestamp::UNIX_EPOCH,
        Timestamp::from_unix_millis(-1),
        Timestamp::from_unix_micros(i64::MIN),
        wall,
    ];
    let began = Instant::now();
    t.put_all(&backend, &queue, past.iter().enumerate().map(|(i, at)| numbered_one(i, *at))).await;
    let taken = t.drain(&backend, &queue, past.len()).await;
    let mut came: Vec<usize> = taken.iter().map(number_of).collect();
    came.sort_unstable();
    assert_eq!(came, (0..past.len()).collect::<Vec<_>>());
    let elapsed = began.elapsed();
    assert!(!t.is_virtual() || elapsed <= late_max(t), "what was due in the past came after {elapsed:?}");
}

pub async fn time_7_a_waiting_consumer_gets_a_task_within_the_declared_lateness(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("waiting"));
    let mut rng = t.rng();
    let spread_us = t.units(if t.is_virtual() { 40 } else { 12 }).as_micros() as u64;
    let delays: Vec<Duration> = (0..200).map(|_| t.units(1) + Duration::from_micros(rng.u64(0..spread_us))).collect();
    let (waits, waiting) = oneshot::channel();
    let subscription = t.subscribe(&backend, &queue).await;
    let (fallback_poll_interval, lease) = (t.caps().fallback_poll_interval, LONG_LEASE.min(t.caps().lease_max));
    let consumer =
        Waiting { backend: backend.clone(), queue: queue.clone(), subscription, fallback_poll_interval, lease };
    let consumer = tokio::spawn(tokio::time::timeout(t.patience(), consumer.run(delays.len(), waits)));
    waiting.await.expect("a consumer that waits");

    let tasks = delays.iter().enumerate().map(|(i, delay)| numbered_one(i, *delay));
    t.put_all(&backend, &queue, tasks).await;
    // All were accepted by now, so that nothing looks later than it is.
    let accepted = Instant::now();
    let due: Vec<Instant> = delays.iter().map(|delay| accepted + *delay).collect();
    let bare = tokio::spawn(bare_sleeps(due.clone()));
    let came = consumer.await.expect("the consumer").expect("every task comes while a consumer waits");
    let late: Vec<Duration> = came.iter().map(|(i, at)| at.saturating_duration_since(due[*i])).collect();
    if t.is_virtual() {
        let worst = late.iter().max().copied().unwrap_or_default();
        assert!(worst <= late_max(t), "a task came {worst:?} late to a waiting consumer");
    } else {
        let (ours, bare) = (median(late), median(bare.await.expect("bare sleeps")));
        // On a busy machine both are late; only what polls or has lost its waking is later by that much.
        let allowed = bare + late_max(t) + Duration::from_millis(100);
        assert!(ours <= allowed, "tasks came {ours:?} late in the median, bare sleeps {bare:?}");
    }
    t.history().drained(&queue);
}

pub async fn time_8_an_expired_task_is_dead_lettered_and_never_delivered(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("expiry"));
    for (i, lasts) in [t.units(1), t.units(1) + HOUR].into_iter().enumerate() {
        // The clock is read when the queue is there, which may have taken its time: what has expired before it is due is
        // refused.
        t.put(&backend, &queue, numbered_one(2 * i, Due::NOW).expires(lasts)).await;
        let at = Due::At(t.wall().saturating_add(lasts));
        t.put(&backend, &queue, numbered_one(2 * i + 1, Due::NOW).expires(at)).await;
    }
    tokio::time::sleep(t.units(3)).await;
    if Need::Stats.is_met(t.caps()) {
        let stats = backend.stats(&queue).await.unwrap();
        assert_eq!((stats.due, stats.dead), (4, 0), "until a claim meets it, an expired task counts as due");
    }
    let mut subscription = t.subscribe(&backend, &queue).await;
    let (taken, dead_lettered) = claim_all(t, &backend, &queue, &mut subscription).await;
    let mut came: Vec<usize> = taken.iter().map(number_of).collect();
    came.sort_unstable();
    assert_eq!((came, dead_lettered), (vec![2, 3], 2), "(what was delivered, how many the claims dead-lettered)");
    assert_dead_lettered(t, &backend, &queue).await;
    t.history().drained(&queue);
}

pub async fn time_8_the_expiry_is_the_last_moment_of_a_delivery(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("moment"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let lasts = t.units(4);
    for by_wall in [false, true] {
        let (began, wall) = (Instant::now(), t.wall());
        // To the millisecond where nothing but waiting takes time; which is rounded where the clock stands within one.
        let rounded = if wall.unix_micros() % 1_000 == 0 { Duration::ZERO } else { t.caps().resolution };
        let (before, behind) = match t.is_virtual() {
            true => (Duration::ZERO, Duration::from_millis(1) + rounded),
            false => (t.units(3), t.units(1)),
        };
        let expires = if by_wall { Due::At(wall.saturating_add(lasts)) } else { Due::After(lasts) };
        t.put_all(&backend, &queue, (0..2).map(|i| numbered_one(i, Due::NOW).expires(expires))).await;
        let accepted = Instant::now();
        tokio::time::sleep_until(began + (lasts - before)).await;
        let last = t.take_within(&mut subscription, 1, LONG_LEASE, before / 2).await;
        // A machine that slept through the moment proves nothing.
        assert!(last.len() == 1 || began.elapsed() > lasts, "a task came no more before its expiry had passed");
        t.complete(&backend, &queue, &last).await;
        tokio::time::sleep_until(accepted + lasts + behind).await;
        let (beyond, dead_lettered) = claim_all(t, &backend, &queue, &mut subscription).await;
        assert!(beyond.is_empty(), "a task was delivered after its expiry");
        assert!(
            !t.is_virtual() || dead_lettered == 1,
            "a claim that meets an expired task dead-letters it, and counts it"
        );
    }
    assert_dead_lettered(t, &backend, &queue).await;
}

pub async fn time_9_an_expiry_before_the_due_time_is_invalid(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("expiry"));
    let wall = t.wall();
    let (soon, late) = (t.units(2), t.units(2) + HOUR);
    let task = |due: Due, expires: Due| NewTask::new(due, "x").expires(expires);
    let (soon_at, late_at) = (wall.saturating_add(soon), wall.saturating_add(late));
    let impossible = [
        task(late.into(), soon.into()),
        task(late_at.into(), soon_at.into()),
        task(late.into(), soon_at.into()),
        task(late_at.into(), soon.into()),
        task(Due::At(soon_at), Due::At(wall.saturating_sub(HOUR))),
        task(Duration::from_millis(2).into(), Duration::from_millis(1).into()),
    ];
    let possible =
        [task(soon.into(), soon.into()), task(soon_at.into(), soon_at.into()), task(soon.into(), late_at.into())];
    let (refused, accepted) = (impossible.len(), possible.len());
    let batch = impossible.into_iter().chain(possible).collect();
    let answers = backend.schedule(&queue, batch).await.unwrap();
    for (i, answer) in answers.iter().enumerate() {
        match answer {
            Err(e) => assert!(i < refused && e.kind() == ErrorKind::Invalid, "task {i}: {e}"),
            Ok(_) => assert!(i >= refused, "task {i}, which expires before it is due, was accepted"),
        }
    }
    // Those that expire at the moment at which they are due may be too late already.
    tokio::time::sleep(soon + t.units(1)).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let (taken, dead_lettered) = claim_all(t, &backend, &queue, &mut subscription).await;
    assert_eq!(taken.len() as u64 + dead_lettered, accepted as u64, "what was refused is not there");
    t.history().drained(&queue);
}

pub async fn time_9_a_retry_or_snooze_beyond_the_expiry_is_dead_lettered_when_it_is_met(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("beyond"));
    let tasks = (0..2).map(|i| numbered_one(i, Due::NOW).expires(t.units(5)));
    t.put_all(&backend, &queue, tasks).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let held = t.take(&mut subscription, 2).await;
    let after = t.units(10);
    let dispositions = [Disposition::Retry { after, reason: "later".into() }, Disposition::Snooze { after }];
    for (task, disposition) in held.iter().zip(dispositions) {
        t.settle(&backend, &queue, task, disposition).await.expect("a disposition that goes beyond the expiry");
    }
    tokio::time::sleep(after + t.units(1)).await;
    let (taken, dead_lettered) = claim_all(t, &backend, &queue, &mut subscription).await;
    assert_eq!(
        (taken.len(), dead_lettered),
        (0, 2),
        "(delivered, dead-lettered) of two tasks that came back after their expiry"
    );
    assert_dead_lettered(t, &backend, &queue).await;
    t.history().drained(&queue);
}

pub async fn time_9_a_task_moved_beyond_its_expiry_is_dead_lettered_when_it_is_met(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("moved"));
    let tasks = (0..2).map(|i| numbered_one(i, t.units(2)).expires(t.units(3)));
    let scheduled = t.put_all(&backend, &queue, tasks).await;
    let changes = [Change::move_to(t.units(8)), Change::shift(Shift::Later(t.units(6)))];
    for (one, change) in scheduled.iter().zip(changes) {
        let changed = backend.change(&queue, Select::Tasks(vec![TaskRef::from(one)]), change).await.unwrap();
        assert_eq!(changed.changed, 1, "a move beyond the expiry: {changed:?}");
    }
    tokio::time::sleep(t.units(9)).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let (taken, dead_lettered) = claim_all(t, &backend, &queue, &mut subscription).await;
    assert_eq!(
        (taken.len(), dead_lettered),
        (0, 2),
        "(delivered, dead-lettered) of two tasks moved beyond their expiry"
    );
    assert_dead_lettered(t, &backend, &queue).await;
    t.history().drained(&queue);
}

/// Checks that the dead letters, where they can be seen, are there because they had expired.
async fn assert_dead_lettered(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName) {
    if Need::DeadLetters.is_met(t.caps()) {
        let list = DeadLetterOp::List { after: None, limit: 10 };
        let letters = backend.dead_letters(queue, list).await.unwrap().letters;
        assert!(
            !letters.is_empty() && letters.iter().all(|letter| letter.cause == DeadLetterCause::Expired),
            "{letters:?}"
        );
    }
}

/// A consumer in a task of its own.
struct Waiting {
    backend: Arc<dyn DelayBackend>,
    queue: QueueName,
    subscription: Box<dyn Subscription>,
    fallback_poll_interval: Duration,
    lease: Duration,
}

impl Waiting {
    /// Claims and waits until `n` tasks have come: their numbers, and when each came. Tells when it waits for the first
    /// time.
    async fn run(mut self, n: usize, waits: oneshot::Sender<()>) -> Vec<(usize, Instant)> {
        let (mut waits, mut came) = (Some(waits), Vec::new());
        while came.len() < n {
            let claimed = self.subscription.claim(Claim::new(16, self.lease)).await.expect("a claim");
            let now = Instant::now();
            came.extend(claimed.deliveries.iter().map(|task| (number_of(task), now)));
            if claimed.deliveries.is_empty() {
                waits.take().map(|waits| waits.send(()));
                self.subscription
                    .wait(claimed.next_due_in.unwrap_or(self.fallback_poll_interval).min(self.fallback_poll_interval))
                    .await;
                continue;
            }
            let dispositions = claimed.deliveries.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
            self.backend.settle(&self.queue, dispositions).await.expect("an answer to settle");
        }
        came
    }
}

/// How late tokio itself wakes at these instants, on this machine, now.
async fn bare_sleeps(mut instants: Vec<Instant>) -> Vec<Duration> {
    instants.sort_unstable();
    let mut late = Vec::with_capacity(instants.len());
    for instant in instants {
        tokio::time::sleep_until(instant).await;
        late.push(instant.elapsed());
    }
    late
}

fn median(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of[of.len() / 2]
}
