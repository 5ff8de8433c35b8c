//! Whether a backend is open, and which queues are consumed through it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use delayline_core::{Error, ErrorKind, QueueName, Result};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The open or closed state of a backend, shared by its subscriptions.
pub struct Lifecycle {
    /// Name of the backend, for people.
    title: &'static str,
    closed: AtomicBool,
    /// The same state, for those who wait for it.
    closing: watch::Sender<bool>,
    /// Number of subscriptions of each queue.
    subscriptions: Mutex<BTreeMap<QueueName, usize>>,
}

impl Lifecycle {
    /// Creates the state of an open backend. `title` is the backend's name for people, such as `Redis`.
    #[must_use]
    pub fn new(title: &'static str) -> Arc<Self> {
        let (closed, closing, subscriptions) = (AtomicBool::new(false), watch::Sender::new(false), Mutex::default());
        Arc::new(Self { title, closed, closing, subscriptions })
    }

    /// Checks that the backend is open. Every call begins with this check.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) after [`close`](Self::close).
    pub fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(self.was_closed());
        }
        Ok(())
    }

    /// Runs `work`, and gives it up if the backend is closed in the meantime.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), and those of `work`.
    ///
    /// # Cancel safety
    /// That of `work`.
    pub async fn unless_closed<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut closing = self.closing();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closed| *closed) => Err(self.was_closed()),
            done = work => done,
        }
    }

    fn was_closed(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("the {} backend was closed", self.title))
    }

    /// Rejects calls from now on. Repeated, it does nothing.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.send_replace(true);
    }

    /// A receiver whose value turns `true` when the backend is closed.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Counts a subscription to a queue until the returned value is dropped.
    pub fn enter(self: &Arc<Self>, queue: &QueueName) -> Entered {
        *self.subscriptions.lock().entry(queue.clone()).or_default() += 1;
        Entered { lifecycle: self.clone(), queue: queue.clone() }
    }

    /// The queues that have a subscription.
    pub fn entered(&self) -> Vec<QueueName> {
        self.subscriptions.lock().keys().cloned().collect()
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle").field("backend", &self.title).field("closed", &self.closed).finish_non_exhaustive()
    }
}

/// A counted subscription to a queue.
#[derive(Debug)]
#[must_use = "dropped, the subscription counts no more"]
pub struct Entered {
    lifecycle: Arc<Lifecycle>,
    queue: QueueName,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut subscriptions = self.lifecycle.subscriptions.lock();
        if let Some(n) = subscriptions.get_mut(&self.queue) {
            *n -= 1;
            if *n == 0 {
                subscriptions.remove(&self.queue);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_count_until_they_are_dropped() {
        let lifecycle = Lifecycle::new("Test");
        let queue = QueueName::new("exam").unwrap();
        let (first, second) = (lifecycle.enter(&queue), lifecycle.enter(&queue));
        drop(first);
        assert_eq!(lifecycle.entered(), [queue]);
        drop(second);
        assert!(lifecycle.entered().is_empty() && lifecycle.subscriptions.lock().is_empty());
    }

    #[test]
    fn a_closed_one_refuses_and_tells() {
        let lifecycle = Lifecycle::new("Test");
        let closing = lifecycle.closing();
        assert!(lifecycle.open().is_ok() && !*closing.borrow());
        lifecycle.close();
        lifecycle.close();
        let e = lifecycle.open().unwrap_err();
        assert_eq!((e.kind(), e.message()), (ErrorKind::Closed, "the Test backend was closed"));
        assert!(*closing.borrow());
    }

    #[tokio::test]
    async fn work_is_given_up_when_it_is_closed() {
        let lifecycle = Lifecycle::new("Test");
        assert_eq!(lifecycle.unless_closed(async { Ok(7) }).await.unwrap(), 7);
        let work = lifecycle.unless_closed(std::future::pending::<Result<()>>());
        let (given_up, ()) = tokio::join!(work, async { lifecycle.close() });
        assert_eq!(given_up.unwrap_err().kind(), ErrorKind::Closed);
        let never = async { unreachable!("it was closed before") };
        assert!(lifecycle.unless_closed::<()>(never).await.is_err());
    }
}
