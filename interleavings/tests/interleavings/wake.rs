//! Wake-up: nobody sleeps while a task is due. What is slept through shows as time that has passed.

use std::time::Duration;

use delayline_core::faults::Fault;
use delayline_core::{Consumer, Queue, Result};
use interleavings::store::{memory, numbers};
use interleavings::{explore, finds};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const SECOND: Duration = Duration::from_secs(1);

/// Takes and completes tasks for ever, and tells each and when it came.
fn consume(queue: &Queue<u32>, told: mpsc::Sender<(u32, Duration)>) -> JoinHandle<Result<()>> {
    let queue = queue.clone();
    tokio::spawn(async move {
        let mut consumer: Consumer<u32> = queue.consumer().open().await?;
        loop {
            let delivery = consumer.next().await?;
            let _ = told.send((*delivery.payload(), tokio::time::now())).await;
            delivery.complete().await?;
        }
    })
}

/// Two consumers wait and claim while two others schedule what is due at once.
async fn due_at_once() {
    let queue = numbers(memory());
    let (told, mut tasks) = mpsc::channel(8);
    let consumers: Vec<_> = (0..2).map(|_| consume(&queue, told.clone())).collect();
    for producer in 0..2 {
        let queue = queue.clone();
        tokio::spawn(async move {
            for number in 0..2 {
                queue.schedule(&(producer * 2 + number)).await.unwrap();
            }
        });
    }
    let mut numbers = Vec::new();
    for _ in 0..4 {
        let (number, at) = tasks.recv().await.unwrap();
        assert_eq!(at, Duration::ZERO, "{number} was slept through");
        numbers.push(number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3]);
    consumers.iter().for_each(JoinHandle::abort);
}

#[test]
fn live_2_what_is_due_at_once_wakes_a_sleeper() {
    explore(due_at_once);
}

#[test]
fn a_bell_forgotten_between_claim_and_wait_is_found() {
    finds(Some(Fault::NotificationForgotten), due_at_once);
}

/// The earliest task changes under a sleeper: others come before it, it is moved, and it is cancelled.
async fn earliest_changes() {
    let queue = numbers(memory());
    let (told, mut tasks) = mpsc::channel(8);
    let consumer = consume(&queue, told);
    let by = |id: u32, after: Duration| {
        let queue = queue.clone();
        async move { queue.schedule(&id).id(id.to_string()).after(after).await.unwrap() }
    };
    let changes = [
        tokio::spawn({
            let (queue, by) = (queue.clone(), by(100, SECOND * 100));
            async move {
                let task = by.await.task;
                queue.move_to(task, SECOND * 20).await.unwrap();
            }
        }),
        tokio::spawn({
            let (queue, by) = (queue.clone(), by(5, SECOND * 5));
            async move {
                let task = by.await.task;
                queue.cancel(task).await.unwrap();
            }
        }),
        tokio::spawn({
            let by = by(10, SECOND * 10);
            async move {
                by.await;
            }
        }),
    ];
    for change in changes {
        change.await.unwrap();
    }
    assert_eq!(tasks.recv().await.unwrap(), (10, SECOND * 10));
    assert_eq!(tasks.recv().await.unwrap(), (100, SECOND * 20));
    consumer.abort();
}

#[test]
fn live_1_a_sleeper_wakes_for_the_earliest_task_however_that_changes() {
    explore(earliest_changes);
}

#[test]
fn a_bell_forgotten_while_the_earliest_task_changes_is_found() {
    finds(Some(Fault::NotificationForgotten), earliest_changes);
}

/// What one consumer gives back, and what a pause held, wakes the other.
async fn given_back() {
    let queue = numbers(memory());
    let (told, mut tasks) = mpsc::channel(8);
    queue.schedule(&1).await.unwrap();
    let mut giver = queue.consumer().open().await.unwrap();
    let held = giver.next().await.unwrap();
    let consumer = consume(&queue, told);
    let pauser = tokio::spawn({
        let queue = queue.clone();
        async move {
            queue.pause().await.unwrap();
            queue.resume().await.unwrap();
        }
    });
    held.release().await.unwrap();
    // It sleeps no more, and so may not be woken in the other's place.
    drop(giver);
    pauser.await.unwrap();
    assert_eq!(tasks.recv().await.unwrap(), (1, Duration::ZERO));
    consumer.abort();
}

#[test]
fn live_2_what_is_given_back_or_resumed_wakes_a_sleeper() {
    explore(given_back);
}
