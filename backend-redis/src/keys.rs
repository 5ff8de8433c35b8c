//! The names of the keys. `scripts/common.lua` describes the contents of each.

use delayline_backend_kit::codec::id_bytes;
use delayline_core::{Error, ErrorKind, OperationId, QueueName, TaskId};

/// The types of a shard's keys, in the order of [`Shard::keys`], in the words of the command `TYPE`.
pub(crate) const TYPES: [&str; 8] = ["zset", "hash", "hash", "zset", "hash", "zset", "list", "hash"];

/// The format of the stored data, as described in `scripts/common.lua`. It rises with every change that an older
/// version of this library would not understand.
pub(crate) const FORMAT: u32 = 1;

/// The layout of a queue (format and number of shards), as its own key stores it.
pub(crate) fn layout(shards: u32) -> String {
    format!("{FORMAT}.{shards}")
}

/// The format of a layout, if it is newer than [`FORMAT`].
pub(crate) fn newer_format(layout: &[u8]) -> Option<u32> {
    let format = std::str::from_utf8(layout).ok()?.split('.').next()?.parse().ok()?;
    (format > FORMAT).then_some(format)
}

/// The number of shards of a layout.
pub(crate) fn shards_of(layout: &[u8]) -> Option<u32> {
    std::str::from_utf8(layout).ok()?.split('.').nth(1)?.parse().ok()
}

/// The error for data that a newer version of this library wrote.
pub(crate) fn newer(what: &str, format: u32) -> Error {
    let ours = FORMAT;
    Error::new(
        ErrorKind::Incompatible,
        format!("{what} has format {format}, but this version of delayline supports up to {ours}: upgrade delayline"),
    )
}

const NAMES: [&str; 8] = ["v", "t", "a", "g", "m", "d", "x", "p"];

/// One shard of a queue. Its keys share a hash tag, so that a cluster stores them on one node.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    tag: String,
    pub(crate) keys: [Vec<u8>; 8],
    /// The channel of the notifications: the same for all shards of a queue.
    pub(crate) channel: Vec<u8>,
}

impl Shard {
    pub(crate) fn new(prefix: &str, queue: &QueueName, number: u32) -> Self {
        let tag = format!("{{{prefix}:{}:{number}}}", queue.as_str());
        let keys = NAMES.map(|name| format!("{tag}:{name}").into_bytes());
        let channel = format!("{prefix}:{}:w", queue.as_str()).into_bytes();
        Self { tag, keys, channel }
    }

    /// The hash tag with which all its keys begin.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// The key in which a subscription records its last claim.
    pub(crate) fn claim_key(&self, subscription: u128) -> Vec<u8> {
        format!("{}:k:{subscription:032x}", self.tag).into_bytes()
    }

    /// The key that stores the answer so far to an operation id.
    pub(crate) fn operation_key(&self, operation: OperationId) -> Vec<u8> {
        format!("{}:o:{operation}", self.tag).into_bytes()
    }
}

/// The key that stores which change an operation id stands for, for all queues. It shares its slot with no other key.
pub(crate) fn operation_key(prefix: &str, operation: OperationId) -> Vec<u8> {
    format!("{{{prefix}:o:{operation}}}").into_bytes()
}

/// The pattern that matches all keys of a prefix. Escapes characters that have a meaning in a pattern.
pub(crate) fn pattern(prefix: &str) -> String {
    let mut pattern = String::from("{");
    for c in prefix.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + ":*"
}

/// The pattern that matches every queue's own key.
pub(crate) fn queues_pattern(prefix: &str) -> String {
    pattern(prefix) + "}:m"
}

/// The namespace below this prefix that a key belongs to. `None` for the keys of the prefix itself: queue names contain
/// no colon.
pub(crate) fn namespace_of(prefix: &str, key: &[u8]) -> Option<String> {
    let inner = std::str::from_utf8(key).ok()?.strip_prefix('{')?.strip_prefix(prefix)?.strip_prefix(':')?;
    let (tag, _) = inner.split_once('}')?;
    let (name, rest) = tag.split_once(':')?;
    rest.contains(':').then(|| name.to_owned())
}

/// The queue of a key that matches the pattern.
pub(crate) fn queue_of(prefix: &str, key: &[u8]) -> Option<QueueName> {
    let inner = std::str::from_utf8(key).ok()?.strip_prefix('{')?.strip_prefix(prefix)?.strip_prefix(':')?;
    let (name, number) = inner.strip_suffix("}:m")?.rsplit_once(':')?;
    number.parse::<u32>().ok()?;
    QueueName::new(name).ok()
}

/// The shard of an id. It must be the same in every process and version.
pub(crate) fn shard_of(id: &TaskId, shards: u32) -> u32 {
    if shards == 1 {
        return 0;
    }
    let mut digest = Digest::default();
    digest.add(&id_bytes(id));
    (digest.value() % u128::from(shards)) as u32
}

/// FNV-1a with 128 bits. The same in every process and version; not cryptographic.
#[derive(Debug)]
pub(crate) struct Digest(u128);

impl Default for Digest {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Digest {
    /// Adds a part, including its boundary: `ab`, `c` differs from `a`, `bc`.
    pub(crate) fn add(&mut self, part: &[u8]) {
        for &byte in (part.len() as u64).to_le_bytes().iter().chain(part) {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    pub(crate) fn value(&self) -> u128 {
        // The low bits of the product depend on few bits of the input.
        self.0 ^ self.0 >> 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_told_from_a_queue() {
        let queue = QueueName::new("exam").unwrap();
        let of = |prefix: &str, key: &[u8]| namespace_of(prefix, key);
        for key in Shard::new("delayline:conform-1", &queue, 3).keys {
            assert_eq!(of("delayline", &key).as_deref(), Some("conform-1"));
            assert_eq!(of("delayline:conform-1", &key), None);
            assert_eq!(queue_of("delayline", &key), None, "it is no queue of the namespace above");
        }
        let operation = OperationId::random();
        assert_eq!(of("a", &operation_key("a:b", operation)).as_deref(), Some("b"));
        assert_eq!(of("a", &operation_key("a", operation)), None);
        assert_eq!(of("a", b"{other:b:c:0}:m"), None);
    }

    #[test]
    fn the_keys_of_a_shard_share_a_tag_and_tell_their_queue() {
        let queue = QueueName::new("exam.7").unwrap();
        let shard = Shard::new("my[app]", &queue, 3);
        assert_eq!(shard.keys[4], b"{my[app]:exam.7:3}:m");
        assert_eq!(queue_of("my[app]", &shard.keys[4]), Some(queue));
        assert_eq!(queue_of("my[app]", &shard.keys[0]), None);
        assert_eq!(queues_pattern("my[app]"), r"{my\[app\]:*}:m");
    }

    #[test]
    fn ids_are_spread_over_the_shards() {
        let mut counts = [0; 8];
        for i in 0..8_000 {
            counts[shard_of(&TaskId::new(format!("candidate-{i}")).unwrap(), 8) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (800..1200).contains(n)), "{counts:?}");
        assert_eq!(shard_of(&TaskId::new("anna").unwrap(), 8), 3, "must never change: it says where a task lies");
    }
}
