//! Leases and ids: what a lease that is stale or of another task does, and calls that are dropped half-way.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};

use delayline_core::{
    Change, DelayBackend, Disposition, ErrorKind, NewTask, QueueName, ScheduleOutcome, Select, SubscriptionOptions,
    TestClock,
};
use delayline_memory::{MemoryBackend, MemoryConfig};

use crate::support::{LEASE, claim, key, ms, open, put, q, settle};

#[tokio::test(start_paused = true)]
async fn dup_6_the_fence_rises_with_every_claim_also_when_an_id_or_queue_is_used_again() {
    let clock = Arc::new(TestClock::at("2030-06-01T09:00:00Z".parse().unwrap()));
    let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock.clone()));
    let mut last = 0;
    for _ in 0..100 {
        clock.step_back(ms(5));
        put(&backend, NewTask::new(ms(0), "").id(key("k"))).await.unwrap();
        // The queue is empty and unused after each round, and so forgotten.
        let mut subscription = open(&backend).await;
        let task = claim(&mut subscription, 1).await.deliveries.remove(0);
        assert!(task.lease.fence > last);
        last = task.lease.fence;
        settle(&backend, task, Disposition::Complete).await.unwrap();
        drop(subscription);
        assert_eq!(backend.queues().await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn dup_4_a_stale_lease_changes_nothing_and_an_expired_one_nobody_took_still_settles() {
    let backend = MemoryBackend::new();
    let mut subscription = open(&backend).await;
    put(&backend, NewTask::new(ms(0), "")).await.unwrap();
    let first = claim(&mut subscription, 1).await.deliveries.remove(0);
    tokio::time::advance(LEASE).await;
    let second = claim(&mut subscription, 1).await.deliveries.remove(0);
    assert_eq!((second.lease.attempt, &second.lease.id), (2, &first.lease.id));
    let stale = backend.extend(&q(), vec![first.lease.clone()], LEASE).await.unwrap();
    assert_eq!(stale[0].as_ref().unwrap_err().kind(), ErrorKind::LeaseLost);
    for disposition in [Disposition::Complete, Disposition::Release, Disposition::DeadLetter { reason: "".into() }] {
        assert_eq!(settle(&backend, first.clone(), disposition).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    }
    tokio::time::advance(LEASE * 2).await;
    settle(&backend, second.clone(), Disposition::Complete).await.unwrap();
    assert_eq!(settle(&backend, second, Disposition::Complete).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert!(claim(&mut subscription, 1).await.deliveries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn drop_1_a_schedule_or_settle_dropped_anywhere_did_each_item_or_not() {
    let total = 20_000;
    for polls in 0.. {
        let backend = MemoryBackend::new();
        let mut subscription = open(&backend).await;
        let batch = (0..total).map(|i| NewTask::new(ms(0), format!("{i}"))).collect();
        let queue = q();
        let mut schedule = Box::pin(backend.schedule(&queue, batch));
        let mut done = false;
        for _ in 0..=polls {
            done |= schedule.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        }
        drop(schedule);
        let mut leases = vec![];
        loop {
            let claimed = claim(&mut subscription, 10_000).await.deliveries;
            if claimed.is_empty() {
                break;
            }
            for task in claimed {
                assert_eq!(task.payload, format!("{}", leases.len()), "accepted from the front, none twice");
                leases.push((task.lease, Disposition::Complete));
            }
        }
        assert_eq!(done, leases.len() == total);
        let ended = leases.len();
        let mut settling = Box::pin(backend.settle(&queue, leases));
        let mut settled = false;
        for _ in 0..=polls {
            settled |= settled || settling.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        }
        drop(settling);
        let left = backend.stats(&queue).await.unwrap().in_flight;
        assert_eq!(settled, left == 0);
        assert!(left < ended as u64);
        if done {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dup_9_an_id_in_use_is_kept_or_replaced_and_a_replaced_lease_is_lost() {
    let backend = MemoryBackend::new();
    let mut subscription = open(&backend).await;
    let debounce = |text: &'static str| NewTask::new(ms(1_000), text).id(key("room")).replace();
    for text in ["a", "b", "c"] {
        put(&backend, debounce(text)).await.unwrap();
        tokio::time::advance(ms(600)).await;
        assert!(claim(&mut subscription, 1).await.deliveries.is_empty());
    }
    let kept = backend.schedule(&q(), vec![NewTask::new(ms(5), "d").id(key("room"))]).await.unwrap().remove(0).unwrap();
    assert_eq!(kept.outcome, ScheduleOutcome::Existing);
    tokio::time::advance(ms(400)).await;
    let task = claim(&mut subscription, 9).await.deliveries.remove(0);
    assert_eq!(task.payload, "c");
    put(&backend, debounce("e")).await.unwrap();
    assert_eq!(settle(&backend, task, Disposition::Complete).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    tokio::time::advance(ms(1_000)).await;
    assert_eq!(claim(&mut subscription, 9).await.deliveries.remove(0).payload, "e");
}

#[tokio::test(start_paused = true)]
async fn dup_10_the_id_of_a_task_cancelled_in_flight_is_free_at_once() {
    for lease_ended in [false, true] {
        let backend = MemoryBackend::new();
        let mut subscription = open(&backend).await;
        put(&backend, NewTask::new(ms(0), "old").id(key("k"))).await.unwrap();
        let old = claim(&mut subscription, 1).await.deliveries.remove(0);
        backend.change(&q(), Select::Tasks(vec![key("k").into()]), Change::cancel()).await.unwrap();
        if lease_ended {
            tokio::time::advance(LEASE).await;
        }
        let new =
            backend.schedule(&q(), vec![NewTask::new(ms(0), "new").id(key("k"))]).await.unwrap().remove(0).unwrap();
        assert_eq!(new.outcome, ScheduleOutcome::Created);
        assert_eq!(settle(&backend, old, Disposition::Complete).await.unwrap_err().kind(), ErrorKind::LeaseLost);
        assert_eq!(claim(&mut subscription, 9).await.deliveries.remove(0).payload, "new");
    }
}

#[tokio::test(start_paused = true)]
async fn dup_5_a_lease_of_another_queue_settles_nothing() {
    let clock = Arc::new(TestClock::at("2030-06-01T09:00:00Z".parse().unwrap()));
    let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock));
    let mut leases = vec![];
    let queues = ["a", "b"].map(|name| QueueName::new(name).unwrap());
    for queue in &queues {
        backend.schedule(queue, vec![NewTask::new(ms(0), "")]).await.unwrap();
        let mut subscription = backend.subscribe(queue, SubscriptionOptions::default()).await.unwrap();
        leases.push(claim(&mut subscription, 1).await.deliveries.remove(0).lease);
    }
    assert_eq!((leases[0].fence, &leases[0].receipt), (leases[1].fence, &leases[1].receipt), "alike but for their ids");
    let lost = backend.settle(&queues[1], vec![(leases[0].clone(), Disposition::Complete)]).await.unwrap().remove(0);
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::LeaseLost);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_differs_only_in_its_version_is_another_id() {
    let backend = MemoryBackend::new();
    let given = put(&backend, NewTask::new(ms(60_000), "")).await.unwrap().id.to_string();
    assert_eq!(&given[14..15], "7");
    let other = key(&format!("{}4{}", &given[..14], &given[15..]));
    assert_eq!(backend.find(&q(), &other).await.unwrap(), None);
    assert!(backend.find(&q(), &key(&given)).await.unwrap().is_some());
}
