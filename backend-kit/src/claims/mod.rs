//! Consuming a queue: one claim at a time, and tasks that nobody received are given back.
//!
//! 1. Only one claim of a subscription is under way at a time: its state is locked from before the claim is sent until
//!    its tasks were either returned to the caller or given back. A claim that follows a dropped one therefore finds
//!    the tasks that were given back.
//! 2. A claim runs to its end even if its caller is dropped. Tasks that nobody received are then given back.
//! 3. A claim whose answer was lost stays in the state, so that the store can give back what it took.

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

/// If an unnotified subscription gets a task this late, notifications may not be arriving.
const LATE: Duration = Duration::from_secs(1);

/// How a store claims from one queue, for one subscription.
pub trait Claims: Send + Sync + 'static {
    /// What the subscription remembers from one claim to the next.
    type State: Send + 'static;

    /// The capabilities of the backend.
    fn capabilities(&self) -> &Capabilities;

    /// The lifecycle of the backend.
    fn lifecycle(&self) -> &Arc<Lifecycle>;

    /// Name of the queue.
    fn queue(&self) -> &QueueName;

    /// Receives the notification since the last claim, before the next one. `listening` is whether the listener would
    /// have received every notification.
    fn notified(&self, state: &mut Self::State, notification: Notification, listening: bool) {
        let _ = (state, notification, listening);
    }

    /// Claims tasks. The future is never dropped while it runs, unless its runtime ends.
    ///
    /// # Errors
    /// Those of [`Subscription::claim`]. After an error, nothing was claimed, or the state remembers that something may
    /// have been.
    fn claim(&self, state: &mut Self::State, claim: Claim) -> impl Future<Output = Result<Claimed>> + Send;

    /// Settles leases: ends each with its disposition.
    ///
    /// # Errors
    /// Those of [`DelayBackend::settle`](delayline_core::DelayBackend::settle).
    fn settle(&self, dispositions: Vec<(Lease, Disposition)>) -> impl Future<Output = Result<Vec<Result<()>>>> + Send;

    /// Whether every claim got its answer, so that [`clean_up`](Self::clean_up) has nothing to do.
    fn is_clean(&self, state: &Self::State) -> bool;

    /// Gives back the tasks of claims whose answer was lost.
    ///
    /// # Errors
    /// The store could not give all of them back. The remaining tasks come back when their leases end.
    fn clean_up(&self, state: &mut Self::State) -> impl Future<Output = Result<()>> + Send;

    /// Maximum time between two looks at the store while the notifier is not listening. Default: `None`, no extra
    /// limit.
    fn poll_interval(&self) -> Option<Duration> {
        None
    }
}

/// A [`Subscription`] over [`Claims`], which waits for notifications.
pub struct ListeningSubscription<C: Claims, S: Source> {
    claims: Arc<C>,
    state: Arc<Mutex<C::State>>,
    notifier: Notifier<S>,
    /// Keeps a notification that arrives between claim and wait.
    listener: Listener<S::Key>,
    /// Whether the last wait ended without a notification.
    unnotified: bool,
    consumer: Option<String>,
    closed: bool,
    _entered: Entered,
}

impl<C: Claims, S: Source> ListeningSubscription<C, S> {
    /// Starts to listen for `key`. It claims nothing yet. `state` is the initial state.
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

    /// Inspects the state while no claim is under way.
    pub async fn inspect<R>(&self, look: impl FnOnce(&C::State) -> R) -> R {
        look(&*self.state.lock().await)
    }
}

/// Gives back claimed tasks that nobody received.
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
        // An earlier claim that was dropped may still be under way. Waiting for it leaves nothing behind if this call
        // is dropped.
        let mut state = self.state.clone().lock_owned().await;
        // Before the store is read, so that a notification that arrives meanwhile is seen again rather than missed.
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
        // A task that has been visible for this long should have been notified of, or was known.
        let late = claimed.deliveries.iter().any(|task| task.lateness > LATE);
        if std::mem::take(&mut self.unnotified) && late {
            self.notifier.doubt();
        }
        Ok(claimed)
    }

    async fn wait(&mut self, at_most: Duration) {
        // The caller's next claim then returns `Closed`.
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
        // Set only now: if this call is dropped during the clean-up, `Drop` does the rest.
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
            // What can't be given back now comes back when its lease ends.
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
