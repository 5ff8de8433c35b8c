//! The metrics, with the feature `metrics`. Each event looks up its handle, because a recorder may be installed after a
//! queue was created.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::what::{Event, Levels};

const SCHEDULED: &str = "delayline_scheduled_total";
const DELIVERED: &str = "delayline_delivered_total";
const COMPLETED: &str = "delayline_completed_total";
const RETRIED: &str = "delayline_retried_total";
const SNOOZED: &str = "delayline_snoozed_total";
const RELEASED: &str = "delayline_released_total";
const DEAD_LETTERED: &str = "delayline_buried_total";
const CANCELLED: &str = "delayline_cancelled_total";
const MOVED: &str = "delayline_moved_total";
const LEASE_LOST: &str = "delayline_lease_lost_total";
const LATENESS: &str = "delayline_lateness_seconds";
const IN_FLIGHT: &str = "delayline_in_flight";
const ROUND_TRIPS: &str = "delayline_round_trips_total";
const RECONNECTS: &str = "delayline_reconnects_total";
const OLDEST_OVERDUE: &str = "delayline_oldest_overdue_seconds";
const QUEUE_SCHEDULED: &str = "delayline_queue_scheduled";
const QUEUE_DUE: &str = "delayline_queue_due";
const QUEUE_IN_FLIGHT: &str = "delayline_queue_in_flight";
const QUEUE_DEAD: &str = "delayline_queue_dead";
const QUEUE_PAUSED: &str = "delayline_queue_paused";

/// Describes each metric and its unit to the recorder. Call it once, after installing the recorder. Without the feature
/// `metrics`, it does nothing.
pub fn describe() {
    let counters = [
        (SCHEDULED, "Tasks that were accepted as new ones or in place of others."),
        (DELIVERED, "Tasks that were delivered, each attempt counted."),
        (COMPLETED, "Tasks that were completed."),
        (RETRIED, "Attempts that failed and are followed by another."),
        (SNOOZED, "Tasks that were put off by their handler."),
        (RELEASED, "Tasks that were given back unworked."),
        (DEAD_LETTERED, "Tasks that became dead letters."),
        (CANCELLED, "Waiting tasks that were cancelled."),
        (MOVED, "Waiting tasks that were moved or shifted."),
        (LEASE_LOST, "Dispositions that came too late, because the lease was lost."),
    ];
    for (name, what) in counters {
        describe_counter!(name, Unit::Count, what);
    }
    describe_histogram!(LATENESS, Unit::Seconds, "From a task's due time to its delivery.");
    describe_counter!(ROUND_TRIPS, Unit::Count, "Requests that were sent to a server.");
    describe_counter!(RECONNECTS, Unit::Count, "Connections that were made in place of lost ones.");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Tasks that this process works on.");
    describe_gauge!(OLDEST_OVERDUE, Unit::Seconds, "How long the oldest due task has been waiting.");
    describe_gauge!(QUEUE_SCHEDULED, Unit::Count, "Tasks of the queue that are not due yet.");
    describe_gauge!(QUEUE_DUE, Unit::Count, "Tasks of the queue that are due and wait.");
    describe_gauge!(QUEUE_IN_FLIGHT, Unit::Count, "Tasks of the queue under a lease, in any process.");
    describe_gauge!(QUEUE_DEAD, Unit::Count, "Dead letters of the queue.");
    describe_gauge!(QUEUE_PAUSED, Unit::Count, "1 while delivery is paused.");
}

/// Initializes a queue's counters to 0, so that a monitoring system can tell a queue without events from one that is
/// not served. Without the feature `metrics`, it does nothing.
pub fn begin(queue: impl AsRef<str>) {
    let queue = queue.as_ref();
    for name in
        [SCHEDULED, DELIVERED, COMPLETED, RETRIED, SNOOZED, RELEASED, DEAD_LETTERED, CANCELLED, MOVED, LEASE_LOST]
    {
        counter!(name, "queue" => label(queue)).increment(0);
    }
    gauge!(IN_FLIGHT, "queue" => label(queue)).increment(0.0);
}

/// For backend authors: counts a request that was sent to a server. Call it for every request, including retries.
/// Without the feature `metrics`, it does nothing.
pub fn round_trip(backend: &'static str) {
    counter!(ROUND_TRIPS, "backend" => backend).increment(1);
}

/// For backend authors: counts a connection that replaced a lost one; not the first connection. Without the feature
/// `metrics`, it does nothing.
pub fn reconnected(backend: &'static str) {
    counter!(RECONNECTS, "backend" => backend).increment(1);
}

/// Counts an event of this many tasks.
pub(crate) fn count(queue: &str, what: Event, tasks: u64) {
    let name = match what {
        Event::Scheduled => SCHEDULED,
        Event::Completed => COMPLETED,
        Event::Retried => RETRIED,
        Event::Snoozed => SNOOZED,
        Event::Released => RELEASED,
        Event::DeadLettered => DEAD_LETTERED,
        Event::Cancelled => CANCELLED,
        Event::Moved => MOVED,
        Event::LeaseLost => LEASE_LOST,
    };
    if tasks > 0 {
        counter!(name, "queue" => label(queue)).increment(tasks);
    }
}

/// Counts delivered tasks, and records the lateness of each.
pub(crate) fn delivered(queue: &str, lateness: impl Iterator<Item = Duration>) {
    let mut lateness = lateness.peekable();
    if lateness.peek().is_none() {
        return;
    }
    let all = histogram!(LATENESS, "queue" => label(queue));
    let tasks = lateness.inspect(|late| all.record(late.as_secs_f64())).count();
    counter!(DELIVERED, "queue" => label(queue)).increment(tasks as u64);
}

/// Records counts that somebody has requested from the store.
pub(crate) fn levels(queue: &str, levels: Levels) {
    gauge!(QUEUE_SCHEDULED, "queue" => label(queue)).set(levels.scheduled as f64);
    gauge!(QUEUE_DUE, "queue" => label(queue)).set(levels.due as f64);
    gauge!(QUEUE_IN_FLIGHT, "queue" => label(queue)).set(levels.in_flight as f64);
    gauge!(QUEUE_DEAD, "queue" => label(queue)).set(levels.dead as f64);
    gauge!(QUEUE_PAUSED, "queue" => label(queue)).set(f64::from(u8::from(levels.paused)));
    gauge!(OLDEST_OVERDUE, "queue" => label(queue)).set(levels.oldest_due.as_secs_f64());
}

/// Calls `note` with the result of a call.
pub(crate) fn noting<'a, T: Send + 'a>(
    call: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    note: impl FnOnce(&T) + Send + 'a,
) -> Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    Box::pin(async move {
        let answer = call.await;
        note(&answer);
        answer
    })
}

/// A task between its claim and the end of its handling. Both change the same gauge, even if another recorder is
/// installed in between.
pub(crate) struct Flight(metrics::Gauge);

impl Flight {
    pub(crate) fn new(queue: &str) -> Self {
        let gauge = gauge!(IN_FLIGHT, "queue" => label(queue));
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

fn label(queue: &str) -> String {
    queue.to_owned()
}
