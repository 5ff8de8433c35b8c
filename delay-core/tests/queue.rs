//! Scheduling, changing and looking, through the typed queue.

#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Bytes, Change, ChangeOutcome, Clock, DeadLetterSelect, ErrorKind, GroupName, OperationId, Page, Queue, Raw,
    ScheduleOutcome, Select, Shift, SystemClock, Task, TaskId, TaskRef, Timestamp, testing,
};
use delayline_memory::MemoryBackend;
use support::{DAY, Fault, Probe, SECOND, fill};

#[tokio::test(start_paused = true)]
async fn every_option_reaches_the_store() {
    let queue = Probe::new().queue("q");
    let scheduled = queue
        .schedule(&7)
        .after(DAY)
        .id("exam-7")
        .group("exam")
        .header("traceparent", "00-ab")
        .expires(2 * DAY)
        .attempts_max(3)
        .await
        .unwrap();
    assert_eq!(scheduled.outcome, ScheduleOutcome::Created);
    let view = queue.find(scheduled.id()).await.unwrap().unwrap();
    assert_eq!(view.task, scheduled.task);
    assert_eq!((view.attempts_max, view.headers.get("traceparent")), (3, Some("00-ab")));
    assert_eq!(view.group.as_ref().map(GroupName::as_str), Some("exam"));
    assert!(view.expires_at.unwrap() > view.visible_at);
    assert_eq!(queue.decode(&view.payload).unwrap(), 7);

    assert_eq!(queue.schedule(&8).id("exam-7").await.unwrap().outcome, ScheduleOutcome::Existing);
    let at: Timestamp = "2040-01-01T00:00:00Z".parse().unwrap();
    let replaced = queue.schedule(&8).id("exam-7").at(at).replace().await.unwrap();
    assert_eq!((replaced.outcome, replaced.task.due_at), (ScheduleOutcome::Replaced, Some(at)));
}

