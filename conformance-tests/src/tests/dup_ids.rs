//! DUP-8 to -11 and DUP-6: what an id stands for, when it is free again, and the fence that rises through all of it.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Attempts, Change, ChangeOutcome, ClaimedTask, DeadLetterOp, DeadLetterSelect, DelayBackend, Disposition, Due,
    GroupName, Headers, NewTask, QueueName, ScheduleOutcome, Select, Shift, Support, TaskRef,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::crew::{assert_stale, dead_letter, retry};
use crate::need::Need;
use crate::trial::{LONG_LEASE, Trial};

/// Through everything that makes a task be claimed again, and through ids that are used again in queues that were empty.
pub async fn dup_6_the_fence_rises_with_every_claim(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("fence"));
    let other = t.another().await;
    let mut last = 0;
    for life in 0..t.size(20, 4) {
        let client = if life % 2 == 0 { &backend } else { &other };
        t.put(client, &queue, NewTask::new(Due::NOW, "x").id(t.id("one"))).await;
        let mut subscription = t.subscribe(client, &queue).await;
        let dispositions =
            [None, Some(Disposition::Release), Some(retry(Duration::ZERO)), Some(snooze(Duration::ZERO))];
        for disposition in dispositions {
            let lease = if disposition.is_none() { t.units(1) } else { LONG_LEASE };
            let task = t.take_within(&mut subscription, 1, lease, t.patience()).await.remove(0);
            rises(&mut last, &task);
            match disposition {
                Some(disposition) => t.settle(client, &queue, &task, disposition).await.unwrap(),
                None => sleep(t.units(1)).await,
            }
        }
        let task = t.take(&mut subscription, 1).await.remove(0);
        rises(&mut last, &task);
        // With the last task and the last subscription gone, the queue is forgotten.
        end_for_good(t, client, &queue, &task).await;
        drop(subscription);
    }
}

/// A wall clock that goes back takes no fence back, whether the queue was forgotten in between or not.
pub async fn dup_6_the_fence_rises_though_the_wall_clock_goes_back(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("back"));
    let mut last = 0;
    for _ in 0..3 {
        t.put(&backend, &queue, NewTask::new(Due::NOW, "x").id(t.id("one"))).await;
        let mut subscription = t.subscribe(&backend, &queue).await;
        for _ in 0..2 {
            let task = t.take(&mut subscription, 1).await.remove(0);
            rises(&mut last, &task);
            t.settle(&backend, &queue, &task, Disposition::Release).await.unwrap();
            if !t.step_wall(Shift::Sooner(Duration::from_secs(3_600))) {
                return;
            }
        }
        let task = t.take(&mut subscription, 1).await.remove(0);
        rises(&mut last, &task);
        end_for_good(t, &backend, &queue, &task).await;
        drop(subscription);
        if !t.step_wall(Shift::Sooner(Duration::from_secs(86_400))) {
            return;
        }
    }
}

/// A replacement is another task with the same id: its fences are higher as well.
pub async fn dup_6_the_fence_rises_through_replacements(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("replaced"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut last = 0;
    for i in 0..20 {
        t.put(&backend, &queue, NewTask::new(Due::NOW, format!("{i}")).id(t.id("one")).replace()).await;
        let task = t.take(&mut subscription, 1).await.remove(0);
        assert_eq!(task.payload, format!("{i}"));
        rises(&mut last, &task);
        if i % 3 == 0 {
            end_for_good(t, &backend, &queue, &task).await;
        }
    }
    t.drain(&backend, &queue, 0).await;
}

#[track_caller]
fn rises(last: &mut u64, task: &ClaimedTask) {
    let fence = task.lease.fence;
    assert!(fence > *last, "fence {fence} after {last}, attempt {}", task.lease.attempt);
    *last = fence;
}

/// Ends a task so that its id is free at once, and nothing of it is left.
async fn end_for_good(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName, task: &ClaimedTask) {
    if t.caps().retry_window.is_zero() {
        return t.complete(backend, queue, std::slice::from_ref(task)).await;
    }
    t.settle(backend, queue, task, dead_letter("done with")).await.unwrap();
    if Need::DeadLetters.is_met(t.caps()) {
        backend.dead_letters(queue, DeadLetterOp::Purge { select: DeadLetterSelect::All }).await.unwrap();
    }
}

fn snooze(after: Duration) -> Disposition {
    Disposition::Snooze { after }
}

/// Pending, retried, in flight or under a lease that has ended: the id is in use, and what is there stays as it is.
pub async fn dup_8_an_id_that_is_there_is_not_scheduled_again(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("there"));
    let first = || NewTask::new(t.units(2), "first").id(t.id("one")).attempts_max(Attempts::new(9).unwrap());
    let second = || NewTask::new(Due::NOW, "second").id(t.id("one"));
    // Before the task runs against the clock: a client of a server may take a while to connect.
    let other = t.another().await;
    let there = t.put(&backend, &queue, first()).await;
    assert_eq!(there.outcome, ScheduleOutcome::Created);
    let exists = async |when: &str| {
        let answer = t.put(&other, &queue, second()).await;
        assert_eq!(answer.outcome, ScheduleOutcome::Existing, "{when}");
        assert_eq!(answer.id(), there.id(), "{when}: the one that is there");
    };
    exists("pending").await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    assert!(t.claim(&mut subscription, 10).await.is_empty(), "the second one would be due now");
    for attempt in 1..=3 {
        let task = t.take_within(&mut subscription, 1, t.units(1), t.patience()).await.remove(0);
        assert_eq!((&task.payload[..], task.attempts_max, task.lease.attempt), (&b"first"[..], 9, attempt));
        exists("in flight").await;
        match attempt {
            1 => t.settle(&backend, &queue, &task, retry(t.units(1))).await.unwrap(),
            _ => sleep(t.units(2)).await,
        }
        exists("retried, or under a lease that has ended").await;
    }
    let taken = t.drain(&backend, &queue, 1).await;
    assert!(matches!(taken.as_slice(), [one] if one.payload == "first"), "{taken:?}");
}

