//! The gate of a queue: holds the tasks that are due soon, and publishes each to the ready queue at its millisecond.
//!
//! Every process with a subscription on the queue has a gate. The broker delivers to one of them at a time (single
//! active consumer). A gate acknowledges nothing that it holds, so its successor gets all of it:
//!
//! 1. A message arrives and is held ([`hold`]), unacknowledged.
//! 2. When it is due, the gate publishes it to the ready queue, in waves: all due messages, in order.
//! 3. After the broker has confirmed a wave, the gate acknowledges its messages; with many messages, somewhat later
//!    ([`acks`]).
//!
//! If a gate dies between 2 and 3, its successor publishes the messages again, as duplicates. A gate that only lost its
//! channel remembers what was confirmed, and does not publish it again.

mod acks;
mod hold;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use delayline_backend_kit::Backoff;
use delayline_core::{Error, ErrorKind, QueueName, Result, meter};
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicQosOptions};
use lapin::{Channel, Consumer};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use self::acks::{Acks, Copied, STEPS_MAX};
use self::hold::{Arrived, Hold, Leaving, Tag};
use crate::codec::kind::Kind;
use crate::codec::message::Message;
use crate::limits::{LEVEL_MS, NAME};
use crate::store::Store;
use crate::transport::asking::{answered, in_time, settle_down};
use crate::transport::publisher::Publisher;
use crate::transport::{driver, failure};

/// Maximum number of messages in a wave, which are published before their confirmations are awaited.
const WAVE_MAX: usize = 1_000;

/// Maximum number of messages that are received before due messages are published again.
const SUBSCRIPTION_MAX: usize = 1_000;

/// Maximum number of remembered messages that were published but could not be acknowledged.
const CONFIRMED_MAX: usize = 100_000;

/// Maximum sleep, after which a step of the clock is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(10);

/// Time that closing waits for a wave under way.
const CLOSE_MAX: Duration = Duration::from_millis(900);

/// Pause before the next acknowledgements are sent, if some had to wait.
const BEHIND: Duration = Duration::from_millis(20);

/// The gate of a process for a queue. Dropping it ends it in the background and returns what it holds.
pub(crate) struct Gate {
    /// Ends the work when it is set or dropped.
    stop: watch::Sender<bool>,
    /// Turns true when the tasks that were overdue at the start are in the ready queue.
    begun: watch::Receiver<bool>,
    /// Whether a caller has already waited for that.
    waited: bool,
    work: Option<JoinHandle<()>>,
}

