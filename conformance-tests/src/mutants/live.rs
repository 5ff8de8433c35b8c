//! Defects of LIVE, IDLE and DROP: sleepers that are not woken or never sleep, and tasks kept from others.

use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{AdminOp, Claim, Claimed, Disposition, Lease, QueueName, QueueStats, Result};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::defect::{Defect, Inner, Opened};

/// A notification that has come before the wait began is taken, and sleeping begins.
#[derive(Default)]
pub(super) struct MissedNotification;

#[async_trait]
impl Defect for MissedNotification {
    async fn wait(&self, _: &Inner, subscription: &mut Opened, at_most: Duration) {
        let mut wait = subscription.wait(at_most);
        let notified = poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx).is_ready())).await;
        if notified {
            drop(wait);
            subscription.wait(at_most).await;
        } else {
            wait.await;
        }
    }
}

/// Who knows of a later task sleeps until then, whatever comes meanwhile, unless the backend is closed.
pub(super) struct SoundSleeper {
    closed: watch::Sender<bool>,
}

impl Default for SoundSleeper {
    fn default() -> Self {
        Self { closed: watch::Sender::new(false) }
    }
}

#[async_trait]
impl Defect for SoundSleeper {
    async fn wait(&self, _: &Inner, subscription: &mut Opened, at_most: Duration) {
        let ends = Instant::now() + at_most;
        let expects = subscription.expects;
        let mut wait = subscription.wait(at_most);
        let notified = poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx).is_ready())).await;
        if notified {
            return;
        }
        wait.await;
        if expects {
            let mut closed = self.closed.subscribe();
            tokio::select! {
                () = sleep_until(ends) => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
        }
    }

    async fn close(&self, inner: &Inner) -> Result<()> {
        self.closed.send_replace(true);
        inner.close().await
    }
}

/// What is due beyond a claim is dealt out to the other subscriptions that are open, as a server does that pushes. Each
/// keeps its one task until it claims or ends, and so for ever when it stalls.
#[derive(Default)]
pub(super) struct Hoarder {
    kept: Mutex<HashMap<(QueueName, u64), Option<Lease>>>,
}

impl Hoarder {
    /// The other subscriptions of this one's queue that have nothing yet.
    fn others(&self, subscription: &Opened) -> Vec<u64> {
        let kept = self.kept.lock();
        let others = kept.iter().filter(|((queue, number), lease)| {
            *queue == subscription.queue && *number != subscription.number && lease.is_none()
        });
        others.map(|((_, number), _)| *number).collect()
    }
}

#[async_trait]
impl Defect for Hoarder {
    async fn opened(&self, _: &Inner, subscription: Opened) -> Result<Opened> {
        self.kept.lock().insert((subscription.queue.clone(), subscription.number), None);
        Ok(subscription)
    }

    async fn claim(&self, inner: &Inner, subscription: &mut Opened, mut claim: Claim) -> Result<Claimed> {
        let queue = subscription.queue.clone();
        // What it kept is given back and claimed anew, at its old place and under the lease that is asked for now.
        let kept = self.kept.lock().insert((queue.clone(), subscription.number), None).flatten();
        inner.settle_quietly(&queue, kept.into_iter().map(|lease| (lease, Disposition::Release)).collect()).await;
        let others = self.others(subscription);
        let asked = claim.max;
        claim.max = if asked == 0 { 0 } else { asked.saturating_add(others.len()) };
        let mut claimed = subscription.claim(claim).await?;
        let dealt = claimed.deliveries.split_off(asked.min(claimed.deliveries.len()));
        let mut kept = self.kept.lock();
        for (number, task) in others.into_iter().zip(dealt) {
            kept.insert((queue.clone(), number), Some(task.lease));
        }
        Ok(claimed)
    }

    fn ended(&self, inner: &Inner, subscription: &mut Opened) {
        let kept = self.kept.lock().remove(&(subscription.queue.clone(), subscription.number)).flatten();
        if let (Some(lease), Ok(runtime)) = (kept, Handle::try_current()) {
            let (inner, queue) = (inner.clone(), subscription.queue.clone());
            runtime.spawn(async move { inner.settle_quietly(&queue, vec![(lease, Disposition::Release)]).await });
        }
    }
}

/// A pause is shown and stops nothing.
#[derive(Default)]
pub(super) struct NoPause {
    paused: Mutex<BTreeSet<QueueName>>,
}

#[async_trait]
impl Defect for NoPause {
    async fn administer(&self, inner: &Inner, queue: &QueueName, op: AdminOp) -> Result<()> {
        if op == AdminOp::Pause {
            inner.ping().await?;
            self.paused.lock().insert(queue.clone());
            return Ok(());
        }
        self.paused.lock().remove(queue);
        inner.administer(queue, op).await
    }

    async fn stats(&self, inner: &Inner, queue: &QueueName) -> Result<QueueStats> {
        let mut stats = inner.stats(queue).await?;
        stats.paused = self.paused.lock().contains(queue);
        Ok(stats)
    }

    async fn queues(&self, inner: &Inner) -> Result<Vec<QueueName>> {
        let mut queues: BTreeSet<_> = inner.queues().await?.into_iter().collect();
        queues.extend(self.paused.lock().iter().cloned());
        Ok(queues.into_iter().collect())
    }
}

/// A wait ends after 5 ms.
#[derive(Default)]
pub(super) struct Polling;

#[async_trait]
impl Defect for Polling {
    async fn wait(&self, _: &Inner, subscription: &mut Opened, at_most: Duration) {
        subscription.wait(at_most.min(Duration::from_millis(5))).await;
    }
}

/// A claim lies still between taking tasks and handing them out; dropped there, nobody gives them back.
#[derive(Default)]
pub(super) struct LostClaim;

#[async_trait]
impl Defect for LostClaim {
    async fn claim(&self, _: &Inner, subscription: &mut Opened, claim: Claim) -> Result<Claimed> {
        let claimed = subscription.claim(claim).await?;
        tokio::task::yield_now().await;
        Ok(claimed)
    }
}