#[tokio::test]
async fn clear_6_a_wrong_option_is_reported_when_awaited_and_sends_nothing() {
    let probe = Probe::new();
    let queue = probe.queue("q");
    let e = queue.schedule(&7).id("").group("g").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    assert!(e.message().contains("task id"), "{e}");
    assert_eq!(queue.schedule(&7).attempts_max(0).await.unwrap_err().kind(), ErrorKind::OutOfRange);
    assert_eq!(queue.schedule(&7).header("a b", "").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(probe.on.schedule.calls(), 0);
    assert_eq!(Queue::<u32>::new(probe, "no spaces").unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn bound_4_many_tasks_travel_in_calls_of_batch_max_with_errors_in_their_places() {
    let probe = Probe::with(|caps| caps.batch_max = 10);
    let queue = probe.queue("q");
    let tasks = (0..25).map(|n| if n % 7 == 3 { Task::new(n).id("") } else { Task::new(n).id(format!("t{n}")) });
    let answers = queue.schedule_all(tasks).await.unwrap();
    assert_eq!(answers.len(), 25);
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(scheduled) => assert_eq!(scheduled.id().as_key(), Some(format!("t{n}").as_str())),
            Err(e) => assert!(n % 7 == 3 && e.kind() == ErrorKind::Invalid, "{n}: {e}"),
        }
    }
    assert_eq!(probe.on.schedule.batches(), [10, 10, 1], "the four that are wrong were not sent");
    assert!(queue.schedule_all([]).await.unwrap().is_empty());
}

#[tokio::test]
async fn bound_4_many_large_tasks_travel_in_calls_of_bounded_bytes() {
    let probe = Probe::new();
    let queue = Queue::<Bytes>::with_codec(probe.clone(), "q", Raw).unwrap();
    let large = Bytes::from(vec![7; 1 << 20]);
    let answers = queue.schedule_all((0..40).map(|_| Task::new(large.clone()))).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(probe.on.schedule.batches(), [15, 15, 10]);
}

#[tokio::test]
async fn when_a_call_of_many_fails_its_tasks_say_so_and_the_ones_before_are_known() {
    let probe = Probe::with(|caps| caps.batch_max = 2);
    let queue = probe.queue("q");
    probe.on.schedule.plan([Fault::Fail(ErrorKind::Unavailable)]);
    assert_eq!(queue.schedule_all((0..3).map(Task::new)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(queue.stats().await.unwrap().due, 0, "an outer error means that nothing took effect");

    let gate = Arc::new(tokio::sync::Semaphore::new(1));
    probe.on.schedule.plan([Fault::Gate(gate), Fault::Lost(ErrorKind::Ambiguous)]);
    let answers = queue.schedule_all((0..7).map(|n| Task::new(n).attempts_max(u32::from(n != 6)))).await.unwrap();
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(|e| e.kind())).collect();
    let unknown = Some(ErrorKind::Ambiguous);
    assert_eq!(kinds, [None, None, unknown, unknown, unknown, unknown, Some(ErrorKind::OutOfRange)]);
    assert_eq!(probe.on.schedule.batches(), [2, 2, 2], "the third call of the second time was not made");
}

#[tokio::test(start_paused = true)]
async fn cancel_1_one_task_and_a_group_are_changed_with_definite_answers() {
    let queue = Probe::new().queue("q");
    let one = queue.schedule(&1).after(DAY).await.unwrap();
    assert_eq!(queue.shift(&one, Shift::Later(SECOND)).await.unwrap(), ChangeOutcome::Changed);
    assert_eq!(queue.move_to(&one, 2 * DAY).await.unwrap(), ChangeOutcome::Changed);
    assert_eq!(queue.cancel(&one).await.unwrap(), ChangeOutcome::Changed);
    assert_eq!(queue.cancel(one).await.unwrap(), ChangeOutcome::NotFound);
    assert_eq!(queue.cancel(TaskId::new("never").unwrap()).await.unwrap(), ChangeOutcome::NotFound);

    let group = GroupName::new("exam").unwrap();
    let tasks = (0..10).map(|n| Task::new(n).after(DAY).group(&group));
    queue.schedule_all(tasks).await.unwrap();
    assert_eq!(queue.shift_group(&group, Shift::Sooner(SECOND)).await.unwrap().changed, 10);
    let operation = OperationId::random();
    for _ in 0..2 {
        let later = Change::shift(Shift::Later(DAY)).operation(operation);
        assert_eq!(queue.change(Select::Group(group.clone()), later).await.unwrap().changed, 10);
    }
    let day_and_a_bit = testing::scheduled(&queue).await.unwrap();
    assert!(day_and_a_bit.iter().all(|(view, _)| {
        let due_in = view.visible_at.saturating_since(day_and_a_bit[0].0.visible_at);
        due_in < SECOND
    }));
    assert_eq!(queue.move_group(&group, Duration::ZERO).await.unwrap().changed, 10);
    assert_eq!(queue.stats().await.unwrap().due, 10);
    assert_eq!(queue.cancel_group(&group).await.unwrap().changed, 10);
    assert!(queue.list(Page::first(1)).await.unwrap().is_empty());
}

/// Far in the future, and how to name them.
async fn far_tasks(queue: &Queue<u32>, numbers: std::ops::Range<u32>) -> Vec<TaskRef> {
    let tasks = numbers.map(|n| Task::new(n).after(100 * DAY).id(format!("t{n}")));
    queue.schedule_all(tasks).await.unwrap().into_iter().map(|scheduled| scheduled.unwrap().into()).collect()
}

async fn days(queue: &Queue<u32>) -> Vec<u64> {
    let all = queue.list(Page::first(100)).await.unwrap();
    let now = SystemClock::new().wall();
    all.iter().map(|view| (view.visible_at.saturating_since(now).as_secs() + 60) / DAY.as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn bound_4_many_tasks_are_changed_in_calls_of_batch_max_with_answers_in_their_places() {
    let probe = Probe::with(|caps| caps.batch_max = 10);
    let queue = probe.queue("q");
    let mut tasks = far_tasks(&queue, 0..25).await;
    queue.cancel(&tasks[13].id).await.unwrap();
    tasks.push(TaskId::new("never").unwrap().into());
    let later = Change::shift(Shift::Later(DAY));
    let changed = queue.change(Select::Tasks(tasks.clone()), later.clone()).await.unwrap();
    assert_eq!((changed.changed, changed.not_found, changed.refused), (24, 2, 0));
    let gone: Vec<_> = changed.outcomes.iter().map(|o| *o.as_ref().unwrap() == ChangeOutcome::NotFound).collect();
    assert_eq!(gone, (0..26).map(|n| n == 13 || n == 25).collect::<Vec<_>>());
    assert_eq!(probe.on.change.batches(), [1, 10, 10, 6]);

    // What a call takes is one, also nothing; and a task that is refused is refused alone.
    for few in [0, 10] {
        queue.change(Select::Tasks(tasks[..few].to_vec()), later.clone()).await.unwrap();
    }
    assert_eq!(probe.on.change.batches()[4..], [0, 10]);
    queue.move_to(tasks[24].clone(), 12_500 * DAY).await.unwrap();
    let changed = queue.change(Select::Tasks(tasks), Change::shift(Shift::Later(600 * DAY))).await.unwrap();
    assert_eq!((changed.changed, changed.refused), (23, 1));
    assert_eq!(changed.outcomes[24].as_ref().unwrap_err().kind(), ErrorKind::OutOfRange);
    assert_eq!(changed.first_refusal.unwrap().kind(), ErrorKind::OutOfRange);
}

#[tokio::test(start_paused = true)]
async fn when_a_later_call_of_a_change_fails_its_tasks_say_so_and_no_more_are_sent() {
    let probe = Probe::with(|caps| caps.batch_max = 2);
    let queue = probe.queue("q");
    let tasks = far_tasks(&queue, 0..7).await;
    let change = || queue.change(Select::Tasks(tasks.clone()), Change::shift(Shift::Later(DAY)));
    probe.on.change.plan([Fault::Fail(ErrorKind::Unavailable)]);
    assert_eq!(change().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(days(&queue).await, [100; 7], "an outer error of the first call, which had no effect");

    let open = Arc::new(tokio::sync::Semaphore::new(1));
    probe.on.change.plan([Fault::Gate(open), Fault::Lost(ErrorKind::Ambiguous)]);
    let changed = change().await.unwrap();
    let kinds: Vec<_> = changed.outcomes.iter().map(|a| a.as_ref().err().map(|e| e.kind())).collect();
    let unknown = Some(ErrorKind::Ambiguous);
    assert_eq!(kinds, [None, None, unknown, unknown, unknown, unknown, unknown]);
    assert_eq!((changed.changed, changed.refused), (2, 5));
    assert_eq!(probe.on.change.batches(), [2, 2, 2], "of the second time, two calls of four were made");
}

#[tokio::test(start_paused = true)]
async fn cancel_7_a_change_of_many_calls_goes_on_under_its_id_and_changes_no_task_twice() {
    let probe = Probe::with(|caps| caps.batch_max = 2);
    let queue = probe.queue("q");
    let tasks = far_tasks(&queue, 0..7).await;
    let operation = OperationId::random();
    let change = |tasks: &[TaskRef]| {
        let later = Change::shift(Shift::Later(DAY)).operation(operation);
        queue.change(Select::Tasks(tasks.to_vec()), later)
    };
    let open = Arc::new(tokio::sync::Semaphore::new(2));
    probe.on.change.plan([Fault::Gate(open.clone()), Fault::Gate(open), Fault::Lost(ErrorKind::Ambiguous)]);
    assert_eq!(change(&tasks).await.unwrap().changed, 4);
    assert_eq!(days(&queue).await, [100, 101, 101, 101, 101, 101, 101], "the third call's answer was lost");
    for _ in 0..2 {
        let changed = change(&tasks).await.unwrap();
        assert_eq!((changed.changed, changed.outcomes.len()), (7, 7), "it answers for the whole");
        assert_eq!(days(&queue).await, [101; 7]);
    }
    // With other tasks the id is refused: at once where the first call's differ, later for those of a later one.
    let mut others = tasks.clone();
    others.swap(0, 6);
    assert_eq!(change(&others).await.unwrap_err().kind(), ErrorKind::Invalid);
    let mut others = tasks.clone();
    others.swap(3, 6);
    let changed = change(&others).await.unwrap();
    assert_eq!((changed.changed, changed.refused, changed.first_refusal.unwrap().kind()), (2, 5, ErrorKind::Invalid));
    assert_eq!(days(&queue).await, [101; 7]);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_shown_redriven_and_purged() {
    let queue = Probe::new().queue("q");
    fill(&queue, 0..3).await;
    let mut consumer = queue.consumer().open().await.unwrap();
    for delivery in consumer.next_batch(10).await.unwrap() {
        delivery.dead_letter("no such exam").await.unwrap();
    }
    let dead = queue.dead_letters(None, 10).await.unwrap().letters;
    assert_eq!(dead.iter().map(|d| queue.decode(&d.payload).unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(dead[0].reason.as_str(), "no such exam");
    let redriven = queue.redrive(DeadLetterSelect::Ids(vec![dead[1].id.clone()]), None).await.unwrap();
    assert_eq!(redriven.affected, 1);
    assert_eq!(*consumer.next().await.unwrap().payload(), 1);
    assert_eq!(queue.purge(DeadLetterSelect::All).await.unwrap().affected, 2);
}

#[tokio::test(start_paused = true)]
async fn pause_resume_delete_reach_the_queue() {
    let queue = Probe::new().queue("q");
    fill(&queue, 0..3).await;
    let mut consumer = queue.consumer().open().await.unwrap();
    queue.pause().await.unwrap();
    assert!(consumer.try_next_batch(3).await.unwrap().is_empty());
    queue.resume().await.unwrap();
    assert_eq!(consumer.try_next_batch(1).await.unwrap().len(), 1);
    queue.delete().await.unwrap();
    assert_eq!(queue.stats().await.unwrap().due, 0);
}

#[tokio::test(start_paused = true)]
async fn test_helpers_run_what_is_due_and_see_what_is_not() {
    let queue = Queue::<u32>::new(Arc::new(MemoryBackend::new()), "q").unwrap();
    queue.schedule(&1).await.unwrap();
    queue.schedule(&2).after(30 * DAY).group("later").await.unwrap();
    let view = testing::assert_scheduled(&queue, |view, n| *n == 2 && view.group.is_some()).await;
    assert!(queue.find(&view.task.id).await.unwrap().is_some());
    testing::assert_not_scheduled(&queue, |_, n| *n == 3).await;

    let mut seen = Vec::new();
    let run = testing::drain(&queue, |n| {
        seen.push(n);
        let queue = queue.clone();
        async move { if n < 5 { queue.schedule(&(n + 1)).await.map(|_| ()) } else { Ok(()) } }
    });
    assert_eq!(run.await.unwrap(), 5, "what becomes due on the way is run too");
    assert_eq!(seen, [1, 2, 3, 4, 5]);

    queue.delete().await.unwrap();
    queue.schedule(&2).after(30 * DAY).await.unwrap();
    assert_eq!(testing::drain(&queue, |_| async {}).await.unwrap(), 0);
    assert_eq!(testing::drain_for(&queue, 29 * DAY, |_| async {}).await.unwrap(), 0);
    assert_eq!(testing::drain_for(&queue, DAY, |_| async { Err::<(), _>("again") }).await.unwrap(), 1);
    testing::assert_scheduled(&queue, |view, _| view.attempt == 1).await;
}

#[tokio::test]
#[should_panic(expected = "expected a matching task in `q`; tasks found: 1")]
async fn a_test_helper_shows_what_is_there_instead() {
    let queue = Probe::new().queue("q");
    fill(&queue, [7]).await;
    testing::assert_scheduled(&queue, |_, n| *n == 8).await;
}

#[tokio::test]
async fn clear_4_debug_shows_no_payload() {
    let queue = Queue::<String>::new(Probe::new(), "q").unwrap();
    let secret = "hunter2".to_string();
    let schedule = format!("{:?}", queue.schedule(&secret).header("token", "hunter2"));
    let task = format!("{:?}", Task::new(secret.clone()).header("token", "hunter2"));
    queue.schedule(&secret).header("token", "hunter2").await.unwrap();
    let delivery = queue.consumer().open().await.unwrap().next().await.unwrap();
    for shown in [schedule, task, format!("{queue:?}"), format!("{delivery:?}")] {
        assert!(!shown.contains("hunter2") && shown.contains(['q', 'd']), "{shown}");
    }
}
