//! Whole queues over a server and a network that fail.

use std::sync::Arc;
use std::time::Duration;

use delayline_conformance::proxy::Link;
use delayline_conformance::servers::Server;
use delayline_core::{
    Bytes, Claim, Context, DelayBackend, Disposition, ErrorKind, NewTask, Queue, QueueName, Raw, SubscriptionOptions,
    Worker,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::notify::{Channels, Notifier};
use crate::ops::claim;
use crate::store::Store;
use crate::{RedisBackend, RedisConfig};

const LEASE: Duration = Duration::from_secs(30);

async fn backend(url: &str) -> Arc<dyn DelayBackend> {
    Arc::new(RedisBackend::connect(config(url)).await.unwrap())
}

fn queue(backend: &Arc<dyn DelayBackend>) -> Queue<Bytes> {
    Queue::with_codec(backend.clone(), "exam", Raw).unwrap()
}

async fn restart(mut server: Redis, pause: Duration) -> Redis {
    server.kill().unwrap();
    sleep(pause).await;
    let started = tokio::task::spawn_blocking(move || {
        server.start().unwrap();
        server
    });
    started.await.unwrap()
}

#[tokio::test]
async fn live_an_idle_consumer_survives_a_restart_of_the_server_and_wakes() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let consuming = queue(&backend(&url).await);
    let producing = queue(&backend(&server.url()).await);
    let mut consumer = consuming.consumer().open().await.unwrap();
    let (seen, mut arrivals) = tokio::sync::mpsc::channel(10);
    let consumer = tokio::spawn(async move {
        loop {
            let task = consumer.next().await.unwrap();
            let arrival = (Instant::now(), task.payload().clone());
            // First completed, so that the next fault does not hit that.
            task.complete().await.unwrap();
            seen.send(arrival).await.unwrap();
        }
    });
    producing.schedule(&Bytes::from_static(b"before")).await.unwrap();
    assert_eq!(arrivals.recv().await.unwrap().1, "before");
    let mut server = server;
    for round in 0..2 {
        // The second time the network is dead, too, and tells nobody.
        if round == 1 {
            proxy.set(Link::HALF_OPEN);
        }
        server = restart(server, Duration::from_secs(3)).await;
        proxy.set(Link::GOOD);
        if round == 1 {
            proxy.reset();
        }
        // The consumer finds back within the largest pause between its attempts.
        sleep(Duration::from_secs(3)).await;
        let began = Instant::now();
        while producing.schedule(&Bytes::from_static(b"after")).id(format!("after-{round}")).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(10));
        }
        let scheduled = Instant::now();
        let (at, text) = timeout(Duration::from_secs(10), arrivals.recv()).await.expect("it wakes").unwrap();
        assert_eq!(text, "after");
        assert!(
            at.saturating_duration_since(scheduled) < Duration::from_secs(2),
            "woken by a notification, not by the fallback poll"
        );
    }
    consumer.abort();
    drop(server);
}

#[tokio::test]
async fn live_a_missed_ring_is_noticed_by_who_missed_it() {
    let server = server(&[]).await;
    let (proxy, proxied) = proxied(&server).await;
    let direct = config(&server.url()).fallback_poll_interval(Duration::from_secs(3));
    let connection = Connection::new(&direct).unwrap();
    let by_proxy = config(&proxied);
    let channels = Channels::new(&by_proxy).unwrap();
    let notifier = Notifier::new(channels, "redis", by_proxy.response_timeout, connection.troubles());
    let store = Arc::new(Store::new(connection, notifier, direct));
    let name = QueueName::new("exam").unwrap();
    let mut subscription = claim::subscribe(store, &name, SubscriptionOptions::default()).unwrap();
    let producing = backend(&server.url()).await;
    let schedule = || async {
        let scheduled = producing.schedule(&name, vec![NewTask::new(Duration::ZERO, "x")]).await.unwrap();
        scheduled.into_iter().for_each(|one| drop(one.unwrap()));
    };
    // The first notification says that the channel is subscribed to.
    subscription.wait(Duration::from_secs(10)).await;
    assert!(subscription.claim(Claim::new(1, LEASE)).await.unwrap().deliveries.is_empty());
    proxy.set(Link::HALF_OPEN);
    schedule().await;
    let began = Instant::now();
    subscription.wait(Duration::from_secs(2)).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "nothing came through");
    assert_eq!(subscription.claim(Claim::new(1, LEASE)).await.unwrap().deliveries.len(), 1);
    // The old connection stays silent; the notifier has found that out, and makes another.
    sleep(Duration::from_millis(500)).await;
    proxy.set(Link::GOOD);
    subscription.wait(Duration::from_secs(10)).await;
    subscription.claim(Claim::new(1, LEASE)).await.unwrap();
    // What the old one had kept back may come once more.
    subscription.wait(Duration::from_millis(300)).await;
    subscription.claim(Claim::new(1, LEASE)).await.unwrap();
    schedule().await;
    let began = Instant::now();
    subscription.wait(Duration::from_secs(10)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "rings work again");
    assert!(proxy.accepted() >= 2);
}

