//! Wakes the subscriptions that wait for a queue. A notification that arrives between a claim and the following wait is
//! kept.

use tokio::sync::watch;

/// The sender, owned by a queue.
#[derive(Debug)]
pub(crate) struct Notifier(watch::Sender<()>);

/// The receiver, owned by a subscription. It remembers the last notification that it has seen.
#[derive(Debug)]
pub(crate) struct Listener(watch::Receiver<()>);

impl Notifier {
    pub(crate) fn new() -> Self {
        Self(watch::channel(()).0)
    }

    /// Wakes every waiting listener. A listener that is about to wait returns at once.
    pub(crate) fn notify(&self) {
        self.0.send_replace(());
    }

    pub(crate) fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

impl Listener {
    /// Marks all notifications so far as seen. A claim calls this before it looks for tasks, so that a notification
    /// that arrives meanwhile wakes the next wait.
    pub(crate) fn see(&mut self) {
        self.0.borrow_and_update();
    }

    /// Waits for a notification that this listener has not seen. The queue must exist.
    pub(crate) async fn notified(&mut self) {
        let _ = self.0.changed().await;
    }
}
