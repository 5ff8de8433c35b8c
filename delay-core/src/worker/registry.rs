//! The tasks of one queue whose handlers run: who may settle them, and which leases want extending.
//!
//! Invariant: whoever removes a task from here settles it, and nobody else. So a handler that returns, the shutdown and
//! the keeper can't settle the same task twice, and an extension that comes back after that is ignored.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::context::{CurrentLease, InFlight};

/// Names a task in a registry.
pub(super) type Key = u64;

#[derive(Default)]
pub(super) struct Registry {
    entries: Mutex<Entries>,
    /// Told when a task comes in: the keeper sleeps as long as there is none to care for.
    pub(super) came_in: Notify,
}

#[derive(Default)]
struct Entries {
    last_key: Key,
    tasks: HashMap<Key, Entry>,
}

struct Entry {
    in_flight: Arc<InFlight>,
    /// Of the task of the runtime in which the handler runs, once that was spawned.
    handler: Option<AbortHandle>,
}

impl Registry {
    /// Takes a task in before its handler is spawned.
    pub(super) fn insert(&self, in_flight: Arc<InFlight>) -> Key {
        let mut entries = self.entries.lock();
        entries.last_key += 1;
        let key = entries.last_key;
        entries.tasks.insert(key, Entry { in_flight, handler: None });
        self.came_in.notify_one();
        key
    }

    /// Notes how to stop the handler, unless it has ended already.
    pub(super) fn spawned(&self, key: Key, handler: AbortHandle) {
        if let Some(entry) = self.entries.lock().tasks.get_mut(&key) {
            entry.handler = Some(handler);
        }
    }

    /// Takes a task out, to settle it.
    pub(super) fn take(&self, key: Key) -> Option<CurrentLease> {
        let entry = self.entries.lock().tasks.remove(&key)?;
        let lease = entry.in_flight.lease.lock().clone();
        Some(lease)
    }

    /// Takes all tasks out and stops their handlers.
    pub(super) fn stop_all(&self) -> Vec<Stopped> {
        let tasks = std::mem::take(&mut self.entries.lock().tasks);
        let stop = |entry: Entry| {
            if let Some(handler) = &entry.handler {
                handler.abort();
            }
            let lease = entry.in_flight.lease.lock().clone();
            Stopped { lease, handler: entry.handler }
        };
        tasks.into_values().map(stop).collect()
    }

    /// Calls `look` for each task, under the lock: it must not wait.
    pub(super) fn for_each(&self, mut look: impl FnMut(Key, &Arc<InFlight>)) {
        self.entries.lock().tasks.iter().for_each(|(key, entry)| look(*key, &entry.in_flight));
    }

    /// Calls `act` if the task is still here, under the lock: it must not wait.
    pub(super) fn if_here(&self, key: Key, act: impl FnOnce(&InFlight)) {
        if let Some(entry) = self.entries.lock().tasks.get(&key) {
            act(&entry.in_flight);
        }
    }
}

/// A task whose handler was told to stop.
pub(super) struct Stopped {
    pub(super) lease: CurrentLease,
    handler: Option<AbortHandle>,
}

impl Stopped {
    /// Whether the handler has stopped.
    pub(super) fn has_ended(&self) -> bool {
        self.handler.as_ref().is_none_or(AbortHandle::is_finished)
    }
}
