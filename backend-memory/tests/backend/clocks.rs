//! Both clocks: the range of due times, their order, and a wall clock that is set.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Claimed, Clock, DelayBackend, ErrorKind, NewTask, Result, TestClock, Timestamp};
use delayline_memory::{MemoryBackend, MemoryConfig};

use crate::support::{claim, key, ms, open, put, q, ready};

#[tokio::test(start_paused = true)]
async fn order_1_a_million_due_at_one_instant_come_out_in_the_order_they_were_scheduled() {
    let backend = MemoryBackend::new();
    let mut subscription = open(&backend).await;
    let batch = (0..1_000_000u32).map(|i| NewTask::new(ms(500), i.to_be_bytes().to_vec())).collect();
    assert!(backend.schedule(&q(), batch).await.unwrap().iter().all(Result::is_ok));
    tokio::time::advance(ms(499)).await;
    assert!(claim(&mut subscription, 1).await.deliveries.is_empty(), "never early");
    tokio::time::advance(ms(2)).await;
    let mut next = 0u32;
    while next < 1_000_000 {
        for task in claim(&mut subscription, 10_000).await.deliveries {
            assert_eq!(task.payload, next.to_be_bytes().to_vec());
            next += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn order_2_both_clocks_are_merged_by_visibility_and_ties_by_sequence() {
    let clock = Arc::new(TestClock::at(Timestamp::from_unix_millis(1_900_000_000_000)));
    let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock.clone()));
    let mut subscription = open(&backend).await;
    let at = |d| clock.wall().saturating_add(ms(d));
    for (name, task) in [
        ("b", NewTask::new(at(20), "")),
        ("c", NewTask::new(ms(20), "")),
        ("a", NewTask::new(ms(10), "")),
        ("d", NewTask::new(at(20), "")),
        ("e", NewTask::new(ms(30), "")),
    ] {
        put(&backend, task.id(key(name))).await.unwrap();
    }
    tokio::time::advance(ms(50)).await;
    let names: Vec<_> = claim(&mut subscription, 9).await.deliveries.iter().map(|d| d.lease.id.to_string()).collect();
    assert_eq!(names.concat(), "abcde");
}

#[tokio::test(start_paused = true)]
async fn time_2_the_range_is_34_years_and_a_millisecond_more_is_an_error() {
    let backend = MemoryBackend::new();
    let max = backend.capabilities().delay_max;
    assert!(max > Duration::from_secs(34 * 365 * 86_400));
    assert!(put(&backend, NewTask::new(max, "")).await.is_ok());
    let years_200 = Duration::from_secs(200 * 365 * 86_400);
    for task in [
        NewTask::new(max + ms(1), ""),
        NewTask::new(Duration::MAX, ""),
        NewTask::new(Timestamp::from(std::time::SystemTime::UNIX_EPOCH + years_200), ""),
        NewTask::new(Timestamp::from_unix_micros(i64::MAX), ""),
    ] {
        assert_eq!(put(&backend, task).await.unwrap_err().kind(), ErrorKind::OutOfRange);
    }
    for long_ago in [Timestamp::UNIX_EPOCH, Timestamp::from_unix_micros(i64::MIN)] {
        put(&backend, NewTask::new(long_ago, "")).await.unwrap();
    }
    let mut subscription = open(&backend).await;
    assert_eq!(claim(&mut subscription, 5).await.deliveries.len(), 2, "the past is due at once");
    tokio::time::advance(max - ms(10)).await;
    assert!(claim(&mut subscription, 5).await.deliveries.len() <= 2, "only those whose lease ended");
    tokio::time::advance(ms(20)).await;
    let far: Vec<_> = claim(&mut subscription, 5).await.deliveries;
    assert_eq!(far.iter().filter(|d| d.lease.attempt == 1).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn time_3_a_wall_clock_set_back_makes_nothing_early_and_a_delay_does_not_care() {
    let clock = Arc::new(TestClock::at("2030-06-01T09:00:00Z".parse().unwrap()));
    let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock.clone()));
    let mut subscription = open(&backend).await;
    put(&backend, NewTask::new(clock.wall().saturating_add(ms(60_000)), "at").id(key("at"))).await.unwrap();
    put(&backend, NewTask::new(ms(60_000), "after").id(key("after"))).await.unwrap();
    clock.step_forward(Duration::from_secs(86_400 * 365 * 10));
    let claimed = claim(&mut subscription, 0).await;
    assert_eq!(claimed.next_due_in, Some(Duration::ZERO));
    clock.step_back(Duration::from_secs(86_400 * 365 * 10 + 3600));
    assert!(claim(&mut subscription, 9).await.deliveries.is_empty(), "re-checked at delivery");
    tokio::time::advance(ms(60_001)).await;
    let names = |c: Claimed| c.deliveries.iter().map(|d| d.lease.id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(claim(&mut subscription, 9).await), ["after"]);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(names(claim(&mut subscription, 9).await), ["after", "at"]);
}

#[tokio::test(start_paused = true)]
async fn live_9_a_wall_clock_set_forward_is_noticed_within_30_seconds() {
    let clock = Arc::new(TestClock::at("2030-06-01T09:00:00Z".parse().unwrap()));
    let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock.clone()));
    let mut subscription = open(&backend).await;
    // A sleeper that only knows of a delayed task learns of the one that waits for the wall clock.
    put(&backend, NewTask::new(Duration::from_secs(600), "")).await.unwrap();
    let wait = claim(&mut subscription, 1).await.next_due_in.unwrap();
    assert!(wait > Duration::from_secs(590));
    put(&backend, NewTask::new(clock.wall().saturating_add(Duration::from_secs(3600)), "")).await.unwrap();
    assert!(ready(subscription.wait(wait)).is_some(), "told at once that it must look at the wall clock too");
    let wait = claim(&mut subscription, 1).await.next_due_in.unwrap();
    assert!(wait <= Duration::from_secs(30));
    clock.step_forward(Duration::from_secs(7200));
    tokio::time::advance(wait).await;
    assert_eq!(claim(&mut subscription, 1).await.deliveries.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn live_2_after_a_step_of_the_wall_clock_an_earlier_delay_still_wakes() {
    for forward in [true, false] {
        let clock = Arc::new(TestClock::at("2030-06-01T09:00:00Z".parse().unwrap()));
        let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock.clone()));
        let mut subscription = open(&backend).await;
        put(&backend, NewTask::new(Duration::from_secs(600), "")).await.unwrap();
        claim(&mut subscription, 1).await;
        let hour = Duration::from_secs(3600);
        if forward {
            clock.step_forward(hour)
        } else {
            clock.step_back(hour)
        }
        put(&backend, NewTask::new(ms(5_000), "")).await.unwrap();
        assert!(ready(subscription.wait(Duration::from_secs(600))).is_some());
    }
}
