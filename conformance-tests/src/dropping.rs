//! Dropping a future at its k-th pending.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake};

/// Polls a future, and drops it when it is pending for the `k`-th time, from 1: `None` then, otherwise what it answered.
///
/// # Cancel safety
/// Dropped, it drops the future.
pub async fn dropped_at<F: Future>(k: u32, future: F) -> Option<F::Output> {
    let mut future = Some(Box::pin(future));
    let mut left = k;
    poll_fn(move |cx| {
        let Some(pinned) = &mut future else { return Poll::Ready(None) };
        match pinned.as_mut().poll(cx) {
            Poll::Ready(out) => Poll::Ready(Some(out)),
            Poll::Pending if left <= 1 => {
                future = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
        }
    })
    .await
}

/// A waker that counts its clones: one that stays registered somewhere is a leak.
#[derive(Debug, Default)]
pub struct CountedWaker {
    woken: AtomicU64,
}

impl Wake for CountedWaker {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
    }
}

impl CountedWaker {
    /// Polls a future once with this waker.
    pub fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&self.clone().into()))
    }

    /// How many clones are kept somewhere.
    #[must_use]
    pub fn kept(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) - 1
    }

    /// How often it was woken.
    #[must_use]
    pub fn woken(&self) -> u64 {
        self.woken.load(Ordering::SeqCst)
    }
}
