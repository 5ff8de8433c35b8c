//! Wake-ups over a connection that breaks.

use std::time::Duration;

use delayline_conformance::proxy::Link;
use delayline_conformance::servers::Server;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::bells::{Bell, Bells};

fn bells(url: &str) -> (Bells, watch::Sender<u64>) {
    let (trouble, troubles) = watch::channel(0);
    (Bells::new(&config(url), troubles).unwrap(), trouble)
}

async fn rings(bell: &mut Bell) {
    timeout(Duration::from_secs(10), bell.receiver.changed()).await.expect("it rings").unwrap();
}

async fn silent(bell: &mut Bell) -> bool {
    timeout(Duration::from_millis(100), bell.receiver.changed()).await.is_err()
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
async fn a_bell_rings_for_its_channel_and_when_it_is_first_listened_to() {
    let mut server = server(&[]).await;
    let (bells, _trouble) = bells(&server.url());
    let (mut a, mut b) = (bells.listen(b"a".to_vec()), bells.listen(b"b".to_vec()));
    rings(&mut a).await;
    rings(&mut b).await;
    assert!(silent(&mut a).await);
    server.ask("PUBLISH a x").unwrap();
    rings(&mut a).await;
    assert!(silent(&mut b).await);
    // Level-triggered: what rang while nobody looked is seen.
    server.ask("PUBLISH b x").unwrap();
    sleep(Duration::from_millis(100)).await;
    rings(&mut b).await;

    let mut again = bells.listen(b"a".to_vec());
    server.ask("PUBLISH a x").unwrap();
    rings(&mut again).await;
    rings(&mut a).await;
    drop(a);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(subscriptions(&mut server), 2, "one of the two of `a` is still there");
    drop(again);
    until("a is unsubscribed", || subscriptions(&mut server) == 1).await;
    drop(b);
    until("the connection is gone", || server.ask("CLIENT LIST TYPE pubsub").unwrap().is_empty()).await;
}

#[tokio::test]
async fn leak_bells_in_cycles_leave_nothing() {
    let mut server = server(&[]).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let (bells, _trouble) = bells(&server.url());
    for i in 0..200u32 {
        let _same = bells.listen(format!("channel {}", i % 3).into_bytes());
        let mut other = bells.listen(format!("other {i}").into_bytes());
        if i % 4 == 0 {
            rings(&mut other).await;
        }
        if i % 5 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    until("all tasks end", || tasks() <= before).await;
    until("nothing is subscribed", || subscriptions(&mut server) == 0).await;
    let mut bell = bells.listen(b"a".to_vec());
    rings(&mut bell).await;
    bells.close().await;
    rings(&mut bell).await;
    until("all tasks end", || tasks() <= before).await;
    until("the connection is gone", || server.ask("CLIENT LIST TYPE pubsub").unwrap().is_empty()).await;
}

#[tokio::test]
async fn live_a_killed_subscriber_comes_back_and_rings() {
    let server = server(&[]).await;
    let (bells, _trouble) = bells(&server.url());
    let mut bell = bells.listen(b"a".to_vec());
    rings(&mut bell).await;
    for _ in 0..3 {
        server.ask("CLIENT KILL TYPE pubsub").unwrap();
        rings(&mut bell).await;
        server.ask("PUBLISH a x").unwrap();
        rings(&mut bell).await;
    }
}

#[tokio::test]
async fn live_a_subscriber_survives_an_outage_of_its_server() {
    let mut server = server(&[]).await;
    let (bells, _trouble) = bells(&server.url());
    let mut bell = bells.listen(b"a".to_vec());
    rings(&mut bell).await;
    server.kill().unwrap();
    sleep(Duration::from_secs(4)).await;
    assert!(!bell.receiver.has_changed().unwrap());
    let started = tokio::task::spawn_blocking(move || {
        server.start().unwrap();
        server
    });
    let server = started.await.unwrap();
    rings(&mut bell).await;
    server.ask("PUBLISH a x").unwrap();
    rings(&mut bell).await;
}

#[tokio::test]
async fn live_a_silent_subscriber_is_found_when_there_is_reason_to_doubt_it() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let (bells, trouble) = bells(&url);
    let mut bell = bells.listen(b"a".to_vec());
    rings(&mut bell).await;
    for by_trouble in [true, false] {
        proxy.set(Link::NO_ANSWERS);
        server.ask("PUBLISH a x").unwrap();
        assert!(silent(&mut bell).await);
        let accepted = proxy.accepted();
        if by_trouble {
            trouble.send_modify(|n| *n += 1)
        } else {
            bells.doubt()
        }
        sleep(Duration::from_millis(450)).await;
        until("it connects anew", || proxy.accepted() > accepted).await;
        proxy.set(Link::GOOD);
        rings(&mut bell).await;
        // What the old connection had kept back may ring once more.
        while !silent(&mut bell).await {}
    }
    // Doubt without reason costs nothing but the question.
    let accepted = proxy.accepted();
    bells.doubt();
    assert!(silent(&mut bell).await);
    assert_eq!(proxy.accepted(), accepted);
    server.ask("PUBLISH a x").unwrap();
    rings(&mut bell).await;
}

#[tokio::test]
async fn idle_nothing_is_asked_while_nothing_rings() {
    let server = server(&[]).await;
    let (bells, _trouble) = bells(&server.url());
    let mut bell = bells.listen(b"a".to_vec());
    rings(&mut bell).await;
    let commands = || {
        let stats = server.ask("INFO stats").unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap().to_string();
        line.parse::<u64>().unwrap()
    };
    let before = commands();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(commands() - before, 1, "our own question");
}
