//! The macros that turn the suite into test targets.

/// Creates a named `#[test]` for every test of the suite, each with its own harness.
///
/// ```ignore
/// delayline_conformance::suite!(MyHarness::new());
/// ```
///
/// The expression is evaluated anew for each test, in the test's own thread and outside any runtime.
#[macro_export]
macro_rules! suite {
    ($make:expr) => {
        $crate::__tests!(__define($make));
    };
}

/// Creates the `main` of a test target that runs the LEAK tests one after the other, and the counting allocator that
/// they need. The target needs `harness = false` in `Cargo.toml`.
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
macro_rules! __define {
    (($make:expr) $($module:ident::$name:ident [$($need:ident)*])*) => {
        $(#[test] fn $name() { $crate::run(stringify!($name), || ::std::sync::Arc::new($make)); })*
    };
}
