//! Wake-ups by LISTEN and NOTIFY, restored after every loss of the connection.
//!
//! 1. A bell is level-triggered: who looks at it after it rang finds that it rang.
//! 2. A bell rings as `lost` once its channel has begun to be listened to, and again whenever the connection is lost and when
//!    it is back: what was sent in between can't have been heard, so its owner looks for itself.
//! 3. There is one connection for all channels, apart from those of the calls, and one task that serves it, as long as there
//!    are bells; with the last bell both end.
//! 4. An idle connection costs the server nothing. One that is silent for good is found because it is asked whenever another
//!    connection to the server was lost, or somebody found what should have rung.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use delayline_core::{QueueName, Result, meter};
use parking_lot::Mutex;
use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgNotification};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::server::place;
use crate::config::settings::PostgresConfig;
use crate::limits::NAME;
use crate::notify::ear::Ear;
use crate::schema::Schema;

/// All bells of a backend. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Bells(Arc<Store>);

#[derive(Debug)]
struct Store {
    /// Where to listen, if at all.
    server: Option<PgConnectOptions>,
    schema: Schema,
    connect_timeout: Duration,
    response_timeout: Duration,
    book: Mutex<Book>,
    /// The queues in the book have changed.
    changed: Notify,
    /// Reason to ask the server whether it is still there.
    doubt: Notify,
    troubles: watch::Receiver<u64>,
    listening: AtomicBool,
}

#[derive(Debug, Default)]
struct Book {
    queues: HashMap<QueueName, Vec<Arc<Rope>>>,
    task: Option<JoinHandle<()>>,
    closed: bool,
}

/// What one bell has heard and its owner has not yet taken.
#[derive(Debug, Default)]
struct Rope {
    heard: Mutex<Option<Heard>>,
    pulled: Notify,
}

/// What a bell heard since the last time it was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The earliest time, in ms since 1970, at which something was said to be due.
    pub(crate) lowest_due_ms: Option<i64>,
    /// Something may have been missed.
    pub(crate) lost: bool,
}

/// Rings when something was placed in its queue, or may have been. Dropped, it is gone, and with the last one of a queue its
/// subscription.
#[derive(Debug)]
pub(crate) struct Bell {
    rope: Arc<Rope>,
    queue: QueueName,
    store: Arc<Store>,
}

impl Bells {
    /// For a checked configuration; nothing is opened before the first bell. `troubles` changes when another connection to
    /// the server was lost.
    pub(crate) fn new(config: &PostgresConfig, schema: Schema, troubles: watch::Receiver<u64>) -> Self {
        Self(Arc::new(Store {
            server: config.listens_at().map(|server| server.application_name("delayline listen")),
            schema,
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
            book: Mutex::default(),
            changed: Notify::new(),
            doubt: Notify::new(),
            troubles,
            listening: AtomicBool::new(false),
        }))
    }

    /// A bell for a queue. It never fails: it rings as `lost` as soon as it is listened for.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn listen(&self, queue: &QueueName) -> Bell {
        let rope = Arc::new(Rope::default());
        let mut book = self.0.book.lock();
        let ropes = book.queues.entry(queue.clone()).or_default();
        if ropes.is_empty() {
            self.0.listening.store(false, Ordering::Release);
        }
        ropes.push(rope.clone());
        // A task whose runtime has ended is finished, too.
        let finished = book.task.as_ref().is_none_or(JoinHandle::is_finished);
        if !book.closed && finished && self.0.server.is_some() {
            book.task = Some(tokio::spawn(serve(self.0.clone())));
        }
        drop(book);
        self.0.changed.notify_one();
        Bell { rope, queue: queue.clone(), store: self.0.clone() }
    }

    /// Rings the bells of a queue in this process: something was placed there that is due then.
    pub(crate) fn ring(&self, queue: &QueueName, due_ms: i64) {
        self.0.ring(queue, Heard { lowest_due_ms: Some(due_ms), lost: false });
    }

    /// Whether every bell would hear what is sent now.
    pub(crate) fn listening(&self) -> bool {
        self.0.listening.load(Ordering::Acquire)
    }

    /// Somebody found what should have rung: whether the server is still there is worth a question.
    pub(crate) fn doubt(&self) {
        self.0.doubt.notify_one();
    }

    /// Rings all bells for the last time, and ends the connection. Repeated, it does nothing.
    pub(crate) async fn close(&self) {
        let task = {
            let mut book = self.0.book.lock();
            book.closed = true;
            book.task.take()
        };
        if let Some(task) = task {
            task.abort();
            // Aborted, it ends as soon as it is looked at; what it ends with does not matter.
            let _ = task.await;
        }
        self.0.lost();
    }
}

