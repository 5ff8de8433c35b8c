//! A store in the test's hand: it answers a claim when it is told to, and notes what it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use delayline_core::{
    Capabilities, Claim, Claimed, ClaimedTask, Disposition, Error, ErrorKind, Lease, QueueName, Receipt, Result,
    Subscription, SubscriptionOptions, Timestamp,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::{Claims, ListeningSubscription};
use crate::notify::{Local, Notification, Notifier};
use crate::{Lifecycle, Source};

/// What it is asked, and how it answers.
struct Store {
    caps: Capabilities,
    lifecycle: Arc<Lifecycle>,
    queue: QueueName,
    seen: Seen,
}

#[derive(Clone, Default)]
struct Seen(Arc<Inside>);

#[derive(Default)]
struct Inside {
    log: Mutex<Vec<String>>,
    /// One permit for each answer.
    answers: Answering,
    lateness: Mutex<Duration>,
    lost: Mutex<bool>,
    /// Whether cleaning up waits for ever.
    stuck: Mutex<bool>,
    fences: AtomicU64,
    poll: Mutex<Option<Duration>>,
}

struct Answering(Semaphore);

impl Default for Answering {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Seen {
    fn note(&self, what: impl Into<String>) {
        self.0.log.lock().push(what.into());
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.log.lock())
    }

    fn answer(&self) {
        self.0.answers.0.add_permits(1);
    }