/// An id that stands several times in one batch: the first one counts.
pub async fn dup_8_an_id_that_stands_twice_in_a_batch_is_one_task(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("batch"));
    let ids = ["a", "b", "a", "c", "b", "a"];
    let tasks = ids.iter().enumerate().map(|(i, id)| NewTask::new(Due::NOW, format!("{i}")).id(t.id(id)));
    let answers = t.put_all(&backend, &queue, tasks).await;
    let outcomes: Vec<_> = answers.iter().map(|answer| (answer.id().clone(), answer.outcome)).collect();
    let (new, old) = (ScheduleOutcome::Created, ScheduleOutcome::Existing);
    let expected = ids.iter().zip([new, new, old, new, old, old]).map(|(id, outcome)| (t.id(id), outcome));
    assert_eq!(outcomes, expected.collect::<Vec<_>>());
    let mut taken: Vec<_> =
        t.drain(&backend, &queue, 3).await.into_iter().map(|task| (task.lease.id, task.payload)).collect();
    taken.sort_unstable();
    assert_eq!(taken, [("a", "0"), ("b", "1"), ("c", "3")].map(|(id, payload)| (t.id(id), payload.into())));
}

/// Of many calls for the same ids at the same time, one for each creates a task.
pub async fn dup_8_of_many_calls_for_one_id_one_creates_it(t: &Trial) {
    let (queue, ids) = (t.queue("race"), t.size(100, 30));
    let mut calls = JoinSet::new();
    for caller in 0..8 {
        let backend = if caller % 2 == 0 { t.backend() } else { t.another().await };
        let queue = queue.clone();
        let tasks: Vec<_> =
            (0..ids).map(|i| NewTask::new(Due::NOW, format!("{caller}")).id(t.id(format!("{i}")))).collect();
        calls.spawn(async move {
            let mut created = Vec::new();
            for task in tasks {
                let answer = backend.schedule(&queue, vec![task]).await.unwrap().remove(0).unwrap();
                if answer.outcome == ScheduleOutcome::Created {
                    created.push((answer.task.id, caller.to_string()));
                }
                tokio::task::yield_now().await;
            }
            created
        });
    }
    let mut created: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
    created.sort_unstable();
    assert_eq!(created.len(), ids, "one of the calls for each id creates its task");
    let text = |task: &ClaimedTask| String::from_utf8(task.payload.to_vec()).unwrap();
    let taken = t.drain(&t.backend(), &queue, ids).await;
    let mut taken: Vec<_> = taken.iter().map(|task| (task.lease.id.clone(), text(task))).collect();
    taken.sort_unstable();
    assert_eq!(taken, created, "each task is that of the call that was told `Created`");
}

