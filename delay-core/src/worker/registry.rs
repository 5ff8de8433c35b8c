//! The tasks of one queue whose handlers run: decides who may settle them, and lists the leases to extend.
//!
//! Invariant: only the one who takes a task out of here settles it. A handler that returns and the shutdown therefore
//! never settle the same task, and an extension that comes back after that is ignored.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::context::{CurrentLease, InFlight};
#[cfg(delayline_interleaved)]
use crate::faults::{Fault, is_planted};

/// A task's position in the registry. It is reused after the task was taken out.
pub(super) type Key = usize;

#[derive(Default)]
pub(super) struct Registry {
    places: Mutex<Places>,
    /// Notified when a task is added: the keeper sleeps while there is none.
    pub(super) came_in: Notify,
}

#[derive(Default)]
struct Places {
    all: Vec<Option<Entry>>,
    free: Vec<Key>,
}

struct Entry {
    in_flight: Arc<InFlight>,
    /// Handle of the task that runs the handler, once it was spawned.
    handler: Option<AbortHandle>,
}

impl Registry {
    /// Adds a task, before its handler is spawned.
    pub(super) fn insert(&self, in_flight: Arc<InFlight>) -> Key {
        let mut places = self.places.lock();
        let entry = Some(Entry { in_flight, handler: None });
        let key = match places.free.pop() {
            Some(key) => {
                places.all[key] = entry;
                key
            }
            None => {
                places.all.push(entry);
                places.all.len() - 1
            }
        };
        drop(places);
        #[cfg(delayline_interleaved)]
        if is_planted(Fault::KeeperNotTold) {
            self.came_in.notify_waiters();
            return key;
        }
        self.came_in.notify_one();
        key
    }

    /// Records how to stop the handler of a task, unless the handler has ended already.
    pub(super) fn spawned(&self, key: Key, in_flight: &Arc<InFlight>, handler: AbortHandle) {
        if let Some(entry) = self.places.lock().entry(key, in_flight) {
            entry.handler = Some(handler);
        }
    }

    /// Takes a task out, to settle it; `None` if the shutdown took it.
    pub(super) fn take(&self, key: Key) -> Option<CurrentLease> {
        let entry = {
            let mut places = self.places.lock();
            #[cfg(delayline_interleaved)]
            if is_planted(Fault::TakenTwice) {
                return places.all.get(key)?.as_ref().map(|entry| entry.in_flight.current_lease());
            }
            places.take(key)?
        };
        Some(entry.in_flight.current_lease())
    }

    /// Takes out the tasks of one handler, to settle them. All at once: when the shutdown finds one of them, it stops
    /// the handler, so none of them may have been taken out before.
    pub(super) fn take_all(&self, keys: impl Iterator<Item = Key>) -> Vec<Option<CurrentLease>> {
        let entries: Vec<_> = {
            let mut places = self.places.lock();
            keys.map(|key| places.take(key)).collect()
        };
        entries.into_iter().map(|entry| Some(entry?.in_flight.current_lease())).collect()
    }

    /// Takes all tasks out and stops their handlers. No task is added afterwards.
    pub(super) fn stop_all(&self) -> Vec<Stopped> {
        let places = std::mem::take(&mut *self.places.lock());
        let stop = |Entry { in_flight, handler }: Entry| {
            if let Some(handler) = &handler {
                handler.abort();
            }
            Stopped { lease: in_flight.current_lease(), handler }
        };
        places.all.into_iter().flatten().map(stop).collect()
    }

    /// Calls `look` for each task, under the lock. `look` must not block.
    pub(super) fn for_each(&self, mut look: impl FnMut(Key, &Arc<InFlight>)) {
        for (key, entry) in self.places.lock().all.iter().enumerate() {
            if let Some(entry) = entry {
                look(key, &entry.in_flight);
            }
        }
    }

    /// Calls `act` under the lock, if the task is still here. `act` must not block.
    pub(super) fn if_here(&self, key: Key, in_flight: &Arc<InFlight>, act: impl FnOnce()) {
        if self.places.lock().entry(key, in_flight).is_some() {
            act();
        }
    }
}

impl Places {
    fn take(&mut self, key: Key) -> Option<Entry> {
        let entry = self.all.get_mut(key)?.take()?;
        self.free.push(key);
        Some(entry)
    }

    /// The entry of this task, unless another task has taken its position.
    fn entry(&mut self, key: Key, in_flight: &Arc<InFlight>) -> Option<&mut Entry> {
        self.all.get_mut(key)?.as_mut().filter(|entry| Arc::ptr_eq(&entry.in_flight, in_flight))
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
