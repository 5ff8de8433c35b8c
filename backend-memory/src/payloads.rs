//! Small payloads, packed by size.
//!
//! A separate heap block for each payload costs a header. And freeing a million blocks in due order, not in the order
//! of allocation, is close to an allocator's worst case: measured, it was a third of the cost of a task. So small
//! payloads are copied into pages of slots of their size, rounded up to 8 bytes. Large payloads are kept as they are.

use crate::arena::{NONE, Page, Pages};

/// Maximum size of a payload that is kept here. Copying one of this size at delivery costs less than sharing it.
pub(crate) const SMALL_BYTES_MAX: usize = 1024;

const ROUND: usize = 8;
const PAGE_BYTES: usize = 16 * 1024;

/// Number of sizes for which an empty store keeps a page.
const KEPT_CLASSES_MAX: usize = 2;

/// The location of a payload: an index in the class of its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PayloadAt {
    pub(crate) index: u32,
    pub(crate) len: u16,
}

#[derive(Debug, Default)]
pub(crate) struct Payloads {
    /// By rounded length; class 0, of empty payloads, has no pages.
    classes: Vec<Pages<BytePage>>,
}

/// Places of one size. A vacant one holds the number of the next vacant one in its first two bytes.
#[derive(Debug)]
struct BytePage {
    bytes: Vec<u8>,
    vacant: u16,
    used: u16,
}

/// The size of a place, and how many make a page.
#[derive(Clone, Copy)]
struct Shape {
    size: usize,
    places: usize,
}

impl Default for BytePage {
    fn default() -> Self {
        Self { bytes: Vec::new(), vacant: NONE, used: 0 }
    }
}

impl Page for BytePage {
    type Shape = Shape;
    fn has_room(&self, shape: Shape) -> bool {
        self.vacant != NONE || self.bytes.len() < shape.size * shape.places
    }
    fn used(&self) -> usize {
        usize::from(self.used)
    }
    fn has_memory(&self) -> bool {
        self.bytes.capacity() > 0
    }
}

fn class_of(len: usize) -> usize {
    len.div_ceil(ROUND)
}

fn shape_of(class: usize) -> Shape {
    let size = class * ROUND;
    Shape { size, places: PAGE_BYTES / size.max(ROUND) }
}

impl Payloads {
    /// Copies a payload of at most `SMALL_BYTES_MAX`.
    pub(crate) fn insert(&mut self, payload: &[u8]) -> PayloadAt {
        debug_assert!(payload.len() <= SMALL_BYTES_MAX);
        let len = payload.len() as u16;
        let class = class_of(payload.len());
        if class == 0 {
            return PayloadAt { index: 0, len };
        }
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, Pages::default);
        }
        let shape = shape_of(class);
        let (number, page) = self.classes[class].with_room(shape);
        page.used += 1;
        let place = if page.vacant == NONE {
            if number > 0 && page.bytes.capacity() == 0 {
                page.bytes.reserve_exact(shape.size * shape.places);
            }
            let place = page.bytes.len() / shape.size;
            page.bytes.extend_from_slice(payload);
            page.bytes.resize((place + 1) * shape.size, 0);
            place
        } else {
            let place = usize::from(page.vacant);
            let bytes = &mut page.bytes[place * shape.size..][..shape.size];
            page.vacant = u16::from_ne_bytes([bytes[0], bytes[1]]);
            bytes[..payload.len()].copy_from_slice(payload);
            place
        };
        PayloadAt { index: (number * shape.places + place) as u32, len }
    }

    #[inline]
    pub(crate) fn get(&self, at: PayloadAt) -> &[u8] {
        let (len, class) = (usize::from(at.len), class_of(usize::from(at.len)));
        let shape = shape_of(class);
        let page = self.classes.get(class).and_then(|pages| pages.get(at.index as usize / shape.places));
        let start = at.index as usize % shape.places * shape.size;
        page.and_then(|page| page.bytes.get(start..start + len)).unwrap_or_default()
    }

    /// Frees the pages that an empty store keeps for the next payloads, if they are more than a few.
    pub(crate) fn trim(&mut self) {
        if self.classes.iter().filter(|pages| pages.len() > 0).count() > KEPT_CLASSES_MAX {
            self.classes = Vec::new();
        }
    }

    /// Removes a stored payload.
    pub(crate) fn remove(&mut self, at: PayloadAt) {
        let class = class_of(usize::from(at.len));
        let shape = shape_of(class);
        let (number, place) = (at.index as usize / shape.places, at.index as usize % shape.places);
        let Some(pages) = self.classes.get_mut(class) else { return };
        let Some(page) = pages.get_mut(number).filter(|page| page.used > 0) else { return };
        page.bytes[place * shape.size..][..2].copy_from_slice(&page.vacant.to_ne_bytes());
        page.vacant = place as u16;
        page.used -= 1;
        pages.vacated(number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn gives_back_what_was_put_in_and_then_its_memory(
            ops in prop::collection::vec((any::<bool>(), 0usize..40, any::<u8>(), any::<u16>()), 1..2000)
        ) {
            let mut payloads = Payloads::default();
            let mut held: Vec<(PayloadAt, Vec<u8>)> = Vec::new();
            for (insert, len, byte, pick) in ops {
                if insert || held.is_empty() {
                    // Lengths around the steps of 8, some of them large.
                    let payload = vec![byte; if len > 30 { SMALL_BYTES_MAX - (len - 31) } else { len }];
                    held.push((payloads.insert(&payload), payload));
                } else {
                    let (at, payload) = held.swap_remove(pick as usize % held.len());
                    prop_assert_eq!(payloads.get(at), &payload);
                    payloads.remove(at);
                }
            }
            for (at, payload) in &held {
                prop_assert_eq!(payloads.get(*at), payload);
            }
            for (at, _) in held {
                payloads.remove(at);
            }
            prop_assert!(payloads.classes.iter().all(|pages| pages.with_memory() <= 1));
        }
    }

    #[test]
    fn many_small_payloads_cost_no_more_than_their_rounded_size() {
        let mut payloads = Payloads::default();
        let at: Vec<_> = (0..100_000u32).map(|i| payloads.insert(&i.to_be_bytes().repeat(25))).collect();
        let pages = &payloads.classes[13];
        assert!(pages.with_memory() * PAGE_BYTES < 100_000 * 107, "{} pages", pages.with_memory());
        assert!(at.iter().enumerate().all(|(i, at)| payloads.get(*at) == (i as u32).to_be_bytes().repeat(25)));
    }
}
