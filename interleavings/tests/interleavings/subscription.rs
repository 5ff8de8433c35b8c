//! Subscription: claims dropped half-way, subscriptions that come and go, and the end of the backend.

use std::time::Duration;

use delayline_core::{DelayBackend, ErrorKind};
use interleavings::explore;
use interleavings::store::{Remote, all_wait, memory, numbers};
use tokio::task::yield_now;

/// A consumer whose calls are dropped at any step, on a store whose claims take time.
async fn dropped_claims() {
    let queue = numbers(Remote::new());
    let producer = tokio::spawn({
        let queue = queue.clone();
        async move {
            for number in 0..3 {
                queue.schedule(&number).await.unwrap();
            }
        }
    });
    let mut consumer = queue.consumer().open().await.unwrap();
    for steps in 0..6 {
        let interrupted = tokio::select! {
            biased;
            () = async { for _ in 0..steps { yield_now().await } } => true,
            delivery = consumer.next() => {
                // Told by its attempt that it was taken for the first time.
                assert_eq!(delivery.as_ref().unwrap().attempt(), 1);
                delivery.unwrap().release().await.unwrap();
                false
            }
        };
        if interrupted {
            yield_now().await;
        }
    }
    producer.await.unwrap();
    let mut numbers = Vec::new();
    while numbers.len() < 3 {
        let delivery = consumer.next().await.unwrap();
        assert_eq!(delivery.attempt(), 1, "a dropped claim costs no attempt");
        numbers.push(*delivery.payload());
        delivery.complete().await.unwrap();
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    assert!(tokio::time::now() < Duration::from_secs(1), "given back by {:?} only", tokio::time::now());
}

#[test]
fn drop_2_what_a_dropped_claim_had_taken_is_there_at_once() {
    explore(dropped_claims);
}

/// Subscriptions open and end while tasks come and go, so that the queue is forgotten and made again all the time.
async fn subscriptions_come_and_go() {
    let memory = memory();
    let queue = numbers(memory.clone());
    let tasks: Vec<_> = (0..3)
        .map(|number| {
            let queue = queue.clone();
            tokio::spawn(async move {
                queue.schedule(&number).await.unwrap();
                let mut consumer = queue.consumer().open().await.unwrap();
                let delivery = consumer.next().await.unwrap();
                drop(consumer);
                delivery.complete().await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(tokio::time::now(), Duration::ZERO, "somebody slept though a task was due");
    assert!(memory.queues().await.unwrap().is_empty(), "nothing is left of a queue that is not used");
}

#[test]
fn leak_4_a_queue_that_is_forgotten_and_made_again_loses_nobody() {
    explore(subscriptions_come_and_go);
}

/// The backend is closed under three who wait, claim, or are about to.
async fn closed_under_waiters() {
    let memory = memory();
    let queue = numbers(memory.clone());
    let consumers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                // Also the opening may come too late.
                let e = match queue.consumer().open().await {
                    Ok(mut consumer) => consumer.next().await.unwrap_err(),
                    Err(e) => e,
                };
                (e.kind(), tokio::time::now())
            })
        })
        .collect();
    memory.close().await.unwrap();
    for consumer in consumers {
        assert_eq!(consumer.await.unwrap(), (ErrorKind::Closed, Duration::ZERO));
    }
    all_wait().await;
}

#[test]
fn close_1_everyone_who_waits_is_woken_by_the_end() {
    explore(closed_under_waiters);
}
