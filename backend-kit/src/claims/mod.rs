//! Consuming a queue: one claim at a time, and what nobody received is given back.
//!
//! 1. One claim of a subscription is under way at a time: its state is locked from before it is sent until its tasks are
//!    either the caller's or given back. So a claim that follows a dropped one finds what that one gave back.
//! 2. A claim runs to its end even if its caller is dropped; what nobody received is given back.
//! 3. A claim whose answer was lost stays in the state, for the store to give back what it took.

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Capabilities, Claim, Claimed, Disposition, ErrorKind, Lease, QueueName, Result, Subscription, SubscriptionOptions,
    async_trait, owned,
};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::lifecycle::{Entered, Lifecycle};
use crate::notify::{Listener, Notification, Notifier, Source};

/// A task that came so late to a waiter that was not notified is a sign of notifications that don't arrive.
const LATE: Duration = Duration::from_secs(1);

/// How a store claims from one queue, for one subscription.
pub trait Claims: Send + Sync + 'static {
    /// What the subscription remembers from one claim to the next.
    type State: Send + 'static;

    /// What the backend can do.
    fn capabilities(&self) -> &Capabilities;

    /// That of the backend.
    fn lifecycle(&self) -> &Arc<Lifecycle>;

    /// The queue.
    fn queue(&self) -> &QueueName;

    /// Takes in what the listener was told before a claim; `listening` is whether it would have been told of everything.
    fn notified(&self, state: &mut Self::State, notification: Notification, listening: bool) {
        let _ = (state, notification, listening);
    }

    /// Claims. It is never dropped while it runs, unless its runtime ends.
    ///
    /// # Errors
    /// As [`Subscription::claim`]. Nothing was claimed then, or the state remembers that something may have been.
    fn claim(&self, state: &mut Self::State, claim: Claim) -> impl Future<Output = Result<Claimed>> + Send;

    /// Ends leases, each with its disposition.
    ///
    /// # Errors
    /// As [`DelayBackend::settle`](delayline_core::DelayBackend::settle).
    fn settle(&self, dispositions: Vec<(Lease, Disposition)>) -> impl Future<Output = Result<Vec<Result<()>>>> + Send;

    /// Whether no claim's answer was lost, so that there is nothing for [`clean_up`](Self::clean_up) to do.
    fn is_clean(&self, state: &Self::State) -> bool;

    /// Gives back what lost claims took.
    ///
    /// # Errors
    /// What is not given back comes when its leases end.
    fn clean_up(&self, state: &mut Self::State) -> impl Future<Output = Result<()>> + Send;

    /// How long to wait at most between two looks while nothing would be notified; `None`: no less than otherwise.
    fn poll_interval(&self) -> Option<Duration> {
        None
    }
}

/// An [`Subscription`] over [`Claims`], which waits for notifications.
pub struct ListeningSubscription<C: Claims, S: Source> {
    claims: Arc<C>,
    state: Arc<Mutex<C::State>>,
    notifier: Notifier<S>,
    /// Remembers the last notification that a claim has seen, so that one between claim and wait is not lost.
    listener: Listener<S::Key>,
    /// Whether the last wait ended without a notification.
    unnotified: bool,
    consumer: Option<String>,
    closed: bool,
    _entered: Entered,
}

impl<C: Claims, S: Source> ListeningSubscription<C, S> {
    /// Begins to listen for `key`; it claims nothing yet. `state` is what it remembers at first.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(claims: C, state: C::State, notifier: &Notifier<S>, key: S::Key, options: SubscriptionOptions) -> Self {
        let entered = claims.lifecycle().enter(claims.queue());
        Self {
            claims: Arc::new(claims),
            state: Arc::new(Mutex::new(state)),
            listener: notifier.listen(key),
            notifier: notifier.clone(),
            unnotified: false,
            consumer: options.consumer,
            closed: false,
            _entered: entered,
        }
    }

    /// Looks at what it remembers, when no claim is under way.
    pub async fn inspect<R>(&self, look: impl FnOnce(&C::State) -> R) -> R {
        look(&*self.state.lock().await)
    }
}

/// Gives back what a claim brought and nobody received.
async fn give_back<C: Claims>(claims: &C, claimed: Claimed) {
    let dispositions: Vec<_> = claimed.deliveries.into_iter().map(|task| (task.lease, Disposition::Release)).collect();
    if dispositions.is_empty() {
        return;
    }
    if let Err(e) = claims.settle(dispositions).await {
        tracing::debug!(queue = %claims.queue(), error = %e, "tasks of a dropped claim come when their leases end");
    }
}

#[async_trait]
impl<C: Claims, S: Source> Subscription for ListeningSubscription<C, S> {
    async fn claim(&mut self, claim: Claim) -> Result<Claimed> {
        let claims = self.claims.clone();
        claims.capabilities().check_lease(claim.lease)?;
        claims.lifecycle().open()?;
        // A claim before this one that was dropped is still under way. Waiting for it leaves nothing behind when it is dropped.
        let mut state = self.state.clone().lock_owned().await;
        // Before any look, so that what is notified during it is seen again rather than missed.
        let listening = self.notifier.listening();
        claims.notified(&mut state, self.listener.take(), listening);
        let orphaned = claims.clone();
        let work = async move {
            let claimed = claims.claim(&mut state, claim).await?;
            Ok((claimed, state))
        };
        let give_back = move |(claimed, state): (Claimed, OwnedMutexGuard<C::State>)| async move {
            give_back(&*orphaned, claimed).await;
            drop(state);
        };
        let (claimed, _state) = owned(work, give_back).await?;
        // What has been visible for so long should have been notified of, or was known.
        let late = claimed.deliveries.iter().any(|task| task.lateness > LATE);
        if std::mem::take(&mut self.unnotified) && late {
            self.notifier.doubt();
        }
        Ok(claimed)
    }

    async fn wait(&mut self, at_most: Duration) {
        // Then the caller's next claim says so.
        if self.claims.lifecycle().open().is_err() {
            return;
        }
        let poll = self.claims.poll_interval().filter(|_| !self.notifier.listening());
        let at_most = poll.map_or(at_most, |poll| poll.min(at_most));
        self.unnotified = tokio::time::timeout(at_most, self.listener.notified()).await.is_err();
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        let cleaned = {
            let mut state = self.state.lock().await;
            self.claims.clean_up(&mut state).await
        };
        // Not before: dropped while it cleans up, `Drop` does what is left.
        self.closed = true;
        match cleaned {
            Err(e) if e.kind() == ErrorKind::Closed => Ok(()),
            left => left,
        }
    }
}

impl<C: Claims, S: Source> Drop for ListeningSubscription<C, S> {
    fn drop(&mut self) {
        if self.closed || self.claims.lifecycle().open().is_err() {
            return;
        }
        let clean = self.state.try_lock().is_ok_and(|state| self.claims.is_clean(&state));
        if !clean && let Ok(runtime) = Handle::try_current() {
            let (claims, state) = (self.claims.clone(), self.state.clone());
            // What can't be done now ends by itself, with the leases.
            runtime.spawn(async move { drop(claims.clean_up(&mut *state.lock().await).await) });
        }
    }
}

impl<C: Claims, S: Source> fmt::Debug for ListeningSubscription<C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ListeningSubscription");
        shown.field("queue", &self.claims.queue()).field("consumer", &self.consumer).finish_non_exhaustive()
    }
}
