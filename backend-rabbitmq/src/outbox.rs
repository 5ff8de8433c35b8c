//! Routes and publishes messages. Messages that were unroutable or refused are published again, and foreign messages
//! are quarantined, where an operator finds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use delayline_core::QueueName;
use lapin::BasicProperties;
use tokio::time::sleep;

use crate::codec::kind::Kind;
use crate::codec::message::{self, Message};
use crate::config::RabbitConfig;
use crate::limits::{LEVEL_MS, SOON_MS};
use crate::names::Names;
use crate::time::Time;
use crate::topology::Topology;
use crate::transport::publisher::{NotPublished, Outgoing, Publisher};
use crate::way::Way;

/// Pauses before a refused message is published again.
const REFUSED_PAUSES: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(400)];

#[derive(Debug)]
pub(crate) struct Outbox {
    config: Arc<RabbitConfig>,
    names: Names,
    topology: Arc<Topology>,
    pub(crate) publisher: Publisher,
    time: Time,
    slot: AtomicU64,
    /// Number of quarantined foreign or corrupt messages that no claim has reported yet.
    quarantined: AtomicU64,
}

impl Outbox {
    pub(crate) fn new(
        config: Arc<RabbitConfig>,
        names: Names,
        topology: Arc<Topology>,
        publisher: Publisher,
        first_slot: u64,
    ) -> Self {
        Self {
            config,
            names,
            topology,
            publisher,
            time: Time::default(),
            slot: AtomicU64::new(first_slot),
            quarantined: AtomicU64::new(0),
        }
    }

    /// The destination of a pending task: the ready queue, the gate, or the levels.
    pub(crate) fn route(&self, queue: &QueueName, message: &Message) -> Outgoing {
        let mut left_ms = message.due_ms.saturating_sub(self.time.now_ms());
        let is_tombstone = matches!(message.kind, Kind::Tombstone { .. });
        if is_tombstone {
            // A tombstone goes one step ahead of its task, and never to the ready queue, where no gate would read it.
            left_ms = left_ms.saturating_sub(LEVEL_MS.cast_signed()).max(1);
        }
        let margin_ms = i64::try_from(self.config.margin.as_millis()).unwrap_or(i64::MAX);
        let ticks = u64::try_from((left_ms - margin_ms).max(0)).unwrap_or(0) / LEVEL_MS;
        // A shift may move a task beyond the maximum delay. It passes through the levels again when it leaves them.
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

    /// A message that goes directly to a queue of the broker.
    pub(crate) fn to_queue(&self, name: String, message: &Message) -> Outgoing {
        Outgoing {
            exchange: "".into(),
            routing_key: name.into(),
            properties: message.properties(),
            payload: message.payload.clone(),
        }
    }

    /// Publishes messages of a queue. Declares the topology again for unroutable messages, because an operator may have
    /// deleted a part of it, and publishes them again. Publishes messages that the broker refused again after a pause.
    ///
    /// # Cancel safety
    /// A dropped call may have published a part of the batch. Call it from a task that is not dropped.
    pub(crate) async fn publish(&self, queue: &QueueName, batch: Vec<Outgoing>) -> Vec<Result<(), NotPublished>> {
        self.publish_by(&self.publisher, queue, batch).await
    }

    /// Like [`publish`](Self::publish), with a custom publisher.
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
            if let Err(e) = self.topology.ensure(queue).await {
                answers.iter_mut().filter(|answer| unroutable(answer)).for_each(|answer| {
                    *answer = Err(NotPublished::Failed(e.clone()));
                });
                return answers;
            }
            publish_again(publisher, &batch, &mut answers, unroutable).await;
        }
        // A queue refuses messages for a moment while it is created or elects a leader. A refused message was not
        // accepted.
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

    /// Quarantines a foreign or corrupt message, so that an operator finds it. Afterwards, it may be acknowledged.
    pub(crate) async fn quarantine(
        &self,
        found_in: &str,
        why: &str,
        properties: &BasicProperties,
        payload: Bytes,
    ) -> bool {
        tracing::warn!(queue = found_in, why, "quarantined a message that is not in the format of delayline");
        let message = Outgoing {
            exchange: "".into(),
            routing_key: self.names.quarantined().into(),
            properties: message::kept(properties),
            payload,
        };
        let done = self.publisher.publish(&[message]).await.iter().all(Result::is_ok);
        if done {
            self.quarantined.fetch_add(1, Ordering::Relaxed);
        } else {
            self.topology.forget().await;
        }
        done
    }

    /// Number of messages that were quarantined since the last call.
    pub(crate) fn take_quarantined(&self) -> u64 {
        self.quarantined.swap(0, Ordering::Relaxed)
    }
}

/// Publishes the messages of a batch with this answer again, and replaces their answers.
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
