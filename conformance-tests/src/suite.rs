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
        loss::loss_1_everything_accepted_is_delivered []
        loss::loss_1_a_herd_due_at_one_instant_is_delivered_whole []
        loss::loss_1_a_retry_storm_ends_in_the_dead_letters_and_a_redrive_brings_all_back [DeadLetters]
        loss::loss_1_what_dead_workers_held_is_delivered []
        loss::loss_1_hundreds_of_queues_each_deliver_their_own []
        loss::loss_1_what_comes_in_before_those_that_go_out_is_not_skipped []
        loss::loss_1_equal_tasks_do_not_become_one []
        loss::loss_1_a_task_is_not_dropped_for_being_tried_often []
        loss::loss_2_a_lease_that_ends_makes_its_task_visible_again []
        loss::loss_2_nobody_needs_to_notice_the_end_of_a_lease []
        loss_batch::loss_3_a_batch_has_one_true_answer_for_each_item []
        loss_batch::loss_3_a_refused_replacement_leaves_what_is_there [Replace UniqueIds]
        loss_batch::loss_3_verdicts_of_one_call_are_answered_one_by_one []
        loss_batch::loss_3_extensions_of_one_call_are_answered_one_by_one [Extend]
        loss_batch::loss_3_an_empty_batch_does_nothing []
        loss_batch::loss_3_a_batch_that_is_too_large_is_refused_whole []
        loss::loss_4_tasks_survive_the_end_of_all_clients_as_declared []
        loss::loss_4_what_is_on_disk_survives_a_kill []
        loss_batch::loss_5_what_is_handed_out_is_what_was_scheduled []
        loss_batch::loss_5_what_was_moved_is_what_was_scheduled [Reschedule]
        loss_batch::loss_5_what_was_redriven_is_what_was_scheduled [DeadLetters]
        loss_dead::loss_6_a_dead_letter_stays_until_it_is_purged [DeadLetters]
        loss_dead::loss_6_dead_letters_are_listed_page_by_page_the_oldest_first [DeadLetters]
        loss_dead::loss_6_a_dead_letter_tells_how_it_came_there [DeadLetters]
        loss_dead::loss_7_a_redriven_letter_is_a_task_with_all_its_attempts [DeadLetters]
        loss_dead::loss_7_a_redriven_letter_expires_no_more [DeadLetters]
        loss_dead::loss_7_a_letter_whose_id_is_in_use_stays_dead [DeadLetters UniqueIds]
        loss_dead::loss_7_a_redrive_takes_what_it_selects [DeadLetters]
        loss_dead::loss_8_a_redrive_at_a_rate_staggers_the_oldest_first [DeadLetters]
        loss_dead::loss_8_what_is_no_rate_is_refused [DeadLetters]
        loss::loss_9_an_intake_that_ends_loses_nothing_and_its_leases_stay_valid []
        loss::loss_9_a_consumer_that_ends_loses_nothing_and_its_deliveries_stay_valid []
        loss::loss_9_intakes_of_one_name_hold_what_is_theirs []
        loss_batch::loss_10_a_consumer_buries_what_it_cannot_decode []
        loss_batch::loss_10_a_worker_buries_what_it_cannot_decode []
        // dup
        dup::dup_1_one_live_lease_at_a_time []
        dup::dup_1_a_herd_is_handed_out_once []
        dup::dup_2_a_task_comes_again_only_for_a_cause []
        dup::dup_2_a_delay_longer_than_a_lease_is_waited_for_once []
        dup::dup_3_a_completed_task_never_comes_back []
        dup::dup_3_a_late_retry_does_not_resurrect_a_completed_task []
        dup::dup_3_a_completion_at_the_end_of_its_lease_counts_or_is_refused []
        dup_stale::dup_4_a_stale_lease_is_refused_and_changes_nothing []
        dup_stale::dup_4_a_settled_lease_is_refused_and_changes_nothing []
        dup_stale::dup_4_a_waiting_retry_is_not_touched_by_its_old_lease []
        dup_stale::dup_4_the_lease_of_a_replaced_task_is_refused [Replace UniqueIds]
        dup_stale::dup_4_the_lease_of_a_deleted_task_is_refused [Delete]
        dup_stale::dup_4_the_lease_of_a_moved_task_is_refused [Reschedule]
        dup_stale::dup_4_a_lease_is_good_for_its_own_task_alone []
        dup_stale::dup_4_a_late_verdict_does_not_touch_the_attempt_of_another []
        dup_stale::dup_4_a_move_that_races_a_completion_leaves_no_ghost [Reschedule]
        dup_stale::dup_4_a_replacement_that_races_a_completion_comes_once [Replace UniqueIds]
        dup::dup_5_a_lease_that_has_ended_still_settles []
        dup::dup_5_a_lease_that_has_ended_still_extends [Extend]
        dup::dup_5_a_refused_verdict_leaves_the_lease_as_it_was []
        dup_ids::dup_6_the_fence_rises_with_every_claim []
        dup_ids::dup_6_the_fence_rises_though_the_wall_clock_goes_back []
        dup_ids::dup_6_the_fence_rises_through_replacements [Replace UniqueIds]
        dup_extend::dup_7_an_extension_never_shortens [Extend]
        dup_extend::dup_7_an_extended_lease_ends_when_it_says [Extend]
        dup_extend::dup_7_an_old_and_an_extended_lease_settle_alike [Extend]
        dup_extend::dup_7_a_worker_keeps_its_lease_while_the_handler_runs [Extend]
        dup_ids::dup_8_an_id_that_is_there_is_not_scheduled_again [UniqueIds]
        dup_ids::dup_8_an_id_that_stands_twice_in_a_batch_is_one_task [UniqueIds]
        dup_ids::dup_8_of_many_calls_for_one_id_one_creates_it [UniqueIds]
        dup_ids::dup_9_a_replacement_takes_the_place_of_the_old_task [Replace UniqueIds]
        dup_ids::dup_9_a_replacement_has_all_its_attempts [Replace UniqueIds]
        dup_ids::dup_9_a_debounced_task_runs_once_with_the_last_content [Replace UniqueIds]
        dup_ids::dup_9_of_many_replacements_at_once_one_is_left [Replace UniqueIds]
        dup_ids::dup_10_an_id_is_free_after_its_task_has_ended [UniqueIds]
        dup_ids::dup_10_an_id_is_free_after_its_task_was_cancelled [Cancel UniqueIds]
        dup_ids::dup_11_a_completed_id_is_remembered_for_the_retry_window [UniqueIds]
        dup_attempts::dup_12_attempts_count_claims_but_not_releases []
        dup_attempts::dup_12_a_task_with_one_attempt_can_be_released_without_end []
        dup_attempts::dup_13_a_retry_of_the_last_attempt_buries []
        dup_attempts::dup_13_attempts_used_up_by_leases_that_ended_bury []
        dup_extend::dup_14_a_consumer_never_answers_lease_lost_for_its_own_verdict []
        dup_extend::dup_14_a_worker_never_counts_its_own_verdict_as_a_lost_lease []
        dup_extend::dup_15_a_handler_learns_that_its_lease_was_lost []
        dup_extend::dup_15_a_handler_learns_that_its_lease_could_not_be_extended []
        // order
        // cancel
        // drop
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