impl Bell {
    /// Returns when it has rung since the last [`take`](Self::take).
    ///
    /// # Cancel safety
    /// Dropped, what it heard stays heard.
    pub(crate) async fn rung(&mut self) {
        while self.rope.heard.lock().is_none() {
            // Pulled in between, it returns at once.
            self.rope.pulled.notified().await;
        }
    }

    /// What it heard since it was asked last.
    pub(crate) fn take(&mut self) -> Heard {
        self.rope.heard.lock().take().unwrap_or_default()
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let mut book = self.store.book.lock();
        let Some(ropes) = book.queues.get_mut(&self.queue) else { return };
        ropes.retain(|rope| !Arc::ptr_eq(rope, &self.rope));
        if ropes.is_empty() {
            book.queues.remove(&self.queue);
            drop(book);
            self.store.changed.notify_one();
        }
    }
}

impl Rope {
    fn pull(&self, new: Heard) {
        let mut heard = self.heard.lock();
        let old = heard.unwrap_or_default();
        let lowest = match (old.lowest_due_ms, new.lowest_due_ms) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
        *heard = Some(Heard { lowest_due_ms: lowest, lost: old.lost || new.lost });
        drop(heard);
        self.pulled.notify_one();
    }
}

impl Book {
    fn wanted(&self) -> bool {
        !self.closed && !self.queues.is_empty()
    }
}

impl Store {
    /// Whether the task is to end. Then it is not that of the book any more: the next bell brings another.
    fn ended(&self) -> bool {
        let mut book = self.book.lock();
        let ended = !book.wanted();
        if ended {
            book.task = None;
        }
        ended
    }

    /// The channels of the queues that there are bells for, if there are any.
    fn wanted(&self) -> Option<HashSet<String>> {
        let book = self.book.lock();
        book.wanted().then(|| book.queues.keys().map(|queue| self.schema.channel(queue)).collect())
    }

    async fn until_unwanted(&self) {
        while self.book.lock().wanted() {
            self.changed.notified().await;
        }
    }

    fn ring(&self, queue: &QueueName, heard: Heard) {
        if let Some(ropes) = self.book.lock().queues.get(queue) {
            ropes.iter().for_each(|rope| rope.pull(heard));
        }
    }

    /// Rings every bell whose channel is among these as one that may have missed something.
    fn begun(&self, channels: &HashSet<String>) {
        let book = self.book.lock();
        let begun = book.queues.iter().filter(|(queue, _)| channels.contains(&self.schema.channel(queue)));
        begun.flat_map(|(_, ropes)| ropes).for_each(|rope| rope.pull(Heard { lowest_due_ms: None, lost: true }));
    }

    /// Nothing is heard any more, from now on.
    fn lost(&self) {
        self.listening.store(false, Ordering::Release);
        let book = self.book.lock();
        let all = book.queues.values().flatten();
        all.for_each(|rope| rope.pull(Heard { lowest_due_ms: None, lost: true }));
    }

    /// Rings what a message names. One that can't be read is somebody else's on our channel.
    fn hear(&self, message: &PgNotification) {
        let Some((due, queue)) = message.payload().split_once(' ') else { return };
        if let (Ok(due_ms), Ok(queue)) = (due.parse(), QueueName::new(queue)) {
            self.ring(&queue, Heard { lowest_due_ms: Some(due_ms), lost: false });
        }
    }
}

/// The text of a wake-up, for `pg_notify`: when something is due, and where. A channel may be that of several queues.
pub(crate) fn message(queue: &QueueName, due_ms: i64) -> String {
    format!("{due_ms} {queue}")
}

