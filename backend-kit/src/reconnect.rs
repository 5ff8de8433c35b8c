//! One connection that many callers share, and that is made anew when it has broken.
//!
//! 1. Only one attempt to connect is under way at a time. Callers that arrive meanwhile wait for it and share its
//!    result.
//! 2. A pause follows each failed attempt ([`Backoff`]). A caller that arrives during a pause waits for its end and for
//!    the next attempt.
//! 3. A connection that was given up is never returned again.

use std::fmt;

use delayline_core::{Error, Result, meter};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Backoff;

/// A handle to a connection, as a [`Reconnect`] keeps it.
pub trait Connected: Clone + Send + Sync + 'static {
    /// Whether the connection works, as far as is known.
    fn works(&self) -> bool;

    /// Whether both handles belong to the same connection.
    fn is(&self, other: &Self) -> bool;
}

/// The one connection of a backend to its server.
pub struct Reconnect<C> {
    name: &'static str,
    state: Mutex<State<C>>,
    /// Locked by the caller that connects.
    connecting: tokio::sync::Mutex<()>,
    troubles: watch::Sender<u64>,
}

struct State<C> {
    connection: Option<C>,
    backoff: Backoff,
    /// Number of attempts to connect that have ended.
    attempts: u64,
    /// Error of the last attempt; `None` if it succeeded.
    failure: Option<Error>,
    was_connected: bool,
    ended: bool,
}

impl<C: Connected> Reconnect<C> {
    /// Creates the value without opening a connection. `name` is the backend's name in metrics.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        let state = State {
            connection: None,
            backoff: Backoff::new(),
            attempts: 0,
            failure: None,
            was_connected: false,
            ended: false,
        };
        Self {
            name,
            state: Mutex::new(state),
            connecting: tokio::sync::Mutex::default(),
            troubles: watch::Sender::new(0),
        }
    }

    /// Returns the connection. If there is no working one, `connect` makes it; `connect` must limit its own time.
    ///
    /// # Errors
    /// Those of `connect`, including those of an attempt that another caller made in the meantime.
    ///
    /// # Cancel safety
    /// If the call is dropped while it connects, the attempt is given up, and the next caller makes another one.
    pub async fn get(&self, connect: impl AsyncFnOnce() -> Result<C>) -> Result<C> {
        let seen = match self.live() {
            Ok(connection) => return Ok(connection),
            Err(attempts) => attempts,
        };
        let _turn = self.connecting.lock().await;
        if let Ok(connection) = self.live() {
            return Ok(connection);
        }
        let not_before = {
            let state = self.state.lock();
            match &state.failure {
                Some(failure) if state.attempts != seen => return Err(failure.clone()),
                _ => state.backoff.not_before(),
            }
        };
        if let Some(at) = not_before {
            tokio::time::sleep_until(at).await;
        }
        let attempt = connect().await;
        let mut state = self.state.lock();
        state.attempts += 1;
        match &attempt {
            Ok(connection) => {
                state.backoff.succeeded();
                state.failure = None;
                if std::mem::replace(&mut state.was_connected, true) {
                    meter::reconnected(self.name);
                }
                if !state.ended {
                    state.connection = Some(connection.clone());
                }
            }
            Err(failure) => {
                state.backoff.failed();
                state.failure = Some(failure.clone());
            }
        }
        attempt
    }

    /// The connection, if there is a working one. Makes no connection.
    pub fn current(&self) -> Option<C> {
        self.live().ok()
    }

    /// The connection if there is a working one; otherwise, how many attempts to connect have ended.
    fn live(&self) -> Result<C, u64> {
        let mut state = self.state.lock();
        match &state.connection {
            Some(connection) if connection.works() => Ok(connection.clone()),
            Some(_) => {
                state.connection = None;
                self.troubles.send_modify(|n| *n += 1);
                Err(state.attempts)
            }
            None => Err(state.attempts),
        }
    }

    /// Stops returning this connection: the next call makes another one. Other callers may still wait for answers on
    /// it.
    pub fn give_up(&self, connection: &C) {
        let mut state = self.state.lock();
        if state.connection.as_ref().is_some_and(|current| current.is(connection)) {
            state.connection = None;
            self.troubles.send_modify(|n| *n += 1);
        }
    }

    /// Returns the connection, and keeps none from now on.
    pub fn end(&self) -> Option<C> {
        let mut state = self.state.lock();
        state.ended = true;
        state.connection.take()
    }

    /// A receiver whose value changes whenever a connection was found broken or was given up. That is a reason to check
    /// other connections to the same server.
    pub fn troubles(&self) -> watch::Receiver<u64> {
        self.troubles.subscribe()
    }
}

impl<C> fmt::Debug for Reconnect<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect").field("backend", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use delayline_core::ErrorKind;
    use tokio::time::{Duration, sleep};

    use super::*;

    #[derive(Clone)]
    struct Link(Arc<AtomicBool>);

    impl Connected for Link {
        fn works(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }

        fn is(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.0, &other.0)
        }
    }

    fn link() -> Link {
        Link(Arc::new(AtomicBool::new(true)))
    }

    #[tokio::test(start_paused = true)]
    async fn callers_share_one_attempt_and_what_comes_of_it() {
        let (reconnect, tries) = (Reconnect::new("test"), AtomicU32::new(0));
        let fail = async || {
            tries.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_secs(1)).await;
            Err::<Link, _>(Error::new(ErrorKind::Unavailable, "away"))
        };
        let failed = tokio::join!(reconnect.get(fail), reconnect.get(fail), reconnect.get(fail));
        assert!(failed.0.is_err() && failed.1.is_err() && failed.2.is_err());
        assert_eq!(tries.load(Ordering::SeqCst), 1);
        let began = tokio::time::Instant::now();
        assert!(reconnect.get(async || Ok(link())).await.is_ok());
        assert!(began.elapsed() >= Duration::from_millis(25), "it waits after a failure");
        let first = reconnect.get(async || unreachable!("there is one")).await.unwrap();
        let again = reconnect.get(async || unreachable!("there is one")).await.unwrap();
        assert!(first.is(&again));
    }

    #[tokio::test]
    async fn what_has_broken_or_was_given_up_is_replaced_and_told() {
        let reconnect = Reconnect::new("test");
        let mut troubles = reconnect.troubles();
        let first = reconnect.get(async || Ok(link())).await.unwrap();
        first.0.store(false, Ordering::SeqCst);
        let second = reconnect.get(async || Ok(link())).await.unwrap();
        assert!(!second.is(&first) && troubles.has_changed().unwrap());
        troubles.mark_unchanged();
        reconnect.give_up(&first);
        assert!(!troubles.has_changed().unwrap(), "it was given up before");
        reconnect.give_up(&second);
        assert!(troubles.has_changed().unwrap());
        assert!(!reconnect.get(async || Ok(link())).await.unwrap().is(&second));
    }

    #[tokio::test]
    async fn nothing_is_kept_after_the_end() {
        let reconnect = Reconnect::new("test");
        assert!(reconnect.current().is_none());
        let kept = reconnect.get(async || Ok(link())).await.unwrap();
        assert!(reconnect.current().is_some_and(|current| current.is(&kept)));
        assert!(reconnect.end().is_some_and(|last| last.is(&kept)));
        assert_eq!(Arc::strong_count(&kept.0), 1);
        let late = reconnect.get(async || Ok(link())).await.unwrap();
        assert_eq!(Arc::strong_count(&late.0), 1);
    }
}
