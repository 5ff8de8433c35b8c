//! Finds the location of a task by its id.
//!
//! A generated id is a UUIDv7 (RFC 9562). Its random bits hold the place and sequence of its task, shifted by a random
//! number of this store. So it needs no map, and can't be mistaken for an id of another store. Custom ids are in hash
//! tables with 8 bytes for each entry, split by hash so that the growth of a table never blocks the queue for long.

use std::hash::BuildHasher;

use delayline_core::TaskId;
use hashbrown::{DefaultHashBuilder, HashTable};
use uuid::Uuid;

/// Bits of the sequence in an id, in addition to 32 bits of the place: a UUIDv7 has 74 free bits.
const SEQ_BITS: u32 = 42;
const FREE_BITS: u32 = 74;
const TABLES: usize = 64;

/// The location in a generated id. To check that this store generated the id, generate it again from the location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) ms: u64,
    pub(super) index: u32,
}

#[derive(Debug)]
pub(super) struct IdCodec {
    shift: u128,
}

impl IdCodec {
    pub(super) fn new(rng: &mut fastrand::Rng) -> Self {
        // Half of the range is left above, so that ids of one store keep rising.
        Self { shift: rng.u128(0..1 << (FREE_BITS - 1)) }
    }

    pub(super) fn id(&self, ms: u64, index: u32, seq: u64) -> Uuid {
        let told = u128::from(seq & ((1 << SEQ_BITS) - 1)) << 32 | u128::from(index);
        let free = (told + self.shift) & ((1 << FREE_BITS) - 1);
        let high = u128::from(ms & ((1 << 48) - 1)) << 80 | 7 << 76 | (free >> 62) << 64;
        Uuid::from_u128(high | 0b10 << 62 | (free & ((1 << 62) - 1)))
    }

    pub(super) fn read(&self, id: Uuid) -> Told {
        let bits = id.as_u128();
        let free = (bits >> 64 & 0xfff) << 62 | bits & ((1 << 62) - 1);
        let told = free.wrapping_sub(self.shift) & ((1 << FREE_BITS) - 1);
        Told { ms: (bits >> 80) as u64, index: told as u32 }
    }
}

/// Places of custom ids. The caller compares the id itself.
#[derive(Debug)]
pub(super) struct KeyMap {
    tables: Vec<HashTable<(u32, u32)>>,
    hasher: DefaultHashBuilder,
}

impl KeyMap {
    pub(super) fn new() -> Self {
        Self { tables: Vec::new(), hasher: DefaultHashBuilder::default() }
    }

    pub(super) fn find(&self, id: &TaskId, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let (table, hash) = self.slot_of(id);
        let found = self.tables.get(table)?.find(spread(hash), |&(at, h)| h == hash && is(at))?;
        Some(found.0)
    }

    /// Inserts an id, which must not be in the map yet.
    pub(super) fn insert(&mut self, id: &TaskId, at: u32) {
        if self.tables.is_empty() {
            self.tables.resize_with(TABLES, HashTable::new);
        }
        let (table, hash) = self.slot_of(id);
        self.tables[table].insert_unique(spread(hash), (at, hash), |&(_, h)| spread(h));
    }

    pub(super) fn remove(&mut self, id: &TaskId, at: u32) {
        let (table, hash) = self.slot_of(id);
        let Some(table) = self.tables.get_mut(table) else { return };
        if let Ok(entry) = table.find_entry(spread(hash), |&(a, _)| a == at) {
            entry.remove();
        }
        if table.len() * 8 < table.capacity() && table.capacity() > 64 {
            table.shrink_to(table.len() * 2, |&(_, h)| spread(h));
        }
    }

    fn slot_of(&self, id: &TaskId) -> (usize, u32) {
        let hash = self.hasher.hash_one(id);
        ((hash >> 58) as usize % TABLES, hash as u32)
    }
}

/// A 64-bit hash from the 32 bits that are stored.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_is_a_uuid_v7_that_tells_its_place() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let codec = IdCodec::new(&mut rng);
            let (ms, index, seq) = (rng.u64(0..1 << 48), rng.u32(..), rng.u64(0..1 << 52));
            let id = codec.id(ms, index, seq);
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
            assert_eq!(codec.read(id), Told { ms, index });
        }
    }

    #[test]
    fn generated_ids_rise_with_the_sequence() {
        let codec = IdCodec::new(&mut fastrand::Rng::with_seed(1));
        let ids: Vec<_> = (0..1000u64).map(|seq| codec.id(5, 1000 - seq as u32, seq)).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn the_key_map_gives_memory_back() {
        let ids: Vec<_> = (0..100_000).map(|i| TaskId::new(format!("candidate-{i}")).unwrap()).collect();
        let mut map = KeyMap::new();
        for (i, id) in ids.iter().enumerate() {
            map.insert(id, i as u32);
        }
        for (i, id) in ids.iter().enumerate() {
            assert_eq!(map.find(id, |at| at == i as u32), Some(i as u32));
            map.remove(id, i as u32);
            // Another id may have the same 32 bits of hash, so compare the place.
            assert_eq!(map.find(id, |at| at == i as u32), None);
        }
        assert!(map.tables.iter().map(HashTable::capacity).sum::<usize>() < 64 * 128);
    }
}
