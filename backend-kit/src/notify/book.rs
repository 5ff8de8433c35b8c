//! Who listens for which keys, and their pending notifications.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::source::Notification;

/// The notifications of one listener that its owner has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    told: Mutex<Option<Notification>>,
    changed: Notify,
}

impl Inbox {
    pub(super) fn tell(&self, new: Notification) {
        let mut told = self.told.lock();
        *told = Some(told.unwrap_or_default().and(new));
        drop(told);
        self.changed.notify_one();
    }

    /// Takes the notification since the last call, if there is one.
    pub(super) fn take(&self) -> Option<Notification> {
        self.told.lock().take()
    }

    /// Waits until there is a notification that was not taken.
    pub(super) async fn told(&self) {
        while self.told.lock().is_none() {
            // Returns at once if there was a notification in between.
            self.changed.notified().await;
        }
    }
}

/// The state that the listeners and the task that serves them share.
#[derive(Debug)]
pub(super) struct Shared<K> {
    book: Mutex<Book<K>>,
    /// Notified when the keys in the book have changed.
    pub(super) changed: Notify,
    /// Notified when there is a reason to ping the server.
    pub(super) doubt: Notify,
    /// Whether every key in the book is subscribed to.
    listening: AtomicBool,
}

#[derive(Debug)]
struct Book<K> {
    inboxes: HashMap<K, Vec<Arc<Inbox>>>,
    task: Option<JoinHandle<()>>,
    closed: bool,
}

impl<K: Clone + Eq + Hash> Shared<K> {
    pub(super) fn new() -> Arc<Self> {
        let book = Mutex::new(Book { inboxes: HashMap::new(), task: None, closed: false });
        let (changed, doubt) = (Notify::new(), Notify::new());
        Arc::new(Self { book, changed, doubt, listening: AtomicBool::new(false) })
    }

    /// Adds a listener, and starts the task that serves it if there is none.
    pub(super) fn enter(&self, key: K, serve: impl FnOnce() -> Option<JoinHandle<()>>) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        let mut book = self.book.lock();
        let inboxes = book.inboxes.entry(key).or_default();
        if inboxes.is_empty() {
            self.listening.store(false, Ordering::Release);
        }
        inboxes.push(inbox.clone());
        // A task whose runtime has ended counts as finished, too.
        if !book.closed && book.task.as_ref().is_none_or(JoinHandle::is_finished) {
            book.task = serve();
        }
        drop(book);
        self.changed.notify_one();
        inbox
    }

    pub(super) fn leave(&self, key: &K, inbox: &Arc<Inbox>) {
        let mut book = self.book.lock();
        let Some(inboxes) = book.inboxes.get_mut(key) else { return };
        inboxes.retain(|other| !Arc::ptr_eq(other, inbox));
        if inboxes.is_empty() {
            book.inboxes.remove(key);
            drop(book);
            self.changed.notify_one();
        }
    }

    pub(super) fn tell(&self, key: &K, notification: Notification) {
        if let Some(inboxes) = self.book.lock().inboxes.get(key) {
            inboxes.iter().for_each(|inbox| inbox.tell(notification));
        }
    }

    /// Whether every listener would receive a notification that is published now.
    pub(super) fn listening(&self) -> bool {
        self.listening.load(Ordering::Acquire)
    }

    /// Records that the connection is now subscribed to all keys of `all`, of which `new` were added.
    pub(super) fn subscribed(&self, new: &[K], all: &HashSet<K>) {
        let book = self.book.lock();
        // Not if another key was added in the meantime; `changed` then announces it.
        self.listening.store(book.inboxes.keys().all(|key| all.contains(key)), Ordering::Release);
        let begun = new.iter().filter_map(|key| book.inboxes.get(key)).flatten();
        begun.for_each(|inbox| inbox.tell(Notification::MISSED));
    }

    /// Records that no notifications are received from now on.
    pub(super) fn lost(&self) {
        let book = self.book.lock();
        self.listening.store(false, Ordering::Release);
        book.inboxes.values().flatten().for_each(|inbox| inbox.tell(Notification::MISSED));
    }

    /// The keys that have listeners; `None` if there are none.
    pub(super) fn wanted(&self) -> Option<HashSet<K>> {
        let book = self.book.lock();
        book.wanted().then(|| book.inboxes.keys().cloned().collect())
    }

    /// Whether the task must end. If so, it is removed from the book, and the next listener starts another task.
    pub(super) fn ended(&self) -> bool {
        let mut book = self.book.lock();
        let ended = !book.wanted();
        if ended {
            book.task = None;
        }
        ended
    }

    pub(super) async fn until_unwanted(&self) {
        while self.book.lock().wanted() {
            self.changed.notified().await;
        }
    }

    /// Stops serving, and returns the task that served.
    pub(super) fn close(&self) -> Option<JoinHandle<()>> {
        let mut book = self.book.lock();
        book.closed = true;
        book.task.take()
    }
}

impl<K> Book<K> {
    fn wanted(&self) -> bool {
        !self.closed && !self.inboxes.is_empty()
    }
}
