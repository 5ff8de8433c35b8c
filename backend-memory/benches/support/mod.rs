//! What the benchmarks share: a counting allocator, simulated time, medians, a table.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use delayline_core::{Clock, Timestamp};

/// Live bytes and blocks of the process.
pub struct Counting {
    bytes: AtomicI64,
    allocations: AtomicI64,
}

impl Counting {
    pub const fn new() -> Self {
        Self { bytes: AtomicI64::new(0), allocations: AtomicI64::new(0) }
    }

    pub fn live_bytes(&self) -> i64 {
        self.bytes.load(Ordering::Relaxed)
    }

    #[allow(dead_code, reason = "not every benchmark counts allocations")]
    pub fn allocations(&self) -> i64 {
        self.allocations.load(Ordering::Relaxed)
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.bytes.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.bytes.fetch_add(size as i64 - layout.size() as i64, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

/// A clock that only the benchmark moves.
#[derive(Debug, Default)]
pub struct SimulatedClock {
    micros: AtomicU64,
}

impl SimulatedClock {
    pub fn advance(&self, by: Duration) {
        self.micros.fetch_add(by.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_800_000_000_000_000).saturating_add(self.monotonic())
    }
}

/// The middle one of several runs.
pub fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// 12345678.9 as 12.35 M.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if r >= 1e6 => format!("{:.2} M", r / 1e6),
        r if r >= 1e3 => format!("{:.0} k", r / 1e3),
        r => format!("{r:.0}"),
    }
}

pub fn count(n: usize) -> String {
    match n {
        n if n >= 1_000_000 => format!("{} M", n / 1_000_000),
        n => format!("{} k", n / 1_000),
    }
}

/// Sizes to measure at: `DELAYLINE_BENCH_PENDING=100000,1000000`, or all three.
pub fn sizes() -> Vec<usize> {
    match std::env::var("DELAYLINE_BENCH_PENDING") {
        Ok(list) => list.split(',').filter_map(|n| n.trim().parse().ok()).collect(),
        Err(_) => vec![100_000, 1_000_000, 10_000_000],
    }
}