/// Everything of the old task is gone, also where the new one says nothing of it.
pub async fn dup_9_a_replacement_takes_the_place_of_the_old_task(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("replaced"));
    let mut headers = Headers::new();
    headers.insert("old", "yes").unwrap();
    let groups = t.caps().groups != Support::Unsupported;
    let old = |due: Duration| {
        let task = NewTask::new(due, "old").id(t.id("one")).headers(headers.clone()).expires(due + t.units(2));
        let task = task.attempts_max(Attempts::new(2).unwrap());
        if groups { task.group(GroupName::new("old room").unwrap()) } else { task }
    };
    let new = |due: Duration| NewTask::new(due, "new").id(t.id("one")).replace();
    // Later and sooner than the old one, and where nothing is to be replaced.
    for (before, after) in [(Some(t.units(1)), t.units(4)), (Some(t.units(50)), t.units(1)), (None, t.units(1))] {
        if let Some(before) = before {
            assert_eq!(t.put(&backend, &queue, old(before)).await.outcome, ScheduleOutcome::Created);
        }
        let began = Instant::now();
        let answer = t.put(&backend, &queue, new(after)).await;
        let expected = if before.is_some() { ScheduleOutcome::Replaced } else { ScheduleOutcome::Created };
        assert_eq!((answer.id(), answer.outcome), (&t.id("one"), expected));
        let mut subscription = t.subscribe(&backend, &queue).await;
        let task = t.take(&mut subscription, 1).await.remove(0);
        assert!(began.elapsed() + t.caps().resolution >= after, "it came at the old one's time");
        assert_eq!((&task.payload[..], task.lease.attempt, task.attempts_max), (&b"new"[..], 1, 20));
        assert_eq!((task.headers.len(), &task.group, task.expires_at), (0, &None, None), "{task:?}");
        assert!(
            t.take_within(&mut subscription, 1, LONG_LEASE, t.units(3)).await.is_empty(),
            "the old one came as well"
        );
        end_for_good(t, &backend, &queue, &task).await;
    }
    if groups && Need::Cancel.is_met(t.caps()) && Need::Groups.is_met(t.caps()) {
        t.put(&backend, &queue, old(t.units(1))).await;
        t.put(&backend, &queue, new(t.units(1))).await;
        let select = Select::Group(GroupName::new("old room").unwrap());
        let cancelled = backend.change(&queue, select, Change::cancel()).await.unwrap();
        assert_eq!(cancelled.changed, 0, "the old one's group has lost its member: {cancelled:?}");
        assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1);
    }
}

/// A task that has been attempted, or is being, is replaced by one that has not.
pub async fn dup_9_a_replacement_has_all_its_attempts(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("attempts"));
    let task = |payload: &'static str| NewTask::new(Due::NOW, payload).id(t.id("one"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    t.put(&backend, &queue, task("old")).await;
    for attempt in 1..=3 {
        let held = t.take(&mut subscription, 1).await.remove(0);
        assert_eq!(held.lease.attempt, attempt);
        t.settle(&backend, &queue, &held, retry(Duration::ZERO)).await.unwrap();
    }
    assert_eq!(t.put(&backend, &queue, task("new").replace()).await.outcome, ScheduleOutcome::Replaced);
    let held = t.take(&mut subscription, 1).await.remove(0);
    assert_eq!((&held.payload[..], held.lease.attempt), (&b"new"[..], 1), "after a retry");
    assert_eq!(t.put(&backend, &queue, task("newer").replace()).await.outcome, ScheduleOutcome::Replaced);
    assert_stale(t, &backend, &queue, &held.lease).await;
    let taken = t.drain(&backend, &queue, 1).await;
    assert!(matches!(taken.as_slice(), [one] if one.payload == "newer" && one.lease.attempt == 1), "{taken:?}");
}

/// Debounce: each replacement puts the task off, and the last one runs, once.
pub async fn dup_9_a_debounced_task_runs_once_with_the_last_content(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("debounce"));
    let (presses, quiet) = (t.size(30, 10), t.units(3));
    let mut last = Instant::now();
    for i in 0..presses {
        last = Instant::now();
        t.put(&backend, &queue, NewTask::new(quiet, format!("{i}")).id(t.id("save")).replace()).await;
        sleep(t.units(1) / 4).await;
    }
    let mut subscription = t.subscribe(&t.another().await, &queue).await;
    let task = t.take(&mut subscription, 1).await.remove(0);
    assert_eq!(task.payload, format!("{}", presses - 1), "the last content");
    assert!(last.elapsed() + t.caps().resolution >= quiet, "it ran {:?} after the last change", last.elapsed());
    assert!(t.take_within(&mut subscription, 1, LONG_LEASE, quiet).await.is_empty(), "an older one came as well");
    t.complete(&backend, &queue, &[task]).await;
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// Many replace one id at the same time: one creates it, the others replace it, and one task is left.
pub async fn dup_9_of_many_replacements_at_once_one_is_left(t: &Trial) {
    let queue = t.queue("race");
    let mut calls = JoinSet::new();
    let (callers, each) = (6, t.size(100, 20));
    for caller in 0..callers {
        let backend = if caller % 2 == 0 { t.backend() } else { t.another().await };
        let (queue, id, due) = (queue.clone(), t.id("one"), t.units(2));
        calls.spawn(async move {
            let mut outcomes = Vec::new();
            for i in 0..each {
                let task = NewTask::new(due, format!("{caller}/{i}")).id(id.clone()).replace();
                outcomes.push(backend.schedule(&queue, vec![task]).await.unwrap().remove(0).unwrap().outcome);
                tokio::task::yield_now().await;
            }
            outcomes
        });
    }
    let outcomes: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
    let count = |outcome| outcomes.iter().filter(|o| **o == outcome).count();
    assert_eq!((count(ScheduleOutcome::Created), count(ScheduleOutcome::Replaced)), (1, callers * each - 1));
    let taken = t.drain(&t.backend(), &queue, 1).await;
    assert_eq!(taken.len(), 1);
    let last: Vec<_> = (0..callers).map(|caller| format!("{caller}/{}", each - 1)).collect();
    assert!(last.iter().any(|text| taken[0].payload == *text), "{:?} is nobody's last one", taken[0].payload);
}