impl Gate {
    /// Starts a gate. It registers as one of the queue's consumers, of which the broker serves one at a time.
    pub(crate) fn start(store: Arc<Store>, queue: QueueName) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (begins, begun) = watch::channel(false);
        let work = tokio::spawn(Work::new(store, queue, begins).run(stopped));
        Self { stop, begun, waited: false, work: Some(work) }
    }

    /// Waits until the tasks that were overdue at the start are in the ready queue, if this gate is the active one, but
    /// at most `at_most`. It waits only once, so that a gate that can't start delays only one call.
    pub(crate) async fn begun(&mut self, at_most: Duration) {
        if !std::mem::replace(&mut self.waited, true) {
            // The caller goes on in any case: started, ended, or timed out.
            let _ = timeout(at_most, self.begun.wait_for(|begun| *begun)).await;
        }
    }

    /// Returns everything that the gate holds, and ends it.
    ///
    /// # Cancel safety
    /// If the call is dropped, the gate ends in the background.
    pub(crate) async fn close(mut self) {
        self.stop.send_replace(true);
        if let Some(mut work) = self.work.take()
            && timeout(CLOSE_MAX, &mut work).await.is_err()
        {
            // The broker does not answer. Unacknowledged messages return to the queue with the channel.
            work.abort();
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// The state of a gate that outlives its channels.
struct Work {
    store: Arc<Store>,
    queue: QueueName,
    /// A publisher for this gate: due tasks must not wait for calls that schedule.
    publisher: Publisher,
    /// Messages that were published and confirmed, but not acknowledged before the channel was lost.
    confirmed: HashSet<Copied>,
    begins: watch::Sender<bool>,
}

impl Work {
    fn new(store: Arc<Store>, queue: QueueName, begins: watch::Sender<bool>) -> Self {
        let publisher = Publisher::new(store.config.clone(), store.publishing.clone());
        Self { store, queue, publisher, confirmed: HashSet::new(), begins }
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let (mut backoff, mut failing) = (Backoff::new(), false);
        let mut closing = self.store.lifecycle.closing();
        loop {
            let served = tokio::select! {
                biased;
                () = told(&mut stop) => return,
                () = told(&mut closing) => return,
                opened = Session::open(&self.store, &self.queue) => opened,
            };
            let e = match served {
                Ok(mut session) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(queue = %self.queue, "the gate works again");
                    }
                    backoff.succeeded();
                    match session.serve(&mut self, &mut stop, &mut closing).await {
                        Ok(()) => return session.close(&mut self).await,
                        Err(e) => {
                            self.remember(session.acks.copies());
                            e
                        }
                    }
                }
                Err(e) if e.kind() == ErrorKind::Closed => return,
                Err(e) => e,
            };
            if !std::mem::replace(&mut failing, true) {
                tracing::warn!(queue = %self.queue, error = %e, "the gate lost its channel, opening another one");
            }
            tokio::select! {
                () = told(&mut stop) => return,
                () = told(&mut closing) => return,
                () = sleep(backoff.failed()) => {}
            }
        }
    }

    /// Remembers messages that will arrive again although they are in the ready queue.
    fn remember(&mut self, copies: impl IntoIterator<Item = Copied>) {
        let room = CONFIRMED_MAX.saturating_sub(self.confirmed.len());
        self.confirmed.extend(copies.into_iter().take(room));
    }
}

