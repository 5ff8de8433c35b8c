//! A listener, which waits for notifications.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::book::{Inbox, Shared};
use super::source::Notification;

/// Receives the notifications of one key. When the last listener of a key is dropped, the key's subscription ends.
pub struct Listener<K: Clone + Eq + Hash> {
    inbox: Arc<Inbox>,
    key: K,
    shared: Arc<Shared<K>>,
}

impl<K: Clone + Eq + Hash> Listener<K> {
    pub(super) fn new(inbox: Arc<Inbox>, key: K, shared: Arc<Shared<K>>) -> Self {
        Self { inbox, key, shared }
    }

    /// Waits until there is a notification since the last [`take`](Self::take).
    ///
    /// # Cancel safety
    /// Dropping the future loses no notification.
    pub async fn notified(&mut self) {
        self.inbox.told().await;
    }

    /// Takes the notifications since the last call. Call it before you look at the store: a notification that arrives
    /// meanwhile is then seen again rather than missed.
    pub fn take(&mut self) -> Notification {
        self.inbox.take().unwrap_or_default()
    }
}

impl<K: Clone + Eq + Hash> Drop for Listener<K> {
    fn drop(&mut self) {
        self.shared.leave(&self.key, &self.inbox);
    }
}

impl<K: Clone + Eq + Hash + fmt::Debug> fmt::Debug for Listener<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("key", &self.key).finish_non_exhaustive()
    }
}
