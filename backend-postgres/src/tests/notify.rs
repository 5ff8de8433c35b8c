//! Notifications over a connection that breaks.

use delayline_backend_kit::Notification;
use delayline_conformance::proxy::Link;
use delayline_core::QueueName;
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::notify::channels::{self, Notifier, message};
use crate::notify::connection::ListenConnection;

type Listener = delayline_backend_kit::Listener<QueueName>;

const MISSED: Notification = Notification::MISSED;

fn due(due_ms: i64) -> Notification {
    Notification { due_ms: Some(due_ms), missed: false }
}

fn notifier(url: &str) -> (Notifier, watch::Sender<u64>) {
    let (trouble, troubles) = watch::channel(0);
    let config = config(url);
    (channels::notifier(&config, config.check().unwrap(), troubles), trouble)
}

fn name(queue: &str) -> QueueName {
    QueueName::new(queue).unwrap()
}

async fn told(listener: &mut Listener) -> Notification {
    timeout(Duration::from_secs(10), listener.notified()).await.expect("it is notified");
    listener.take()
}

async fn silent(listener: &mut Listener) -> bool {
    timeout(Duration::from_millis(100), listener.notified()).await.is_err()
}

fn notify(server: &Postgres, queue: &str, due_ms: i64) {
    let channel = config(&server.url()).check().unwrap().channel(&name(queue));
    server.ask(&format!("SELECT pg_notify('{channel}', '{}')", message(&name(queue), due_ms))).unwrap();
}

#[tokio::test]
async fn a_listener_is_notified_of_its_queue_and_when_it_is_first_subscribed_to() {
    let server = server(&[]).await;
    let (notifier, _trouble) = notifier(&server.url());
    let (long_a, long_b) = ("a".repeat(128), "b".repeat(128));
    let (mut a, mut b) = (notifier.listen(name(&long_a)), notifier.listen(name(&long_b)));
    assert_eq!((told(&mut a).await, told(&mut b).await), (MISSED, MISSED));
    assert!(notifier.listening() && silent(&mut a).await);
    notify(&server, &long_a, 7);
    assert_eq!(told(&mut a).await, due(7));
    assert!(silent(&mut b).await);
    // Level-triggered: what came while nobody looked is seen, the least of it.
    for due_ms in [9, 3, 5] {
        notify(&server, &long_b, due_ms);
    }
    notifier.notify(&name(&long_b), due(4));
    sleep(Duration::from_millis(200)).await;
    assert_eq!(told(&mut b).await, due(3));
    assert_eq!(b.take(), Notification::default());

    let mut again = notifier.listen(name(&long_a));
    notify(&server, &long_a, 1);
    assert_eq!(told(&mut again).await.due_ms, Some(1));
    assert_eq!(told(&mut a).await.due_ms, Some(1));
    drop((a, b));
    notify(&server, &long_a, 2);
    assert_eq!(told(&mut again).await.due_ms, Some(2));
    drop(again);
    until("the connection is gone", || sessions(&server) == 0).await;
}

#[tokio::test]
async fn leak_listeners_in_cycles_leave_nothing() {
    let server = server(&[]).await;
    let before = tasks();
    let (notifier, _trouble) = notifier(&server.url());
    for i in 0..100u32 {
        let _same = notifier.listen(name(&format!("queue-{}", i % 3)));
        let mut other = notifier.listen(name(&format!("other-{i}")));
        if i % 4 == 0 {
            told(&mut other).await;
        }
        if i % 5 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    until("all tasks end", || tasks() <= before).await;
    until("the connection is gone", || sessions(&server) == 0).await;
    let mut listener = notifier.listen(name("a"));
    told(&mut listener).await;
    notifier.close().await;
    assert_eq!(told(&mut listener).await, MISSED);
    assert!(!notifier.listening());
    until("all tasks end", || tasks() <= before).await;
    until("the connection is gone", || sessions(&server) == 0).await;
}

#[tokio::test]
async fn live_a_listener_that_was_ended_comes_back_and_notifies() {
    let server = server(&[]).await;
    let (notifier, _trouble) = notifier(&server.url());
    let mut listener = notifier.listen(name("a"));
    told(&mut listener).await;
    for _ in 0..3 {
        server
            .ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%listen'")
            .unwrap();
        assert_eq!(told(&mut listener).await, MISSED);
        // Once when it was lost, and once when it is back, unless both were seen as one.
        until("it listens again", || notifier.listening()).await;
        listener.take();
        notify(&server, "a", 5);
        assert_eq!(told(&mut listener).await.due_ms, Some(5));
    }
}

#[tokio::test]
async fn live_a_half_open_listener_is_replaced_when_there_is_doubt_and_leaves_nothing() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let (notifier, trouble) = notifier(&url);
    let mut listener = notifier.listen(name("a"));
    told(&mut listener).await;
    for by_doubt in [true, false] {
        let accepted = proxy.accepted();
        proxy.set(Link::HALF_OPEN);
        notify(&server, "a", 5);
        assert!(silent(&mut listener).await);
        if by_doubt {
            notifier.doubt();
        } else {
            trouble.send_modify(|n| *n += 1);
        }
        assert_eq!(told(&mut listener).await, MISSED, "it was asked, and did not answer");
        assert!(!notifier.listening());
        until("it tries again", || proxy.accepted() > accepted).await;
        proxy.reset();
        sleep(Duration::from_millis(50)).await;
        proxy.set(Link::GOOD);
        until("it listens again", || notifier.listening()).await;
        listener.take();
        notify(&server, "a", 6);
        assert_eq!(told(&mut listener).await.due_ms, Some(6));
    }
    drop(listener);
    until("the connections are gone", || proxy.connections() == 0).await;
}

#[tokio::test]
async fn live_a_server_that_is_away_for_a_while_is_found_again() {
    let server = server(&[]).await;
    let (notifier, _trouble) = notifier(&server.url());
    let mut listener = notifier.listen(name("a"));
    told(&mut listener).await;
    let server = tokio::task::spawn_blocking(move || {
        let mut server = server;
        server.kill().unwrap();
        server.start().unwrap();
        server
    });
    let server = server.await.unwrap();
    until("it listens again", || notifier.listening()).await;
    notify(&server, "a", 5);
    timeout(Duration::from_secs(10), async { while told(&mut listener).await.due_ms != Some(5) {} }).await.unwrap();
}

#[tokio::test]
async fn leak_a_silent_listener_is_closed_without_waiting_for_it() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let mut connection = ListenConnection::open(&config(&url).server(), Duration::from_secs(10)).await.unwrap();
    connection.listener().listen("a").await.unwrap();
    proxy.set(Link::HALF_OPEN);
    let before = tasks();
    drop(connection);
    assert_eq!(tasks(), before, "nobody is left to wait for an answer to UNLISTEN");
    proxy.set(Link::GOOD);
    until("the socket was closed", || proxy.connections() == 0).await;
}

#[tokio::test]
async fn leak_a_listener_dropped_where_there_is_no_runtime_is_closed() {
    let server = server(&[]).await;
    let mut connection =
        ListenConnection::open(&config(&server.url()).server(), Duration::from_secs(10)).await.unwrap();
    connection.listener().listen("a").await.unwrap();
    let before = tasks();
    std::thread::spawn(move || drop(connection)).join().expect("it does not panic");
    assert_eq!(tasks(), before);
    until("the session ends", || sessions(&server) == 0).await;
}
