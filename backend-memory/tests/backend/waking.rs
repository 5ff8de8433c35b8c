//! What wakes a subscription, and what does not.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    AdminOp, Change, Claim, DelayBackend, Disposition, ErrorKind, NewTask, Select, Shift, Subscription,
    SubscriptionOptions,
};
use delayline_memory::MemoryBackend;

use crate::support::{LEASE, claim, key, ms, open, put, q, ready, settle};

#[tokio::test(start_paused = true)]
async fn live_4_a_notification_between_claim_and_wait_is_not_lost() {
    let backend = MemoryBackend::new();
    let mut subscription = open(&backend).await;
    let far = put(&backend, NewTask::new(ms(10_000), "")).await.unwrap();
    let look = |subscription: &mut Box<dyn Subscription>| {
        let claimed = ready(subscription.claim(Claim::new(1, LEASE))).unwrap().unwrap();
        (claimed.deliveries.len(), claimed.next_due_in)
    };
    assert_eq!(look(&mut subscription).0, 0);
    assert!(ready(subscription.wait(ms(9_000))).is_none(), "nothing has happened");

    put(&backend, NewTask::new(ms(5_000), "")).await.unwrap();
    assert!(ready(subscription.wait(ms(9_000))).is_some(), "an earlier task");
    look(&mut subscription);
    put(&backend, NewTask::new(ms(4_900), "")).await.unwrap();
    look(&mut subscription);
    assert!(ready(subscription.wait(ms(4_000))).is_none(), "a claim has seen it since");
    put(&backend, NewTask::new(ms(7_000), "")).await.unwrap();
    assert!(ready(subscription.wait(ms(4_000))).is_none(), "a later task wakes nobody");

    let sooner = Change::shift(Shift::Sooner(ms(9_000)));
    backend.change(&q(), Select::Tasks(vec![far]), sooner).await.unwrap();
    assert!(ready(subscription.wait(ms(4_000))).is_some(), "a task moved to the front");
    backend.administer(&q(), AdminOp::Pause).await.unwrap();
    assert_eq!(look(&mut subscription), (0, None));
    assert!(ready(subscription.wait(ms(4_000))).is_none());
    backend.administer(&q(), AdminOp::Resume).await.unwrap();
    assert!(ready(subscription.wait(ms(4_000))).is_some(), "resumed");

    tokio::time::advance(ms(1_000)).await;
    let mut other = open(&backend).await;
    let task = claim(&mut other, 1).await.deliveries.remove(0);
    assert_eq!(look(&mut subscription).0, 0);
    settle(&backend, task, Disposition::Release).await.unwrap();
    assert!(ready(subscription.wait(ms(4_000))).is_some(), "a task given back by another subscription");
    assert_eq!(look(&mut subscription).0, 1);
}

#[tokio::test(start_paused = true)]
async fn live_10_one_stalled_subscription_keeps_nothing_from_another() {
    let backend = MemoryBackend::new();
    let mut stalled = open(&backend).await;
    claim(&mut stalled, 1).await;
    let mut awake = open(&backend).await;
    for _ in 0..100 {
        assert!(claim(&mut awake, 9).await.deliveries.is_empty());
        put(&backend, NewTask::new(ms(0), "")).await.unwrap();
        assert!(ready(awake.wait(ms(1_000))).is_some());
        let task = claim(&mut awake, 9).await.deliveries.remove(0);
        settle(&backend, task, Disposition::Complete).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn close_1_wakes_who_waits_and_answers_closed() {
    let backend = Arc::new(MemoryBackend::new());
    let mut subscription = open(&backend).await;
    put(&backend, NewTask::new(ms(1_000), "")).await.unwrap();
    claim(&mut subscription, 1).await;
    let waiting = tokio::spawn(async move {
        subscription.wait(Duration::from_secs(86_400)).await;
        subscription.claim(Claim::new(1, LEASE)).await
    });
    tokio::task::yield_now().await;
    backend.close().await.unwrap();
    backend.close().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    let closed = |e: delayline_core::Error| assert_eq!(e.kind(), ErrorKind::Closed);
    closed(backend.schedule(&q(), vec![]).await.unwrap_err());
    closed(backend.settle(&q(), vec![]).await.unwrap_err());
    closed(backend.subscribe(&q(), SubscriptionOptions::default()).await.unwrap_err());
    closed(backend.stats(&q()).await.unwrap_err());
    closed(backend.queues().await.unwrap_err());
    closed(backend.find(&q(), &key("x")).await.unwrap_err());
    closed(backend.administer(&q(), AdminOp::Delete).await.unwrap_err());
    closed(backend.ping().await.unwrap_err());
}
