//! Time that stands still while anybody can go on, and then jumps to the next timer: what tokio's paused time is, under
//! a scheduler that decides who goes on.
//!
//! So a task that is delivered late was slept through, and by how long is exact. The jump is made by a task of its own,
//! the clock, which [the tests' scheduler](../../interleavings/index.html) picks only where it is the only one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

thread_local! {
    /// One execution at a time runs on a thread.
    static TIMERS: RefCell<Timers> = RefCell::default();
}

#[derive(Default)]
struct Timers {
    now: Duration,
    last_number: u64,
    /// By time and number.
    waiting: BTreeMap<(Duration, u64), Waker>,
}

/// Back to zero, for the next execution.
pub fn reset() {
    let old = TIMERS.take();
    // Dropping a waker may come back here.
    drop(old);
}

/// Since the execution began.
pub fn now() -> Duration {
    TIMERS.with_borrow(|timers| timers.now)
}

/// Jumps to the next timer, and wakes whoever waits for that moment; whether there was any.
pub fn advance() -> bool {
    let due: Vec<Waker> = TIMERS.with_borrow_mut(|timers| {
        let Some(((at, _), _)) = timers.waiting.first_key_value() else { return Vec::new() };
        timers.now = *at;
        let later = timers.waiting.split_off(&(timers.now, u64::MAX));
        std::mem::replace(&mut timers.waiting, later).into_values().collect()
    });
    let any = !due.is_empty();
    due.into_iter().for_each(Waker::wake);
    any
}

/// A moment of this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    pub fn now() -> Self {
        Self(now())
    }

    pub fn elapsed(&self) -> Duration {
        now().saturating_sub(self.0)
    }

    pub fn checked_add(&self, by: Duration) -> Option<Self> {
        self.0.checked_add(by).map(Self)
    }

    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub fn into_std(self) -> std::time::Instant {
        static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
        #[allow(clippy::disallowed_methods, reason = "stands in for tokio's, which reads it too")]
        let origin = *ORIGIN.get_or_init(std::time::Instant::now);
        origin + self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0 + by)
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        // An instant before the origin is no different from the origin: nothing was there to happen.
        Self(self.0.saturating_sub(by))
    }
}

pub fn sleep(time: Duration) -> Sleep {
    Sleep::until(now().saturating_add(time))
}

pub fn sleep_until(at: Instant) -> Sleep {
    Sleep::until(at.0)
}

/// Ready once its time has come, in whole milliseconds, rounded up, as tokio's timers are.
#[derive(Debug)]
#[must_use = "a sleep does nothing unless polled"]
pub struct Sleep {
    at: Duration,
    registered: Option<u64>,
}

impl Sleep {
    fn until(at: Duration) -> Self {
        let whole = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        let at = if whole < at { whole.saturating_add(Duration::from_millis(1)) } else { whole };
        Self { at, registered: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if now() >= self.at {
            return Poll::Ready(());
        }
        let at = self.at;
        let registered = self.registered;
        let (number, old) = TIMERS.with_borrow_mut(|timers| {
            let number = registered.unwrap_or_else(|| {
                timers.last_number += 1;
                timers.last_number
            });
            (number, timers.waiting.insert((at, number), cx.waker().clone()))
        });
        drop(old);
        self.registered = Some(number);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.registered.take() {
            // What is left of an execution that failed may be dropped after its thread's timers.
            let waker = TIMERS.try_with(|timers| timers.borrow_mut().waiting.remove(&(self.at, number)));
            drop(waker);
        }
    }
}

pub fn timeout<F: Future>(patience: Duration, future: F) -> Timeout<F> {
    Timeout { future: Box::pin(future), sleep: sleep(patience) }
}

pub fn timeout_at<F: Future>(at: Instant, future: F) -> Timeout<F> {
    Timeout { future: Box::pin(future), sleep: sleep_until(at) }
}

/// A future, or the end of the patience with it.
#[must_use = "a timeout does nothing unless polled"]
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, error::Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(done) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        Pin::new(&mut self.sleep).poll(cx).map(|()| Err(error::Elapsed))
    }
}

impl<F> fmt::Debug for Timeout<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").field("sleep", &self.sleep).finish_non_exhaustive()
    }
}

pub mod error {
    #[derive(Debug, PartialEq, Eq)]
    pub struct Elapsed;
}
