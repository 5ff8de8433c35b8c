//! State that a backend and its subscriptions share; runs scripts.

use std::sync::Arc;

use delayline_backend_kit::{Ids, Lifecycle};
use delayline_core::{Capabilities, Error, ErrorKind, QueueName, Result, TaskId};

use crate::RedisConfig;
use crate::codec::text;
use crate::config::capabilities;
use crate::keys::{self, Shard};
use crate::notify::Notifier;
use crate::scripts;
use crate::transport::{Connection, Refusal, Reply, Script};

/// The store on one server. The modules below `ops` implement its operations.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) connection: Connection,
    pub(crate) notifier: Notifier,
    pub(crate) config: RedisConfig,
    pub(crate) caps: Capabilities,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) ids: Ids,
}

impl Store {
    pub(crate) fn new(connection: Connection, notifier: Notifier, config: RedisConfig) -> Self {
        let lifecycle = Lifecycle::new("Redis");
        Self { connection, notifier, caps: capabilities(&config), config, lifecycle, ids: Ids::new() }
    }

    pub(crate) fn shard(&self, queue: &QueueName, number: u32) -> Shard {
        Shard::new(&self.config.key_prefix, queue, number)
    }

    pub(crate) fn shards(&self, queue: &QueueName) -> Vec<Shard> {
        (0..self.config.shards).map(|number| self.shard(queue, number)).collect()
    }

    /// Groups the indexes of a batch by shard. Shards without items are left out.
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

    /// The first arguments of every script call on a shard.
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
        self.lifecycle.open()?;
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
            Refusal::Operation => {
                Error::new(ErrorKind::Invalid, "this operation id was used for a different change: use a new id")
            }
        })
    }

    /// The error with the name of the key that another program has written.
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
                    format!(
                        "key {key} holds a {found}, expected a {ours}: another program uses it, set another key_prefix"
                    ),
                )
            }
            None => e,
        }
    }
}

/// The error for a queue with another layout than this backend is configured for.
fn other_layout(tag: &str, layout: &[u8], shards: u32) -> Error {
    match keys::newer_format(layout) {
        Some(format) => keys::newer(tag, format),
        None => {
            let theirs =
                keys::shards_of(layout).map_or("another number".to_owned(), |shards| format!("`shards={shards}`"));
            Error::new(
                ErrorKind::Config,
                format!("{tag} was created with {theirs}, but `shards` is {shards}: set it to that"),
            )
        }
    }
}
