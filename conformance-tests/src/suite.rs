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
        time::time_2_beyond_the_largest_delay_is_an_error_and_never_clamped []
        time::time_2_a_retry_or_snooze_out_of_range_leaves_the_lease []
        time::time_2_the_largest_retry_is_accepted []
        time::time_2_a_move_or_shift_out_of_range_leaves_the_task [Reschedule]
        time::time_2_a_lease_out_of_range_is_refused []
        time::time_2_an_extension_out_of_range_leaves_the_lease [Extend]
        time::time_2_the_shortest_and_the_longest_lease_last_as_long_as_they_say []
        time::time_2_every_delay_up_to_the_largest_is_kept_to_the_millisecond []
        time::time_3_an_instant_is_compared_with_the_wall_clock_again_at_every_hand_out []
        time::time_4_times_are_kept_in_whole_milliseconds_rounded_up []
        time::time_4_no_delay_is_due_at_once []
        time::time_5_a_batch_is_accepted_at_one_instant []
        time::time_5_a_step_of_the_wall_clock_touches_no_delay_and_no_lease []
        time::time_6_a_due_time_in_the_past_is_due_at_once []
        time::time_7_a_waiting_consumer_gets_a_task_within_the_declared_lateness []
        time::time_8_an_expired_task_is_buried_and_never_handed_out []
        time::time_8_the_expiry_is_the_last_moment_of_a_hand_out []
        time::time_9_an_expiry_before_the_due_time_is_invalid []
        time::time_9_a_retry_or_snooze_beyond_the_expiry_is_buried_when_it_is_met []
        time::time_9_a_task_moved_beyond_its_expiry_is_buried_when_it_is_met [Reschedule]
        time::time_10_a_jump_over_many_ticks_hands_out_everything_once []
        time::time_10_a_wall_clock_that_jumps_either_way_loses_nothing []
        // loss
        // dup
        // order
        order::order_1_ties_go_in_the_order_they_were_handed_in []
        order::order_1_tasks_come_by_the_time_at_which_they_are_visible []
        order::order_1_a_herd_at_one_instant_comes_whole_and_in_order []
        order::order_2_times_of_both_clocks_stand_on_one_line []
        order::order_3_a_released_task_stands_at_its_old_place []
        order::order_3_a_retry_a_snooze_and_the_end_of_a_lease_keep_the_sequence []
        order::order_3_a_move_and_a_shift_keep_the_sequence [Reschedule]
        order::order_4_a_replacement_gets_a_new_sequence [Replace UniqueIds]
        order::order_4_a_redriven_letter_gets_a_new_sequence [DeadLetters]
        // cancel
        // drop
        // live
        // idle
        // bound
        bound::bound_1_every_allowed_id_is_a_task_of_its_own []
        bound::bound_1_a_change_meets_exactly_the_id_it_names [Cancel]
        bound::bound_1_every_allowed_group_is_a_group_of_its_own [Groups Cancel]
        bound::bound_1_every_allowed_queue_name_is_a_queue_of_its_own []
        bound::bound_1_what_is_no_name_is_refused_before_anything_is_sent []
        bound::bound_2_headers_at_the_limit_travel []
        bound::bound_3_a_reason_at_the_limit_is_kept [DeadLetters]
        bound::bound_4_a_byte_too_much_is_refused []
        bound::bound_4_every_byte_travels_in_a_payload []
        bound::bound_4_an_empty_batch_does_nothing []
        bound::bound_4_a_full_batch_is_taken_and_one_more_is_refused_whole []
        bound::bound_4_a_page_holds_at_most_a_thousand_tasks [Inspect]
        bound::bound_4_a_page_holds_at_most_a_thousand_dead_letters [DeadLetters]
        bound::bound_4_a_queue_cuts_what_it_is_given_into_calls []
        bound::bound_6_hundreds_of_queues_are_kept_apart []
        bound::bound_8_single_calls_travel_in_calls_that_are_not_too_large []
        bound::bound_9_a_claim_brings_at_most_max_and_max_bytes []
        bound::bound_12_a_worker_runs_no_more_handlers_than_told []
        bound::bound_13_a_task_may_be_attempted_once_or_ten_thousand_times []
        bound::bound_13_a_task_is_attempted_twenty_times_unless_told []
        // close
        // clear
        clear::clear_1_an_error_has_a_kind_and_a_sentence_and_says_whether_to_try_again []
        clear::clear_4_no_error_repeats_a_payload []
        clear::clear_6_a_wrong_option_is_that_tasks_error_and_nothing_is_sent []
        clear::clear_7_text_from_outside_is_cut_and_cleaned []
        clear::clear_8_find_shows_a_task_exactly_while_it_is_there [Inspect]
        clear::clear_8_find_shows_no_task_that_was_cancelled_or_buried [Inspect]
        clear::clear_9_a_listing_shows_each_task_once_in_order [Inspect]
        clear::clear_9_a_task_that_stays_is_listed_once_while_others_come_and_go [Inspect]
        clear::clear_10_stats_count_each_task_once [Stats]
        clear::clear_10_stats_tell_of_a_pause [Stats Pause]
        // model
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
