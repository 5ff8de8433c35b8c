//! What a backend and its intakes share, and how they run scripts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use delayline_core::{
    Capabilities, Clock, Error, ErrorKind, LeaseHold, Order, QueueName, Result, Support, SystemClock, TaskId,
};
use parking_lot::Mutex;
use uuid::{Builder, Uuid};

use crate::RedisConfig;
use crate::bells::Bells;
use crate::connection::{Connection, Script};
use crate::keys::{self, Shard};
use crate::reply::{Refusal, Reply};
use crate::scripts;

/// The farthest a due time may lie ahead: 2^40 - 1 ms, 34.8 years.
pub(crate) const DELAY_MAX: Duration = Duration::from_millis((1 << 40) - 1);

/// The most items of one script, so that none holds the server up for long.
pub(crate) const PIECE: usize = 1_000;

/// What it is called, in capabilities and metrics.
pub(crate) const NAME: &str = "redis";

/// The most bytes of one script's arguments or answer, beyond one item. A connection keeps a buffer as large as the largest.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) connection: Connection,
    pub(crate) bells: Bells,
    pub(crate) config: RedisConfig,
    pub(crate) caps: Capabilities,
    closed: AtomicBool,
    /// How many intakes each queue has here.
    intakes: Mutex<BTreeMap<QueueName, usize>>,
    /// For generated ids alone; due times go by Redis's clock.
    clock: SystemClock,
    random: Mutex<[fastrand::Rng; 2]>,
}

impl Shared {
    pub(crate) fn new(connection: Connection, bells: Bells, config: RedisConfig) -> Self {
        // An id that is given twice loses a task, so 128 bits of the system's randomness go into them.
        let (a, b) = Uuid::new_v4().as_u64_pair();
        Self {
            connection,
            bells,
            caps: capabilities(&config),
            config,
            closed: AtomicBool::new(false),
            intakes: Mutex::default(),
            clock: SystemClock::new(),
            random: Mutex::new([fastrand::Rng::with_seed(a), fastrand::Rng::with_seed(b)]),
        }
    }

    pub(crate) fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the Redis backend was closed"));
        }
        Ok(())
    }

    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// A UUIDv7.
    pub(crate) fn fresh_id(&self) -> TaskId {
        let ms = u64::try_from(self.clock.wall().unix_millis_floor()).unwrap_or(0);
        let mut bytes = [0; 10];
        let mut random = self.random.lock();
        bytes[..8].copy_from_slice(&random[0].u64(..).to_be_bytes());
        bytes[8..].copy_from_slice(&random[1].u16(..).to_be_bytes());
        drop(random);
        TaskId::from_uuid(Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid())
    }

    /// Sixteen bytes that nobody else has.
    pub(crate) fn fresh_number(&self) -> u128 {
        let mut random = self.random.lock();
        u128::from(random[0].u64(..)) << 64 | u128::from(random[1].u64(..))
    }

    pub(crate) fn shard(&self, queue: &QueueName, number: u32) -> Shard {
        Shard::new(&self.config.key_prefix, queue, number)
    }

    pub(crate) fn shards(&self, queue: &QueueName) -> Vec<Shard> {
        (0..self.config.shards).map(|number| self.shard(queue, number)).collect()
    }

    /// The indexes of a batch, by the shard that each belongs to; only shards that have any.
    pub(crate) fn by_shard<'i>(&self, ids: impl Iterator<Item = &'i TaskId>) -> Vec<(u32, Vec<usize>)> {
        let shards = self.config.shards;
        if shards == 1 {
            let all: Vec<usize> = (0..ids.count()).collect();
            return if all.is_empty() { Vec::new() } else { vec![(0, all)] };
        }
        let mut lists = vec![Vec::new(); shards as usize];
        for (at, id) in ids.enumerate() {
            lists[keys::shard_of(id, shards) as usize].push(at);
        }
        (0..shards).zip(lists).filter(|(_, list)| !list.is_empty()).collect()
    }

    /// What every script of a shard is given first.
    pub(crate) fn args(&self, shard: &Shard, capacity: usize) -> Vec<Vec<u8>> {
        let mut args = Vec::with_capacity(3 + capacity);
        args.push(shard.channel.clone());
        args.push(keys::layout(self.config.shards).into_bytes());
        args.push(text(self.config.dead_letters_max));
        args
    }

    /// Runs a script on a shard.
    pub(crate) async fn run(
        &self,
        script: &'static Script,
        shard: &Shard,
        own_key: Option<&[u8]>,
        args: Vec<Vec<u8>>,
    ) -> Result<Reply> {
        self.open()?;
        let mut keys: Vec<&[u8]> = shard.keys.iter().map(Vec::as_slice).collect();
        keys.extend(own_key);
        let value = match self.connection.eval(script, &keys, args).await {
            Ok(value) => value,
            Err(e) if e.kind() == ErrorKind::Corrupt && e.message().contains("WRONGTYPE") => {
                return Err(self.name_foreign(shard, e).await);
            }
            Err(e) => return Err(e),
        };
        Reply::of(value)?.map_err(|refusal| match refusal {
            Refusal::Layout(layout) => other_layout(shard.tag(), &layout, self.config.shards),
            Refusal::Range => self.caps.out_of_range(),
            Refusal::Operation => Error::new(ErrorKind::Invalid, "the operation id was another change's"),
        })
    }

    /// The same error with the key that another program has written.
    async fn name_foreign(&self, shard: &Shard, e: Error) -> Error {
        let keys: Vec<&[u8]> = shard.keys.iter().map(Vec::as_slice).collect();
        let Ok(redis::Value::Array(types)) = self.connection.eval(&scripts::TYPES, &keys, Vec::new()).await else {
            return e;
        };
        let found = types.iter().map(|found| match found {
            redis::Value::BulkString(name) => String::from_utf8_lossy(name).into_owned(),
            redis::Value::SimpleString(name) => name.clone(),
            _ => String::new(),
        });
        let foreign =
            keys.iter().zip(keys::TYPES).zip(found).find(|((_, ours), found)| found != ours && found != "none");
        match foreign {
            Some(((key, ours), found)) => {
                let key = String::from_utf8_lossy(key);
                Error::new(
                    ErrorKind::Corrupt,
                    format!("the key {key} holds a {found} where this library keeps a {ours}"),
                )
            }
            None => e,
        }
    }

    pub(crate) fn enter(&self, queue: &QueueName) {
        *self.intakes.lock().entry(queue.clone()).or_default() += 1;
    }

    pub(crate) fn leave(&self, queue: &QueueName) {
        let mut intakes = self.intakes.lock();
        if let Some(n) = intakes.get_mut(queue) {
            *n -= 1;
            if *n == 0 {
                intakes.remove(queue);
            }
        }
    }

    /// The queues that have an intake here.
    pub(crate) fn entered(&self) -> Vec<QueueName> {
        self.intakes.lock().keys().cloned().collect()
    }
}

