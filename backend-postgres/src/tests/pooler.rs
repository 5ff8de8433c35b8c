//! Behind PgBouncer in transaction mode: no session is ours, and nothing is heard.

use std::sync::Arc;

use delayline_conformance::servers::PgBouncer;
use delayline_core::{
    Bytes, Claim, DelayBackend, Disposition, ErrorKind, NewTask, Queue, QueueName, Raw, SubscriptionOptions,
};
use futures_util::future::join_all;

use super::*;
use crate::PostgresBackend;

async fn pooled(server: Postgres) -> (PgBouncer, Postgres) {
    let both = tokio::task::spawn_blocking(move || (PgBouncer::start(&server).unwrap(), server));
    both.await.unwrap()
}

fn patient(url: &str) -> PostgresConfig {
    PostgresConfig::from_url(url).unwrap()
}

#[tokio::test]
async fn clear_5_a_pooler_that_nobody_mentioned_is_found_out() {
    let (pooler, _server) = pooled(server(&[]).await).await;
    let e = PostgresBackend::connect(patient(&pooler.url())).await.map(drop).unwrap_err();
    assert!(e.kind() == ErrorKind::Config && e.message().contains("pooler"), "{e}");
}

async fn nothing_is_left(backend: &Arc<dyn DelayBackend>, name: &QueueName) -> bool {
    let stats = backend.stats(name).await.unwrap();
    stats.due + stats.scheduled + stats.in_flight == 0
}

/// Whole lives of tasks, many at the same time, on sessions that change with each transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_work_goes_on_behind_a_pooler() {
    let (pooler, server) = pooled(server(&[]).await).await;
    let config = patient(&pooler.url()).pooler(true).poll_interval(Duration::from_millis(300));
    let backend: Arc<dyn DelayBackend> = Arc::new(PostgresBackend::connect(config).await.unwrap());
    assert!(backend.capabilities().lateness >= Duration::from_millis(300), "the declared lateness is that of the poll");
    let name = QueueName::new("exam").unwrap();
    let schedule = |i: usize| {
        let (backend, name) = (backend.clone(), name.clone());
        async move {
            let tasks = (0..10).map(|j| NewTask::new(Duration::ZERO, format!("{i}-{j}"))).collect();
            backend.schedule(&name, tasks).await.unwrap().into_iter().all(|one| one.is_ok())
        }
    };
    assert!(join_all((0..30).map(schedule)).await.into_iter().all(|all| all));
    let work = |_| {
        let (backend, name) = (backend.clone(), name.clone());
        async move {
            let mut subscription = backend.subscribe(&name, SubscriptionOptions::default()).await.unwrap();
            let mut done = 0;
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(20) {
                let claimed = subscription.claim(Claim::new(7, Duration::from_secs(60))).await.unwrap().deliveries;
                if claimed.is_empty() && nothing_is_left(&backend, &name).await {
                    break;
                }
                let dispositions = claimed.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
                done += backend.settle(&name, dispositions).await.unwrap().into_iter().filter(Result::is_ok).count();
            }
            subscription.close().await.unwrap();
            done
        }
    };
    let done: usize = join_all((0..4).map(work)).await.into_iter().sum();
    assert_eq!(done, 300, "each once");
    assert_eq!(server.ask("SELECT count(*) FROM delayline.task").unwrap(), "0");
    assert_eq!(server.ask("SELECT count(*) FROM pg_prepared_statements").unwrap(), "0");

    // A sleeper finds what another process has scheduled at its next poll.
    let queue = Queue::with_codec(backend.clone(), "exam", Raw).unwrap();
    let mut consumer = queue.consumer().open().await.unwrap();
    let waiting = tokio::spawn(async move { consumer.next().await.unwrap().complete().await });
    let other = PostgresBackend::connect(patient(&server.url())).await.unwrap();
    other.schedule(&name, vec![NewTask::new(Duration::ZERO, Bytes::from_static(b"x"))]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it polls").unwrap().unwrap();
    other.close().await.unwrap();
    backend.close().await.unwrap();
}

/// Calls through the pooler, wake-ups from the server itself.
#[tokio::test]
async fn live_listening_may_go_past_the_pooler() {
    let (pooler, server) = pooled(server(&[]).await).await;
    let config = patient(&pooler.url()).pooler(true).listen_url(&server.url()).unwrap();
    let backend: Arc<dyn DelayBackend> = Arc::new(PostgresBackend::connect(config).await.unwrap());
    assert!(backend.capabilities().lateness < Duration::from_millis(300));
    let name = QueueName::new("exam").unwrap();
    let mut subscription = backend.subscribe(&name, SubscriptionOptions::default()).await.unwrap();
    // It rings once when it is listened for.
    subscription.wait(Duration::from_secs(10)).await;
    assert!(subscription.claim(Claim::new(1, Duration::from_secs(60))).await.unwrap().deliveries.is_empty());
    let other = PostgresBackend::connect(patient(&server.url())).await.unwrap();
    other.schedule(&name, vec![NewTask::new(Duration::ZERO, "x")]).await.unwrap();
    let began = Instant::now();
    subscription.wait(Duration::from_secs(30)).await;
    assert!(began.elapsed() < Duration::from_secs(15), "it was rung");
    assert_eq!(subscription.claim(Claim::new(1, Duration::from_secs(60))).await.unwrap().deliveries.len(), 1);
    other.close().await.unwrap();
    backend.close().await.unwrap();
}
