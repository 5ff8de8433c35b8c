//! The interface between the suite and a store: opening it, its clock, and faults to inject.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{Clock, DelayBackend, Result, Shift, SystemClock, Timestamp};

/// A store under test. Every test creates its own harness.
///
/// Only [`open`](Self::open) is required. A method that is not overridden counts as unavailable: tests that need it are
/// reported as [`Untested`](crate::Outcome::Untested), never as passed.
#[async_trait]
pub trait Harness: fmt::Debug + Send + Sync + 'static {
    /// Opens a client of the store.
    ///
    /// # Behavior
    /// - Each further call opens another client of the same store, as another process would, if the backend's
    ///   durability lets a task survive its client. Otherwise it opens a separate store.
    /// - Two harnesses never see each other's queues, or their queues have different names. The names of the suite's
    ///   queues contain the test's name and seed.
    ///
    /// # Errors
    /// Any error, which fails the test.
    async fn open(&self) -> Result<Arc<dyn DelayBackend>>;

    /// Prefix of the names of the suite's queues, which replaces the seed. It is for a store without namespaces, and
    /// must be different for each run. Letters, digits, `-`, `_` and `.`; at most 17 bytes. Default: empty.
    fn queue_prefix(&self) -> &str {
        ""
    }

    /// How time runs for this store.
    fn time(&self) -> Time {
        Time::Real
    }

    /// The backend's wall clock.
    fn wall(&self) -> Timestamp {
        SystemClock::new().wall()
    }

    /// Steps the backend's wall clock, and no other clock. Returns `false` if that is not possible.
    fn step_wall(&self, by: Shift) -> bool {
        let _ = by;
        false
    }

    /// Injects a fault into the store's server. Returns `false` if that is not possible.
    ///
    /// # Errors
    /// Any error of the injection, which fails the test.
    async fn inject(&self, fault: Fault) -> Result<bool> {
        let _ = fault;
        Ok(false)
    }

    /// The resources that the server and the clients opened here hold for this store, as counts by name: keys, rows,
    /// sessions, channels, subscriptions.
    ///
    /// # Errors
    /// Any error of reading them, which fails the test.
    async fn resources(&self) -> Result<Resources> {
        Ok(Resources::default())
    }
}

/// How time runs for a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Time {
    /// The store sleeps by tokio's clock alone, so tests can run on one thread with that clock paused: exact, and
    /// without waiting. Without the feature `virtual-time`, the tests run in real time.
    Virtual,
    /// The store has its own clock, or the tests must run on several threads.
    Real,
}

impl Time {
    /// How the tests of a harness run.
    #[must_use]
    pub fn of(harness: &dyn Harness) -> Self {
        match harness.time() {
            Self::Virtual if cfg!(feature = "virtual-time") => Self::Virtual,
            Self::Virtual | Self::Real => Self::Real,
        }
    }

    /// The unit of time of the tests: two instants that are one unit apart are reliably distinguished.
    #[must_use]
    pub fn unit(self) -> Duration {
        match self {
            Self::Virtual => Duration::from_millis(10),
            Self::Real => Duration::from_millis(200),
        }
    }
}

/// A fault of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The server is killed as by `kill -9` and started again with its data. It is back when `inject` returns.
    Kill,
    /// The server stops for this long, as by `SIGSTOP` and `SIGCONT`. It works again when `inject` returns.
    Stall(Duration),
    /// All connections of the server are cut.
    Disconnect,
}

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(pub BTreeMap<String, u64>);

impl Resources {
    /// The counts that are higher than in `baseline`, less those.
    #[must_use]
    pub fn beyond(&self, baseline: &Self) -> Self {
        let more = |(name, n): (&String, &u64)| {
            let before = baseline.0.get(name).copied().unwrap_or(0);
            (*n > before).then(|| (name.clone(), n - before))
        };
        Self(self.0.iter().filter_map(more).collect())
    }

    /// Whether there are no counts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|n| *n == 0)
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, n)) in self.0.iter().enumerate() {
            write!(f, "{}{n} {name}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
