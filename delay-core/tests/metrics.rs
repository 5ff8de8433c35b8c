//! What is counted, on the memory backend. Recorded for this thread alone, so that nothing else is counted.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    CancellationToken, Context, ErrorKind, GroupName, HandlerOutcome, Queue, Shift, Task, Worker, meter,
};
use delayline_memory::MemoryBackend;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Runs it on one thread, with a recorder of its own.
fn recorded(work: impl Future<Output = ()>) -> PrometheusHandle {
    let name = Matcher::Full("delayline_lateness_seconds".into());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(name, &[0.001, 1.0, 60.0]).unwrap();
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(work));
    handle
}

/// The value of a metric with these labels; 0 where there is none.
fn value(handle: &PrometheusHandle, name: &str) -> f64 {
    let text = handle.render();
    let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(of).unwrap_or_default()
}

fn queue(name: &str) -> Queue<u32> {
    Queue::new(Arc::new(MemoryBackend::new()), name).unwrap()
}

#[test]
fn what_becomes_of_tasks_is_counted_once() {
    let handle = recorded(async {
        let queue = queue("exam");
        meter::begin(queue.name());
        let second = Duration::from_secs(1);
        let tasks = (0..10).map(|n| Task::new(n).after(second).id(n.to_string()).attempts_max(2));
        queue.schedule_all(tasks).await.unwrap();
        // One that is there already is not accepted again.
        queue.schedule(&0).id("0").await.unwrap();
        queue.schedule(&10).after(second).group("g").await.unwrap();
        queue.shift_group(&GroupName::new("g").unwrap(), Shift::Later(second)).await.unwrap();
        queue.cancel_group(&GroupName::new("g").unwrap()).await.unwrap();
        let stop = CancellationToken::new();
        let handler = move |n: u32, context: Context| async move {
            match n {
                // Twice, so that its attempts are used up.
                0 => HandlerOutcome::retry_after(Duration::from_secs(2), "no"),
                1 => HandlerOutcome::dead_letter("never"),
                2 if context.attempt() == 1 => HandlerOutcome::retry_after(Duration::from_secs(2), "later"),
                _ => HandlerOutcome::Complete,
            }
        };
        let worker = Worker::builder().queue(&queue, handler).until_empty(true).shutdown(stop).build().unwrap();
        worker.run().await.unwrap();
        queue.schedule(&99).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        queue.stats().await.unwrap();
    });
    for (name, expected) in [
        ("scheduled_total", 12.0),
        ("delivered_total", 12.0),
        ("completed_total", 8.0),
        ("retried_total", 2.0),
        ("buried_total", 2.0),
        ("cancelled_total", 1.0),
        ("moved_total", 1.0),
        ("lease_lost_total", 0.0),
        ("lateness_seconds_count", 12.0),
        ("in_flight", 0.0),
        ("queue_due", 1.0),
        ("queue_dead", 2.0),
    ] {
        let name = format!("delayline_{name}{{queue=\"exam\"}}");
        assert_eq!(value(&handle, &name), expected, "{name} in\n{}", handle.render());
    }
    let oldest = value(&handle, "delayline_oldest_overdue_seconds{queue=\"exam\"}");
    assert!((4.9..60.0).contains(&oldest), "{oldest}");
}

#[test]
fn a_consumers_tasks_are_in_flight_until_they_are_settled_and_a_late_disposition_is_counted() {
    let handle = recorded(async {
        let queue = queue("pull");
        for n in 0..3 {
            queue.schedule(&n).await.unwrap();
        }
        let lease = Duration::from_secs(1);
        let mut consumer = queue.consumer().lease(lease).open().await.unwrap();
        let mut held = consumer.next_batch(3).await.unwrap();
        held.pop().unwrap().snooze(Duration::from_secs(3600)).await.unwrap();
        held.pop().unwrap().release().await.unwrap();
        let late = held.pop().unwrap();
        tokio::time::sleep(lease * 2).await;
        let again = consumer.next_batch(2).await.unwrap();
        let lost = late.complete().await.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::LeaseLost);
        // These stay in flight.
        std::mem::forget(again);
    });
    for (name, expected) in [
        ("delivered_total", 5.0),
        ("snoozed_total", 1.0),
        ("released_total", 1.0),
        ("lease_lost_total", 1.0),
        ("in_flight", 2.0),
    ] {
        let name = format!("delayline_{name}{{queue=\"pull\"}}");
        assert_eq!(value(&handle, &name), expected, "{name} in\n{}", handle.render());
    }
    let late = |upper: &str| format!("delayline_lateness_seconds_bucket{{queue=\"pull\",le=\"{upper}\"}}");
    assert_eq!((value(&handle, &late("0.001")), value(&handle, &late("60"))), (3.0, 5.0), "from the due time");
}

#[test]
fn what_only_a_backend_sees_is_counted_by_its_name() {
    let handle = recorded(async {
        meter::describe();
        meter::round_trip("redis");
        meter::round_trip("redis");
        meter::reconnected("redis");
    });
    assert_eq!(value(&handle, "delayline_round_trips_total{backend=\"redis\"}"), 2.0);
    assert_eq!(value(&handle, "delayline_reconnects_total{backend=\"redis\"}"), 1.0);
    assert!(handle.render().contains("# HELP delayline_round_trips_total "));
}