/// Serves the bells until there are none, over one connection after the other.
async fn serve(store: Arc<Store>) {
    let Some(server) = store.server.clone() else { return };
    let mut backoff = Backoff::default();
    let mut was_lost = false;
    while !store.ended() {
        if let Some(at) = backoff.not_before {
            tokio::select! {
                () = sleep_until(at) => {}
                () = store.until_unwanted() => continue,
            }
        }
        let connected = tokio::select! {
            connected = Line::open(&store, &server) => connected,
            () = store.until_unwanted() => continue,
        };
        let mut line = match connected {
            Ok(line) => line,
            Err(e) => {
                tracing::debug!(error = %e, "no connection for wake-ups");
                backoff.failed();
                continue;
            }
        };
        if std::mem::take(&mut was_lost) {
            meter::reconnected(NAME);
        }
        if line.attend(&store).await.is_break() {
            was_lost = true;
            // One that worked may be opened again at once; one that never did is not hurried.
            if line.heard.is_empty() {
                backoff.failed()
            } else {
                backoff.succeeded()
            }
            tracing::debug!(server = place(&server), "the connection for wake-ups was lost");
        }
        drop(line);
        store.lost();
    }
}

/// One connection, and the channels it listens on.
struct Line {
    ear: Ear,
    heard: HashSet<String>,
    troubles: watch::Receiver<u64>,
}

impl Line {
    async fn open(store: &Store, server: &PgConnectOptions) -> Result<Self> {
        let mut troubles = store.troubles.clone();
        troubles.mark_unchanged();
        Ok(Self { ear: Ear::open(server, store.connect_timeout).await?, heard: HashSet::new(), troubles })
    }

    /// Rings what is to be rung, until the connection is lost (break) or nobody listens any more (continue).
    async fn attend(&mut self, store: &Store) -> ControlFlow<()> {
        while let Some(wanted) = store.wanted() {
            self.subscribe(store, wanted).await?;
            loop {
                tokio::select! {
                    message = self.ear.listener().try_recv() => match message {
                        Ok(Some(message)) => store.hear(&message),
                        Ok(None) | Err(_) => return ControlFlow::Break(()),
                    },
                    () = store.changed.notified() => break,
                    () = store.doubt.notified() => self.ask(store).await?,
                    // Its sender may be gone when a backend was dropped; then the bells will be, too.
                    Ok(()) = self.troubles.changed() => self.ask(store).await?,
                }
            }
        }
        ControlFlow::Continue(())
    }

    async fn subscribe(&mut self, store: &Store, wanted: HashSet<String>) -> ControlFlow<()> {
        let new: HashSet<_> = wanted.difference(&self.heard).cloned().collect();
        let old: Vec<_> = self.heard.difference(&wanted).cloned().collect();
        if !new.is_empty() {
            let names: Vec<_> = new.iter().map(String::as_str).collect();
            in_time(store.response_timeout, self.ear.listener().listen_all(names)).await?;
        }
        for channel in &old {
            in_time(store.response_timeout, self.ear.listener().unlisten(channel)).await?;
        }
        self.heard = wanted;
        // Unless there is one more queue by now, which `changed` then tells.
        let book = store.book.lock();
        let all = book.queues.keys().all(|queue| self.heard.contains(&store.schema.channel(queue)));
        store.listening.store(all, Ordering::Release);
        drop(book);
        store.begun(&new);
        ControlFlow::Continue(())
    }

    async fn ask(&mut self, store: &Store) -> ControlFlow<()> {
        in_time(store.response_timeout, self.ear.listener().execute("SELECT 1")).await
    }
}

async fn in_time<T>(limit: Duration, answer: impl Future<Output = sqlx::Result<T>>) -> ControlFlow<()> {
    match timeout(limit, answer).await {
        Ok(Ok(_)) => ControlFlow::Continue(()),
        Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
    }
}

/// When connecting may be tried again: at once after a connection that worked, then after 50 ms to 2 s.
struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
    random: fastrand::Rng,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { failures: 0, not_before: None, random: fastrand::Rng::new() }
    }
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(2);

    fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }

    /// Half of the pause is left to chance, so that many clients do not come back at once.
    fn failed(&mut self) {
        let pause = Self::FIRST.saturating_mul(1 << self.failures.min(6)).min(Self::MAX);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause.mul_f64(0.5 + self.random.f64() / 2.0));
    }
}
