//! What a store supplies to send notifications.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;

use delayline_core::Result;

/// What a listener was notified of since it last took its notifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// Earliest time at which a task was reported to be due, in ms since 1970; `None` if no time was reported.
    pub due_ms: Option<i64>,
    /// Whether a notification may have been missed.
    pub missed: bool,
}

impl Notification {
    /// A notification may have been missed.
    pub const MISSED: Self = Self { due_ms: None, missed: true };

    /// Combines both notifications.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let due_ms = match (self.due_ms, other.due_ms) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Self { due_ms, missed: self.missed || other.missed }
    }
}

/// A server that can send notifications.
pub trait Source: Send + Sync + 'static {
    /// What to subscribe to: a queue, or a channel.
    type Key: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static;

    /// A connection that receives notifications.
    type Subscriber: Subscriber<Key = Self::Key>;

    /// Opens a connection. It must limit its own time.
    ///
    /// # Errors
    /// The reason why it can't connect. The caller retries after a pause.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    fn connect(&self) -> impl Future<Output = Result<Self::Subscriber>> + Send;
}

/// The source of a [`Notifier`](super::Notifier) within one process, where there is nothing to connect to.
pub struct Local<K>(PhantomData<fn() -> K>);

/// The subscriber type of [`Local`], which never has one. It has no values.
pub struct Nobody<K>(Infallible, PhantomData<fn() -> K>);

impl<K: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static> Source for Local<K> {
    type Key = K;
    type Subscriber = Nobody<K>;

    async fn connect(&self) -> Result<Nobody<K>> {
        std::future::pending().await
    }
}

impl<K: Send + 'static> Subscriber for Nobody<K> {
    type Key = K;

    async fn subscribe(&mut self, _: Vec<K>) -> Result<()> {
        match self.0 {}
    }

    async fn unsubscribe(&mut self, _: Vec<K>) -> Result<()> {
        match self.0 {}
    }

    async fn receive(&mut self) -> Result<Option<(K, Notification)>> {
        match self.0 {}
    }

    async fn ping(&mut self) -> Result<()> {
        match self.0 {}
    }
}

/// A connection that receives notifications. Dropping it closes it.
///
/// After an error of any method, the caller drops the connection and opens another one. The caller limits the time of
/// all methods but `receive`, and drops their futures when the time is over.
pub trait Subscriber: Send + 'static {
    /// The key of its source.
    type Key;

    /// Subscribes to these keys. They were not subscribed to before.
    ///
    /// # Errors
    /// The connection was lost, or the server rejected the subscription.
    fn subscribe(&mut self, keys: Vec<Self::Key>) -> impl Future<Output = Result<()>> + Send;

    /// Unsubscribes from these keys.
    ///
    /// # Errors
    /// The connection was lost.
    fn unsubscribe(&mut self, keys: Vec<Self::Key>) -> impl Future<Output = Result<()>> + Send;

    /// Waits for the next notification; `None` for a message that is not for delayline.
    ///
    /// # Errors
    /// The connection was lost.
    ///
    /// # Cancel safety
    /// A dropped call has taken no notification.
    fn receive(&mut self) -> impl Future<Output = Result<Option<(Self::Key, Notification)>>> + Send;

    /// Asks the server whether it is still there.
    ///
    /// # Errors
    /// The connection was lost.
    fn ping(&mut self) -> impl Future<Output = Result<()>> + Send;
}
