//! The `main` of a target that runs the LEAK tests, one after the other.

use std::sync::Arc;

use libtest_mimic::{Arguments, Trial as Named};

use crate::harness::Harness;
use crate::suite::LEAK_TESTS;

/// Runs the LEAK tests that the command line selects, as `cargo test` does, and ends the process with the exit code.
pub fn leak_main<M>(make: M)
where
    M: Fn() -> Arc<dyn Harness> + Send + Sync + 'static,
{
    let mut arguments = Arguments::from_args();
    // They measure the heap of the process.
    arguments.test_threads = Some(1);
    let make = Arc::new(make);
    let named = LEAK_TESTS
        .iter()
        .map(|test| {
            let make = make.clone();
            Named::test(test.name, move || {
                crate::run(test.name, || make());
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&arguments, named).exit();
}
