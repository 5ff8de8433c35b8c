//! What a backend, its intakes and its gates have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use delayline_core::{Capabilities, Clock, Due, Error, ErrorKind, QueueName, Result, SystemClock, TaskId, Timestamp};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use uuid::{Builder, Uuid};

use crate::config::LEVEL_MS;
use crate::connection::Link;
use crate::greeting::Version;
use crate::lines::Lines;
use crate::message::{self, Kind, Message};
use crate::names::Names;
use crate::publisher::{NotPublished, Outgoing, Publisher};
use crate::topology::Topology;
use crate::way::Way;
use crate::{RabbitConfig, capabilities, strays};

/// How long to wait before a message that was refused is published again.
const REFUSED_PAUSES: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(400)];

/// What is due so many milliseconds from now goes to the ready queue, and is not handed out before: most of what is due at
/// once, its time being rounded up.
pub(crate) const SOON_MS: i64 = 1;

/// The first version that does.
const COUNTS_NO_RETURNS: Version = Version::new(4, 3);

/// How long a message that means nothing stays in a queue.
const MARKER_MS: u32 = 10_000;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<RabbitConfig>,
    pub(crate) caps: Capabilities,
    pub(crate) names: Names,
    /// For what is consumed and acknowledged, and for the topology.
    pub(crate) consuming: Arc<Link>,
    /// For what is published: a broker short of memory or disk stops reading from it.
    pub(crate) publishing: Arc<Link>,
    pub(crate) publisher: Publisher,
    pub(crate) topology: Arc<Topology>,
    /// A number for leases of this backend, which no other has.
    pub(crate) instance: u64,
    pub(crate) lines: Lines,
    /// Held by who reads dead letters.
    pub(crate) reading: tokio::sync::Mutex<()>,
    pub(crate) strays: strays::Place,
    clock: SystemClock,
    random: Mutex<fastrand::Rng>,
    /// The last sequence and the last fence that were given.
    seq: AtomicU64,
    fence: AtomicU64,
    slot: AtomicU64,
    /// How many foreign or corrupt messages were set aside here, until a claim tells.
    set_aside: AtomicU64,
    closed: AtomicBool,
    /// Turns true when the backend is closed, for those who wait.
    closing: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(config: RabbitConfig) -> Self {
        let config = Arc::new(config);
        let consuming = Arc::new(Link::new(config.clone(), "consuming"));
        let publishing = Arc::new(Link::new(config.clone(), "publishing"));
        Self {
            caps: capabilities::of(&config),
            names: Names::new(&config),
            publisher: Publisher::new(config.clone(), publishing.clone()),
            topology: Arc::new(Topology::new(config.clone(), consuming.clone(), publishing.clone())),
            consuming,
            publishing,
            config,
            instance: Uuid::new_v4().as_u64_pair().1,
            lines: Lines::default(),
            reading: tokio::sync::Mutex::default(),
            strays: strays::Place::default(),
            clock: SystemClock::new(),
            // A number that is given twice loses a task, so it comes from the system's randomness.
            random: Mutex::new(fastrand::Rng::with_seed(Uuid::new_v4().as_u64_pair().1)),
            seq: AtomicU64::new(0),
            fence: AtomicU64::new(0),
            slot: AtomicU64::new(Uuid::new_v4().as_u64_pair().1),
            set_aside: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            closing: watch::Sender::new(false),
        }
    }

    /// # Errors
    /// [`Closed`](ErrorKind::Closed) after `close`.
    pub(crate) fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the RabbitMQ backend was closed"));
        }
        Ok(())
    }

    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.send_replace(true);
    }

    /// Tells when the backend is closed.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// The wall clock in milliseconds, rounded down: what is due at it is due.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.wall().unix_millis_floor()
    }

    /// The wall clock's time, so much later.
    pub(crate) fn wall_in(&self, time: Duration) -> Timestamp {
        self.clock.wall().saturating_add(time)
    }

    /// When a lease ends that begins now, on both clocks: at a whole millisecond of the wall clock.
    pub(crate) fn end_of_lease(&self, now: Instant, lease: Duration) -> (Instant, Timestamp) {
        let wall = self.clock.wall();
        let ends = Timestamp::from_unix_millis(wall.saturating_add(lease).unix_millis_ceil());
        (now + ends.saturating_since(wall), ends)
    }

    /// How long a message may be held in all: a broker closes the channel when its `consumer_timeout` is over.
    pub(crate) fn hold_max(&self) -> Duration {
        self.config.lease_max + self.config.lease_max / 8
    }

    /// What each consumer is begun with.
    ///
    /// From RabbitMQ 4.3 on, a consumer that has a message for too long loses it, with no attempt counted, and what it asks for itself
    /// counts more than any policy or setting. Before, the setting alone counts, as it does for a message that was asked for.
    pub(crate) fn consumer_arguments(&self) -> FieldTable {
        let mut table = FieldTable::default();
        if self.counts_no_returns() {
            // Whoever is gone is found by his heartbeats, and whoever holds a lease ends it in time.
            let ms = i64::try_from(2 * self.hold_max().as_millis()).unwrap_or(i64::MAX);
            table.insert("x-consumer-timeout".into(), AMQPValue::LongLongInt(ms));
        }
        table
    }

    /// Whether the broker counts no attempt for what a consumer gives back, or had for too long: of RabbitMQ 4.3 or newer.
    pub(crate) fn counts_no_returns(&self) -> bool {
        self.consuming.version().is_some_and(|version| version >= COUNTS_NO_RETURNS)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.clock.wall().unix_micros()).unwrap_or(0)
    }

    /// The first of `n` sequences that nobody here has had, about the time in microseconds.
    pub(crate) fn sequences(&self, n: usize) -> u64 {
        self.rising(&self.seq, n as u64)
    }

    /// A fence above `last` and above all that were given here.
    pub(crate) fn fence_above(&self, last: u64) -> u64 {
        self.fence.fetch_max(last, Ordering::Relaxed);
        self.rising(&self.fence, 1)
    }

    /// The first of `n` numbers above the last that was given and not below the time in microseconds.
    fn rising(&self, last: &AtomicU64, n: u64) -> u64 {
        let now = self.now_us();
        let end = |last: u64| Some((last + 1).max(now) + n - 1);
        let before = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, end).unwrap_or(0);
        (before + 1).max(now)
    }

    /// A UUIDv7.
    pub(crate) fn fresh_id(&self) -> TaskId {
        let random = self.fresh_number().to_be_bytes();
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&random[..10]);
        let ms = u64::try_from(self.now_ms()).unwrap_or(0);
        TaskId::from_uuid(Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid())
    }

    /// A number that nobody else has.
    pub(crate) fn fresh_number(&self) -> u128 {
        self.random.lock().u128(..)
    }

    /// The millisecond, rounded up, at which what is accepted now falls due.
    ///
    /// # Errors
    /// [`OutOfRange`](ErrorKind::OutOfRange).
    pub(crate) fn due_ms(&self, due: Due) -> Result<i64> {
        self.caps.check_delay(due)?;
        let now = self.clock.wall();
        let at = match due {
            Due::After(delay) => now.saturating_add(delay),
            Due::At(at) => at,
        };
        if at.saturating_since(now) > self.caps.delay_max {
            return Err(self.caps.out_of_range());
        }
        Ok(at.unix_millis_ceil())
    }

    /// Where a task goes that waits until it is due: to the ready queue, to the gate, or into the levels.
    pub(crate) fn route(&self, queue: &QueueName, message: &Message) -> Outgoing {
        let mut left_ms = message.due_ms.saturating_sub(self.now_ms());
        let is_tombstone = matches!(message.kind, Kind::Tombstone { .. });
        if is_tombstone {
            // One step ahead of its task, and never to where there is nobody to read it.
            left_ms = left_ms.saturating_sub(LEVEL_MS.cast_signed()).max(1);
        }
        let margin_ms = i64::try_from(self.config.margin.as_millis()).unwrap_or(i64::MAX);
        let ticks = u64::try_from((left_ms - margin_ms).max(0)).unwrap_or(0) / LEVEL_MS;
        // Beyond the largest delay is what was shifted there: it goes round again when it comes out.
        let ticks = ticks.min((1 << self.config.levels) - 1);
        if left_ms <= SOON_MS && !is_tombstone {
            return self.to_queue(self.names.ready(queue), message);
        }
        let slot = self.slot.fetch_add(1, Ordering::Relaxed) % u64::from(self.config.parallel);
        match Way::new(&self.names, u16::try_from(slot).unwrap_or(0), ticks, queue) {
            None => self.to_queue(self.names.gate(queue), message),
            Some(way) => Outgoing {
                properties: message.properties_on(&way.others),
                exchange: way.exchange.into(),
                routing_key: way.routing_key.into(),
                payload: message.payload.clone(),
            },
        }
    }

    /// A message for this very queue of the broker.
    pub(crate) fn to_queue(&self, name: String, message: &Message) -> Outgoing {
        Outgoing {
            exchange: "".into(),
            routing_key: name.into(),
            properties: message.properties(),
            payload: message.payload.clone(),
        }
    }

    /// Puts so many messages that mean nothing into a queue's ready queue, and answers whether that was done. What nobody takes is
    /// gone after a while.
    pub(crate) async fn publish_markers(&self, queue: &QueueName, n: usize) -> bool {
        let marker = |_| {
            let message = Message::marker(self.fresh_number(), self.fresh_id());
            let mut outgoing = self.to_queue(self.names.ready(queue), &message);
            outgoing.properties = outgoing.properties.with_expiration(MARKER_MS.to_string().into());
            outgoing
        };
        self.publisher.publish(&(0..n).map(marker).collect::<Vec<_>>()).await.iter().all(Result::is_ok)
    }

    /// Publishes what belongs to a queue. What finds no way is published again after the topology was made anew: an operator may
    /// have deleted a part of it. So is what the broker refused, a little later.
    ///
    /// # Cancel safety
    /// Dropped, some may have been published: call it from what is not dropped.
    pub(crate) async fn publish(&self, queue: &QueueName, batch: Vec<Outgoing>) -> Vec<Result<(), NotPublished>> {
        self.publish_by(&self.publisher, queue, batch).await
    }

    /// As [`publish`](Self::publish), by a publisher of one's own.
    pub(crate) async fn publish_by(
        &self,
        publisher: &Publisher,
        queue: &QueueName,
        batch: Vec<Outgoing>,
    ) -> Vec<Result<(), NotPublished>> {
        let mut answers = publisher.publish(&batch).await;
        let unroutable = |answer: &Result<(), NotPublished>| matches!(answer, Err(NotPublished::Unroutable));
        if answers.iter().any(unroutable) {
            self.topology.forget().await;
            if let Err(e) = self.ensure(queue).await {
                answers.iter_mut().filter(|answer| unroutable(answer)).for_each(|answer| {
                    *answer = Err(NotPublished::Failed(e.clone()));
                });
                return answers;
            }
            publish_again(publisher, &batch, &mut answers, unroutable).await;
        }
        // A queue that is being made, or elects its leader, refuses for a moment; refused is surely not accepted.
        let refused = |answer: &Result<(), NotPublished>| matches!(answer, Err(NotPublished::Refused));
        for pause in REFUSED_PAUSES {
            if !answers.iter().any(refused) {
                break;
            }
            sleep(pause).await;
            publish_again(publisher, &batch, &mut answers, refused).await;
        }
        answers
    }

    /// Makes sure of everything that a queue needs.
    pub(crate) async fn ensure(&self, queue: &QueueName) -> Result<()> {
        self.topology.base().await?;
        self.topology.queue(queue).await
    }

    /// Puts a message that is not ours, or not whole, where an operator finds it; it may be acknowledged then.
    pub(crate) async fn set_aside(
        &self,
        found_in: &str,
        why: &str,
        properties: &BasicProperties,
        payload: Bytes,
    ) -> bool {
        tracing::warn!(queue = found_in, why, "a foreign message is set aside");
        let message = Outgoing {
            exchange: "".into(),
            routing_key: self.names.set_aside().into(),
            properties: message::kept(properties),
            payload,
        };
        let done = self.publisher.publish(&[message]).await.iter().all(Result::is_ok);
        if done {
            self.set_aside.fetch_add(1, Ordering::Relaxed);
        } else {
            self.topology.forget().await;
        }
        done
    }

    /// How many messages were set aside since this was asked last.
    pub(crate) fn take_set_aside(&self) -> u64 {
        self.set_aside.swap(0, Ordering::Relaxed)
    }

    /// How long until a millisecond comes.
    pub(crate) fn until(&self, ms: i64) -> Duration {
        let left_us = ms.saturating_mul(1000).saturating_sub(self.clock.wall().unix_micros());
        Duration::from_micros(u64::try_from(left_us).unwrap_or(0))
    }
}

/// Publishes those of a batch again whose answer is such, and puts the new answers in the place of the old ones.
async fn publish_again(
    publisher: &Publisher,
    batch: &[Outgoing],
    answers: &mut [Result<(), NotPublished>],
    such: impl Fn(&Result<(), NotPublished>) -> bool,
) {
    let places: Vec<usize> = (0..batch.len()).filter(|&at| such(&answers[at])).collect();
    let again: Vec<Outgoing> = places.iter().map(|&at| batch[at].clone()).collect();
    for (at, answer) in places.into_iter().zip(publisher.publish(&again).await) {
        answers[at] = answer;
    }
}
