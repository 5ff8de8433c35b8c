//! The meeting point of the calls of one kind for one queue.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::inbox::Inbox;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Joins the calls of one kind for one queue.
pub(crate) struct Committer<I, A> {
    pub(super) inbox: Mutex<Inbox<I, A>>,
    /// Number of calls that were sent alone and wait for their answer, plus one while the task lives.
    under_way: AtomicUsize,
    /// Notified when all callers of the batch that is under way are gone.
    pub(super) abandoned: Notify,
}

impl<I, A> Default for Committer<I, A> {
    fn default() -> Self {
        Self { inbox: Mutex::new(Inbox::new()), under_way: AtomicUsize::new(0), abandoned: Notify::new() }
    }
}

impl<I, A> Committer<I, A> {
    pub(super) fn is_any_under_way(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }

    /// One more call is under way.
    pub(super) fn begun(&self) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
    }

    /// One call less is under way.
    pub(super) fn ended(&self) {
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}
