//! A history while it is being written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use delayline_core::{Capabilities, DelayBackend, Lease, QueueName, TaskId, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::event::{Event, Op, What};
use super::file::{Header, Recording};
use crate::harness::Harness;

/// A history that is being written, shared by all clients of one test.
#[derive(Clone, Debug)]
pub struct History(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    harness: Arc<dyn Harness>,
    began: Instant,
    calls: AtomicU64,
    events: Mutex<Vec<Event>>,
    /// Which client each lease was given to, where its connection holds it.
    holders: Mutex<HashMap<(TaskId, u64), Weak<dyn DelayBackend>>>,
}

impl History {
    /// An empty one, whose time begins now.
    #[must_use]
    pub fn new(harness: Arc<dyn Harness>) -> Self {
        let inner = Inner {
            harness,
            began: Instant::now(),
            calls: AtomicU64::new(0),
            events: Mutex::default(),
            holders: Mutex::default(),
        };
        Self(Arc::new(inner))
    }

    /// Notes which client a lease was given to.
    pub(super) fn held_by(&self, lease: &Lease, holder: Weak<dyn DelayBackend>) {
        self.0.holders.lock().insert((lease.id.clone(), lease.fence), holder);
    }

    /// The client that a lease was given to, if that was noted and it is still there.
    pub(super) fn holder(&self, lease: &Lease) -> Option<Arc<dyn DelayBackend>> {
        self.0.holders.lock().get(&(lease.id.clone(), lease.fence))?.upgrade()
    }

    /// Notes that a call begins, and gives it its number.
    pub fn invoked(&self, client: u32, queue: &QueueName, op: Op) -> u64 {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.push(call, What::Invoked { client, queue: queue.clone(), op });
        call
    }

    /// Notes how a call ended.
    pub fn ended(&self, call: u64, how: What) {
        self.push(call, how);
    }

    /// Notes that a queue has been emptied: what is left in it from here on was lost.
    pub fn drained(&self, queue: &QueueName) {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.push(call, What::Drained { queue: queue.clone() });
    }

    /// Notes that the backend's wall clock was stepped.
    pub fn wall_stepped(&self) {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.push(call, What::WallStepped);
    }

    /// Notes that a client is being closed, or something done to the server: leases that hang on a connection may end.
    pub fn connections_end(&self) {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.push(call, What::ConnectionsEnd);
    }

    /// How many items the calls so far were answered for.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.events.lock().iter().map(|event| event.what.operations()).sum()
    }

    /// What was noted so far, with what its backend declares.
    #[must_use]
    pub fn recording(&self, test: &str, seed: u64, caps: &Capabilities) -> Recording {
        Recording { header: Header::new(test, seed, caps), events: self.0.events.lock().clone() }
    }

    fn push(&self, call: u64, what: What) {
        // Under the lock, so that the list is in the order of its times.
        let mut events = self.0.events.lock();
        let at_us = u64::try_from(self.0.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall: Timestamp = self.0.harness.wall();
        events.push(Event { at_us, wall, call, what });
    }
}