    async fn until(&self, what: &str) {
        while !self.0.log.lock().iter().any(|noted| noted == what) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Whether the last claim's answer was lost.
#[derive(Default)]
struct Lost(bool);

impl Claims for Store {
    type State = Lost;

    fn capabilities(&self) -> &Capabilities {
        &self.caps
    }

    fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }

    fn queue(&self) -> &QueueName {
        &self.queue
    }

    fn notified(&self, _: &mut Lost, told: Notification, listening: bool) {
        self.seen.note(format!("told {:?} {listening}", told.due_ms));
    }

    async fn claim(&self, state: &mut Lost, _: Claim) -> Result<Claimed> {
        self.seen.note("claim");
        self.seen.0.answers.0.acquire().await.unwrap().forget();
        if *self.seen.0.lost.lock() {
            state.0 = true;
            return Err(Error::new(ErrorKind::Ambiguous, "lost"));
        }
        let fence = self.seen.0.fences.fetch_add(1, Ordering::SeqCst);
        let lease = Lease::new(crate::Ids::new().task_id(), fence, 1, Timestamp::from_unix_millis(0), Receipt::NONE);
        let late = *self.seen.0.lateness.lock();
        let mut claimed = Claimed::default();
        claimed.deliveries.push(ClaimedTask::new(lease, Timestamp::from_unix_millis(0), late, "x".into()));
        Ok(claimed)
    }

    async fn settle(&self, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        for (lease, disposition) in &dispositions {
            assert!(matches!(disposition, Disposition::Release));
            self.seen.note(format!("release {}", lease.fence));
        }
        Ok(dispositions.iter().map(|_| Ok(())).collect())
    }

    fn is_clean(&self, state: &Lost) -> bool {
        !state.0
    }

    async fn clean_up(&self, state: &mut Lost) -> Result<()> {
        self.lifecycle.open()?;
        if *self.seen.0.stuck.lock() {
            self.seen.note("stuck");
            std::future::pending::<()>().await;
        }
        self.seen.note("clean up");
        state.0 = false;
        Ok(())
    }

    fn poll_interval(&self) -> Option<Duration> {
        *self.seen.0.poll.lock()
    }
}

fn open<S: Source<Key = QueueName>>(notifier: &Notifier<S>) -> (Box<ListeningSubscription<Store, S>>, Seen) {
    let (seen, lifecycle, queue) = (Seen::default(), Lifecycle::new("Test"), QueueName::new("exam").unwrap());
    let caps = Capabilities::minimal("test");
    let store = Store { caps, lifecycle, queue: queue.clone(), seen: seen.clone() };
    (
        Box::new(ListeningSubscription::new(store, Lost::default(), notifier, queue, SubscriptionOptions::default())),
        seen,
    )
}

fn local() -> Notifier<Local<QueueName>> {
    Notifier::local()
}

fn claim() -> Claim {
    Claim::new(1, Duration::from_secs(30))
}

/// Drops a claim once it is under way.
async fn dropped<S: Source>(subscription: &mut ListeningSubscription<Store, S>, seen: &Seen) {
    tokio::select! {
        _ = subscription.claim(claim()) => panic!("it was not answered"),
        () = seen.until("claim") => {}
    }
}

#[tokio::test(start_paused = true)]
async fn drop_what_nobody_received_is_given_back_before_the_next_claim() {
    let (mut subscription, seen) = open(&local());
    dropped(&mut subscription, &seen).await;
    seen.answer();
    seen.answer();
    let next = subscription.claim(claim()).await.unwrap();
    assert_eq!(next.deliveries[0].lease.fence, 1);
    let log: Vec<_> = seen.log().into_iter().filter(|noted| !noted.starts_with("told")).collect();
    assert_eq!(log, ["claim", "release 0", "claim"]);
}

#[tokio::test(start_paused = true)]
async fn drop_a_dropped_subscription_gives_back_what_its_claims_brought_or_lost() {
    let (mut subscription, seen) = open(&local());
    dropped(&mut subscription, &seen).await;
    drop(subscription);
    seen.answer();
    seen.until("release 0").await;

    let (mut subscription, seen) = open(&local());
    *seen.0.lost.lock() = true;
    seen.answer();
    assert_eq!(subscription.claim(claim()).await.unwrap_err().kind(), ErrorKind::Ambiguous);
    assert!(subscription.inspect(|state| state.0).await);
    drop(subscription);
    seen.until("clean up").await;
}

#[tokio::test(start_paused = true)]
async fn drop_a_clean_subscription_leaves_nothing_to_do() {
    let (mut subscription, seen) = open(&local());
    seen.answer();
    subscription.claim(claim()).await.unwrap();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    drop(subscription);
    assert_eq!(alive(), 0);
    assert!(!seen.log().contains(&"clean up".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn drop_a_close_that_is_dropped_leaves_its_work_to_the_drop() {
    let (mut subscription, seen) = open(&local());
    *seen.0.lost.lock() = true;
    seen.answer();
    assert_eq!(subscription.claim(claim()).await.unwrap_err().kind(), ErrorKind::Ambiguous);
    *seen.0.stuck.lock() = true;
    tokio::select! {
        _ = subscription.close() => panic!("it is stuck"),
        () = seen.until("stuck") => *seen.0.stuck.lock() = false,
    }
    timeout(Duration::from_secs(600), seen.until("clean up")).await.expect("it is cleaned up");
}

#[tokio::test(start_paused = true)]
async fn close_cleans_up_once_and_is_content_with_a_closed_backend() {
    let (subscription, seen) = open(&local());
    let lifecycle = subscription.claims.lifecycle.clone();
    assert_eq!(lifecycle.entered().len(), 1);
    subscription.close().await.unwrap();
    assert_eq!(seen.log(), ["clean up"]);
    assert!(lifecycle.entered().is_empty());

    let (mut subscription, _) = open(&local());
    subscription.claims.lifecycle.close();
    assert_eq!(subscription.claim(claim()).await.unwrap_err().kind(), ErrorKind::Closed);
    timeout(Duration::from_millis(1), subscription.wait(Duration::from_secs(9))).await.expect("the next claim tells");
    subscription.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn live_4_what_was_notified_before_a_wait_ends_it_at_once_and_is_told_to_the_claim() {
    let notifier = local();
    let (mut subscription, seen) = open(&notifier);
    let queue = QueueName::new("exam").unwrap();
    seen.answer();
    subscription.claim(claim()).await.unwrap();
    notifier.notify(&queue, Notification { due_ms: Some(7), missed: false });
    let began = Instant::now();
    subscription.wait(Duration::from_secs(9)).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    seen.answer();
    subscription.claim(claim()).await.unwrap();
    assert_eq!(seen.log(), ["told None true", "claim", "told Some(7) true", "claim"]);
    subscription.wait(Duration::from_secs(9)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(9));
}

/// A server that never lets anybody in.
struct Unreachable;

impl Source for Unreachable {
    type Key = QueueName;
    type Subscriber = crate::notify::Nobody<QueueName>;

    async fn connect(&self) -> Result<Self::Subscriber> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn live_while_nothing_is_notified_it_looks_at_the_poll_interval() {
    let (_troubles, quiet) = tokio::sync::watch::channel(0);
    let notifier = Notifier::new(Unreachable, "test", Duration::from_secs(1), quiet);
    let (mut subscription, seen) = open(&notifier);
    *seen.0.poll.lock() = Some(Duration::from_secs(2));
    let began = Instant::now();
    subscription.wait(Duration::from_secs(9)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    *seen.0.poll.lock() = None;
    subscription.wait(Duration::from_secs(9)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(11));
}
