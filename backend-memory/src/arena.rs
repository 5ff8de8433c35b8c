//! Storage with stable indices that frees unused memory.
//!
//! A slab in one growing `Vec` never shrinks, and copies everything when it grows. This storage consists of pages:
//! growing allocates one page, and a page is freed when its last value is removed. One empty page is kept, so that a
//! queue that is often empty does not allocate for every task.

/// A fixed number of places, of which some are vacant. Its memory is allocated and freed on demand.
pub(crate) trait Page: Default {
    /// What all pages of a kind share, such as the size of a place.
    type Shape: Copy;
    /// Whether one more value fits, possibly after an allocation.
    fn has_room(&self, shape: Self::Shape) -> bool;
    /// How many places are occupied.
    fn used(&self) -> usize;
    /// Whether it has memory.
    fn has_memory(&self) -> bool;
}

/// Pages, and which of them have vacant places.
///
/// Invariants:
/// 1. A page with vacant places is in `open` once, and so is a page without memory. A full page may be in it, and is
///    removed from the list when it is found there. `listed` says which pages are in the list. An index beyond the last
///    page is left over from a removed page. It is also removed when it is found, and no page is added while any is
///    left.
/// 2. `idle` is the number of pages that have memory and no occupied place; it is at most 1 outside of a call.
#[derive(Debug)]
pub(crate) struct Pages<P> {
    pages: Vec<Listed<P>>,
    open: Vec<u32>,
    idle: usize,
}

#[derive(Debug)]
struct Listed<P> {
    page: P,
    listed: bool,
}

impl<P> Default for Pages<P> {
    fn default() -> Self {
        Self { pages: Vec::new(), open: Vec::new(), idle: 0 }
    }
}

impl<P: Page> Pages<P> {
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    #[inline]
    pub(crate) fn get(&self, page: usize) -> Option<&P> {
        self.pages.get(page).map(|listed| &listed.page)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, page: usize) -> Option<&mut P> {
        self.pages.get_mut(page).map(|listed| &mut listed.page)
    }

    /// A page with a vacant place, which the caller must occupy at once, and the page's number.
    pub(crate) fn with_room(&mut self, shape: P::Shape) -> (usize, &mut P) {
        let index = self.find_room(shape);
        let page = &mut self.pages[index].page;
        if page.used() == 0 && page.has_memory() {
            self.idle -= 1;
        }
        (index, page)
    }

    /// Records that a place of this page has become vacant.
    pub(crate) fn vacated(&mut self, index: usize) {
        let Some(listed) = self.pages.get_mut(index) else { return };
        if !listed.listed {
            listed.listed = true;
            self.open.push(index as u32);
        }
        if listed.page.used() == 0 {
            self.idle += 1;
            if self.idle > 1 {
                self.release(index);
            }
        }
    }

    fn release(&mut self, index: usize) {
        self.pages[index].page = P::default();
        self.idle -= 1;
        while self.pages.last().is_some_and(|last| !last.page.has_memory()) {
            self.pages.pop();
        }
        if self.pages.len() * 2 < self.pages.capacity() {
            let pages = self.pages.len();
            self.pages.shrink_to(pages * 2);
            self.open.retain(|&page| (page as usize) < pages);
            self.open.shrink_to(self.open.len() * 2);
        }
    }

    fn find_room(&mut self, shape: P::Shape) -> usize {
        while let Some(&index) = self.open.last() {
            let index = index as usize;
            match self.pages.get_mut(index) {
                Some(listed) if listed.page.has_room(shape) => return index,
                Some(full) => full.listed = false,
                None => {}
            }
            self.open.pop();
        }
        self.pages.push(Listed { page: P::default(), listed: true });
        self.open.push(self.pages.len() as u32 - 1);
        self.pages.len() - 1
    }

    #[cfg(test)]
    pub(crate) fn with_memory(&self) -> usize {
        self.pages.iter().filter(|listed| listed.page.has_memory()).count()
    }
}

/// Marks the end of a list of vacant places.
pub(crate) const NONE: u16 = u16::MAX;

const PLACES: usize = 512;

/// Values of one type. Each has its own index until it is removed.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    pages: Pages<ValuePage<T>>,
    len: usize,
}

#[derive(Debug)]
struct ValuePage<T> {
    places: Vec<Place<T>>,
    /// First of the list of vacant places, `NONE` at its end.
    vacant: u16,
    used: u16,
}

#[derive(Debug)]
enum Place<T> {
    Occupied(T),
    Vacant { next: u16 },
}

impl<T> Default for ValuePage<T> {
    fn default() -> Self {
        Self { places: Vec::new(), vacant: NONE, used: 0 }
    }
}

impl<T> Page for ValuePage<T> {
    type Shape = ();
    fn has_room(&self, (): ()) -> bool {
        self.vacant != NONE || self.places.len() < PLACES
    }
    fn used(&self) -> usize {
        usize::from(self.used)
    }
    fn has_memory(&self) -> bool {
        self.places.capacity() > 0
    }
}

impl<T> Arena<T> {
    pub(crate) fn new() -> Self {
        Self { pages: Pages::default(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// One past the highest index in use: the end of a scan.
    pub(crate) fn end(&self) -> u32 {
        (self.pages.len() * PLACES) as u32
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        match self.pages.get(index as usize / PLACES)?.places.get(index as usize % PLACES)? {
            Place::Occupied(value) => Some(value),
            Place::Vacant { .. } => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.pages.get_mut(index as usize / PLACES)?.places.get_mut(index as usize % PLACES)? {
            Place::Occupied(value) => Some(value),
            Place::Vacant { .. } => None,
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let (index, page) = self.pages.with_room(());
        page.used += 1;
        self.len += 1;
        let place = match page.places.get_mut(usize::from(page.vacant)) {
            Some(vacant) => {
                let place = usize::from(page.vacant);
                if let Place::Vacant { next } = std::mem::replace(vacant, Place::Occupied(value)) {
                    page.vacant = next;
                }
                place
            }
            None => {
                // The first page grows as needed, so that a small queue stays small. Later pages are allocated as a
                // whole.
                if index > 0 && page.places.capacity() == 0 {
                    page.places.reserve_exact(PLACES);
                }
                page.places.push(Place::Occupied(value));
                page.places.len() - 1
            }
        };
        (index * PLACES + place) as u32
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let page = self.pages.get_mut(index as usize / PLACES)?;
        let place = page.places.get_mut(index as usize % PLACES).filter(|place| matches!(place, Place::Occupied(_)))?;
        let old = std::mem::replace(place, Place::Vacant { next: page.vacant });
        page.vacant = (index as usize % PLACES) as u16;
        page.used -= 1;
        self.len -= 1;
        self.pages.vacated(index as usize / PLACES);
        match old {
            Place::Occupied(value) => Some(value),
            Place::Vacant { .. } => None,
        }
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
            prop_assert!(arena.pages.with_memory() <= 1, "{} pages kept", arena.pages.with_memory());
        }
    }
}
