//! Notifications over a connection that breaks.

use std::time::Duration;

use delayline_conformance::proxy::Link;
use delayline_conformance::servers::Server;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::notify::{Channels, Notifier};

type Listener = delayline_backend_kit::Listener<Vec<u8>>;

fn notifier(url: &str) -> (Notifier, watch::Sender<u64>) {
    let (trouble, troubles) = watch::channel(0);
    let config = config(url);
    let channels = Channels::new(&config).unwrap();
    (Notifier::new(channels, "redis", config.response_timeout, troubles), trouble)
}

async fn notified(listener: &mut Listener) {
    timeout(Duration::from_secs(10), listener.notified()).await.expect("it is notified");
    listener.take();
}

async fn silent(listener: &mut Listener) -> bool {
    let told = timeout(Duration::from_millis(100), listener.notified()).await;
    listener.take();
    told.is_err()
}

fn subscriptions(server: &mut Redis) -> u64 {
    server.resources().unwrap().0.iter().find(|(name, _)| *name == "subscribed channels").map_or(0, |(_, n)| *n)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_listener_is_notified_of_its_channel_and_when_it_is_first_subscribed_to() {
    let mut server = server(&[]).await;
    let (notifier, _trouble) = notifier(&server.url());
    let (mut a, mut b) = (notifier.listen(b"a".to_vec()), notifier.listen(b"b".to_vec()));
    notified(&mut a).await;
    notified(&mut b).await;
    assert!(silent(&mut a).await);
    server.ask("PUBLISH a x").unwrap();
    notified(&mut a).await;
    assert!(silent(&mut b).await);
    // Level-triggered: what came while nobody looked is seen.
    server.ask("PUBLISH b x").unwrap();
    sleep(Duration::from_millis(100)).await;
    notified(&mut b).await;

    let mut again = notifier.listen(b"a".to_vec());
    server.ask("PUBLISH a x").unwrap();
    notified(&mut again).await;
    notified(&mut a).await;
    drop(a);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(subscriptions(&mut server), 2, "one of the two of `a` is still there");
    drop(again);
    until("a is unsubscribed", || subscriptions(&mut server) == 1).await;
    drop(b);
    until("the connection is gone", || server.ask("CLIENT LIST TYPE pubsub").unwrap().is_empty()).await;
}

#[tokio::test]
async fn leak_listeners_in_cycles_leave_nothing() {
    let mut server = server(&[]).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let (notifier, _trouble) = notifier(&server.url());
    for i in 0..200u32 {
        let _same = notifier.listen(format!("channel {}", i % 3).into_bytes());
        let mut other = notifier.listen(format!("other {i}").into_bytes());
        if i % 4 == 0 {
            notified(&mut other).await;
        }
        if i % 5 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    until("all tasks end", || tasks() <= before).await;
    until("nothing is subscribed", || subscriptions(&mut server) == 0).await;
    let mut listener = notifier.listen(b"a".to_vec());
    notified(&mut listener).await;
    notifier.close().await;
    notified(&mut listener).await;
    until("all tasks end", || tasks() <= before).await;
    until("the connection is gone", || server.ask("CLIENT LIST TYPE pubsub").unwrap().is_empty()).await;
}

#[tokio::test]
async fn live_a_killed_subscriber_comes_back_and_notifies() {
    let server = server(&[]).await;
    let (notifier, _trouble) = notifier(&server.url());
    let mut listener = notifier.listen(b"a".to_vec());
    notified(&mut listener).await;
    for _ in 0..3 {
        server.ask("CLIENT KILL TYPE pubsub").unwrap();
        notified(&mut listener).await;
        server.ask("PUBLISH a x").unwrap();
        notified(&mut listener).await;
    }
}

#[tokio::test]
async fn live_a_subscriber_survives_an_outage_of_its_server() {
    let mut server = server(&[]).await;
    let (notifier, _trouble) = notifier(&server.url());
    let mut listener = notifier.listen(b"a".to_vec());
    notified(&mut listener).await;
    server.kill().unwrap();
    // Once, because something may have been missed; then not before it is back.
    notified(&mut listener).await;
    sleep(Duration::from_secs(4)).await;
    assert!(silent(&mut listener).await);
    let started = tokio::task::spawn_blocking(move || {
        server.start().unwrap();
        server
    });
    let server = started.await.unwrap();
    notified(&mut listener).await;
    server.ask("PUBLISH a x").unwrap();
    notified(&mut listener).await;
}

#[tokio::test]
async fn live_a_silent_subscriber_is_found_when_there_is_reason_to_doubt_it() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let (notifier, trouble) = notifier(&url);
    let mut listener = notifier.listen(b"a".to_vec());
    notified(&mut listener).await;
    for by_trouble in [true, false] {
        proxy.set(Link::NO_ANSWERS);
        server.ask("PUBLISH a x").unwrap();
        assert!(silent(&mut listener).await);
        let accepted = proxy.accepted();
        if by_trouble {
            trouble.send_modify(|n| *n += 1)
        } else {
            notifier.doubt()
        }
        sleep(Duration::from_millis(450)).await;
        until("it connects anew", || proxy.accepted() > accepted).await;
        proxy.set(Link::GOOD);
        notified(&mut listener).await;
        // What the old connection had kept back may come once more.
        while !silent(&mut listener).await {}
    }
    // Doubt without reason costs nothing but the question.
    let accepted = proxy.accepted();
    notifier.doubt();
    assert!(silent(&mut listener).await);
    assert_eq!(proxy.accepted(), accepted);
    server.ask("PUBLISH a x").unwrap();
    notified(&mut listener).await;
}

#[tokio::test]
async fn idle_nothing_is_asked_while_nothing_is_published() {
    let server = server(&[]).await;
    let (notifier, _trouble) = notifier(&server.url());
    let mut listener = notifier.listen(b"a".to_vec());
    notified(&mut listener).await;
    let commands = || {
        let stats = server.ask("INFO stats").unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap().to_string();
        line.parse::<u64>().unwrap()
    };
    let before = commands();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(commands() - before, 1, "our own question");
}
