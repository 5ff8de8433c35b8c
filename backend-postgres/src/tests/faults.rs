//! Whole queues over a server and a network that fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use delayline_conformance::proxy::Link;
use delayline_core::{
    Bytes, Claim, Context, DelayBackend, ErrorKind, NewTask, Queue, QueueName, Raw, SubscriptionOptions, Worker,
};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::*;
use crate::PostgresBackend;

const LEASE: Duration = Duration::from_secs(30);

async fn backend(config: PostgresConfig) -> Arc<dyn DelayBackend> {
    Arc::new(PostgresBackend::connect(config).await.unwrap())
}

/// Patient enough for a busy machine, so that only a fault ends a call.
fn patient(url: &str) -> PostgresConfig {
    PostgresConfig::from_url(url).unwrap().response_timeout(Duration::from_secs(3))
}

fn queue(backend: &Arc<dyn DelayBackend>) -> Queue<Bytes> {
    Queue::with_codec(backend.clone(), "exam", Raw).unwrap()
}

async fn restart(mut server: Postgres) -> Postgres {
    let started = tokio::task::spawn_blocking(move || {
        server.kill().unwrap();
        server.start().unwrap();
        server
    });
    started.await.unwrap()
}

#[tokio::test]
async fn live_an_idle_consumer_survives_a_restart_of_the_server_and_wakes() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let consuming = queue(&backend(patient(&url)).await);
    let producing = queue(&backend(patient(&server.url())).await);
    let mut consumer = consuming.consumer().open().await.unwrap();
    let (seen, mut arrivals) = tokio::sync::mpsc::channel(10);
    let consumer = tokio::spawn(async move {
        loop {
            let task = consumer.next().await.unwrap();
            let payload = task.payload().clone();
            // First completed, so that the next fault does not hit that.
            task.complete().await.unwrap();
            seen.send(payload).await.unwrap();
        }
    });
    producing.schedule(&Bytes::from_static(b"before")).await.unwrap();
    assert_eq!(arrivals.recv().await.unwrap(), "before");
    let mut server = server;
    for round in 0..2 {
        // The second time the network is dead, too, and tells nobody.
        if round == 1 {
            proxy.set(Link::HALF_OPEN);
        }
        server = restart(server).await;
        if round == 1 {
            proxy.reset();
            sleep(Duration::from_millis(50)).await;
            proxy.set(Link::GOOD);
        }
        // Until it listens again; then it is woken by a ring.
        let listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%LISTEN%exam%'";
        until("both listen again", || server.ask(listening).unwrap() != "0").await;
        let id = format!("after-{round}");
        let began = Instant::now();
        while producing.schedule(&Bytes::from_static(b"after")).id(id.clone()).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(20));
        }
        let text =
            timeout(Duration::from_secs(20), arrivals.recv()).await.expect("woken by a ring, not the fallback poll");
        assert_eq!(text.unwrap(), "after");
    }
    consumer.abort();
    drop(server);
}

/// Everything that was accepted is delivered, and nothing that was completed comes again, whatever the network does and
/// however often sessions are ended and the server is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_1_and_dup_3_hold_on_a_network_and_a_server_that_fail() {
    const TASKS: usize = 1_000;
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let consuming = backend(patient(&url)).await;
    let producing = queue(&backend(patient(&url)).await);
    let done = Arc::new(Mutex::new(BTreeMap::<Bytes, u32>::new()));
    let worker = {
        let done = done.clone();
        let handler = move |payload: Bytes, _: Context| {
            *done.lock().entry(payload).or_default() += 1;
            async {}
        };
        Worker::builder().queue(&queue(&consuming), handler).lease(Duration::from_secs(2)).concurrency(32)
    };
    let running = tokio::spawn(worker.build().unwrap().run());
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let faults = async {
        let mut server = server;
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
                2 => drop(server.ask(terminate).unwrap()),
                _ => server = restart(server).await,
            }
        }
        server
    };
    let produce = async {
        for i in 0..TASKS {
            let payload = Bytes::from(format!("{i:05}"));
            // With an id of its own it may be repeated while the task is there; one that ran meanwhile may run again.
            while let Err(e) =
                producing.schedule(&payload).id(format!("task-{i:05}")).after(Duration::from_millis(500)).await
            {
                assert!(e.retryable(), "{e}");
            }
        }
    };
    let ((), server) = tokio::join!(produce, faults);
    let began = Instant::now();
    while done.lock().len() < TASKS {
        assert!(began.elapsed() < Duration::from_secs(40), "{} of {TASKS}", done.lock().len());
        sleep(Duration::from_millis(50)).await;
    }
    running.abort();
    let twice = done.lock().values().filter(|n| **n > 1).count();
    assert!(twice < TASKS / 2, "{twice} ran more than once; only leases that were cut off may");
    until("no transaction is left open", || {
        server.ask("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'").unwrap() == "0"
    })
    .await;
}

#[tokio::test]
async fn close_ends_in_time_and_leaves_no_session() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let backend = backend(config(&url).response_timeout(Duration::from_secs(2))).await;
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
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    proxy.set(Link::GOOD);
    until("no connection is left", || proxy.connections() == 0).await;
    until("no session is left", || sessions(&server) == 0).await;
}

/// The row that a sleeper sleeps for is in an open transaction, and so is one that comes before it.
#[tokio::test]
async fn live_a_commit_that_comes_late_wakes_a_sleeper() {
    let server = server(&[]).await;
    let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
    let backend = Arc::new(PostgresBackend::connect(patient(&server.url())).await.unwrap());
    let name = QueueName::new("exam").unwrap();
    let shared: Arc<dyn DelayBackend> = backend.clone();
    let mut consumer = queue(&shared).consumer().open().await.unwrap();
    let waiting = tokio::spawn(async move { consumer.next().await.unwrap().payload().clone() });
    let later = NewTask::new(Duration::from_secs(600), "later");
    backend.schedule(&name, vec![later]).await.unwrap();
    let mut transaction = pool.begin().await.unwrap();
    let soon = NewTask::new(Duration::from_millis(300), "soon");
    backend.schedule_in(&mut transaction, &name, vec![soon]).await.unwrap().remove(0).unwrap();
    // Past its due time nobody sees it yet.
    sleep(Duration::from_millis(600)).await;
    assert!(!waiting.is_finished());
    transaction.commit().await.unwrap();
    assert_eq!(timeout(Duration::from_secs(15), waiting).await.expect("woken by the commit").unwrap(), "soon");

    let mut transaction = pool.begin().await.unwrap();
    let never = NewTask::new(Duration::ZERO, "never").id(delayline_core::TaskId::new("never").unwrap());
    backend.schedule_in(&mut transaction, &name, vec![never.clone()]).await.unwrap().remove(0).unwrap();
    transaction.rollback().await.unwrap();
    assert!(backend.find(&name, &delayline_core::TaskId::new("never").unwrap()).await.unwrap().is_none());
    backend.close().await.unwrap();
    pool.close().await;
}
