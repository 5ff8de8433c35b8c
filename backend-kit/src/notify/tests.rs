//! A server that is a queue of messages in the test's hand.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use delayline_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::*;

type Message = (&'static str, Notification);

/// What the test sees of the server.
#[derive(Clone, Default)]
struct Server(Arc<Inside>);

#[derive(Default)]
struct Inside {
    connections: AtomicU32,
    pings: AtomicU32,
    alive: AtomicU32,
    /// Whether connecting fails, and whether answers never come.
    down: Mutex<bool>,
    silent: Mutex<bool>,
    to: Mutex<Option<mpsc::UnboundedSender<Message>>>,
    subscribed: Mutex<HashSet<&'static str>>,
}

struct Fake {
    server: Server,
    from: mpsc::UnboundedReceiver<Message>,
}

impl Source for Server {
    type Key = &'static str;
    type Subscriber = Fake;

    async fn connect(&self) -> Result<Fake> {
        self.0.connections.fetch_add(1, Ordering::SeqCst);
        if *self.0.down.lock() {
            return Err(Error::new(ErrorKind::Unavailable, "down"));
        }
        #[expect(clippy::disallowed_methods, reason = "the test sends a few")]
        let (to, from) = mpsc::unbounded_channel();
        *self.0.to.lock() = Some(to);
        self.0.subscribed.lock().clear();
        self.0.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Fake { server: self.clone(), from })
    }
}

