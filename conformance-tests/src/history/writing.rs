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
    /// The client of each lease, if its connection holds the lease.
    holders: Mutex<HashMap<(TaskId, u64), Weak<dyn DelayBackend>>>,
}

impl History {
    /// An empty history, whose time begins now.
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

    /// Records the client of a lease.
    pub(super) fn held_by(&self, lease: &Lease, holder: Weak<dyn DelayBackend>) {
        self.0.holders.lock().insert((lease.id.clone(), lease.fence), holder);
    }

    /// The client of a lease, if that was recorded and the client still exists.
    pub(super) fn holder(&self, lease: &Lease) -> Option<Arc<dyn DelayBackend>> {
        self.0.holders.lock().get(&(lease.id.clone(), lease.fence))?.upgrade()
    }

    /// Records the beginning of a call, and returns its number.
    pub fn invoked(&self, client: u32, queue: &QueueName, op: Op) -> u64 {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.push(call, What::Invoked { client, queue: queue.clone(), op });
        call
    }

    /// Records the end of a call.
    pub fn ended(&self, call: u64, how: What) {
        self.push(call, how);
    }

    /// Records that a queue was emptied: a task that is still in it is lost.
    pub fn drained(&self, queue: &QueueName) {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.push(call, What::Drained { queue: queue.clone() });
    }

    /// Records that the backend's wall clock was stepped.
    pub fn wall_stepped(&self) {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.push(call, What::WallStepped);
    }

    /// Records that a client is being closed, or that a fault is injected: leases that are bound to a connection may
    /// end.
    pub fn connections_end(&self) {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.push(call, What::ConnectionsEnd);
    }

    /// How many items the calls so far were answered for.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.events.lock().iter().map(|event| event.what.operations()).sum()
    }

    /// The history so far, with what its backend declares.
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
