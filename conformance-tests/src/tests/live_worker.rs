//! LIVE, continued: what consumers and workers do over slow handlers and stores in trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use delayline_core::{CancellationToken, DelayBackend, Queue, Worker};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::front::{Front, Mood, Notifications};
use super::live::promptly;
use crate::trial::Trial;

/// A queue over a store.
fn typed(backend: Arc<dyn DelayBackend>, t: &Trial, name: &str) -> Queue<u32> {
    Queue::new(backend, t.queue(name)).expect("a queue")
}

/// The next thing that a handler tells.
async fn next<T>(t: &Trial, told: &mut mpsc::Receiver<T>, what: &str) -> T {
    let next = timeout(t.patience(), told.recv()).await.unwrap_or_else(|_| panic!("never: {what}"));
    next.expect("a handler that tells")
}

pub async fn live_3_a_consumer_goes_on_when_its_store_is_back(t: &Trial) {
    let front = Front::new(t.backend(), Notifications::Passed, t.caps().fallback_poll_interval);
    let queue = typed(front.clone(), t, "away");
    let mut consumer = queue.consumer().open().await.expect("a consumer");
    front.set(Mood::Away);
    let waiting = tokio::spawn(async move { (consumer.next().await, Instant::now()) });
    sleep(t.units(5)).await;
    front.set(Mood::Works);
    queue.schedule(&1).await.expect("a task that is accepted");
    let back = Instant::now();
    let (delivery, at) = timeout(t.patience(), waiting).await.expect("it goes on").expect("no panic");
    // The tries stand at most 5 s apart.
    assert!(at <= back + Duration::from_secs(5) + promptly(t), "{:?} after it was back", at - back);
    delivery.expect("a task").complete().await.expect("a live lease");
}

pub async fn live_5_a_slow_or_panicking_handler_delays_nobody(t: &Trial) {
    let queue = typed(t.backend(), t, "slow");
    let (stop, n) = (CancellationToken::new(), t.size(200, 50) as u32);
    let (tell, mut told) = mpsc::channel(10);
    let panicked = Arc::new(AtomicUsize::new(0));
    let counted = panicked.clone();
    let worker = Worker::builder().concurrency(4).shutdown(stop.clone()).queue(&queue, move |number, context| {
        let (tell, counted) = (tell.clone(), counted.clone());
        async move {
            match number {
                // Three of four slots are taken for good.
                0..3 => context.shutdown().cancelled().await,
                // The first attempt only.
                3..6 if context.attempt() == 1 => {
                    counted.fetch_add(1, Ordering::SeqCst);
                    panic!("a handler that panics, as it is to");
                }
                _ => {}
            }
            if !context.shutdown().is_cancelled() {
                tell.send(number).await.expect("the test listens");
            }
        }
    });
    let worker = tokio::spawn(worker.build().expect("a worker").run());
    let began = Instant::now();
    for number in 0..n {
        queue.schedule(&number).await.expect("a task that is accepted");
    }
    let mut came: Vec<u32> = Vec::new();
    // The panicking ones come again by the worker's policy.
    while came.iter().filter(|number| **number >= 6).count() < n as usize - 6 {
        came.push(next(t, &mut told, "a task beside slow ones").await);
    }
    // Their back-off is the policy's; nobody else waited for it.
    assert!(began.elapsed() <= promptly(t) + Duration::from_secs(1), "it took {:?}", began.elapsed());
    while came.len() < n as usize - 3 {
        came.push(next(t, &mut told, "a second attempt").await);
    }
    stop.cancel();
    let report = worker.await.expect("no panic").expect("a report");
    assert_eq!((report.completed, report.panicked), (u64::from(n), 3));
    assert_eq!(panicked.load(Ordering::SeqCst), 3);
    t.drain(&t.backend(), queue.name(), 0).await;
}

