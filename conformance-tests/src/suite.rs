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
        // leak: what needs no look at the heap
        leak_probes::leak_1_of_tasks_that_ended_no_record_is_left [Stats]
        leak_probes::leak_4_a_queue_is_forgotten_when_nothing_holds_it [Stats]
        leak_probes::leak_8_a_dropped_close_leaves_nothing []
        // cancel
        // drop
        drop::drop_1_a_dropped_call_has_done_each_item_or_not []
        drop::drop_2_a_dropped_intake_loses_nothing []
        drop::drop_11_a_dropped_change_has_changed_some_or_all []
        drop::drop_11_a_dropped_redrive_purge_or_delete_has_done_some_or_all []
        drop::drop_12_a_dropped_look_changes_nothing []
        drop_effects::drop_2_a_dropped_claim_is_given_back_at_once []
        drop_effects::drop_10_a_dropped_wait_loses_no_hint_and_leaves_nothing_registered []
        drop_effects::drop_1_a_dropped_schedule_is_finished_by_repeating_it [UniqueIds]
        drop_effects::drop_1_a_dropped_settling_is_finished_by_repeating_it []
        drop_effects::drop_11_a_dropped_operation_is_finished_by_repeating_it [Reschedule Operations Inspect Cancel]
        drop_effects::drop_11_a_dropped_operation_on_a_group_is_finished_by_repeating_it [Reschedule Groups Operations Inspect Cancel]
        drop_effects::drop_11_a_dropped_redrive_goes_on_with_what_is_left [DeadLetters]
        drop_effects::drop_11_a_dropped_purge_goes_on_with_what_is_left [DeadLetters]
        drop_calls::drop_1_a_dropped_schedule_of_a_queue_has_done_each_task_or_not []
        drop_calls::drop_2_a_dropped_take_of_a_consumer_costs_nothing []
        drop_calls::drop_3_a_delivery_dropped_unsettled_is_retried_and_costs_one_attempt []
        drop_calls::drop_4_a_settling_that_was_polled_goes_on []
        drop_calls::drop_1_a_dropped_extension_leaves_the_delivery_as_it_was [Extend]
        drop_calls::drop_11_a_dropped_change_of_a_queue_has_done_some_or_all []
        drop_calls::drop_12_a_dropped_look_at_a_queue_changes_nothing []
        drop_calls::drop_5_a_dropped_worker_gives_back_what_its_handlers_worked_on []
        drop_calls::drop_6_a_worker_dropped_amid_claims_and_settlings_loses_nothing []
        drop_calls::drop_8_the_others_of_a_joined_call_do_not_notice_one_that_is_dropped []
        // live
        // idle
        // bound
        // close
        // clear
        // model
    } };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __leak_tests {
    ($($head:tt)*) => { $crate::__apply! { $($head)* =>
        leak::leak_2_thirty_thousand_tasks_leave_nothing []
        leak::leak_2_a_burst_gives_its_memory_back []
        leak::leak_3_takes_that_time_out_or_are_dropped_leave_nothing []
        leak::leak_5_cycles_cost_the_same_as_one []
        leak::leak_6_joined_calls_whose_callers_all_left_leave_nothing []
        leak::leak_7_a_cancelled_task_gives_its_payload_back [Cancel]
        leak::leak_7_a_task_cancelled_in_flight_leaves_nothing [Cancel]
        leak::leak_7_a_replaced_task_gives_its_payload_back [Replace UniqueIds]
        leak::leak_7_a_moved_task_keeps_one_place [Reschedule]
        leak::leak_8_nothing_of_a_backend_is_left_after_close []
        leak::leak_9_a_server_holds_nothing_of_work_that_is_done []
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
