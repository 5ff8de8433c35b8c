//! What a backend and its intakes share: the queues, the limits, the clock.
//!
//! Locks are taken in one order, the registry before a queue, and none is held over an await point or while waking
//! anybody. A queue that holds nothing is forgotten, so that names used once cost nothing for ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Capabilities, Durability, Error, ErrorKind, LeaseHold, Order, QueueName, Result, Support};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::watch;

use crate::config::MemoryConfig;
use crate::now::{Now, TimeBase};
use crate::operations::Operations;
use crate::store::{self, DELAY_MAX, Floors, Store, Usage};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) caps: Capabilities,
    pub(crate) operations: Operations,
    config: MemoryConfig,
    time: TimeBase,
    registry: RwLock<Registry>,
    used: Used,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Registry {
    queues: HashMap<QueueName, Arc<QueueSlot>>,
    /// What queues that were forgotten had reached.
    floors: Floors,
    rng: fastrand::Rng,
}

/// One queue and the bell that wakes its intakes.
pub(crate) struct QueueSlot {
    pub(crate) name: QueueName,
    store: Mutex<Store>,
    bell: watch::Sender<()>,
}

impl std::fmt::Debug for QueueSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("QueueSlot").field(&self.name).finish_non_exhaustive()
    }
}

/// What counts against the limits, over all queues.
#[derive(Debug, Default)]
struct Used {
    tasks: AtomicU64,
    bytes: AtomicU64,
}

impl Shared {
    pub(crate) fn new(config: MemoryConfig) -> Self {
        let rng = config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self {
            caps: capabilities(&config),
            operations: Operations::default(),
            time: TimeBase::new(config.clock.clone()),
            registry: RwLock::new(Registry { queues: HashMap::new(), floors: Floors::default(), rng }),
            used: Used::default(),
            closed: AtomicBool::new(false),
            config,
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

    /// Runs `work` on a queue, which is made if it is not there.
    pub(crate) fn on_queue<R>(&self, name: &QueueName, work: impl FnOnce(&mut Store) -> R) -> Result<R> {
        loop {
            let slot = self.slot(name)?;
            let store = slot.store.lock();
            // Forgotten between the look-up and the lock: look again.
            if !store.retired {
                return Ok(self.work_on(&slot, store, work));
            }
        }
    }

    /// Runs `work` on a queue that is there; `None` if it is not, and so holds nothing.
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

    /// Runs `work` on the queue of an intake, which is there for as long as the intake.
    pub(crate) fn on_slot<R>(&self, slot: &QueueSlot, work: impl FnOnce(&mut Store) -> R) -> R {
        self.work_on(slot, slot.store.lock(), work)
    }

    fn work_on<R>(&self, slot: &QueueSlot, mut store: MutexGuard<'_, Store>, work: impl FnOnce(&mut Store) -> R) -> R {
        let done = work(&mut store);
        let (ring, moved, idle) = (store.take_hint(), store.take_moved(), store.is_idle());
        if store.take_long() {
            // In the plain way a thread that does one long piece of work after another can keep others out for long.
            MutexGuard::unlock_fair(store);
        } else {
            drop(store);
        }
        self.moved(moved);
        if ring {
            slot.bell.send_replace(());
        }
        if idle {
            self.forget(slot);
        }
        done
    }

    /// Opens an intake on a queue.
    pub(crate) fn enter(&self, name: &QueueName) -> Result<(Arc<QueueSlot>, watch::Receiver<()>)> {
        loop {
            let slot = self.slot(name)?;
            let mut store = slot.store.lock();
            if !store.retired {
                store.intakes += 1;
                drop(store);
                let bell = slot.bell.subscribe();
                return Ok((slot, bell));
            }
        }
    }

    /// Closes an intake.
    pub(crate) fn leave(&self, slot: &QueueSlot) {
        self.on_slot(slot, |store| store.intakes -= 1);
    }

    /// Room for `wanted`, all of it or nothing, where `leaving` is about to be freed for it.
    pub(crate) fn reserve(&self, wanted: Usage, leaving: Usage) -> Result<()> {
        let take = |counter: &AtomicU64, by: u64, leaves: u64, max: u64| {
            counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                // What makes nothing larger fits also where burials have gone beyond the limit.
                let limit = if leaves > 0 { max.max(used) } else { max };
                used.checked_add(by).filter(|&after| after.saturating_sub(leaves) <= limit)
            })
        };
        if take(&self.used.tasks, wanted.tasks, leaving.tasks, self.config.max_tasks).is_err() {
            return Err(store::full(&format!("{} tasks", self.config.max_tasks)));
        }
        if take(&self.used.bytes, wanted.bytes, leaving.bytes, self.config.max_bytes).is_err() {
            self.used.tasks.fetch_sub(wanted.tasks, Ordering::Relaxed);
            return Err(store::full(&format!("{} bytes", self.config.max_bytes)));
        }
        Ok(())
    }