/// Everything that was accepted is delivered, and nothing that was completed comes again, whatever the network does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_1_and_dup_3_hold_on_a_network_that_fails() {
    const TASKS: usize = 2_000;
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let consuming = Arc::new(RedisBackend::connect(config(&url)).await.unwrap());
    let consuming: Arc<dyn DelayBackend> = consuming;
    let producing = queue(&backend(&url).await);
    let done = Arc::new(Mutex::new(std::collections::BTreeMap::<Bytes, u32>::new()));
    let worker = {
        let done = done.clone();
        let handler = move |payload: Bytes, _: Context| {
            *done.lock().entry(payload).or_default() += 1;
            async {}
        };
        Worker::builder().queue(&queue(&consuming), handler).lease(Duration::from_secs(2)).concurrency(32)
    };
    let running = tokio::spawn(worker.build().unwrap().run());
    let faults = async {
        for i in 0..12 {
            sleep(Duration::from_millis(150)).await;
            match i % 4 {
                0 => proxy.reset(),
                1 => {
                    proxy.set(Link::NO_ANSWERS);
                    sleep(Duration::from_millis(100)).await;
                    proxy.reset();
                    proxy.set(Link::GOOD);
                }
                2 => drop(server.ask("CLIENT KILL TYPE normal")),
                _ => {
                    drop(server.ask("SCRIPT FLUSH"));
                    drop(server.ask("CLIENT KILL TYPE pubsub"));
                }
            }
        }
    };
    let produce = async {
        for i in 0..TASKS {
            let payload = Bytes::from(format!("{i:05}"));
            // With an id of its own it may be repeated while the task is there; one that ran meanwhile may run again.
            while producing
                .schedule(&payload)
                .id(format!("task-{i:05}"))
                .after(Duration::from_millis(500))
                .await
                .is_err()
            {}
        }
    };
    tokio::join!(produce, faults);
    let began = Instant::now();
    while done.lock().len() < TASKS {
        assert!(began.elapsed() < Duration::from_secs(30), "{} of {TASKS}", done.lock().len());
        sleep(Duration::from_millis(50)).await;
    }
    running.abort();
    let twice = done.lock().values().filter(|n| **n > 1).count();
    assert!(twice < TASKS / 2, "{twice} ran more than once; only leases that were cut off may");
}

#[tokio::test]
async fn bound_a_full_server_takes_nothing_in_and_can_be_emptied() {
    let server = server(&[]).await;
    let backend = backend(&server.url()).await;
    let name = QueueName::new("exam").unwrap();
    let batch = |n: usize| (0..n).map(|_| NewTask::new(Duration::ZERO, vec![b'x'; 100])).collect::<Vec<_>>();
    assert!(backend.schedule(&name, batch(500)).await.unwrap().iter().all(Result::is_ok));
    server.ask("CONFIG SET maxmemory 1").unwrap();
    let refused = backend.schedule(&name, batch(500)).await;
    match refused {
        Ok(items) => assert!(items.iter().all(|item| item.as_ref().unwrap_err().kind() == ErrorKind::Full)),
        Err(e) => assert_eq!(e.kind(), ErrorKind::Full),
    }
    assert_eq!(backend.stats(&name).await.unwrap().due, 500, "nothing is half done");
    let mut subscription = backend.subscribe(&name, SubscriptionOptions::default()).await.unwrap();
    let mut done = 0;
    while done < 500 {
        let claimed = subscription.claim(Claim::new(100, LEASE)).await.unwrap().deliveries;
        done += claimed.len();
        let dispositions = claimed.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
        assert!(backend.settle(&name, dispositions).await.unwrap().iter().all(Result::is_ok));
    }
    subscription.close().await.unwrap();
    assert_eq!(server.ask("DBSIZE").unwrap(), "0");
}

#[tokio::test]
async fn close_ends_within_a_second_and_leaves_no_client() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let backend: Arc<dyn DelayBackend> =
        Arc::new(RedisBackend::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap());
    let name = QueueName::new("exam").unwrap();
    let mut subscription = backend.subscribe(&name, SubscriptionOptions::default()).await.unwrap();
    subscription.wait(Duration::from_secs(10)).await;
    subscription.claim(Claim::new(1, LEASE)).await.unwrap();
    proxy.set(Link::HALF_OPEN);
    let waiting = tokio::spawn(async move {
        subscription.wait(Duration::from_secs(60)).await;
        subscription.claim(Claim::new(1, LEASE)).await.map(drop)
    });
    let pinging = tokio::spawn({
        let backend = backend.clone();
        async move { backend.ping().await }
    });
    sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    backend.close().await.unwrap();
    assert!(pinging.await.unwrap().is_err());
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    proxy.set(Link::GOOD);
    let began = Instant::now();
    while proxy.connections() > 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "{} connections are left", proxy.connections());
        sleep(Duration::from_millis(10)).await;
    }
}