/// Returns when `stop` is set or its sender is dropped.
async fn told(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender was dropped.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The state of a gate on one channel. When the channel ends, the held messages return to the queue.
struct Session {
    store: Arc<Store>,
    queue: QueueName,
    /// Name of the gate's queue at the broker.
    name: String,
    channel: Channel,
    consumer: Consumer,
    hold: Hold,
    /// All messages that arrived and are not acknowledged.
    acks: Acks,
    /// Messages that could not be published yet.
    leaving: Vec<Leaving>,
    /// After a failed attempt, the time before which nothing is published.
    backoff: Backoff,
}

impl Session {
    async fn open(store: &Arc<Store>, queue: &QueueName) -> Result<Self> {
        store.topology.ensure(queue).await?;
        let channel = store.consuming.channel().await?;
        let hold_max = store.config.hold_max;
        let asked = channel.basic_qos(hold_max, BasicQosOptions::default());
        answered(&store.config, "opening a gate", false, asked).await?;
        let margin_ms = i64::try_from(store.config.margin.as_millis()).unwrap_or(i64::MAX);
        let far_ms = margin_ms.saturating_add(2 * LEVEL_MS.cast_signed());
        let name = store.names.gate(queue);
        Ok(Self {
            consumer: consume(store, &channel, &name).await?,
            name,
            store: store.clone(),
            queue: queue.clone(),
            channel,
            hold: Hold::new(hold_max.into(), store.config.hold_bytes_max, far_ms),
            acks: Acks::default(),
            leaving: Vec::new(),
            backoff: Backoff::new(),
        })
    }

    /// Runs until `stop` is set or something fails.
    async fn serve(
        &mut self,
        work: &mut Work,
        stop: &mut watch::Receiver<bool>,
        closing: &mut watch::Receiver<bool>,
    ) -> Result<()> {
        self.gather(work).await?;
        self.let_go(work, stop).await?;
        work.begins.send_replace(true);
        loop {
            let mut wait = self.hold.next_ms().map_or(SLEEP_MAX, |ms| self.store.time.until(ms)).min(SLEEP_MAX);
            if let Some(until) = self.backoff.not_before() {
                wait = until.saturating_duration_since(Instant::now());
            }
            if self.acks.is_behind() {
                wait = wait.min(BEHIND);
            }
            tokio::select! {
                biased;
                () = told(stop) => return Ok(()),
                () = told(closing) => return Ok(()),
                came = self.consumer.next() => self.take_in(work, came).await?,
                () = sleep(wait) => {
                    if wait == SLEEP_MAX {
                        self.hold.forget_recalled();
                    }
                }
            }
            let ended = self.hold.ended(self.store.time.now_ms());
            self.acknowledge(work, ended, STEPS_MAX).await?;
            self.let_go(work, stop).await?;
        }
    }

    /// Receives all messages that are in the queue before it publishes any, so that overdue messages leave in order.
    async fn gather(&mut self, work: &mut Work) -> Result<()> {
        answered(&self.store.config, "opening a gate", false, settle_down(&self.channel, &self.name)).await?;
        while let Some(came) = self.consumer.next().now_or_never() {
            self.take_in(work, came).await?;
        }
        Ok(())
    }

    /// Receives the messages that have arrived.
    async fn take_in(&mut self, work: &mut Work, first: Option<lapin::Result<Delivery>>) -> Result<()> {
        let mut came = Some(first);
        let (mut done, mut taken) = (Vec::new(), 0);
        while let Some(next) = came {
            let delivery = match next {
                Some(Ok(delivery)) => delivery,
                Some(Err(e)) => return Err(failure::failed("holding tasks", &e, false)),
                None => {
                    self.store.topology.forget().await;
                    return Err(Error::new(ErrorKind::Unavailable, format!("queue `{}` was deleted", self.name)));
                }
            };
            done.extend(self.arrived(work, delivery).await?);
            taken += 1;
            // Every message from the stream must be handled: an acknowledgement of a later one covers it.
            came = if taken < SUBSCRIPTION_MAX { self.consumer.next().now_or_never() } else { None };
        }
        self.acknowledge(work, done, STEPS_MAX).await
    }

    /// Receives one message. Returns the tags of messages that are done.
    async fn arrived(&mut self, work: &mut Work, delivery: Delivery) -> Result<Vec<Tag>> {
        let tag = delivery.delivery_tag;
        self.acks.arrived(tag);
        let payload = Bytes::from(delivery.data);
        let message = match Message::read(&delivery.properties, payload.clone()) {
            Ok(message) if !matches!(message.kind, Kind::Dead { .. }) => message,
            other => {
                let why = other.err().map_or("it is a dead letter", |foreign| foreign.0);
                if self.store.outbox.quarantine(&self.name, why, &delivery.properties, payload).await {
                    return Ok(vec![tag]);
                }
                return Err(Error::new(ErrorKind::Unavailable, "could not quarantine a foreign message"));
            }
        };
        if delivery.redelivered && work.confirmed.remove(&copied(&message)) {
            return Ok(vec![tag]);
        }
        Ok(match self.hold.arrived(tag, message, self.store.time.now_ms()) {
            Arrived::Held => Vec::new(),
            Arrived::Done(tags) => tags,
            Arrived::Leaves(leaving) => {
                self.leaving.push(*leaving);
                Vec::new()
            }
            Arrived::Recalled(tags) => {
                self.recall(tags).await?;
                Vec::new()
            }
        })
    }

    /// Publishes messages that are due or must go back into the levels, in waves, until there are none left.
    async fn let_go(&mut self, work: &mut Work, stop: &watch::Receiver<bool>) -> Result<()> {
        if self.backoff.not_before().is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        loop {
            let now_ms = self.store.time.now_ms();
            let mut wave = std::mem::take(&mut self.leaving);
            let due = self.hold.due(now_ms, WAVE_MAX.saturating_sub(wave.len()));
            wave.extend(due.leaving);
            self.recall(due.recalled).await?;
            if wave.is_empty() {
                return Ok(());
            }
            let full = wave.len() >= WAVE_MAX;
            self.wave(work, wave).await?;
            // A message that arrived during the wave may be due before the held ones.
            if !full || !self.leaving.is_empty() || *stop.borrow() {
                return Ok(());
            }
        }
    }

    async fn wave(&mut self, work: &mut Work, wave: Vec<Leaving>) -> Result<()> {
        let store = &self.store;
        let out = wave.iter().map(|leaving| match leaving.due {
            true => store.outbox.to_queue(store.names.ready(&self.queue), &leaving.message),
            false => store.outbox.route(&self.queue, &leaving.message),
        });
        let answers = store.outbox.publish_by(&work.publisher, &self.queue, out.collect()).await;
        let mut failed = None;
        for (leaving, answer) in wave.into_iter().zip(answers) {
            match answer {
                Ok(()) => {
                    let copied = copied(&leaving.message);
                    leaving.tags.iter().for_each(|tag| self.acks.done(*tag, Some(copied)));
                }
                Err(e) => {
                    failed.get_or_insert(e);
                    self.leaving.push(leaving);
                }
            }
        }
        match failed {
            None => self.backoff.succeeded(),
            Some(e) => {
                let e = e.into_error("publishing due tasks");
                if self.backoff.not_before().is_none() {
                    tracing::warn!(queue = %self.queue, error = %e, "due tasks are late, trying to publish them again");
                }
                self.backoff.failed();
            }
        }
        self.acknowledge(work, Vec::new(), STEPS_MAX).await
    }

    /// Adds these tags to the messages that are done, and acknowledges as many as one round allows.
    async fn acknowledge(&mut self, work: &mut Work, done: Vec<Tag>, steps_max: usize) -> Result<()> {
        done.into_iter().for_each(|tag| self.acks.done(tag, None));
        let round = self.acks.round(steps_max);
        let acknowledged =
            round.tags.into_iter().map(|(tag, multiple)| self.channel.basic_ack(tag, BasicAckOptions { multiple }));
        let sending = async { driver::send_all(acknowledged).await.into_iter().collect::<lapin::Result<()>>() };
        let sent = in_time(&self.store.config, "acknowledging at the gate", false, sending).await;
        if sent.is_err() {
            work.remember(round.copies);
        }
        sent
    }

    /// Returns messages to the broker, which delivers them again, with their payload.
    async fn recall(&mut self, tags: Vec<Tag>) -> Result<()> {
        for tag in tags {
            self.acks.recalled(tag);
            let options = BasicNackOptions { multiple: false, requeue: true };
            let giving = self.channel.basic_nack(tag, options);
            in_time(&self.store.config, "recalling a task", false, giving).await?;
        }
        Ok(())
    }

    async fn close(mut self, work: &mut Work) {
        // Messages that can't be acknowledged are delivered again.
        let _ = self.acknowledge(work, Vec::new(), usize::MAX).await;
        // All unacknowledged messages return to the queue.
        let closed = self.channel.close(200, "the gate is closed".into());
        // Dropping the channel also closes it. This only waits.
        let _ = timeout(CLOSE_MAX, closed).await;
    }
}

async fn consume(store: &Store, channel: &Channel, name: &str) -> Result<Consumer> {
    let doing = "consuming from a gate";
    meter::round_trip(NAME);
    let asked = driver::consume(channel, name, store.consuming.consumer_arguments());
    match timeout(store.config.response_timeout, asked).await {
        Ok(Ok(consumer)) => Ok(consumer),
        Ok(Err(e)) => {
            // An operator may have deleted the queue.
            store.topology.forget().await;
            Err(failure::failed(doing, &e, false))
        }
        Err(_) => Err(failure::silent(doing, &store.config, false)),
    }
}

fn copied(message: &Message) -> Copied {
    (message.number, message.fence, message.due_ms)
}
