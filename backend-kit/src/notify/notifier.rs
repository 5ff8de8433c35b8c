//! All listeners of a backend.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::book::Shared;
use super::listener::Listener;
use super::serve::{Service, serve};
use super::source::{Notification, Source};

/// All listeners of a backend. Clones are the same.
pub struct Notifier<S: Source> {
    shared: Arc<Shared<S::Key>>,
    service: Option<Arc<Service<S>>>,
    /// This process is the only publisher, so there is nothing to miss.
    alone: bool,
}

impl<S: Source> Notifier<S> {
    /// Opens nothing before the first listener.
    ///
    /// `name` is the backend's name in metrics, `answer_timeout` how long the server may take to answer, and `troubles` changes
    /// when another connection to the server was lost.
    #[must_use]
    pub fn new(source: S, name: &'static str, answer_timeout: Duration, troubles: watch::Receiver<u64>) -> Self {
        let shared = Shared::new();
        let service = Service { source, name, answer_timeout, troubles, shared: shared.clone() };
        Self { shared, service: Some(Arc::new(service)), alone: false }
    }

    /// One that only passes on what [`notify`](Self::notify) tells it, where nobody publishes but this process.
    #[must_use]
    pub fn local() -> Self {
        Self { shared: Shared::new(), service: None, alone: true }
    }

    /// One that only passes on what [`notify`](Self::notify) tells it, where other processes publish, too. It is never
    /// [`listening`](Self::listening), so that who waits looks every [`poll_interval`](crate::Claims::poll_interval).
    #[must_use]
    pub fn polling() -> Self {
        Self { shared: Shared::new(), service: None, alone: false }
    }

    /// A listener for a key. It never fails: it is notified as having missed something as soon as it is subscribed.
    ///
    /// # Panics
    /// Outside a tokio runtime, unless it is [`local`](Self::local) or [`polling`](Self::polling).
    pub fn listen(&self, key: S::Key) -> Listener<S::Key> {
        let serve = || self.service.as_ref().map(|service| tokio::spawn(serve(service.clone())));
        let inbox = self.shared.enter(key.clone(), serve);
        Listener::new(inbox, key, self.shared.clone())
    }

    /// Notifies the listeners of a key within this process.
    pub fn notify(&self, key: &S::Key, notification: Notification) {
        self.shared.tell(key, notification);
    }

    /// Whether every listener would receive what is published now.
    #[must_use]
    pub fn listening(&self) -> bool {
        self.alone || self.shared.listening()
    }

    /// Somebody found what should have been notified of: whether the server is still there is worth a question.
    pub fn doubt(&self) {
        self.shared.doubt.notify_one();
    }

    /// Notifies all listeners for the last time, and ends the connection. Repeated, it does nothing.
    pub async fn close(&self) {
        if let Some(task) = self.shared.close() {
            task.abort();
            // Aborted, it ends as soon as it is looked at; what it ends with does not matter.
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
