//! Wake-ups by publish and subscribe, restored after every reconnect.
//!
//! 1. A bell is level-triggered: who looks at it after it rang finds that it rang.
//! 2. A bell rings once its channel has begun to be listened to, and again after each reconnect: what was published before
//!    can't have been heard, so its owner looks for itself.
//! 3. There is one connection for all channels, apart from that of the requests, and one task that serves it, as long as
//!    there are bells; with the last bell both end.
//! 4. An idle connection costs the server nothing. One that is silent for good is found by TCP's keepalive, and, where
//!    something in between answers that, because it is asked whenever another connection to the server was in trouble or
//!    somebody missed a ring.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Result, meter};
use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Client, ProtocolVersion};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use crate::RedisConfig;
use crate::connection::{Backoff, unavailable};
use crate::failure::connecting_failed;
use crate::shared::NAME;

/// All bells of a backend. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Bells(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    server: String,
    response_timeout: Duration,
    connect_timeout: Duration,
    book: Mutex<Book>,
    /// The channels in the book have changed.
    changed: Notify,
    /// Reason to ask the server whether it is still there.
    doubt: Notify,
    troubles: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct Book {
    channels: HashMap<Vec<u8>, Channel>,
    task: Option<JoinHandle<()>>,
    closed: bool,
}

#[derive(Debug)]
struct Channel {
    rope: watch::Sender<()>,
    bells: usize,
}

/// Rings when something was published on its channel, or may have been. Dropped, it is gone, and with the last one of a
/// channel its subscription.
#[derive(Debug)]
pub(crate) struct Bell {
    /// Changes with each ring.
    pub(crate) receiver: watch::Receiver<()>,
    channel: Vec<u8>,
    shared: Arc<Shared>,
}

impl Bells {
    /// For a server; nothing is opened before the first bell. `troubles` changes when another connection to it was lost.
    pub(crate) fn new(config: &RedisConfig, troubles: watch::Receiver<u64>) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            client: config.client(ProtocolVersion::RESP2)?,
            server: config.server(),
            response_timeout: config.response_timeout,
            connect_timeout: config.connect_timeout,
            book: Mutex::default(),
            changed: Notify::new(),
            doubt: Notify::new(),
            troubles,
        })))
    }

    /// A bell for a channel. It never fails: unless the channel is listened to already, it rings as soon as it is.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn listen(&self, channel: Vec<u8>) -> Bell {
        let mut book = self.0.book.lock();
        let entry = book.channels.entry(channel.clone());
        let entry = entry.or_insert_with(|| Channel { rope: watch::Sender::new(()), bells: 0 });
        entry.bells += 1;
        let receiver = entry.rope.subscribe();
        // A task whose runtime has ended is finished, too.
        if !book.closed && book.task.as_ref().is_none_or(JoinHandle::is_finished) {
            book.task = Some(tokio::spawn(serve(self.0.clone())));
        }
        drop(book);
        self.0.changed.notify_one();
        Bell { receiver, channel, shared: self.0.clone() }
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
            book.ring_all();
            book.task.take()
        };
        if let Some(task) = task {
            task.abort();
            // Aborted, it ends as soon as it is looked at; what it ends with does not matter.
            let _ = task.await;
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let mut book = self.shared.book.lock();
        if let Some(channel) = book.channels.get_mut(&self.channel) {
            channel.bells -= 1;
            if channel.bells == 0 {
                book.channels.remove(&self.channel);
                drop(book);
                self.shared.changed.notify_one();
            }
        }
    }
}

impl Book {
    fn wanted(&self) -> bool {
        !self.closed && !self.channels.is_empty()
    }

    fn ring_all(&self) {
        self.channels.values().for_each(|channel| channel.ring());
    }
}

impl Channel {
    fn ring(&self) {
        self.rope.send_replace(());
    }
}

