//! The `main` of a target that holds the tests against the mutants.

use std::collections::BTreeSet;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial as Named};

use super::harness::Mutated;
use super::list::MUTANTS;
use super::mutant::Mutant;
use super::watch::{Seen, quiet, see};
use crate::harness::Harness;
use crate::run::{Outcome, run_test, seed};
use crate::suite::{self, LEAK_TESTS, Test};

/// Runs the mutants whose test is in the suite's list or, with `leak`, in that of the LEAK tests, as `cargo test` does, and
/// ends the process with its code. Each has to be caught by its test, and each of these tests has to pass under a wrapper
/// with no defect, so that it fails by the mutant's defect alone.
pub fn mutants_main<M>(leak: bool, make: M)
where
    M: Fn() -> Arc<dyn Harness> + Send + Sync + 'static,
{
    quiet();
    let mut arguments = Arguments::from_args();
    if leak {
        // They measure the heap of the process.
        arguments.test_threads = Some(1);
    }
    let is_leak = |name: &str| LEAK_TESTS.iter().any(|test| test.name == name) || name.starts_with("leak_");
    let make = Arc::new(make);
    let mutants: Vec<&Mutant> = MUTANTS.iter().filter(|mutant| is_leak(mutant.caught_by) == leak).collect();
    let tests: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.caught_by).collect();
    let mut named = Vec::with_capacity(mutants.len() + tests.len());
    for mutant in mutants {
        let make = make.clone();
        let name = format!("the_suite_catches_{}", mutant.name);
        named.push(Named::test(name, move || catches(mutant, make())));
    }
    for test in tests {
        let make = make.clone();
        named.push(Named::test(format!("without_a_defect_{test}"), move || passes(test, make())));
    }
    libtest_mimic::run(&arguments, named).exit();
}

fn catches(mutant: &Mutant, harness: Arc<dyn Harness>) -> Result<(), Failed> {
    let (test, seed) = (found(mutant.caught_by)?, seed());
    match see(mutant, test, harness, seed) {
        Seen::Caught(_) => Ok(()),
        Seen::Missed => Err(format!(
            "{} passes with a backend of which this holds: {} DELAYLINE_SEED={seed:#018x}",
            test.name, mutant.what
        )
        .into()),
        Seen::NotRun(why) => Err(format!("{} could not be run: {why}", test.name).into()),
    }
}

fn passes(name: &str, harness: Arc<dyn Harness>) -> Result<(), Failed> {
    match run_test(found(name)?, Arc::new(Mutated::sound(harness)), seed()).outcome {
        Outcome::Passed => Ok(()),
        Outcome::Failed(failure) => Err(failure.to_string().into()),
        other => Err(format!("{name} was not run: {other:?}").into()),
    }
}

fn found(name: &str) -> Result<&'static Test, Failed> {
    suite::find(name).ok_or_else(|| format!("the suite has no test `{name}`").into())
}
