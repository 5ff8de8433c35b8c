//! Helpers for the tests of applications: run what is due, and inspect what was scheduled.
//!
//! They work on every backend that can list tasks. With the memory backend and tokio's paused time, a test of "in 30
//! days" takes a millisecond. [`TestClock`] is a clock whose wall time can be set.
//!
//! ```
//! # // The memory backend is in another crate, so this only compiles.
//! # async fn test(backend: std::sync::Arc<dyn delayline_core::DelayBackend>) -> delayline_core::Result<()> {
//! use std::time::Duration;
//! use delayline_core::{Error, Queue, testing};
//!
//! let queue = Queue::<String>::new(backend, "exams")?;
//! queue.schedule(&"anna".into()).after(Duration::from_secs(30 * 86_400)).await?;
//!
//! testing::assert_scheduled(&queue, |_, exam| exam == "anna").await;
//! assert_eq!(testing::drain(&queue, |_| async {}).await?, 0); // nothing is due yet
//! let run = testing::drain_for(&queue, Duration::from_secs(31 * 86_400), |exam| async move {
//!     println!("submitting {exam}");
//!     Ok::<(), Error>(())
//! });
//! assert_eq!(run.await?, 1);
//! # Ok(()) }
//! ```

use std::fmt;
use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Clock, Consumer, Delivery, HandlerOutcome, Page, Queue, Result, SystemClock, TaskView, Timestamp};

/// Runs due tasks, one after the other, until none is due, and returns the number of attempts. Tasks that become due in
/// the meantime are run, too.
///
/// # Errors
/// Those of the backend. If a handler returns an error, its task is retried by a policy that waits a second or more.
///
/// # Cancel safety
/// If the call is dropped, the task that is running is retried. No other task is affected.
pub async fn drain<T, H, F>(queue: &Queue<T>, handler: H) -> Result<u64>
where
    T: 'static,
    H: FnMut(T) -> F,
    F: Future<Output: Into<HandlerOutcome>>,
{
    drain_for(queue, Duration::ZERO, handler).await
}

/// Runs the tasks that become due during `long`, one after the other, and returns the number of attempts.
///
/// With paused time, the call takes no longer than the handlers do.
///
/// # Errors
/// As for [`drain`].
///
/// # Cancel safety
/// As for [`drain`].
pub async fn drain_for<T, H, F>(queue: &Queue<T>, long: Duration, mut handler: H) -> Result<u64>
where
    T: 'static,
    H: FnMut(T) -> F,
    F: Future<Output: Into<HandlerOutcome>>,
{
    let mut consumer = queue.consumer().open().await?;
    let ends = Instant::now() + long;
    let mut attempts = 0;
    while let Some(delivery) = next_until(&mut consumer, ends).await? {
        attempts += 1;
        let (task, delivery) = delivery.into_parts();
        settle(delivery, handler(task).await.into()).await?;
    }
    consumer.close().await?;
    Ok(attempts)
}

async fn next_until<T: 'static>(consumer: &mut Consumer<T>, ends: Instant) -> Result<Option<Delivery<T>>> {
    match ends.saturating_duration_since(Instant::now()) {
        // Unlike `next_within`, this reports an outage as an error.
        Duration::ZERO => Ok(consumer.try_next_batch(1).await?.pop()),
        left => consumer.next_within(left).await,
    }
}

async fn settle(delivery: Delivery<()>, handled: HandlerOutcome) -> Result<()> {
    match handled {
        HandlerOutcome::Complete => delivery.complete().await,
        HandlerOutcome::Retry { after, reason } => delivery.retry(after, reason.as_str()).await,
        HandlerOutcome::Snooze(after) => delivery.snooze(after).await,
        HandlerOutcome::DeadLetter(reason) => delivery.dead_letter(reason.as_str()).await,
        // The handler settled the task itself; dropping the delivery would only find out that its lease is gone.
        HandlerOutcome::AlreadySettled => Ok(()),
    }
}

