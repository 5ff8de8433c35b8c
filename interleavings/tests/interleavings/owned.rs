//! `owned`: a caller that is dropped at any moment, and the value that it did not get.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use delayline_core::{Error, ErrorKind, Result, owned};
use interleavings::store::all_wait;
use interleavings::{explore, finds};
use tokio::sync::oneshot;
use tokio::task::yield_now;

/// Calls `call` and drops it after some polls; checks that its value came, or went to the handler.
async fn dropped_at_any_moment<F>(call: impl Fn(Arc<AtomicU32>) -> F)
where
    F: Future<Output = Result<u32>> + Send + 'static,
{
    for polls in 0..4 {
        let orphans = Arc::new(AtomicU32::new(0));
        let call = call(orphans.clone());
        let caller = tokio::spawn(async move {
            let mut call = pin!(call);
            for _ in 0..polls {
                if let Poll::Ready(value) = futures_util::poll!(&mut call) {
                    assert_eq!(value.unwrap(), 7);
                    return 1;
                }
                yield_now().await;
            }
            0
        });
        let received = caller.await.unwrap();
        all_wait().await;
        // Never polled, nothing was begun.
        let expected = u32::from(polls > 0);
        assert_eq!(received + orphans.load(Ordering::Relaxed), expected, "after {polls} polls, {received} received");
    }
}

async fn work() -> Result<u32> {
    yield_now().await;
    Ok(7)
}

async fn the_real_one() {
    dropped_at_any_moment(|orphans| {
        owned(work(), move |_| async move {
            orphans.fetch_add(1, Ordering::Relaxed);
        })
    })
    .await;
}

#[test]
fn drop_9_a_value_is_received_or_an_orphan_and_never_both() {
    explore(the_real_one);
}

/// As one would write it at first: the handler hears of a value that could not be sent, and not of one that was sent to
/// a caller who then left.
async fn naive() {
    dropped_at_any_moment(|orphans| async move {
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            if let Err(Ok(_)) = sender.send(work().await) {
                orphans.fetch_add(1, Ordering::Relaxed);
            }
        });
        receiver.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed, "gone")))
    })
    .await;
}

#[test]
fn a_value_lost_between_send_and_receive_is_found() {
    finds(None, naive);
}