    /// Counts what left a queue, and what came without being reserved.
    pub(crate) fn moved(&self, (freed, grown): (Usage, Usage)) {
        self.used.take(grown);
        self.used.release(freed);
    }

    /// Gives back room that was reserved and not used.
    pub(crate) fn release(&self, unused: Usage) {
        self.used.release(unused);
    }

    /// The queues that hold or are something, by name.
    pub(crate) fn queues(&self) -> Result<Vec<QueueName>> {
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
            Store::new(self.now(), Floors::default(), self.config.dead_letters_max, &mut registry.rng)
        };
        let old = self.on_slot(&slot, |store| store.replace_with(fresh));
        // A million tasks take their time to count and free: not under the lock.
        self.used.release(old.usage());
        Ok(())
    }

    /// Closes everything: intakes wake and find it closed, and the tasks are freed.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let queues = std::mem::take(&mut self.registry.write().queues);
        for slot in queues.into_values() {
            let fresh = Store::new(self.now(), Floors::default(), 0, &mut fastrand::Rng::with_seed(0));
            let old = self.on_slot(&slot, |store| {
                store.retired = true;
                store.replace_with(fresh)
            });
            self.used.release(old.usage());
        }
    }

    /// Forgets a queue, if it is still as idle as it was.
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

    /// The queue, made if it is not there.
    fn slot(&self, name: &QueueName) -> Result<Arc<QueueSlot>> {
        self.open()?;
        if let Some(slot) = self.registry.read().queues.get(name) {
            return Ok(slot.clone());
        }
        let mut registry = self.registry.write();
        // Closing empties the registry under the same lock, so that nothing is put into it afterwards.
        self.open()?;
        if let Some(slot) = registry.queues.get(name) {
            return Ok(slot.clone());
        }
        if registry.queues.len() >= self.config.max_queues {
            return Err(store::full(&format!("{} queues", self.config.max_queues)));
        }
        let floors = registry.floors;
        let store = Store::new(self.now(), floors, self.config.dead_letters_max, &mut registry.rng);
        let slot = Arc::new(QueueSlot { name: name.clone(), store: Mutex::new(store), bell: watch::channel(()).0 });
        registry.queues.insert(name.clone(), slot.clone());
        Ok(slot)
    }
}

impl Used {
    fn take(&self, grown: Usage) {
        if grown != Usage::default() {
            self.tasks.fetch_add(grown.tasks, Ordering::Relaxed);
            self.bytes.fetch_add(grown.bytes, Ordering::Relaxed);
        }
    }

    fn release(&self, freed: Usage) {
        if freed != Usage::default() {
            self.tasks.fetch_sub(freed.tasks, Ordering::Relaxed);
            self.bytes.fetch_sub(freed.bytes, Ordering::Relaxed);
        }
    }
}

fn capabilities(config: &MemoryConfig) -> Capabilities {
    let mut caps = Capabilities::minimal("memory");
    caps.durability = Durability::Process;
    caps.order = Order::Exact;
    caps.delay_max = DELAY_MAX;
    // What tokio's timer adds: it counts whole milliseconds and rounds up.
    caps.lateness = Duration::from_millis(2);
    caps.lease_max = Duration::from_secs(24 * 3600);
    caps.lease_hold = LeaseHold::Store;
    caps.payload_bytes_max = config.payload_bytes_max;
    caps.batch_max = 1_000_000;
    // No hint is ever lost within a process; tasks that wait for the wall clock are looked at every 30 s.
    caps.sweep = Duration::from_secs(3600);
    caps.operation_window = crate::operations::WINDOW;
    caps.extend = Support::Definite;
    caps.cancel = Support::Definite;
    caps.reschedule = Support::Definite;
    caps.groups = Support::Definite;
    caps.replace = Support::Definite;
    caps.unique_ids = Support::Definite;
    caps.inspect = Support::Definite;
    caps.dead_letters = Support::Definite;
    caps.pause = Support::Definite;
    caps.delete = Support::Definite;
    caps.stats = Support::Definite;
    caps
}
