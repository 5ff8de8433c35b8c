//! Storage with stable indices that gives its memory back.
//!
//! A slab of one growing `Vec` never shrinks, and copies everything when it grows. Here places lie in pages: growing
//! allocates one page, and a page whose last value leaves goes back to the allocator, but for one that is kept so that a
//! queue around empty does not allocate on every task.

const PAGE: usize = 512;

/// Invariants:
/// 1. `open` names exactly the pages with `listed`, each once; every page that has a vacant place, or no memory, is listed
///    (a full one may be, and is dropped from the list when it is met).
/// 2. `len` is the number of occupied places, `idle` the number of pages that have memory and no occupied place; it is at
///    most 1 outside of a call.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    pages: Vec<Page<T>>,
    open: Vec<u32>,
    len: usize,
    idle: usize,
}

#[derive(Debug)]
struct Page<T> {
    places: Vec<Place<T>>,
    /// First of the list of vacant places, `NONE` at its end.
    vacant: u16,
    used: u16,
    listed: bool,
}

#[derive(Debug)]
enum Place<T> {
    Occupied(T),
    Vacant { next: u16 },
}

const NONE: u16 = u16::MAX;

impl<T> Arena<T> {
    pub(crate) fn new() -> Self {
        Self { pages: Vec::new(), open: Vec::new(), len: 0, idle: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// One past the highest index ever in use: what a scan goes up to.
    pub(crate) fn end(&self) -> u32 {
        (self.pages.len() * PAGE) as u32
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let page = self.pages.get(index as usize / PAGE)?;
        match page.places.get(index as usize % PAGE)? {
            Place::Occupied(value) => Some(value),
            Place::Vacant { .. } => None,
        }
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let page = self.pages.get_mut(index as usize / PAGE)?;
        match page.places.get_mut(index as usize % PAGE)? {
            Place::Occupied(value) => Some(value),
            Place::Vacant { .. } => None,
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let page_index = self.page_with_room();
        let page = &mut self.pages[page_index];
        if page.used == 0 && !page.places.is_empty() {
            self.idle -= 1;
        }
        let place = if page.vacant == NONE {
            // The first page grows as needed, so that a small queue stays small; later ones are taken whole.
            if page.places.capacity() == 0 && page_index > 0 {
                page.places.reserve_exact(PAGE);
            }
            page.places.push(Place::Occupied(value));
            page.places.len() - 1
        } else {
            let place = page.vacant as usize;
            let old = std::mem::replace(&mut page.places[place], Place::Occupied(value));
            page.vacant = match old {
                Place::Vacant { next } => next,
                Place::Occupied(_) => unreachable!("the list of vacant places holds an occupied one"),
            };
            place
        };
        page.used += 1;
        self.len += 1;
        (page_index * PAGE + place) as u32
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let page_index = index as usize / PAGE;
        let page = self.pages.get_mut(page_index)?;
        let place = page.places.get_mut(index as usize % PAGE)?;
        if matches!(place, Place::Vacant { .. }) {
            return None;
        }
        let old = std::mem::replace(place, Place::Vacant { next: page.vacant });
        page.vacant = (index as usize % PAGE) as u16;
        page.used -= 1;
        self.len -= 1;
        if !page.listed {
            page.listed = true;
            self.open.push(page_index as u32);
        }
        if page.used == 0 {
            self.idle += 1;
            if self.idle > 1 {
                self.release(page_index);
            }
        }
        match old {
            Place::Occupied(value) => Some(value),
            Place::Vacant { .. } => None,
        }
    }

    fn release(&mut self, page_index: usize) {
        let page = &mut self.pages[page_index];
        page.places = Vec::new();
        page.vacant = NONE;
        self.idle -= 1;
        // Trailing pages without memory need no entry either; one that is still in `open` is skipped there.
        while self.pages.last().is_some_and(|p| p.places.capacity() == 0) {
            self.pages.pop();
        }
        if self.pages.len() * 2 < self.pages.capacity() {
            self.pages.shrink_to(self.pages.len() * 2);
            let pages = self.pages.len();
            self.open.retain(|&p| (p as usize) < pages);
            self.open.shrink_to(self.open.len() * 2);
        }
    }

    /// A page with room for one more, at the top of `open`.
    fn page_with_room(&mut self) -> usize {
        while let Some(&index) = self.open.last() {
            let index = index as usize;
            match self.pages.get_mut(index) {
                Some(page) if page.vacant != NONE || page.places.len() < PAGE => return index,
                Some(full) => full.listed = false,
                None => {}
            }
            self.open.pop();
        }
        self.pages.push(Page { places: Vec::new(), vacant: NONE, used: 0, listed: true });
        self.open.push(self.pages.len() as u32 - 1);
        self.pages.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_map_and_gives_pages_back(ops in prop::collection::vec((0u8..4, any::<u16>()), 1..4000)) {
            let mut arena = Arena::new();
            let mut model: HashMap<u32, u64> = HashMap::new();
            let mut keys = Vec::new();
            for (i, (op, pick)) in ops.into_iter().enumerate() {
                // Three inserts for each removal, then a drain.
                if op > 0 || keys.is_empty() {
                    let at = arena.insert(i as u64);
                    prop_assert!(model.insert(at, i as u64).is_none(), "an index was given twice");
                    keys.push(at);
                } else {
                    let at = keys.swap_remove(pick as usize % keys.len());
                    prop_assert_eq!(arena.remove(at), model.remove(&at));
                    prop_assert_eq!(arena.remove(at), None);
                }
                prop_assert_eq!(arena.len(), model.len());
            }
            for at in keys {
                prop_assert_eq!(arena.get(at), model.get(&at));
                prop_assert_eq!(arena.remove(at), model.remove(&at));
            }
            prop_assert_eq!(arena.len(), 0);
            let pages = arena.pages.iter().filter(|p| p.places.capacity() > 0).count();
            prop_assert!(pages <= 1, "{} pages kept", pages);
        }
    }
}