/// What was dead-lettered, and what was completed on a backend that does not remember it.
pub async fn dup_10_an_id_is_free_after_its_task_has_ended(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("free"));
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut ends = vec![dead_letter("hopeless")];
    if t.caps().retry_window.is_zero() {
        ends.push(Disposition::Complete);
    }
    for i in 0..6 {
        let new = t.put(&backend, &queue, NewTask::new(Due::NOW, format!("{i}")).id(t.id("one"))).await;
        assert_eq!(new.outcome, ScheduleOutcome::Created, "task {i}");
        let task = t.take(&mut subscription, 1).await.remove(0);
        assert_eq!((&task.payload[..], task.lease.attempt), (format!("{i}").as_bytes(), 1));
        t.settle(&backend, &queue, &task, ends[i % ends.len()].clone()).await.unwrap();
    }
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// What was cancelled while it waited, and what was cancelled in flight: that one at once.
pub async fn dup_10_an_id_is_free_after_its_task_was_cancelled(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("cancelled"));
    let task = |payload: &str| NewTask::new(Due::NOW, payload.to_owned()).id(t.id("one"));
    let cancel = async |task: TaskRef| {
        backend.change(&queue, Select::Tasks(vec![task]), Change::cancel()).await.unwrap().outcomes.remove(0).unwrap()
    };
    let waiting = t.put(&backend, &queue, task("waiting")).await;
    assert_eq!(cancel(waiting.into()).await, ChangeOutcome::Changed);
    let mut subscription = t.subscribe(&backend, &queue).await;
    for i in 0..3 {
        let new = t.put(&backend, &queue, task(&format!("{i}"))).await;
        assert_eq!(new.outcome, ScheduleOutcome::Created, "after a cancel");
        let held = t.take(&mut subscription, 1).await.remove(0);
        assert_eq!(held.payload, format!("{i}"));
        assert_eq!(cancel(new.into()).await, ChangeOutcome::InFlight);
        let newer = t.put(&backend, &queue, task("newer")).await;
        assert_eq!(newer.outcome, ScheduleOutcome::Created, "the lease on the cancelled one does not hold its id");
        assert_stale(t, &backend, &queue, &held.lease).await;
        let held = t.take(&mut subscription, 1).await.remove(0);
        assert_eq!((&held.payload[..], held.lease.attempt), (&b"newer"[..], 1));
        end_for_good(t, &backend, &queue, &held).await;
    }
    assert!(t.drain(&backend, &queue, 0).await.is_empty());
}

/// Scheduling a completed id again is no second run within the declared window; with none it is a new task.
pub async fn dup_11_a_completed_id_is_remembered_for_the_retry_window(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("window"));
    let task = |payload: &'static str| NewTask::new(Due::NOW, payload).id(t.id("one"));
    t.put(&backend, &queue, task("first")).await;
    assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1);
    let again = t.put(&t.another().await, &queue, task("second")).await;
    if t.caps().retry_window.is_zero() {
        assert_eq!(again.outcome, ScheduleOutcome::Created, "no window is declared");
        let taken = t.drain(&backend, &queue, 1).await;
        assert!(matches!(taken.as_slice(), [one] if one.payload == "second"), "{taken:?}");
        return;
    }
    // A window that is shorter than a call may take can't be seen from here.
    if t.caps().retry_window > t.units(5) {
        assert_eq!(
            (again.outcome, again.id()),
            (ScheduleOutcome::Existing, &t.id("one")),
            "within the declared window"
        );
        assert!(t.drain(&backend, &queue, 0).await.is_empty(), "a completed task ran again");
    }
}
