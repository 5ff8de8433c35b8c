//! The ids that an input has used, to detect a repeated one, even after its task was delivered.
//!
//! Ids are kept as 128-bit fingerprints under a random key: two different ids collide with probability 2^-128.
//! Memory is limited: for an endless input, at least the last `GENERATION` ids are known.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use delayline::TaskId;

/// Ids in one generation; two are kept. 24 bytes each and room to grow: at most 0.8 GiB in all.
const GENERATION: usize = 14_000_000;

/// Four words rather than one number, which would be aligned to twice the memory.
type Fingerprint = [u32; 4];

#[derive(Debug, Default)]
pub(super) struct Ids {
    keys: [RandomState; 2],
    /// Each with its line, or the largest number if the line number does not fit.
    young: HashMap<Fingerprint, u32>,
    old: HashMap<Fingerprint, u32>,
}

impl Ids {
    /// Records an id. If it was used before, the error is its line, if that is known.
    pub(super) fn note(&mut self, id: &TaskId, line: u64) -> Result<(), Option<u64>> {
        let fingerprint = self.fingerprint(id);
        if let Some(&line) = self.young.get(&fingerprint).or_else(|| self.old.get(&fingerprint)) {
            return Err((line != u32::MAX).then_some(line.into()));
        }
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(fingerprint, u32::try_from(line).unwrap_or(u32::MAX));
        Ok(())
    }

    fn fingerprint(&self, id: &TaskId) -> Fingerprint {
        let [a, b] = [&self.keys[0], &self.keys[1]].map(|key| key.hash_one(id));
        [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_comes_again_is_known_with_its_line() {
        let mut ids = Ids::default();
        let id = |text| TaskId::new(text).unwrap();
        assert_eq!(ids.note(&id("a"), 3), Ok(()));
        assert_eq!(ids.note(&id("b"), 4), Ok(()));
        assert_eq!(ids.note(&id("a"), 5), Err(Some(3)));
        assert_eq!(ids.note(&id("far"), u64::MAX), Ok(()));
        assert_eq!(ids.note(&id("far"), 7), Err(None));
    }
}
