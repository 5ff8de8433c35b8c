//! One who waits.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::book::{Inbox, Shared};
use super::source::Notification;

/// Is notified of a key. Dropped, it is gone, and with the last one of a key its subscription.
pub struct Listener<K: Clone + Eq + Hash> {
    inbox: Arc<Inbox>,
    key: K,
    shared: Arc<Shared<K>>,
}

impl<K: Clone + Eq + Hash> Listener<K> {
    pub(super) fn new(inbox: Arc<Inbox>, key: K, shared: Arc<Shared<K>>) -> Self {
        Self { inbox, key, shared }
    }

    /// Returns when it was notified since the last [`take`](Self::take).
    ///
    /// # Cancel safety
    /// Dropped, what it was told stays.
    pub async fn notified(&mut self) {
        self.inbox.told().await;
    }

    /// What it was told since it was asked last. Ask before you look at the store, so that what comes meanwhile is seen again
    /// rather than missed.
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
