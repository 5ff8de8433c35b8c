//! Requests over a connection that breaks.

use std::time::Duration;

use delayline_conformance::proxy::Link;
use delayline_conformance::servers::Server;
use delayline_core::ErrorKind;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::*;

#[tokio::test]
async fn scripts_run_and_a_cache_that_was_lost_is_not_noticed() {
    let server = server(&[]).await;
    let connection = connection(&server.url());
    assert_eq!(echo(&connection, "a").await.unwrap(), "a");
    server.ask("SCRIPT FLUSH").unwrap();
    let all = join_all((0..100).map(|i| {
        let connection = connection.clone();
        async move { echo(&connection, &i.to_string()).await.unwrap() }
    }));
    assert_eq!(all.await, (0..100).map(|i| i.to_string()).collect::<Vec<_>>());
    let stats = server.ask("INFO commandstats").unwrap();
    assert!(stats.contains("cmdstat_evalsha"), "{stats}");
    assert_eq!(echo(&connection, "b").await.unwrap(), "b");
    let clients = server.ask("INFO clients").unwrap();
    assert!(clients.contains("connected_clients:2"), "one of ours, and the one that asks: {clients}");
    connection.close().await;
    assert_eq!(echo(&connection, "c").await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn live_a_server_that_comes_back_is_found_by_the_next_call() {
    let mut server = server(&[]).await;
    let connection = connection(&server.url());
    assert_eq!(count(&connection).await.unwrap(), 1);
    server.kill().unwrap();
    // The end of an idle connection is seen, so nothing is sent into it.
    sleep(Duration::from_millis(100)).await;
    let e = count(&connection).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
    assert!(e.message().contains(&server.port().to_string()), "{e}");
    let server = tokio::task::spawn_blocking(move || {
        server.start().unwrap();
        server
    });
    let _server = server.await.unwrap();
    let began = Instant::now();
    while let Err(e) = count(&connection).await {
        assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
        assert!(began.elapsed() < Duration::from_secs(10), "{e}");
    }
    assert_eq!(count(&connection).await.unwrap(), 3, "the append-only file has the first, and each was counted once");
}

#[tokio::test]
async fn loss_a_lost_answer_is_ambiguous_and_the_next_call_works() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let connection = connection(&url);
    count(&connection).await.unwrap();
    proxy.set(Link::NO_ANSWERS);
    let cut = async {
        sleep(Duration::from_millis(100)).await;
        proxy.reset();
        // What was kept back must not slip through before the reset.
        sleep(Duration::from_millis(50)).await;
        proxy.set(Link::GOOD);
    };
    let (lost, ()) = tokio::join!(count(&connection), cut);
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::Ambiguous);
    assert_eq!(count(&connection).await.unwrap(), 3, "it had taken effect");
}

#[tokio::test]
async fn loss_what_may_be_repeated_is_repeated_when_its_connection_broke() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let connection = connection(&url);
    echo(&connection, "a").await.unwrap();
    proxy.set(Link::HALF_OPEN);
    let cut = async {
        sleep(Duration::from_millis(100)).await;
        proxy.reset();
        // What was kept back must not slip through before the reset.
        sleep(Duration::from_millis(50)).await;
        proxy.set(Link::GOOD);
    };
    let (answer, ()) = tokio::join!(echo(&connection, "b"), cut);
    assert_eq!(answer.unwrap(), "b");
}

#[tokio::test]
async fn loss_a_reset_in_the_middle_of_many_requests_gives_each_its_one_true_answer() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let connection = connection(&url);
    count(&connection).await.unwrap();
    proxy.set(Link::slow(Duration::from_millis(3)));
    let calls = join_all((0..500).map(|_| {
        let connection = connection.clone();
        async move { count(&connection).await.map_err(|e| e.kind()) }
    }));
    let cut = async {
        sleep(Duration::from_millis(5)).await;
        proxy.reset();
        proxy.set(Link::GOOD);
    };
    let (answers, ()) = tokio::join!(calls, cut);
    let done = answers.iter().filter(|answer| answer.is_ok()).count() as u64;
    let ambiguous = answers.iter().filter(|answer| **answer == Err(ErrorKind::Ambiguous)).count() as u64;
    assert_eq!(done + ambiguous, 500, "{answers:?}");
    assert!(ambiguous > 0, "the cut hit none");
    let counted = count(&connection).await.unwrap() - 2;
    assert!((done..=done + ambiguous).contains(&counted), "{done} {ambiguous} {counted}");
}