impl Fake {
    async fn answer(&self) -> Result<()> {
        if *self.server.0.silent.lock() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

impl Subscriber for Fake {
    type Key = &'static str;

    async fn subscribe(&mut self, keys: Vec<&'static str>) -> Result<()> {
        self.server.0.subscribed.lock().extend(keys);
        self.answer().await
    }

    async fn unsubscribe(&mut self, keys: Vec<&'static str>) -> Result<()> {
        self.server.0.subscribed.lock().retain(|key| !keys.contains(key));
        self.answer().await
    }

    async fn receive(&mut self) -> Result<Option<Message>> {
        self.from.recv().await.map(Some).ok_or_else(|| Error::new(ErrorKind::Unavailable, "lost"))
    }

    async fn ping(&mut self) -> Result<()> {
        self.server.0.pings.fetch_add(1, Ordering::SeqCst);
        self.answer().await
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    fn publish(&self, key: &'static str, due_ms: i64) {
        let to = self.0.to.lock();
        to.as_ref().unwrap().send((key, Notification { due_ms: Some(due_ms), missed: false })).unwrap();
    }

    fn cut(&self) {
        *self.0.to.lock() = None;
    }

    fn alive(&self) -> u32 {
        self.0.alive.load(Ordering::SeqCst)
    }

    fn notifier(&self, troubles: &watch::Sender<u64>) -> Notifier<Self> {
        Notifier::new(self.clone(), "test", Duration::from_secs(5), troubles.subscribe())
    }
}

async fn told(listener: &mut Listener<&'static str>) -> Notification {
    timeout(Duration::from_secs(600), listener.notified()).await.expect("it is notified");
    listener.take()
}

async fn until(what: impl Fn() -> bool) {
    let ends = Instant::now() + Duration::from_secs(600);
    while !what() {
        assert!(Instant::now() < ends, "it does not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn listeners_are_told_what_is_published_for_their_key_and_nothing_else() {
    let (server, troubles) = (Server::default(), watch::Sender::new(0));
    let notifier = server.notifier(&troubles);
    let (mut exam, mut other) = (notifier.listen("exam"), notifier.listen("other"));
    assert!(!notifier.listening());
    assert_eq!((told(&mut exam).await, told(&mut other).await), (Notification::MISSED, Notification::MISSED));
    assert!(notifier.listening());
    server.publish("exam", 9);
    server.publish("exam", 5);
    exam.notified().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(exam.take(), Notification { due_ms: Some(5), missed: false }, "the earliest of both");
    assert_eq!(exam.take(), Notification::default(), "it was taken");
    assert_eq!(other.take(), Notification::default());
    notifier.notify(&"other", Notification { due_ms: Some(1), missed: false });
    assert_eq!(told(&mut other).await.due_ms, Some(1));
    assert_eq!(server.0.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_told_and_replaced() {
    let (server, troubles) = (Server::default(), watch::Sender::new(0));
    let notifier = server.notifier(&troubles);
    let mut exam = notifier.listen("exam");
    told(&mut exam).await;
    *server.0.down.lock() = true;
    server.cut();
    assert_eq!(told(&mut exam).await, Notification::MISSED);
    assert!(!notifier.listening());
    // It is tried again and again, with pauses.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tries = server.0.connections.load(Ordering::SeqCst);
    assert!((30..100).contains(&tries), "{tries} attempts in a minute");
    *server.0.down.lock() = false;
    assert_eq!(told(&mut exam).await, Notification::MISSED);
    assert!(notifier.listening());
    server.publish("exam", 3);
    assert_eq!(told(&mut exam).await.due_ms, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_found_by_doubt_and_by_the_trouble_of_others() {
    let (server, troubles) = (Server::default(), watch::Sender::new(0));
    let notifier = server.notifier(&troubles);
    let mut exam = notifier.listen("exam");
    told(&mut exam).await;
    for asked in 1..=2 {
        let before = server.0.connections.load(Ordering::SeqCst);
        if asked == 1 {
            notifier.doubt();
        } else {
            troubles.send_modify(|n| *n += 1);
        }
        until(|| server.0.pings.load(Ordering::SeqCst) == 2 * asked - 1).await;
        assert_eq!(server.0.connections.load(Ordering::SeqCst), before, "one that answers is kept");
        *server.0.silent.lock() = true;
        notifier.doubt();
        assert_eq!(told(&mut exam).await, Notification::MISSED);
        *server.0.silent.lock() = false;
        until(|| notifier.listening()).await;
        told(&mut exam).await;
    }
}

#[tokio::test(start_paused = true)]
async fn leak_with_the_last_listener_the_connection_and_its_task_end() {
    let (server, troubles) = (Server::default(), watch::Sender::new(0));
    let notifier = server.notifier(&troubles);
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    for _ in 0..3 {
        let (mut exam, other) = (notifier.listen("exam"), notifier.listen("other"));
        told(&mut exam).await;
        drop(other);
        until(|| server.0.subscribed.lock().len() == 1).await;
        assert_eq!(server.alive(), 1);
        drop(exam);
        until(|| server.alive() == 0 && alive() == before).await;
    }
    // Also while it can't connect.
    *server.0.down.lock() = true;
    drop(notifier.listen("exam"));
    until(|| alive() == before).await;
}

#[tokio::test(start_paused = true)]
async fn closing_notifies_all_for_the_last_time_and_serves_nobody_again() {
    let (server, troubles) = (Server::default(), watch::Sender::new(0));
    let notifier = server.notifier(&troubles);
    let mut exam = notifier.listen("exam");
    told(&mut exam).await;
    notifier.close().await;
    notifier.close().await;
    assert_eq!(told(&mut exam).await, Notification::MISSED);
    assert_eq!(server.alive(), 0);
    let late = notifier.listen("exam");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(server.0.connections.load(Ordering::SeqCst), 1);
    drop(late);
}

#[tokio::test]
async fn a_local_one_and_a_polling_one_pass_on_within_the_process() {
    for (notifier, listening) in [(Notifier::<Local<&str>>::local(), true), (Notifier::polling(), false)] {
        let mut exam = notifier.listen("exam");
        assert_eq!(notifier.listening(), listening);
        assert_eq!(exam.take(), Notification::default());
        notifier.notify(&"exam", Notification::default());
        assert_eq!(told(&mut exam).await, Notification::default());
    }
}