pub async fn live_6_a_store_that_hangs_does_not_hold_up_another(t: &Trial) {
    for mood in [Mood::Hangs, Mood::Away] {
        let name = format!("{mood:?}");
        let front = Front::new(t.backend(), Notifications::Passed, t.caps().fallback_poll_interval);
        let (hangs, works) =
            (typed(front.clone(), t, &format!("{name}-1")), typed(t.backend(), t, &format!("{name}-2")));
        front.set(mood);
        let stop = CancellationToken::new();
        let (tell, mut told) = mpsc::channel(10);
        let handler = move |number: u32, _| {
            let tell = tell.clone();
            async move { tell.send(number).await.expect("the test listens") }
        };
        // A slot for each: a claim that hangs keeps one.
        let worker = Worker::builder().concurrency(2).shutdown(stop.clone()).shutdown_deadline(t.units(1));
        let worker = worker.queue(&hangs, handler.clone()).queue(&works, handler);
        let worker = tokio::spawn(worker.build().expect("a worker").run());
        for number in 0..20 {
            works.schedule(&number).await.expect("a task that is accepted");
            let accepted = Instant::now();
            assert_eq!(next(t, &mut told, "a task of the store that works").await, number);
            // While the other is tried again, for a moment both slots may be in use.
            let late = accepted.elapsed();
            assert!(late <= promptly(t) + Duration::from_millis(50), "{late:?} late while the other store {mood:?}");
        }
        stop.cancel();
        assert_eq!(worker.await.expect("no panic").expect("a report").completed, 20);
        t.drain(&t.backend(), works.name(), 0).await;
    }
}

pub async fn live_7_a_worker_begins_when_its_store_is_back(t: &Trial) {
    let front = Front::new(t.backend(), Notifications::Passed, t.caps().fallback_poll_interval);
    let queue = typed(front.clone(), t, "later");
    queue.schedule(&7).await.expect("a task that is accepted");
    front.set(Mood::Away);
    let stop = CancellationToken::new();
    let (tell, mut told) = mpsc::channel(1);
    let worker = Worker::builder().shutdown(stop.clone()).queue(&queue, move |number, _| {
        let tell = tell.clone();
        async move { tell.send(number).await.expect("the test listens") }
    });
    let worker = tokio::spawn(worker.build().expect("a worker").run());
    sleep(t.units(5)).await;
    assert!(!worker.is_finished() && told.is_empty(), "it waits for its store");
    front.set(Mood::Works);
    let back = Instant::now();
    assert_eq!(next(t, &mut told, "a start once the store is back").await, 7);
    assert!(back.elapsed() <= Duration::from_secs(5) + promptly(t), "{:?}", back.elapsed());
    stop.cancel();
    assert_eq!(worker.await.expect("no panic").expect("a report").completed, 1);
    t.drain(&t.backend(), queue.name(), 0).await;
}

pub async fn live_11_a_lost_notification_costs_no_more_than_a_fallback_poll(t: &Trial) {
    let fallback_poll_interval = t.units(5);
    let queue = typed(Front::new(t.backend(), Notifications::Lost, fallback_poll_interval), t, "deaf");
    queue.schedule(&0).after(Duration::from_secs(600)).await.expect("a task that is accepted");
    let mut consumer = queue.consumer().open().await.expect("a consumer");
    for number in 1..5 {
        let waiting = tokio::spawn(async move { (consumer.next().await, Instant::now(), consumer) });
        sleep(t.units(number % 3)).await;
        queue.schedule(&number).await.expect("a task that is accepted");
        let due = Instant::now();
        let (delivery, at, back) = timeout(t.patience(), waiting).await.expect("it looks").expect("no panic");
        consumer = back;
        assert!(
            at <= due + fallback_poll_interval + promptly(t),
            "{:?} late for a notification that was lost",
            at - due
        );
        delivery.expect("a task").complete().await.expect("a live lease");
    }
}

pub async fn idle_3_a_store_that_notifies_for_nothing_is_not_spun_on(t: &Trial) {
    let queue = typed(Front::new(t.backend(), Notifications::Endless, t.caps().fallback_poll_interval), t, "nagging");
    let mut consumer = queue.consumer().open().await.expect("a consumer");
    let window = Duration::from_secs(2);
    let began = Instant::now();
    assert!(consumer.next_within(window).await.expect("an answer").is_none());
    let claims = t.history().operations();
    // Eight in a row, and then with pauses that grow to 25 ms. On a busy machine a wait may seem to have been a real one,
    // after which there are eight again; without the pauses there would be tens of thousands.
    let pause_ms = if t.is_virtual() { 25 } else { 2 };
    let may = 20 + (began.elapsed().as_millis() / pause_ms) as u64;
    assert!((2..=may).contains(&claims), "{claims} claims in {:?}", began.elapsed());
    // It still takes what is there.
    queue.schedule(&1).await.expect("a task that is accepted");
    let delivery = timeout(t.patience(), consumer.next()).await.expect("it comes").expect("a task");
    delivery.complete().await.expect("a live lease");
}
