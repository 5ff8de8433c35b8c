//! Counts the heap of this process: every byte that is allocated and freed while the demo runs.
//!
//! In other commands this costs one load and one branch per allocation. Memory that was allocated before counting began
//! and is freed later lowers the count, so only differences are meaningful; a base value keeps the count above zero.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};

#[cfg(not(all(feature = "jemalloc", not(target_env = "msvc"))))]
use std::alloc::System as Inner;
#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
use tikv_jemallocator::Jemalloc as Inner;

/// An allocator, with a count of the bytes in use.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

/// Starts counting, from zero.
pub(crate) fn start() {
    LIVE.store(0, Ordering::Relaxed);
    COUNTS.store(true, Ordering::Relaxed);
}

/// Bytes in use that were allocated since counting began.
pub(crate) fn live() -> u64 {
    bytes(&LIVE)
}

/// Stops counting, so that measurements of time do not include its cost.
pub(crate) fn stop() {
    COUNTS.store(false, Ordering::Relaxed);
}

/// The maximum of bytes in use since [`reset_peak`].
pub(crate) fn peak() -> u64 {
    bytes(&PEAK)
}

/// Resets the peak to the bytes in use now.
pub(crate) fn reset_peak() {
    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
}

fn bytes(count: &AtomicIsize) -> u64 {
    u64::try_from(count.load(Ordering::Relaxed)).unwrap_or(0)
}

#[inline]
fn grown(by: usize) {
    if COUNTS.load(Ordering::Relaxed) {
        // No layout is larger than `isize::MAX`.
        let live = LIVE.fetch_add(by as isize, Ordering::Relaxed) + by as isize;
        if live > PEAK.load(Ordering::Relaxed) {
            PEAK.fetch_max(live, Ordering::Relaxed);
        }
    }
}

#[inline]
fn shrunk(by: usize) {
    if COUNTS.load(Ordering::Relaxed) {
        LIVE.fetch_sub(by as isize, Ordering::Relaxed);
    }
}

// SAFETY: every method passes its arguments to the allocator below as they are and returns its answer as it is, so
// it keeps the contract as far as that does. Counting touches atomics only: it neither allocates nor panics.
#[allow(unsafe_code, reason = "an allocator can't be written without; the demo's heap is measured with it")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        let block = unsafe { Inner.alloc(layout) };
        if !block.is_null() {
            grown(layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        let block = unsafe { Inner.alloc_zeroed(layout) };
        if !block.is_null() {
            grown(layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { Inner.dealloc(block, layout) };
        shrunk(layout.size());
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        let moved = unsafe { Inner.realloc(block, layout, new_size) };
        if !moved.is_null() {
            if new_size >= layout.size() {
                grown(new_size - layout.size());
            } else {
                shrunk(layout.size() - new_size);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_and_freed_is_seen() {
        const BIG: usize = 64 << 20;
        start();
        // Other tests of this process allocate meanwhile, but nothing of that size.
        let before = live();
        reset_peak();
        let block = vec![1_u8; BIG];
        assert!(live() >= before + BIG as u64 / 2);
        drop(block);
        assert!(live() <= before + BIG as u64 / 2);
        assert!(peak() >= before + BIG as u64 / 2);
    }
}