/// The error for a queue that is not laid out as we count on.
fn other_layout(tag: &str, layout: &[u8], shards: u32) -> Error {
    match keys::newer_format(layout) {
        Some(format) => newer(tag, format),
        None => Error::new(ErrorKind::Config, format!("{tag} was laid out for another number of shards than {shards}")),
    }
}

/// The error for what a newer version of this library wrote.
pub(crate) fn newer(what: &str, format: u32) -> Error {
    let ours = keys::FORMAT;
    Error::new(
        ErrorKind::Incompatible,
        format!("{what} has the format {format} of a newer version of this library, which knows {ours}"),
    )
}

/// A number as scripts read it.
pub(crate) fn text(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// A time in microseconds, rounded up.
pub(crate) fn micros_ceil(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// Cuts a list into pieces of bounded length and size.
pub(crate) fn pieces<T>(items: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut pieces = Vec::new();
    let mut piece = Vec::with_capacity(items.len().min(PIECE));
    let mut bytes = 0;
    for item in items {
        let more = size(&item);
        if piece.len() == PIECE || (bytes + more > PIECE_BYTES && !piece.is_empty()) {
            pieces.push(std::mem::take(&mut piece));
            bytes = 0;
        }
        bytes += more;
        piece.push(item);
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// What the items of pieces answer that were not sent any more.
pub(crate) fn unsent(e: &Error) -> Error {
    let kind = if e.kind() == ErrorKind::Ambiguous { ErrorKind::Unavailable } else { e.kind() };
    Error::new(kind, format!("not sent, because a part of the call before it failed: {}", e.message()))
}

fn capabilities(config: &RedisConfig) -> Capabilities {
    let mut caps = Capabilities::minimal(NAME);
    caps.durability = config.durability;
    caps.order = if config.shards == 1 { Order::Exact } else { Order::PerShard(config.shards) };
    caps.resolution = Duration::from_millis(1);
    caps.lateness = Duration::from_millis(5);
    caps.delay_max = DELAY_MAX;
    caps.lease_max = Duration::from_secs(24 * 3600);
    caps.lease_hold = LeaseHold::Store;
    caps.payload_bytes_max = config.payload_bytes_max;
    caps.batch_max = 10_000;
    caps.sweep = config.sweep;
    caps.operation_window = config.operation_window;
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
