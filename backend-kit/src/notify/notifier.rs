//! All listeners of a backend.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::book::Shared;
use super::listener::Listener;
use super::serve::{Service, serve};
use super::source::{Notification, Source};

/// Notifies the listeners of a backend. A clone is a handle to the same notifier.
pub struct Notifier<S: Source> {
    shared: Arc<Shared<S::Key>>,
    service: Option<Arc<Service<S>>>,
    /// Whether this process is the only publisher, so that no notification can be missed.
    alone: bool,
}

impl<S: Source> Notifier<S> {
    /// Creates a notifier. It opens no connection before the first listener.
    ///
    /// `name` is the backend's name in metrics. `answer_timeout` is how long the server may take to answer. `troubles`
    /// changes when another connection to the server was lost.
    #[must_use]
    pub fn new(source: S, name: &'static str, answer_timeout: Duration, troubles: watch::Receiver<u64>) -> Self {
        let shared = Shared::new();
        let service = Service { source, name, answer_timeout, troubles, shared: shared.clone() };
        Self { shared, service: Some(Arc::new(service)), alone: false }
    }

    /// Creates a notifier that only passes on calls of [`notify`](Self::notify), for a store that only this process
    /// writes to.
    #[must_use]
    pub fn local() -> Self {
        Self { shared: Shared::new(), service: None, alone: true }
    }

    /// Creates a notifier that only passes on calls of [`notify`](Self::notify), for a store that other processes write
    /// to, too. It is never [`listening`](Self::listening), so that waiting subscriptions look every
    /// [`poll_interval`](crate::Claims::poll_interval).
    #[must_use]
    pub fn polling() -> Self {
        Self { shared: Shared::new(), service: None, alone: false }
    }

    /// Adds a listener for a key. It never fails: once its key is subscribed to, it is notified that it may have missed
    /// something.
    ///
    /// # Panics
    /// Outside a tokio runtime, unless the notifier is [`local`](Self::local) or [`polling`](Self::polling).
    pub fn listen(&self, key: S::Key) -> Listener<S::Key> {
        let serve = || self.service.as_ref().map(|service| tokio::spawn(serve(service.clone())));
        let inbox = self.shared.enter(key.clone(), serve);
        Listener::new(inbox, key, self.shared.clone())
    }

    /// Notifies the listeners of a key within this process.
    pub fn notify(&self, key: &S::Key, notification: Notification) {
        self.shared.tell(key, notification);
    }

    /// Whether every listener would receive a notification that is published now.
    #[must_use]
    pub fn listening(&self) -> bool {
        self.alone || self.shared.listening()
    }

    /// Reports a task that should have been notified of, but was not: the server is then asked whether it is still
    /// there.
    pub fn doubt(&self) {
        self.shared.doubt.notify_one();
    }

    /// Notifies all listeners one last time, and ends the connection. Repeated, it does nothing.
    pub async fn close(&self) {
        if let Some(task) = self.shared.close() {
            task.abort();
            // An aborted task ends at its next poll; its result does not matter.
            let _ = task.await;
        }
        self.shared.lost();
    }
}

impl<S: Source> Clone for Notifier<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), service: self.service.clone(), alone: self.alone }
    }
}

impl<S: Source> fmt::Debug for Notifier<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("listening", &self.listening()).finish_non_exhaustive()
    }
}