#[tokio::test]
async fn live_a_half_open_connection_is_noticed_and_rebuilt() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let connection = connection(&url);
    count(&connection).await.unwrap();
    proxy.set(Link::HALF_OPEN);
    let began = Instant::now();
    let e = count(&connection).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Ambiguous, "{e}");
    assert!(began.elapsed() >= Duration::from_millis(400));
    // The old connection stays silent for ever; only a new one helps.
    let accepted = proxy.accepted();
    proxy.set(Link::GOOD);
    count(&connection).await.unwrap();
    assert_eq!(proxy.accepted(), accepted + 1);
}

#[tokio::test]
async fn live_many_callers_wait_for_one_attempt() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let connection = connection(&url);
    let all = |n: usize| {
        let connection = connection.clone();
        join_all((0..n).map(move |_| {
            let connection = connection.clone();
            async move { echo(&connection, "a").await.map_err(|e| e.kind()) }
        }))
    };
    assert!(all(100).await.iter().all(Result::is_ok));
    assert_eq!(proxy.accepted(), 1);
    proxy.set(Link::refusing());
    proxy.reset();
    sleep(Duration::from_millis(50)).await;
    let before = proxy.accepted();
    assert!(all(100).await.iter().all(|answer| *answer == Err(ErrorKind::Unavailable)));
    assert_eq!(proxy.accepted(), before + 1);
    proxy.set(Link::GOOD);
    assert!(all(100).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn drop_callers_that_leave_disturb_nobody() {
    let server = server(&[]).await;
    let connection = connection(&server.url());
    let long = "x".repeat(100_000);
    for i in 0..200u64 {
        let _ = timeout(Duration::from_micros(i * 5), echo(&connection, &long)).await;
    }
    assert_eq!(echo(&connection, "a").await.unwrap(), "a");
}

#[tokio::test]
async fn close_ends_within_a_second_also_when_the_server_is_silent() {
    let mut server = server(&[]).await;
    let connection = Connection::new(&config(&server.url()).response_timeout(Duration::from_secs(60))).unwrap();
    count(&connection).await.unwrap();
    server.stop().unwrap();
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { count(&connection).await }
    });
    sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    connection.close().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Ambiguous);
    server.resume().unwrap();
    connection.close().await;
}

#[tokio::test]
async fn leak_a_connection_that_is_dropped_leaves_nothing() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..20 {
        let connection = connection(&url);
        echo(&connection, "a").await.unwrap();
    }
    let began = Instant::now();
    while proxy.connections() > 0 || tasks() > before {
        assert!(began.elapsed() < Duration::from_secs(5), "{} connections, {} tasks", proxy.connections(), tasks());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn bound_errors_of_the_server_have_their_kinds() {
    static WRITE: Script = Script::new("write", "return redis.call('SET', KEYS[1], ARGV[1])", false);
    static ZADD: Script = Script::new("zadd", "return redis.call('ZADD', KEYS[1], 1, 'x')", false);
    static BAD: Script = Script::new("bad", "return 1 + nil", false);
    let server = server(&[]).await;
    let connection = connection(&server.url());
    connection.eval(&WRITE, &[b"k"], vec![b"text".to_vec()]).await.unwrap();
    let e = connection.eval(&ZADD, &[b"k"], vec![]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    assert!(e.message().contains("WRONGTYPE"), "{e}");
    let e = connection.eval(&BAD, &[], vec![]).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Corrupt && e.message().starts_with("bad: "), "{e}");
    server.ask("CONFIG SET maxmemory 1").unwrap();
    let e = connection.eval(&WRITE, &[b"k"], vec![b"text".to_vec()]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Full, "{e}");
    assert_eq!(echo(&connection, "still reads").await.unwrap(), "still reads");
    server.ask("CONFIG SET maxmemory 0").unwrap();
    server.ask("ACL SETUSER default -eval -evalsha").unwrap();
    let e = echo(&connection, "a").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
}
