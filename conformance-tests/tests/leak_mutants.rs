//! The mutants that leak are caught by the LEAK tests, alone in this process.

mod support;

use std::sync::Arc;

use delayline_conformance::heap::Counting;
use support::Memory;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    delayline_conformance::mutants::mutants_main(true, || Arc::new(Memory::virtual_time()));
}
