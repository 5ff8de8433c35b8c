//! What is on the disk, on a Redis that answers nothing before it is there and is killed in the middle of the work. The whole
//! suite runs on one with an append-only file that is synced every second, in `redis.rs`.
#![cfg(feature = "servers")]

mod redis_support;

use redis_support::OnRedis;

/// Tests of the suite, with so many shards.
macro_rules! on_disk {
    ($module:ident, $shards:literal: $($name:ident)*) => {
        mod $module {
            use super::*;
            $(#[test] fn $name() {
                delayline_conformance::run(stringify!($name), || std::sync::Arc::new(OnRedis::on_disk($shards)));
            })*
        }
    };
}

on_disk!(one_shard, 1:
    loss_1_everything_accepted_is_delivered
    loss_4_tasks_survive_the_end_of_all_clients_as_declared
    loss_4_what_is_on_disk_survives_a_kill
    loss_4_a_server_killed_in_the_middle_of_the_work_loses_nothing
    cancel_6_any_sequence_of_group_changes_does_what_the_model_does
    dup_3_a_completed_task_never_comes_back
);

on_disk!(three_shards, 3:
    loss_4_what_is_on_disk_survives_a_kill
    loss_4_a_server_killed_in_the_middle_of_the_work_loses_nothing
);
