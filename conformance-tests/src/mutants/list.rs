//! The list of mutants.

use std::sync::Arc;

use super::defect::Defect;
use super::mutant::Mutant;
use super::{cancel, clear, dup, leak, live, loss, order, time};

/// Every mutant, by the family of the promise that it breaks.
pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "hands_out_5_ms_early",
        fault: made::<time::Early>,
        breaks: "TIME-1",
        caught_by: "time_1_a_task_is_never_delivered_early",
        what: "Due times are kept 5 ms too early.",
        like: Some("asynq#1071"),
    },
    Mutant {
        name: "clamps_a_delay_that_is_too_far",
        fault: made::<time::Clamping>,
        breaks: "TIME-2",
        caught_by: "time_2_beyond_the_largest_delay_is_an_error_and_never_clamped",
        what: "A delay beyond the largest is made the largest and accepted.",
        like: Some("the RabbitMQ plugin, over 49.7 days"),
    },
    Mutant {
        name: "wakes_late",
        fault: made::<time::Late>,
        breaks: "TIME-7",
        caught_by: "time_7_a_waiting_consumer_gets_a_task_within_the_declared_lateness",
        what: "A wait that nothing ends lasts 50 units too long.",
        like: Some("rabbitmq-server#2074"),
    },
    Mutant {
        name: "ignores_expiry",
        fault: made::<time::NoExpiry>,
        breaks: "TIME-8",
        caught_by: "time_8_an_expired_task_is_dead_lettered_and_never_delivered",
        what: "A task is delivered after it has expired.",
        like: None,
    },
    Mutant {
        name: "loses_the_last_task_of_a_batch",
        fault: made::<loss::LastLost>,
        breaks: "LOSS-1",
        caught_by: "loss_1_everything_accepted_is_delivered",
        what: "The last task of a batch of several is accepted and dropped.",
        like: Some("sidekiq#843"),
    },
    Mutant {
        name: "never_ends_a_lease",
        fault: made::<loss::EndlessLease>,
        breaks: "LOSS-2",
        caught_by: "loss_2_a_lease_that_ends_makes_its_task_visible_again",
        what: "A lease lasts for as long as one can, so the task of a dead worker is lost.",
        like: Some("asynq#1144"),
    },
    Mutant {
        name: "answers_an_error_as_ok",
        fault: made::<loss::ErrorsAsOk>,
        breaks: "LOSS-3",
        caught_by: "loss_3_a_batch_has_one_true_answer_for_each_item",
        what: "An item that failed in a batch is told to have been accepted.",
        like: Some("RabbitMQ: an unroutable message is confirmed"),
    },
    Mutant {
        name: "corrupts_the_payload_of_a_retried_task",
        fault: made::<loss::CorruptRetry>,
        breaks: "LOSS-5",
        caught_by: "loss_5_what_is_delivered_is_what_was_scheduled",
        what: "From the second attempt on, the payload's first byte is another.",
        like: None,
    },
    Mutant {
        name: "redrives_with_used_up_attempts",
        fault: made::<loss::UsedUpRedrive>,
        breaks: "LOSS-7",
        caught_by: "loss_7_a_redriven_letter_is_a_task_with_all_its_attempts",
        what: "A redriven letter keeps the attempts that it had, and is dead-lettered again.",
        like: None,
    },
    Mutant {
        name: "gives_one_task_to_two_claimers",
        fault: made::<dup::TwoClaimers>,
        breaks: "DUP-1",
        caught_by: "dup_1_one_live_lease_at_a_time",
        what: "What one subscription has just claimed is given to the next one too.",
        like: Some("rq#1354, omniqueue#146"),
    },
    Mutant {
        name: "redelivers_completed_tasks",
        fault: made::<dup::CompletedComes>,
        breaks: "DUP-3",
        caught_by: "dup_3_a_completed_task_never_comes_back",
        what: "The first `Complete` of a task gives it back.",
        like: Some("HDT3213/delayqueue: a late nack"),
    },
    Mutant {
        name: "ignores_the_fence",
        fault: made::<dup::NoFence>,
        breaks: "DUP-4",
        caught_by: "dup_4_a_stale_lease_is_refused_and_changes_nothing",
        what: "A stale lease settles and extends the one that lives.",
        like: Some("asynq, River, Oban: completing by id alone"),
    },
    Mutant {
        name: "starts_the_fence_again",
        fault: made::<dup::FenceFromOne>,
        breaks: "DUP-6",
        caught_by: "dup_6_the_fence_rises_with_every_claim",
        what: "The fence begins at 1 again when an id is used again.",
        like: None,
    },
    Mutant {
        name: "shortens_by_an_extension",
        fault: made::<dup::Shortened>,
        breaks: "DUP-7",
        caught_by: "dup_7_an_extension_never_shortens",
        what: "An extension to before the lease's end makes it end sooner.",
        like: Some("kombu#337"),
    },
    Mutant {
        name: "schedules_a_second_copy",
        fault: made::<dup::SecondCopy>,
        breaks: "DUP-8",
        caught_by: "dup_8_an_id_that_is_there_is_not_scheduled_again",
        what: "An id that is pending is scheduled once more and answered as `Created`.",
        like: None,
    },
    Mutant {
        name: "replaces_and_keeps_the_old_payload",
        fault: made::<dup::OldPayload>,
        breaks: "DUP-9",
        caught_by: "dup_9_a_replacement_takes_the_place_of_the_old_task",
        what: "A replacement has the payload of the task that it replaced.",
        like: None,
    },
    Mutant {
        name: "forgets_attempts",
        fault: made::<dup::FirstAttempt>,
        breaks: "DUP-12",
        caught_by: "dup_12_attempts_count_claims_but_not_releases",
        what: "Every attempt is told to be the first.",
        like: None,
    },
    Mutant {
        name: "counts_a_release_as_an_attempt",
        fault: made::<dup::ReleaseCounts>,
        breaks: "DUP-12",
        caught_by: "dup_12_attempts_count_claims_but_not_releases",
        what: "A release does not give its attempt back.",
        like: None,
    },
    Mutant {
        name: "swaps_ties",
        fault: made::<order::SwappedTies>,
        breaks: "ORDER-1",
        caught_by: "order_1_ties_go_in_the_order_they_were_scheduled",
        what: "Of tasks due at the same millisecond, the second comes first.",
        like: None,
    },
    Mutant {
        name: "releases_to_the_back",
        fault: made::<order::ReleasedLast>,
        breaks: "ORDER-3",
        caught_by: "order_3_a_released_task_stands_at_its_old_place",
        what: "A released task stands behind others that are due.",
        like: Some("Oban: the oldest of a backlog starve"),
    },
    Mutant {
        name: "cancels_but_still_delivers",
        fault: made::<cancel::CancelledComes>,
        breaks: "CANCEL-2",
        caught_by: "cancel_2_a_cancelled_task_never_comes",
        what: "A cancel answers `Changed` and removes nothing.",
        like: Some("rocketmq#10421"),
    },
    Mutant {
        name: "redelivers_a_task_cancelled_in_flight",
        fault: made::<cancel::CancelledInFlightComes>,
        breaks: "CANCEL-3",
        caught_by: "cancel_3_a_task_cancelled_in_flight_is_marked_and_never_redelivered",
        what: "A task cancelled in flight is marked, and comes again when its lease ends.",
        like: None,
    },
    Mutant {
        name: "shifts_only_part_of_a_group",
        fault: made::<cancel::PartOfGroup>,
        breaks: "CANCEL-6",
        caught_by: "cancel_6_a_group_change_covers_every_member_once",
        what: "A group's shift leaves one member out, and counts it.",
        like: None,
    },
    Mutant {
        name: "shifts_twice_on_a_repeated_operation",
        fault: made::<cancel::ShiftedTwice>,
        breaks: "CANCEL-7",
        caught_by: "cancel_7_a_repeated_operation_changes_nothing_twice",
        what: "A shift that is repeated under its operation id is made again.",
        like: None,
    },
    Mutant {
        name: "cancels_though_declared_unsupported",
        fault: made::<cancel::UndeclaredCancel>,
        breaks: "CANCEL-11",
        caught_by: "cancel_11_what_is_declared_absent_answers_unsupported",
        what: "Cancelling is declared as absent, and works.",
        like: None,
    },
    Mutant {
        name: "cancels_and_answers_unsupported",
        fault: made::<cancel::DeniedCancel>,
        breaks: "CANCEL-11",
        caught_by: "cancel_11_what_is_declared_absent_answers_unsupported",
        what: "Cancelling answers `Unsupported`, and is done all the same.",
        like: None,
    },
    Mutant {
        name: "does_not_know_an_operation_of_what_it_declares",
        fault: made::<cancel::OneOperationLess>,
        breaks: "CANCEL-11",
        caught_by: "cancel_11_every_operation_of_what_is_declared_is_there",
        what: "Dead letters are declared, and purging some of them by id answers `Unsupported`.",
        like: None,
    },
    Mutant {
        name: "loses_the_claim_of_a_dropped_future",
        fault: made::<live::LostClaim>,
        breaks: "DROP-2",
        caught_by: "drop_2_a_dropped_claim_is_given_back_at_once",
        what: "A claim that is dropped after it has taken tasks keeps them under their leases.",
        like: Some("bullmq#4512"),
    },
    Mutant {
        name: "sleeps_through_an_earlier_task",
        fault: made::<live::SoundSleeper>,
        breaks: "LIVE-2",
        caught_by: "live_2_a_sleeper_wakes_for_an_earlier_task",
        what: "Who knows of a later task sleeps until then, whatever comes.",
        like: Some("tokio#8274, tokio#8320"),
    },
    Mutant {
        name: "misses_a_wake_up_between_claim_and_wait",
        fault: made::<live::MissedNotification>,
        breaks: "LIVE-4",
        caught_by: "live_4_a_notification_between_claim_and_wait_is_not_lost",
        what: "A notification that comes before the wait has begun is lost.",
        like: Some("bullmq#4479"),
    },
    Mutant {
        name: "hoards_in_a_stalled_subscription",
        fault: made::<live::Hoarder>,
        breaks: "LIVE-10",
        caught_by: "live_10_a_stalled_subscription_hoards_nothing",
        what: "Tasks are dealt out to all subscriptions that are open, also to those that stall.",
        like: Some("dapr#4540"),
    },
    Mutant {
        name: "hands_out_while_paused",
        fault: made::<live::NoPause>,
        breaks: "LIVE-12",
        caught_by: "live_12_pause_stops_delivery_and_nothing_else",
        what: "A pause is shown and stops nothing.",
        like: None,
    },
    Mutant {
        name: "polls_when_idle",
        fault: made::<live::Polling>,
        breaks: "IDLE-1",
        caught_by: "idle_1_a_consumer_that_waits_asks_nothing",
        what: "A wait ends after 5 ms.",
        like: Some("rqueue#193"),
    },
    Mutant {
        name: "accepts_oversized_payloads",
        fault: made::<clear::AnySize>,
        breaks: "BOUND-4",
        caught_by: "bound_4_a_byte_too_much_is_refused",
        what: "A payload over the limit is accepted.",
        like: None,
    },
    Mutant {
        name: "never_ends_its_close",
        fault: made::<leak::EndlessClose>,
        breaks: "CLOSE-1",
        caught_by: "close_1_close_ends_and_wakes_who_waits",
        what: "`close` waits for the subscriptions that are open, which wait for it.",
        like: None,
    },
    Mutant {
        name: "leaves_a_task_after_close",
        fault: made::<leak::TaskAfterClose>,
        breaks: "LEAK-8",
        caught_by: "close_1_close_ends_and_wakes_who_waits",
        what: "`close` leaves a task of the runtime behind.",
        like: None,
    },
    Mutant {
        name: "finds_completed_tasks",
        fault: made::<clear::CompletedShown>,
        breaks: "CLEAR-8",
        caught_by: "clear_8_find_shows_a_task_exactly_while_it_is_there",
        what: "`find` still shows tasks that were completed.",
        like: None,
    },
    Mutant {
        name: "skips_an_entry_between_pages",
        fault: made::<clear::SkippingList>,
        breaks: "CLEAR-9",
        caught_by: "clear_9_a_listing_shows_each_task_once_in_order",
        what: "A page leaves out the entry that follows the page before.",
        like: Some("cadence#970"),
    },
    Mutant {
        name: "counts_a_task_in_flight_twice",
        fault: made::<clear::CountedTwice>,
        breaks: "CLEAR-10",
        caught_by: "clear_10_stats_count_each_task_once",
        what: "A task in flight is counted as due as well.",
        like: None,
    },
    Mutant {
        name: "leaks_a_listener_for_every_take",
        fault: made::<leak::ListenerLeak>,
        breaks: "LEAK-3",
        caught_by: "leak_3_takes_that_time_out_or_are_dropped_leave_nothing",
        what: "Each wait registers a listener that nothing removes.",
        like: Some("redisson#2055, Redisson 3.10.6"),
    },
    Mutant {
        name: "leaves_a_task_for_each_subscription",
        fault: made::<leak::TaskForEachSubscription>,
        breaks: "LEAK-5",
        caught_by: "leak_5_cycles_cost_the_same_as_one",
        what: "Each subscription that is opened leaves a task of the runtime.",
        like: Some("dapr#4540"),
    },
    Mutant {
        name: "keeps_payloads_of_cancelled_tasks",
        fault: made::<leak::CancelledKept>,
        breaks: "LEAK-7",
        caught_by: "leak_7_a_cancelled_task_gives_its_payload_back",
        what: "What a cancelled task carried is kept.",
        like: Some("netty#2541"),
    },
];

fn made<D: Defect + Default>() -> Arc<dyn Defect> {
    Arc::new(D::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite;

    #[test]
    fn every_mutant_is_named_once_and_has_a_test_of_the_suite() {
        let mut names: Vec<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), MUTANTS.len(), "a name stands twice");
        let missing: Vec<_> =
            MUTANTS.iter().map(|mutant| mutant.caught_by).filter(|test| suite::find(test).is_none()).collect();
        assert!(missing.is_empty(), "the suite has no test {missing:?}");
    }
}