/// Returns all tasks that are pending or in flight, in the order in which they become visible.
///
/// # Errors
/// Those of [`DelayBackend::list`](crate::DelayBackend::list), and [`Codec`](crate::ErrorKind::Codec).
pub async fn scheduled<T: 'static>(queue: &Queue<T>) -> Result<Vec<(TaskView, T)>> {
    let mut all = Vec::new();
    let mut page = queue.list(Page::first(crate::limits::PAGE_MAX)).await?;
    while let Some(last) = page.last() {
        let next = Page::after(last, crate::limits::PAGE_MAX);
        for view in page {
            let payload = queue.decode(&view.payload)?;
            all.push((view, payload));
        }
        page = queue.list(next).await?;
    }
    Ok(all)
}

/// Checks that a task for which `wanted` holds is pending or in flight, and returns the first such task.
///
/// # Panics
/// If there is no such task; the message lists all tasks. If the backend can't list tasks.
pub async fn assert_scheduled<T: fmt::Debug + 'static>(
    queue: &Queue<T>,
    wanted: impl Fn(&TaskView, &T) -> bool,
) -> TaskView {
    let all = scheduled(queue).await.expect("a queue that can be listed");
    match all.iter().find(|(view, payload)| wanted(view, payload)) {
        Some((view, _)) => view.clone(),
        None => panic!("expected a matching task in `{}`; tasks found: {}{}", queue.name(), all.len(), shown(&all)),
    }
}

/// Checks that no task for which `unwanted` holds is pending or in flight.
///
/// # Panics
/// If there is such a task; the message lists all of them. If the backend can't list tasks.
pub async fn assert_not_scheduled<T: fmt::Debug + 'static>(queue: &Queue<T>, unwanted: impl Fn(&TaskView, &T) -> bool) {
    let mut all = scheduled(queue).await.expect("a queue that can be listed");
    all.retain(|(view, payload)| unwanted(view, payload));
    assert!(
        all.is_empty(),
        "expected no matching task in `{}`; tasks found: {}{}",
        queue.name(),
        all.len(),
        shown(&all)
    );
}

fn shown<T: fmt::Debug>(tasks: &[(TaskView, T)]) -> String {
    const SHOWN_MAX: usize = 20;
    let line = |(view, payload): &(TaskView, T)| {
        format!("\n  {} {:?} at {}: {payload:?}", view.task.id, view.state, view.visible_at)
    };
    let mut text: String = tasks.iter().take(SHOWN_MAX).map(line).collect();
    if tasks.len() > SHOWN_MAX {
        text.push_str("\n  ...");
    }
    text
}

/// A clock for tests. Its wall time can be set and stepped; its monotonic time is tokio's.
///
/// ```
/// # use std::time::Duration;
/// use delayline_core::{Clock, testing::TestClock};
/// let clock = TestClock::at("2030-06-01T09:00:00Z".parse()?);
/// clock.step_back(Duration::from_secs(3600));   // as a wrong NTP answer would do
/// assert!(clock.wall() < "2030-06-01T08:00:01Z".parse()?);
/// # Ok::<(), delayline_core::Error>(())
/// ```
#[derive(Debug)]
pub struct TestClock {
    real: SystemClock,
    /// Wall time at monotonic zero.
    wall_at_origin: Mutex<Timestamp>,
}

impl TestClock {
    /// Creates a clock whose wall time is `wall` now, and runs on from there.
    #[must_use]
    pub fn at(wall: Timestamp) -> Self {
        let real = SystemClock::new();
        let origin = wall.saturating_sub(real.monotonic());
        Self { real, wall_at_origin: Mutex::new(origin) }
    }

    /// Sets the wall clock. Monotonic time is not affected.
    pub fn set_wall(&self, wall: Timestamp) {
        *self.wall_at_origin.lock() = wall.saturating_sub(self.real.monotonic());
    }

    /// Steps the wall clock forward.
    pub fn step_forward(&self, by: Duration) {
        let mut origin = self.wall_at_origin.lock();
        *origin = origin.saturating_add(by);
    }

    /// Steps the wall clock back.
    pub fn step_back(&self, by: Duration) {
        let mut origin = self.wall_at_origin.lock();
        *origin = origin.saturating_sub(by);
    }
}

impl Clock for TestClock {
    fn monotonic(&self) -> Duration {
        self.real.monotonic()
    }

    fn wall(&self) -> Timestamp {
        self.wall_at_origin.lock().saturating_add(self.real.monotonic())
    }
}