/// Serves the bells until there are none, over one connection after the other.
async fn serve(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut was_lost = false;
    while !shared.ended() {
        if let Some(at) = backoff.not_before() {
            tokio::select! {
                () = sleep_until(at) => {}
                () = shared.until_unwanted() => continue,
            }
        }
        let connected = tokio::select! {
            connected = shared.connect() => connected,
            () = shared.until_unwanted() => continue,
        };
        match connected {
            Ok((sink, stream)) => {
                let mut line = Line { sink, stream, heard: HashSet::new(), troubles: shared.troubles.clone() };
                line.troubles.mark_unchanged();
                if std::mem::take(&mut was_lost) {
                    meter::reconnected(NAME);
                }
                if line.attend(&shared).await.is_break() {
                    // One that worked may do so again at once; one that never did is not hurried.
                    if line.heard.is_empty() {
                        backoff.failed()
                    } else {
                        backoff.succeeded()
                    }
                    was_lost = true;
                    tracing::debug!(server = shared.server, "the connection for wake-ups was lost");
                }
            }
            Err(e) => {
                backoff.failed();
                tracing::debug!(server = shared.server, error = %e, "no connection for wake-ups");
            }
        }
    }
}

/// One connection, and the channels it is subscribed to.
struct Line {
    sink: PubSubSink,
    stream: PubSubStream,
    heard: HashSet<Vec<u8>>,
    troubles: watch::Receiver<u64>,
}

impl Line {
    /// Rings what is to be rung, until the connection is lost (break) or nobody listens any more (continue).
    async fn attend(&mut self, shared: &Shared) -> ControlFlow<()> {
        while let Some(wanted) = shared.wanted() {
            self.subscribe(shared, wanted).await?;
            loop {
                tokio::select! {
                    message = self.stream.next() => match message {
                        Some(message) => shared.ring(message.get_channel_name().as_bytes()),
                        None => return ControlFlow::Break(()),
                    },
                    () = shared.changed.notified() => break,
                    () = shared.doubt.notified() => self.ask(shared).await?,
                    // Its sender may be gone when a backend was dropped; then the bells will be, too.
                    Ok(()) = self.troubles.changed() => self.ask(shared).await?,
                }
            }
        }
        ControlFlow::Continue(())
    }

    async fn subscribe(&mut self, shared: &Shared, wanted: HashSet<Vec<u8>>) -> ControlFlow<()> {
        let new: Vec<_> = wanted.difference(&self.heard).cloned().collect();
        let old: Vec<_> = self.heard.difference(&wanted).cloned().collect();
        if !new.is_empty() {
            in_time(shared, self.sink.subscribe(&new)).await?;
            new.iter().for_each(|channel| shared.ring(channel));
        }
        if !old.is_empty() {
            in_time(shared, self.sink.unsubscribe(&old)).await?;
        }
        self.heard = wanted;
        ControlFlow::Continue(())
    }

    async fn ask(&mut self, shared: &Shared) -> ControlFlow<()> {
        in_time(shared, self.sink.ping::<redis::Value>()).await
    }
}

async fn in_time<T>(shared: &Shared, answer: impl Future<Output = redis::RedisResult<T>>) -> ControlFlow<()> {
    match timeout(shared.response_timeout, answer).await {
        Ok(Ok(_)) => ControlFlow::Continue(()),
        Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
    }
}

impl Shared {
    /// Whether the task is to end. Then it is not that of the book any more: the next bell brings another.
    fn ended(&self) -> bool {
        let mut book = self.book.lock();
        let ended = !book.wanted();
        if ended {
            book.task = None;
        }
        ended
    }

    /// The channels that there are bells for, if there are any.
    fn wanted(&self) -> Option<HashSet<Vec<u8>>> {
        let book = self.book.lock();
        book.wanted().then(|| book.channels.keys().cloned().collect())
    }

    async fn until_unwanted(&self) {
        while self.book.lock().wanted() {
            self.changed.notified().await;
        }
    }

    fn ring(&self, channel: &[u8]) {
        if let Some(channel) = self.book.lock().channels.get(channel) {
            channel.ring();
        }
    }

    async fn connect(&self) -> Result<(PubSubSink, PubSubStream)> {
        match timeout(self.connect_timeout, self.client.get_async_pubsub()).await {
            Ok(Ok(connection)) => Ok(connection.split()),
            Ok(Err(e)) => Err(connecting_failed(&self.server, &e)),
            Err(_) => Err(unavailable(format!("{} did not answer while connecting", self.server))),
        }
    }
}
