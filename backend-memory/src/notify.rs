//! How a queue wakes the subscriptions that wait for it. A notification that comes between a claim and its wait is kept.

use tokio::sync::watch;

/// A queue's end.
#[derive(Debug)]
pub(crate) struct Notifier(watch::Sender<()>);

/// A subscription's end. Remembers the last notification that it has seen.
#[derive(Debug)]
pub(crate) struct Listener(watch::Receiver<()>);

impl Notifier {
    pub(crate) fn new() -> Self {
        Self(watch::channel(()).0)
    }

    /// Wakes every listener that waits, and keeps those awake that are about to.
    pub(crate) fn notify(&self) {
        self.0.send_replace(());
    }

    pub(crate) fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

impl Listener {
    /// Takes what came so far as seen: a claim does it before it looks, so that what comes while it looks is seen again
    /// rather than missed.
    pub(crate) fn see(&mut self) {
        self.0.borrow_and_update();
    }

    /// Waits for a notification that this listener has not seen. The queue must exist.
    pub(crate) async fn notified(&mut self) {
        let _ = self.0.changed().await;
    }
}
