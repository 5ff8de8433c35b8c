//! The list of tests, as a macro that passes it to another macro, and as a value.
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
    /// What it needs. A backend without it must answer `Unsupported` instead.
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

/// Every test that may run in parallel with others, by family.
pub static TESTS: &[Test] = crate::__tests!(__register);

/// Every test that measures the heap of its process, and therefore runs alone in it.
pub static LEAK_TESTS: &[Test] = crate::__leak_tests!(__register);

/// The test of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Test> {
    TESTS.iter().chain(LEAK_TESTS).find(|test| test.name == name)
}

#[doc(hidden)]
#[macro_export]
macro_rules! __register {
    ($($module:ident::$name:ident [$($need:ident)*])*) => {
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
    ($each:ident $($head:tt)*) => { $crate::$each! { $($head)*
        // time
        time::time_1_a_task_is_never_delivered_early []
        time::time_2_beyond_the_largest_delay_is_an_error_and_never_clamped []
        time::time_2_a_retry_or_snooze_out_of_range_leaves_the_lease []
        time::time_2_the_largest_retry_is_accepted []
        time::time_2_a_move_or_shift_out_of_range_leaves_the_task [Reschedule]
        time::time_2_a_lease_out_of_range_is_refused []
        time::time_2_an_extension_out_of_range_leaves_the_lease [Extend]
        time::time_2_the_shortest_and_the_longest_lease_last_as_long_as_they_say []
        time::time_2_every_delay_up_to_the_largest_is_kept_to_the_millisecond []
        time::time_3_an_instant_is_compared_with_the_wall_clock_again_at_every_delivery []
        time::time_4_times_are_kept_in_whole_milliseconds_rounded_up []
        time::time_4_no_delay_is_due_at_once []
        time::time_5_a_batch_is_accepted_at_one_instant []
        time::time_5_a_step_of_the_wall_clock_touches_no_delay_and_no_lease []
        time::time_6_a_due_time_in_the_past_is_due_at_once []
        time::time_7_a_waiting_consumer_gets_a_task_within_the_declared_lateness []
        time::time_8_an_expired_task_is_dead_lettered_and_never_delivered []
        time::time_8_the_expiry_is_the_last_moment_of_a_delivery []
        time::time_9_an_expiry_before_the_due_time_is_invalid []
        time::time_9_a_retry_or_snooze_beyond_the_expiry_is_dead_lettered_when_it_is_met []
        time::time_9_a_task_moved_beyond_its_expiry_is_dead_lettered_when_it_is_met [Reschedule]
        time::time_10_a_jump_over_many_ticks_hands_out_everything_once []
        time::time_10_a_wall_clock_that_jumps_either_way_loses_nothing []
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
        loss_batch::loss_3_dispositions_of_one_call_are_answered_one_by_one []
        loss_batch::loss_3_extensions_of_one_call_are_answered_one_by_one [Extend]
        loss_batch::loss_3_an_empty_batch_does_nothing []
        loss_batch::loss_3_a_batch_that_is_too_large_is_refused_whole []
        loss::loss_4_tasks_survive_the_end_of_all_clients_as_declared []
        loss::loss_4_what_is_on_disk_survives_a_kill []
        loss_kill::loss_4_a_server_killed_in_the_middle_of_the_work_loses_nothing []
        loss_batch::loss_5_what_is_delivered_is_what_was_scheduled []
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
        loss::loss_9_a_subscription_that_ends_loses_nothing_and_its_leases_stay_valid []
        loss::loss_9_a_consumer_that_ends_loses_nothing_and_its_deliveries_stay_valid []
        loss::loss_9_subscriptions_of_one_name_hold_what_is_theirs []
        loss_batch::loss_10_a_consumer_dead_letters_what_it_cannot_decode []
        loss_batch::loss_10_a_worker_dead_letters_what_it_cannot_decode []
        // dup
        dup::dup_1_one_live_lease_at_a_time []
        dup::dup_1_a_herd_is_delivered_once []
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
        dup_stale::dup_4_a_late_disposition_does_not_touch_the_attempt_of_another []
        dup_stale::dup_4_a_move_that_races_a_completion_leaves_no_ghost [Reschedule]
        dup_stale::dup_4_a_replacement_that_races_a_completion_comes_once [Replace UniqueIds]
        dup::dup_5_a_lease_that_has_ended_still_settles []
        dup::dup_5_a_lease_that_has_ended_still_extends [Extend]
        dup::dup_5_a_refused_disposition_leaves_the_lease_as_it_was []
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
        dup_attempts::dup_13_a_retry_of_the_last_attempt_dead_letters []
        dup_attempts::dup_13_attempts_used_up_by_leases_that_ended_dead_letter []
        dup_extend::dup_14_a_consumer_never_answers_lease_lost_for_its_own_disposition []
        dup_extend::dup_14_a_worker_never_counts_its_own_disposition_as_a_lost_lease []
        dup_extend::dup_15_a_handler_learns_that_its_lease_was_lost []
        dup_extend::dup_15_a_handler_learns_that_its_lease_could_not_be_extended []
        // order
        backlog::order_3_a_large_backlog_released_in_any_order_comes_in_its_old_order []
        // leak: what needs no look at the heap
        leak_probes::leak_1_of_tasks_that_ended_no_record_is_left [Stats]
        leak_probes::leak_4_a_queue_is_forgotten_when_nothing_holds_it [Stats]
        leak_probes::leak_8_a_dropped_close_leaves_nothing []
        order::order_1_ties_go_in_the_order_they_were_scheduled []
        order::order_1_tasks_come_by_the_time_at_which_they_are_visible []
        order::order_1_a_herd_at_one_instant_comes_whole_and_in_order []
        order::order_2_times_of_both_clocks_stand_on_one_line []
        order::order_3_a_released_task_stands_at_its_old_place []
        order::order_3_a_retry_a_snooze_and_the_end_of_a_lease_keep_the_sequence []
        order::order_3_a_move_and_a_shift_keep_the_sequence [Reschedule]
        order::order_4_a_replacement_gets_a_new_sequence [Replace UniqueIds]
        order::order_4_a_redriven_letter_gets_a_new_sequence [DeadLetters]
        // cancel
        backlog::cancel_2_the_rest_of_a_backlog_that_was_mostly_cancelled_comes [Cancel]
        cancel::cancel_1_each_task_of_a_cancel_has_its_own_answer [Cancel]
        cancel::cancel_1_each_task_of_a_move_or_shift_has_its_own_answer [Reschedule]
        cancel_races::cancel_1_a_cancel_and_a_claim_agree_on_who_was_first [Cancel]
        cancel_races::cancel_1_a_move_and_a_settling_agree_on_who_was_first [Reschedule]
        cancel::cancel_2_a_cancelled_task_never_comes [Cancel]
        cancel::cancel_2_through_the_typed_queue [Cancel]
        cancel::cancel_3_a_task_cancelled_in_flight_is_marked_and_never_redelivered [Cancel]
        cancel::cancel_3_the_id_of_a_task_cancelled_in_flight_is_free_at_once [Cancel UniqueIds]
        cancel::cancel_4_move_and_shift_leave_a_task_in_flight_alone [Reschedule]
        cancel::cancel_4_a_task_whose_lease_has_ended_is_changed_and_the_lease_is_lost [Reschedule]
        cancel::cancel_4_a_cancel_after_the_lease_has_ended_takes_the_task [Cancel]
        cancel_shift::cancel_5_a_shift_counts_from_the_time_a_task_would_be_visible [Reschedule]
        cancel_shift::cancel_5_a_shift_into_the_past_is_due_at_once [Reschedule]
        cancel_shift::cancel_5_a_shift_counts_from_a_retry_and_from_the_end_of_a_lease [Reschedule]
        cancel_groups::cancel_6_a_group_change_covers_every_member_once [Reschedule Groups]
        cancel_groups::cancel_6_a_cancelled_group_never_comes [Cancel Groups]
        cancel_groups::cancel_6_a_moved_group_is_due_then [Reschedule Groups]
        cancel_groups::cancel_6_a_group_is_shifted_under_load [Reschedule Groups]
        cancel_groups::cancel_6_what_comes_after_a_change_began_is_left_alone [Reschedule Groups Operations Inspect]
        cancel_groups::cancel_7_a_repeated_operation_changes_nothing_twice [Reschedule Operations]
        cancel_groups::cancel_7_a_repetition_leaves_alone_what_came_meanwhile [Reschedule Groups Operations]
        cancel_groups::cancel_8_an_operation_id_names_one_change [Reschedule Operations]
        cancel_groups::cancel_8_the_same_operation_at_once_changes_nothing_twice [Reschedule Operations]
        cancel_shift::cancel_9_a_reference_means_that_very_task_and_an_id_whoever_has_it [Reschedule Replace]
        cancel_shift::cancel_9_a_reference_to_a_task_that_was_redriven_finds_nothing [Reschedule DeadLetters]
        cancel_shift::cancel_10_a_move_out_of_range_is_an_error_and_changes_nothing [Reschedule]
        cancel_shift::cancel_10_a_shift_out_of_range_refuses_that_task_alone [Reschedule]
        cancel_groups::cancel_10_a_group_counts_what_a_shift_out_of_range_refuses [Reschedule Groups]
        cancel_shift::cancel_11_what_is_declared_absent_answers_unsupported []
        cancel_shift::cancel_11_every_operation_of_what_is_declared_is_there []
        cancel_shift::cancel_12_deleting_a_queue_removes_all_that_is_in_it [Delete]
        // drop
        drop::drop_1_a_dropped_call_has_done_each_item_or_not []
        drop::drop_2_a_dropped_subscription_loses_nothing []
        drop::drop_11_a_dropped_change_has_changed_some_or_all []
        drop::drop_11_a_dropped_redrive_purge_or_delete_has_done_some_or_all []
        drop::drop_12_a_dropped_look_changes_nothing []
        drop_effects::drop_2_a_dropped_claim_is_given_back_at_once []
        drop_effects::drop_10_a_dropped_wait_loses_no_notification_and_leaves_nothing_registered []
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
        drop_calls::drop_6_a_worker_in_batches_dropped_amid_claims_and_settlings_loses_nothing []
        drop_calls::drop_6_a_worker_that_snoozes_dropped_amid_claims_and_settlings_loses_nothing []
        drop_calls::drop_8_the_others_of_a_joined_call_do_not_notice_one_that_is_dropped []
        // live
        live::live_1_a_consumer_sleeps_until_the_next_task_is_due []
        live::live_1_behind_a_task_that_went_the_next_one_is_known [Reschedule]
        live::live_1_what_was_sent_back_is_known []
        live::live_2_a_sleeper_wakes_for_an_earlier_task []
        live::live_2_a_sleeper_wakes_for_a_task_that_is_moved_or_shifted_sooner [Reschedule]
        live::live_2_a_sleeper_wakes_for_a_task_that_is_given_back []
        live::live_2_a_sleeper_wakes_for_a_redriven_letter [DeadLetters]
        live::live_2_a_sleeper_wakes_when_its_queue_is_resumed [Pause]
        live::live_2_a_sleeper_wakes_for_a_replacement [Replace]
        live::live_2_every_sleeper_gets_its_task []
        live::live_2_a_sleeper_that_is_dropped_takes_no_wake_up_along []
        live::live_2_no_wake_up_is_lost_in_a_storm_of_them []
        live::live_3_consumers_go_on_unaided_when_a_fault_has_healed []
        live::live_4_a_notification_between_claim_and_wait_is_not_lost []
        live_more::live_9_a_step_of_the_wall_clock_is_noticed_within_a_fallback_poll []
        live_more::live_10_a_stalled_subscription_hoards_nothing []
        live_more::live_10_a_busy_worker_keeps_nothing_from_another []
        live_more::live_12_pause_stops_delivery_and_nothing_else [Pause]
        live_more::live_12_a_worker_on_a_paused_queue_finishes_and_starts_nothing [Pause]
        live_worker::live_3_a_consumer_goes_on_when_its_store_is_back []
        live_worker::live_5_a_slow_or_panicking_handler_delays_nobody []
        live_worker::live_6_a_store_that_hangs_does_not_hold_up_another []
        live_worker::live_7_a_worker_begins_when_its_store_is_back []
        live_worker::live_11_a_lost_notification_costs_no_more_than_a_fallback_poll []
        // idle
        idle::idle_1_a_consumer_that_waits_asks_nothing []
        idle::idle_1_a_worker_that_waits_asks_nothing []
        idle::idle_1_what_was_worked_off_is_asked_about_no_more []
        idle::idle_2_a_paused_queue_is_not_polled [Pause]
        idle::idle_2_a_later_task_wakes_a_sleeper_once_at_most []
        live_worker::idle_3_a_store_that_notifies_for_nothing_is_not_spun_on []
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
        close::close_1_close_ends_and_wakes_who_waits []
        close::close_1_calls_under_way_end []
        close::close_1_one_client_s_close_is_not_another_s []
        close_worker::close_2_what_is_unfinished_at_the_deadline_is_given_back []
        close_worker::close_2_another_worker_takes_over []
        close_worker::close_3_handlers_are_told_and_may_finish []
        close_worker::close_4_a_worker_that_is_shut_down_claims_no_more []
        close_worker::close_5_a_store_that_hangs_does_not_keep_a_worker []
        close_worker::close_6_a_task_whose_handler_was_not_started_is_given_back []
        close_worker::close_8_a_closed_backend_ends_its_workers_and_consumers []
        close::close_10_what_is_there_after_close_is_as_declared []
        // clear
        clear::clear_1_an_error_has_a_kind_and_a_sentence_and_says_whether_to_try_again []
        clear::clear_4_no_error_repeats_a_payload []
        clear::clear_6_a_wrong_option_is_that_tasks_error_and_nothing_is_sent []
        clear::clear_7_text_from_outside_is_cut_and_cleaned []
        clear::clear_8_find_shows_a_task_exactly_while_it_is_there [Inspect]
        clear::clear_8_find_shows_no_task_that_was_cancelled_or_dead_lettered [Inspect]
        clear::clear_9_a_listing_shows_each_task_once_in_order [Inspect]
        clear::clear_9_a_task_that_stays_is_listed_once_while_others_come_and_go [Inspect]
        clear::clear_10_stats_count_each_task_once [Stats]
        clear::clear_10_stats_tell_how_many_are_due_how_soon [Stats]
        clear::clear_10_stats_tell_of_a_pause [Stats Pause]
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
    ($each:ident $($head:tt)*) => { $crate::$each! { $($head)*
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
