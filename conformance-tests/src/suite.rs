//! The list of tests, and the macros that make named tests of it.
//!
//! A test's name begins with the number of the promise that it checks: `dup_3_...` checks DUP-3 of `docs/semantics.md`.

use std::fmt;
use std::pin::Pin;

use crate::need::Need;
use crate::trial::Trial;

/// One test of the suite.
pub struct Test {
    /// Its name.
    pub name: &'static str,
    /// What it needs; a backend without it is held to saying so instead.
    pub needs: &'static [Need],
    pub(crate) body: for<'a> fn(&'a Trial) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

impl Test {
    /// The promise that it checks: `DUP-3`.
    #[must_use]
    pub fn promise(&self) -> String {
        let mut words = self.name.split('_');
        let (family, number) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        format!("{}-{number}", family.to_uppercase())
    }
}

impl fmt::Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Test").field("name", &self.name).field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// Every test that may run beside others, by family.
pub static TESTS: &[Test] = crate::__tests!(registry);

/// Every test that measures the heap of its process, and so runs alone in it.
pub static LEAK_TESTS: &[Test] = crate::__leak_tests!(registry);

/// The test of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Test> {
    TESTS.iter().chain(LEAK_TESTS).find(|test| test.name == name)
}

/// Makes a named `#[test]` of every test of the suite, each with a harness of its own.
///
/// ```ignore
/// delayline_conformance::suite!(MyHarness::new());
/// ```
///
/// The expression is evaluated anew for each test, in the test's own thread and outside any runtime.
#[macro_export]
macro_rules! suite {
    ($make:expr) => {
        $crate::__tests!(define($make));
    };
}

/// Makes the `main` of a test target that runs the LEAK tests one after the other, and the allocator that counts for them. The
/// target needs `harness = false` in `Cargo.toml`.
///
/// ```ignore
/// delayline_conformance::leak_suite!(MyHarness::new());
/// ```
#[macro_export]
macro_rules! leak_suite {
    ($make:expr) => {
        #[global_allocator]
        static ALLOCATOR: $crate::heap::Counting = $crate::heap::Counting;

        fn main() {
            $crate::leak_main(|| ::std::sync::Arc::new($make));
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __apply {
    (define ($make:expr) => $($module:ident::$name:ident [$($need:ident)*])*) => {
        $(#[test] fn $name() { $crate::run(stringify!($name), || ::std::sync::Arc::new($make)); })*
    };
    (registry => $($module:ident::$name:ident [$($need:ident)*])*) => {
        &[$($crate::Test {
            name: stringify!($name),
            needs: &[$($crate::Need::$need),*],
            body: |t| Box::pin($crate::tests::$module::$name(t)),
        }),*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ($($head:tt)*) => { $crate::__apply! { $($head)* =>
        // time
        time::time_1_a_task_is_never_handed_out_early []
        // loss
        // dup
        // order
        // cancel
        // drop
        // live
        // idle
        // bound
        // close
        // clear
        // model
        model::loss_1_any_sequence_of_calls_does_what_the_model_does []
        model::time_1_any_sequence_of_delays_does_what_the_model_does []
        model::cancel_6_any_sequence_of_group_changes_does_what_the_model_does []
        model::dup_1_any_sequence_of_leases_does_what_the_model_does []
    } };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __leak_tests {
    ($($head:tt)*) => { $crate::__apply! { $($head)* =>
        leak::leak_2_thirty_thousand_tasks_leave_nothing []
    } };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_begins_with_a_promise_and_stands_once() {
        let mut names: Vec<&str> = TESTS.iter().chain(LEAK_TESTS).map(|test| test.name).collect();
        let families =
            ["TIME", "LOSS", "DUP", "ORDER", "LEAK", "CANCEL", "DROP", "LIVE", "IDLE", "BOUND", "CLOSE", "CLEAR"];
        for test in TESTS.iter().chain(LEAK_TESTS) {
            let promise = test.promise();
            let (family, number) = promise.split_once('-').unwrap();
            assert!(families.contains(&family) && number.parse::<u32>().is_ok(), "{}: {promise}", test.name);
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
