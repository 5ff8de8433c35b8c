//! Group commit: callers that come and leave, and a task that ends when it has nothing to do.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use delayline_core::faults::Fault;
use interleavings::store::{Remote, all_wait, numbers};
use interleavings::{explore, finds};
use tokio::task::yield_now;

/// Callers come one after the other and at the same time, each with calls in a row.
async fn come_and_go() {
    let remote = Remote::new();
    let queue = numbers(remote.clone());
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let queue = queue.clone();
            tokio::spawn(async move {
                for call in 0..2 {
                    let number = caller * 10 + call;
                    let scheduled = queue.schedule(&number).id(number.to_string()).await.unwrap();
                    assert_eq!(scheduled.id().to_string(), number.to_string(), "another's answer");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let mut sent = remote.seen().scheduled.concat();
    sent.sort_unstable();
    assert_eq!(sent, [0, 1, 10, 11, 20, 21, 30, 31], "each is sent once");
    assert_eq!(tokio::time::now(), Duration::ZERO, "somebody was left waiting");
}

#[test]
fn commit_1_each_caller_is_answered_with_its_own_and_nobody_is_left() {
    explore(come_and_go);
}

#[test]
fn a_task_that_ends_beside_a_newcomer_is_found() {
    finds(Some(Fault::CommitEndsLate), come_and_go);
}

/// The store lets no call pass while callers leave at any step; then it goes on.
async fn leave() {
    let remote = Remote::new();
    let permits = remote.gate.available_permits();
    remote.gate.acquire_many(u32::try_from(permits).unwrap()).await.unwrap().forget();
    let queue = numbers(remote.clone());
    let callers: Vec<_> = (0..5)
        .map(|number: u32| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut call = pin!(queue.schedule(&number).into_future());
                if number % 2 == 1 {
                    // Polled this often, at the most different moments, and dropped.
                    for _ in 0..number {
                        let pending = futures_util::poll!(&mut call).is_pending();
                        assert!(pending, "the store lets nobody pass");
                        yield_now().await;
                    }
                    return false;
                }
                call.await.unwrap();
                true
            })
        })
        .collect();
    all_wait().await;
    let sent_before = remote.seen().scheduled.concat();
    let has_left = |number: &u32| number % 2 == 1;
    remote.gate.add_permits(permits);
    let mut stayed = 0;
    for caller in callers {
        stayed += u32::from(caller.await.unwrap());
    }
    assert_eq!(stayed, 3);
    all_wait().await;
    let mut sent = remote.seen().scheduled.concat();
    let late: Vec<_> = sent[sent_before.len()..].iter().filter(|number| has_left(number)).collect();
    assert!(late.is_empty(), "{late:?} left before they were sent, and were sent nevertheless");
    sent.retain(|number| !has_left(number));
    sent.sort_unstable();
    assert_eq!(sent, [0, 2, 4], "each of those who stayed is sent once");
    assert!(tokio::time::now() < Duration::from_secs(1), "somebody was left waiting");
}

#[test]
fn drop_7_who_leaves_takes_along_what_was_not_sent() {
    explore(leave);
}

#[test]
fn an_item_left_behind_is_found() {
    finds(Some(Fault::ItemLeftBehind), leave);
}

/// Everyone of a batch leaves while it is out, and another comes.
async fn all_leave() {
    let remote = Remote::new();
    let permits = remote.gate.available_permits();
    // Enough for one call: the lone one that the others find under way.
    remote.gate.acquire_many(u32::try_from(permits - 1).unwrap()).await.unwrap().forget();
    let queue = Arc::new(numbers(remote.clone()));
    let leaving: Vec<_> = (0..3)
        .map(|number| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut call = pin!(queue.schedule(&number).into_future());
                for _ in 0..=number * 2 {
                    if let Poll::Ready(answer) = futures_util::poll!(&mut call) {
                        answer.unwrap();
                        return;
                    }
                    yield_now().await;
                }
            })
        })
        .collect();
    let stays = tokio::spawn({
        let queue = queue.clone();
        async move { queue.schedule(&9).await.unwrap() }
    });
    for one in leaving {
        one.await.unwrap();
    }
    // Whatever is out has been abandoned, but for the call that may hold the one who stays.
    all_wait().await;
    remote.gate.add_permits(1);
    stays.await.unwrap();
    assert!(tokio::time::now() < Duration::from_secs(1), "who stays waits for those who left");
}

#[test]
fn leak_6_a_batch_that_all_have_left_holds_up_nobody() {
    explore(all_leave);
}
