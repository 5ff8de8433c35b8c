//! The counting allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

pub(super) static BLOCKS: AtomicI64 = AtomicI64::new(0);
pub(super) static BYTES: AtomicI64 = AtomicI64::new(0);

/// The system's allocator, with counts of live blocks and bytes.
#[derive(Debug)]
pub struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; the counters are beside the point of safety.
// `realloc` is left to the trait's default, which allocates and frees through these two.
#[allow(unsafe_code, reason = "an allocator can't be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BLOCKS.fetch_sub(1, Ordering::Relaxed);
        BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

/// Whether this process uses the counting allocator.
#[must_use]
pub fn is_counting() -> bool {
    BLOCKS.load(Ordering::Relaxed) != 0
}
