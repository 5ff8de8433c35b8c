//! What the suite needs to know of a store: how to open it, how its time runs, what can be done to it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{Clock, DelayBackend, Result, Shift, SystemClock, Timestamp};

/// A store under test. Every test makes its own.
///
/// Only [`open`](Self::open) has to be written; what is not overridden counts as something that this harness can't do, and
/// the tests that need it are reported as [`Untested`](crate::Outcome::Untested), never as passed.
#[async_trait]
pub trait Harness: fmt::Debug + Send + Sync + 'static {
    /// Opens a client of the store.
    ///
    /// # Behavior
    /// - Called again, it opens another client of the same store, as another process would, where the backend's
    ///   durability lets a task survive its client; else a store of its own.
    /// - Two harnesses never see each other's queues, or they use queues by different names: those of the suite hold the
    ///   test's name and seed.
    ///
    /// # Errors
    /// Whatever stands in the way, which fails the test.
    async fn open(&self) -> Result<Arc<dyn DelayBackend>>;

    /// What the names of the suite's queues begin with, in the place of the seed: for a store that gives them no namespace
    /// of their own, another one for each run. Letters, digits, `-`, `_` and `.`; at most 17 bytes.
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

    /// Steps the backend's wall clock, and no other; `false` where that can't be done.
    fn step_wall(&self, by: Shift) -> bool {
        let _ = by;
        false
    }

    /// Does something to the store's server; `false` where that can't be done.
    ///
    /// # Errors
    /// What went wrong in doing it, which fails the test.
    async fn inject(&self, fault: Fault) -> Result<bool> {
        let _ = fault;
        Ok(false)
    }

    /// What the clients opened here and the server hold for this store, as counts by name: keys, rows, sessions,
    /// channels, subscriptions.
    ///
    /// # Errors
    /// What went wrong in reading it, which fails the test.
    async fn resources(&self) -> Result<Resources> {
        Ok(Resources::default())
    }
}

/// How time runs for a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Time {
    /// It sleeps by tokio's clock alone, so that tests may run on one thread with that clock paused: exact, and without
    /// waiting. Without the feature `virtual-time` it is run in real time.
    Virtual,
    /// It has a clock of its own, or is to be tested on several threads.
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

    /// The unit in which the tests of this suite wait: what is one unit apart is told apart for certain.
    #[must_use]
    pub fn unit(self) -> Duration {
        match self {
            Self::Virtual => Duration::from_millis(10),
            Self::Real => Duration::from_millis(200),
        }
    }
}

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is killed as by `kill -9` and started again with its data; it is back when `inject` returns.
    Kill,
    /// It stops working for this long, as by `SIGSTOP` and `SIGCONT`, and works again when `inject` returns.
    Stall(Duration),
    /// All its connections are cut.
    Disconnect,
}

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(pub BTreeMap<String, u64>);

impl Resources {
    /// What there is more of than in `baseline`.
    #[must_use]
    pub fn beyond(&self, baseline: &Self) -> Self {
        let more = |(name, n): (&String, &u64)| {
            let before = baseline.0.get(name).copied().unwrap_or(0);
            (*n > before).then(|| (name.clone(), n - before))
        };
        Self(self.0.iter().filter_map(more).collect())
    }

    /// Whether there is nothing.
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
