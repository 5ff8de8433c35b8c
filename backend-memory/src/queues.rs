//! All queues of a backend, shared with its subscriptions: their locks, and their clock.
//!
//! Locks are taken in one order: the registry before a queue. No lock is held over an await point or while a
//! subscription is woken. An empty queue is forgotten, so that names that were used once cost no memory.

use std::collections::HashMap;
use std::sync::Arc;

use delayline_core::{Capabilities, Error, ErrorKind, QueueName, Result};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::config::MemoryConfig;
use crate::notify::{Listener, Notifier};
use crate::now::{Now, TimeBase};
use crate::room::Room;
use crate::store::{self, Floors, Store};
use crate::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) caps: Capabilities,
    pub(crate) room: Room,
    queues_max: usize,
    dead_letters_max: usize,
    time: TimeBase,
    registry: RwLock<Registry>,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Registry {
    queues: HashMap<QueueName, Arc<QueueSlot>>,
    /// The counters that forgotten queues had reached.
    floors: Floors,
    rng: fastrand::Rng,
}

/// One queue, and the notifier of its subscriptions.
pub(crate) struct QueueSlot {
    pub(crate) name: QueueName,
    store: Mutex<Store>,
    notifier: Notifier,
}

impl std::fmt::Debug for QueueSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("QueueSlot").field(&self.name).finish_non_exhaustive()
    }
}

impl Queues {
    pub(crate) fn new(config: &MemoryConfig) -> Self {
        let rng = config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self {
            caps: config.capabilities(),
            room: Room::new(config),
            queues_max: config.max_queues,
            dead_letters_max: config.dead_letters_max,
            time: TimeBase::new(config.clock.clone()),
            registry: RwLock::new(Registry { queues: HashMap::new(), floors: Floors::default(), rng }),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.time.now()
    }

    pub(crate) fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the memory backend was closed"));
        }
        Ok(())
    }

    /// Runs `work` on a queue. Creates the queue if it does not exist.
    pub(crate) fn on_queue<R>(&self, name: &QueueName, work: impl FnOnce(&mut Store) -> R) -> Result<R> {
        loop {
            let slot = self.slot(name)?;
            let store = slot.store.lock();
            // The queue was forgotten between the look-up and the lock: look it up again.
            if !store.retired {
                return Ok(self.work_on(&slot, store, work));
            }
        }
    }

    /// Runs `work` on a queue if it exists; `None` if it does not, and so is empty.
    pub(crate) fn on_existing<R>(&self, name: &QueueName, work: impl FnOnce(&mut Store) -> R) -> Result<Option<R>> {
        loop {
            self.open()?;
            let Some(slot) = self.registry.read().queues.get(name).cloned() else { return Ok(None) };
            let store = slot.store.lock();
            if !store.retired {
                return Ok(Some(self.work_on(&slot, store, work)));
            }
        }
    }

    /// Runs `work` on the queue of a subscription, which exists as long as the subscription.
    pub(crate) fn on_slot<R>(&self, slot: &QueueSlot, work: impl FnOnce(&mut Store) -> R) -> R {
        self.work_on(slot, slot.store.lock(), work)
    }

    fn work_on<R>(&self, slot: &QueueSlot, mut store: MutexGuard<'_, Store>, work: impl FnOnce(&mut Store) -> R) -> R {
        let done = work(&mut store);
        let (notification, moved, idle) = (store.take_notification(), store.take_moved(), store.is_idle());
        if store.take_long() {
            // With an unfair unlock, a thread that does one long piece of work after another could block others for
            // long.
            MutexGuard::unlock_fair(store);
        } else {
            drop(store);
        }
        self.room.moved(moved);
        if notification {
            slot.notifier.notify();
        }
        if idle {
            self.forget(slot);
        }
        done
    }

    /// Opens a subscription on a queue.
    pub(crate) fn enter(&self, name: &QueueName) -> Result<(Arc<QueueSlot>, Listener)> {
        loop {
            let slot = self.slot(name)?;
            let mut store = slot.store.lock();
            if !store.retired {
                store.subscriptions += 1;
                drop(store);
                let listener = slot.notifier.listen();
                return Ok((slot, listener));
            }
        }
    }

    /// Closes a subscription.
    pub(crate) fn leave(&self, slot: &QueueSlot) {
        self.on_slot(slot, |store| store.subscriptions -= 1);
    }

    /// The queues that [`queues`](delayline_core::DelayBackend::queues) lists, by name.
    pub(crate) fn names(&self) -> Result<Vec<QueueName>> {
        self.open()?;
        let slots: Vec<_> = self.registry.read().queues.values().cloned().collect();
        let mut names: Vec<_> =
            slots.iter().filter(|slot| slot.store.lock().is_shown()).map(|slot| slot.name.clone()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Empties a queue; leases on its tasks are lost.
    pub(crate) fn delete(&self, name: &QueueName) -> Result<()> {
        self.open()?;
        let Some(slot) = self.registry.read().queues.get(name).cloned() else { return Ok(()) };
        let fresh = {
            let mut registry = self.registry.write();
            Store::new(self.now(), Floors::default(), self.dead_letters_max, &mut registry.rng)
        };
        let old = self.on_slot(&slot, |store| store.replace_with(fresh));
        // Counting and freeing a million tasks takes time, so do it outside the lock.
        self.room.release(old.usage());
        Ok(())
    }

    /// Closes everything: wakes the subscriptions, which find it closed, and frees the tasks.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let queues = std::mem::take(&mut self.registry.write().queues);
        for slot in queues.into_values() {
            let fresh = Store::new(self.now(), Floors::default(), 0, &mut fastrand::Rng::with_seed(0));
            let old = self.on_slot(&slot, |store| {
                store.retired = true;
                store.replace_with(fresh)
            });
            self.room.release(old.usage());
        }
    }

    /// Forgets a queue, if it is still idle.
    fn forget(&self, slot: &QueueSlot) {
        let mut registry = self.registry.write();
        let mut store = slot.store.lock();
        if store.retired || !store.is_idle() {
            return;
        }
        store.retired = true;
        let floors = store.floors();
        drop(store);
        registry.floors.raise(floors);
        registry.queues.remove(&slot.name);
        if registry.queues.len() * 4 < registry.queues.capacity() {
            let room = registry.queues.len() * 2;
            registry.queues.shrink_to(room);
        }
    }

    /// The queue. Creates it if it does not exist.
    fn slot(&self, name: &QueueName) -> Result<Arc<QueueSlot>> {
        self.open()?;
        if let Some(slot) = self.registry.read().queues.get(name) {
            return Ok(slot.clone());
        }
        let mut registry = self.registry.write();
        // `close` empties the registry under the same lock, so nothing is added to it afterwards.
        self.open()?;
        if let Some(slot) = registry.queues.get(name) {
            return Ok(slot.clone());
        }
        if registry.queues.len() >= self.queues_max {
            return Err(store::full(&format!("{} queues", self.queues_max)));
        }
        let floors = registry.floors;
        let store = Store::new(self.now(), floors, self.dead_letters_max, &mut registry.rng);
        let slot = Arc::new(QueueSlot { name: name.clone(), store: Mutex::new(store), notifier: Notifier::new() });
        registry.queues.insert(name.clone(), slot.clone());
        Ok(slot)
    }
}
