//! Dropping a future at its k-th pending, over any backend: [`Yielding`] gives calls the await points that a store in
//! memory does not have.

pub(crate) mod stage;
mod yielding;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

pub use yielding::{Yielding, turns};

/// Polls a future, and drops it when it is pending for the `k`-th time, from 1. Returns `None` then, otherwise its
/// output.
///
/// # Cancel safety
/// Dropping this future drops the inner one.
pub async fn dropped_at<F: Future>(k: u32, future: F) -> Option<F::Output> {
    Arc::new(CountedWaker::default()).drive(At { pending: k, late: false }, future).await
}

/// When a future is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// When it is pending for this time, from 1.
    pub pending: u32,
    /// Not at once, but after the rest of the runtime went on for a while: then the answer may lie there, and nobody
    /// takes it.
    pub late: bool,
}

/// A waker that counts its clones: one that stays registered somewhere is a leak.
#[derive(Debug, Default)]
pub struct CountedWaker {
    woken: AtomicU64,
    /// Who polls through [`drive`](Self::drive).
    outer: Mutex<Option<Waker>>,
}

impl Wake for CountedWaker {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        let outer = self.outer.lock().clone();
        if let Some(outer) = outer {
            outer.wake();
        }
    }
}

impl CountedWaker {
    /// Polls a future once with this waker.
    pub fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&self.clone().into()))
    }

    /// Polls a future with this waker until it is ready, or until it is dropped: then `None`.
    ///
    /// # Cancel safety
    /// Dropped, it drops the future.
    pub async fn drive<F: Future>(self: &Arc<Self>, at: At, future: F) -> Option<F::Output> {
        let mut future = Box::pin(future);
        let mut left = at.pending;
        let answer = poll_fn(|cx| {
            *self.outer.lock() = Some(cx.waker().clone());
            match self.poll(future.as_mut()) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if left <= 1 => Poll::Ready(None),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            }
        })
        .await;
        *self.outer.lock() = None;
        if answer.is_none() && at.late {
            turns(50).await;
        }
        answer
    }

    /// Number of clones that still exist.
    #[must_use]
    pub fn kept(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) - 1
    }

    /// Number of wake-ups.
    #[must_use]
    pub fn woken(&self) -> u64 {
        self.woken.load(Ordering::SeqCst)
    }
}
