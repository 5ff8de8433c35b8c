//! What a store supplies.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;

use delayline_core::Result;

/// What a listener was told since it was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// The earliest time, in ms since 1970, at which something was said to be due; `None` if that was not said.
    pub due_ms: Option<i64>,
    /// Something may have been missed.
    pub missed: bool,
}

impl Notification {
    /// Something may have been missed.
    pub const MISSED: Self = Self { due_ms: None, missed: true };

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let due_ms = match (self.due_ms, other.due_ms) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Self { due_ms, missed: self.missed || other.missed }
    }
}

/// A server that can notify.
pub trait Source: Send + Sync + 'static {
    /// What one subscribes to: a queue, or a channel.
    type Key: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static;

    /// A connection that receives.
    type Subscriber: Subscriber<Key = Self::Key>;

    /// Opens a connection. It bounds its own time.
    ///
    /// # Errors
    /// Why there is none; it is tried again after a pause.
    ///
    /// # Cancel safety
    /// Dropped, it leaves nothing behind.
    fn connect(&self) -> impl Future<Output = Result<Self::Subscriber>> + Send;
}

/// The source of a [`Notifier`](super::Notifier) within one process, where there is nothing to connect to.
pub struct Local<K>(PhantomData<fn() -> K>);

/// There is none.
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

/// One connection that receives notifications. Dropped, it is closed.
///
/// After an error of any method the connection is dropped, and another one opened. All but `receive` are given a time limit by
/// their caller, and dropped when it is over.
pub trait Subscriber: Send + 'static {
    /// As its source's.
    type Key;

    /// Receives what is published for these keys from now on. They were not subscribed to before.
    ///
    /// # Errors
    /// The connection was lost, or the server refused.
    fn subscribe(&mut self, keys: Vec<Self::Key>) -> impl Future<Output = Result<()>> + Send;

    /// Receives nothing more for these keys.
    ///
    /// # Errors
    /// The connection was lost.
    fn unsubscribe(&mut self, keys: Vec<Self::Key>) -> impl Future<Output = Result<()>> + Send;

    /// The next notification; `None` for a message that says nothing to us.
    ///
    /// # Errors
    /// The connection was lost.
    ///
    /// # Cancel safety
    /// Dropped, it has taken no notification.
    fn receive(&mut self) -> impl Future<Output = Result<Option<(Self::Key, Notification)>>> + Send;

    /// Asks the server whether it is still there.
    ///
    /// # Errors
    /// The connection was lost.
    fn ping(&mut self) -> impl Future<Output = Result<()>> + Send;
}
