//! Where a message goes, and how it gets there: its way is chosen, what could not be routed or was refused is published
//! again, and what is not ours is put where an operator finds it.

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

/// How long to wait before a message that was refused is published again.
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
    /// How many foreign or corrupt messages were quarantined here, until a claim tells.
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

    /// Where a task goes that waits until it is due: to the ready queue, to the gate, or into the levels.
    pub(crate) fn route(&self, queue: &QueueName, message: &Message) -> Outgoing {
        let mut left_ms = message.due_ms.saturating_sub(self.time.now_ms());
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

    /// Publishes what belongs to a queue. What finds no way is published again after the topology was made anew: an
    /// operator may have deleted a part of it. So is what the broker refused, a little later.
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
            if let Err(e) = self.topology.ensure(queue).await {
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

    /// Puts a message that is not ours, or not whole, where an operator finds it; it may be acknowledged then.
    pub(crate) async fn quarantined(
        &self,
        found_in: &str,
        why: &str,
        properties: &BasicProperties,
        payload: Bytes,
    ) -> bool {
        tracing::warn!(queue = found_in, why, "a foreign message is quarantined");
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

    /// How many messages were quarantined since this was asked last.
    pub(crate) fn take_quarantined(&self) -> u64 {
        self.quarantined.swap(0, Ordering::Relaxed)
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
