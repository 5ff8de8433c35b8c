//! A subscription of a queue: claims arrived tasks, and waits for more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    Claim, Claimed, ClaimedTask, Disposition, QueueName, Result, Subscription, SubscriptionOptions, owned,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::consuming::line::{Found, Line};
use crate::consuming::lines::Lines;
use crate::consuming::{giving, pump};
use crate::ops::settle;
use crate::store::Store;

pub(crate) async fn subscribe(
    store: &Arc<Store>,
    lines: &Arc<Lines>,
    queue: &QueueName,
    options: SubscriptionOptions,
) -> Result<Box<dyn Subscription>> {
    store.lifecycle.open()?;
    store.topology.ensure(queue).await?;
    let (store, lines) = (store.clone(), lines.clone());
    let start = |line| tokio::spawn(pump::run(store.clone(), lines.clone(), line));
    let (line, number, notifications) = lines.enter(queue, start);
    Ok(Box::new(RabbitSubscription { store, lines, line, number, notifications, consumer: options.consumer }))
}

struct RabbitSubscription {
    store: Arc<Store>,
    lines: Arc<Lines>,
    line: Arc<Line>,
    number: u64,
    notifications: watch::Receiver<u64>,
    consumer: Option<String>,
}

impl RabbitSubscription {
    /// Takes arrived tasks.
    async fn look(&mut self, claim: &Claim) -> Found {
        // Arrivals from here on wake the next wait.
        self.notifications.borrow_and_update();
        let early = self.line.until_due(&self.store);
        if !early.is_zero() {
            sleep(early).await;
        }
        self.line.claim(&self.store, self.number, claim)
    }

    /// The result of a claim.
    fn claimed(&self, tasks: Vec<ClaimedTask>, next_in: Option<Duration>, dead_lettered: u64) -> Claimed {
        let mut claimed = Claimed::default();
        claimed.deliveries = tasks;
        claimed.next_due_in = next_in;
        claimed.dead_lettered = dead_lettered;
        claimed.quarantined = self.store.outbox.take_quarantined();
        claimed
    }
}

/// Releases the tasks of a claim whose caller was dropped.
async fn release(store: Arc<Store>, lines: Arc<Lines>, line: Arc<Line>, tasks: Vec<ClaimedTask>) {
    let dispositions = tasks.into_iter().map(|task| (task.lease, Disposition::Release)).collect();
    // A task that can't be released now becomes visible again when its lease ends.
    let _ = settle::end(&store, &lines, &line.queue, dispositions).await;
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn claim(&mut self, claim: Claim) -> Result<Claimed> {
        self.store.lifecycle.open()?;
        self.store.caps.check_lease(claim.lease)?;
        if claim.max == 0 {
            return Ok(Claimed::default());
        }
        let mut found = self.look(&claim).await;
        if found.is_empty() {
            self.line.ask(self.store.config.response_timeout).await;
            self.store.lifecycle.open()?;
            found = self.look(&claim).await;
            if let Some(trouble) = self.line.trouble()
                && found.is_empty()
            {
                return Err(trouble);
            }
        }
        let Found { tasks, doomed, next_in } = found;
        if doomed.is_empty() {
            return Ok(self.claimed(tasks, next_in, 0));
        }
        let (store, line) = (self.store.clone(), self.line.clone());
        let (orphaned, lines, orphans_line) = (store.clone(), self.lines.clone(), line.clone());
        let dead_letter = async move {
            let dead_lettered = giving::dead_letter(&store, &line, doomed).await;
            Ok((tasks, dead_lettered))
        };
        let (tasks, dead_lettered) =
            owned(dead_letter, |(tasks, _)| async move { release(orphaned, lines, orphans_line, tasks).await }).await?;
        Ok(self.claimed(tasks, next_in, dead_lettered))
    }

    async fn wait(&mut self, at_most: Duration) {
        if self.store.lifecycle.open().is_err() {
            return;
        }
        // The line owns the sender, and `self` holds the line.
        let _ = timeout(at_most, self.notifications.changed()).await;
    }

    async fn close(self: Box<Self>) -> Result<()> {
        drop(self);
        Ok(())
    }
}

impl Drop for RabbitSubscription {
    fn drop(&mut self) {
        self.line.leave(self.number);
    }
}

impl fmt::Debug for RabbitSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitSubscription")
            .field("queue", &self.line.queue)
            .field("consumer", &self.consumer)
            .finish_non_exhaustive()
    }
}
