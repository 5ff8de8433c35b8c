//! Every mutant of the memory backend is caught by the test named for the promise that it breaks, in virtual time.

mod support;

use std::sync::Arc;

use support::Memory;

fn main() {
    delayline_conformance::mutants::mutants_main(false, || Arc::new(Memory::virtual_time()));
}
