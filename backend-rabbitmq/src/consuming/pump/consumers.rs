//! Consumes as many messages as are wanted, queries the queue, and stops without lost messages or counted attempts.

use std::time::Duration;

use delayline_core::{QueueName, Result};
use futures_util::StreamExt;
use lapin::options::{BasicCancelOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions, ConfirmSelectOptions};
use lapin::types::DeliveryTag;
use tokio::time::{Instant, sleep, timeout_at};

use super::arrivals::{NO_CONSUMER, Pump};
use crate::codec::message::Message;
use crate::consuming::line::Line;
use crate::store::Store;
use crate::transport::asking::{answered, settle_down};
use crate::transport::driver;
use crate::transport::publisher::Outgoing;

/// Number of full consumers that are kept, because they receive again after acknowledgements.
const FULL_MAX: usize = 3;

/// Pauses between attempts to read the registry while another client reads it.
const MARKER_PAUSES: [Duration; 6] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
];

/// Time limit for filling the consumers. After it, they are cancelled in any case.
const FILLING_MAX: Duration = Duration::from_secs(2);

/// Maximum number of markers that are published at once to fill consumers.
const FILL_MAX: usize = 2_000;

/// Time that a marker stays in a queue, in milliseconds.
const MARKER_MS: u32 = 10_000;

/// Room of the first consumer, in messages, if more are wanted. Each further consumer has four times the room.
const STEP: usize = 32;

impl Pump {
    /// Adds a consumer with room for this many messages, or fewer: unused room must be filled before the consumer may
    /// be cancelled. The broker can't increase the room of an existing consumer.
    pub(super) async fn consume(&mut self, room: usize) -> Result<()> {
        let full =
            |line: &Line| line.consumers().into_iter().filter(|(_, full)| *full).map(|(n, _)| n).collect::<Vec<u64>>();
        let room = room.min(STEP << (2 * full(&self.line).len().min(FULL_MAX)));
        if full(&self.line).len() > FULL_MAX {
            // No message can be under way to full consumers while nothing is acknowledged.
            let line = self.line.clone();
            let _no_acknowledgements = line.acknowledges.write().await;
            self.cancel(&full(&line)).await?;
        }
        let (channel, queue) = (self.channel.clone(), self.store.names.ready(&self.line.queue));
        let prefetch = u16::try_from(room).unwrap_or(u16::MAX);
        let store = self.store.clone();
        let started = answered(&store.config, "consuming", false, async {
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            driver::consume(&channel, &queue, store.consuming.consumer_arguments()).await
        });
        let stream = match started.await {
            Ok(stream) => stream,
            Err(e) => {
                // An operator may have deleted the queue.
                self.store.topology.forget().await;
                return Err(e);
            }
        };
        let number = self.line.new_consumer(usize::from(prefetch));
        self.tags.insert(number, stream.tag());
        let end = futures_util::stream::iter([(number, None)]);
        self.streams.push(stream.map(move |came| (number, Some(came))).chain(end).boxed());
        Ok(())
    }

    /// Stops consuming, and receives the messages that are under way. Nothing may be acknowledged in the meantime.
    pub(super) async fn cancel_all(&mut self) -> Result<()> {
        if self.tags.is_empty() {
            return Ok(());
        }
        let filled = self.fill().await?;
        let all: Vec<u64> = self.tags.keys().copied().collect();
        self.cancel(&all).await?;
        if filled { Ok(()) } else { self.find_missed().await }
    }

    /// Fills the consumers with markers, and returns whether all consumers are full.
    ///
    /// A message that is under way to a consumer when it is cancelled returns to the queue, and brokers before 4.0
    /// count a failed attempt for it. No message can be under way to a full consumer.
    async fn fill(&mut self) -> Result<bool> {
        let (ends, came_before) = (Instant::now() + FILLING_MAX, self.markers);
        let mut sent = 0;
        loop {
            let all = self.settle_down().await?;
            self.take_in_all();
            let room = self.line.room();
            if room == 0 {
                return Ok(true);
            }
            let share = usize::try_from(all).unwrap_or(1).div_ceil(self.tags.len());
            let on_the_way = sent - (self.markers - came_before).min(sent);
            let n = match share {
                // The markers arrive once the queue has processed the acknowledgements that made the room.
                0 | 1 => room.saturating_sub(on_the_way),
                // The broker spreads the markers over all consumers of the queue, and not all of them have room.
                _ => room.saturating_mul(share),
            };
            if Instant::now() >= ends {
                return Ok(false);
            }
            let n = n.min(FILL_MAX);
            sent += n;
            match timeout_at(ends, publish_markers(&self.store, &self.line.queue, n)).await {
                Ok(true) => {}
                // The broker accepts no messages now.
                Ok(false) | Err(_) => return Ok(false),
            }
        }
    }

    async fn cancel(&mut self, consumers: &[u64]) -> Result<()> {
        for number in consumers {
            let Some(tag) = self.tags.remove(number) else { continue };
            let (store, channel) = (self.store.clone(), self.channel.clone());
            answered(
                &store.config,
                "cancelling a consumer",
                false,
                channel.basic_cancel(tag, BasicCancelOptions::default()),
            )
            .await?;
            self.take_in_all();
            self.line.end_consumer(*number);
        }
        Ok(())
    }

    /// Waits until everything that the queue has sent has arrived, and returns the number of its consumers.
    pub(super) async fn settle_down(&mut self) -> Result<u32> {
        let (store, channel) = (self.store.clone(), self.channel.clone());
        let queue = store.names.ready(&self.line.queue);
        Ok(answered(&store.config, "checking the queue", false, settle_down(&channel, &queue)).await?.consumer_count())
    }

    /// Receives the messages that the queue has for this process: one by `basic.get`, and those for the consumers. The
    /// queue processes a `basic.get` after all earlier requests, such as acknowledgements that make room. This does not
    /// hold for a query of its state.
    pub(super) async fn look_in_the_queue(&mut self) -> Result<()> {
        // A separate channel, because the delivery tags of the main channel are checked for gaps.
        let getting = match &self.getting {
            Some(getting) => getting.clone(),
            None => {
                let getting = self.store.consuming.channel().await?;
                self.line.set_getting(getting.clone());
                self.getting.insert(getting).clone()
            }
        };
        let (store, channel) = (self.store.clone(), self.channel.clone());
        let ready = store.names.ready(&self.line.queue);
        let asked = async {
            let got = getting.basic_get(ready.into(), BasicGetOptions::default()).await?;
            // When this is answered, everything that was sent to consumers before has arrived.
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(got)
        };
        let got = answered(&store.config, "checking the queue", false, asked).await?;
        if let Some(got) = got {
            if store.consuming.counts_no_returns() {
                // A policy could end a lease on this message. Return it: a consumer receives it again, and that costs
                // no attempt.
                let back = getting.basic_nack(got.delivery_tag, BasicNackOptions { multiple: false, requeue: true });
                answered(&store.config, "checking the queue", false, back).await?;
                if self.line.short().is_none() {
                    self.settle_down().await?;
                }
            } else {
                self.take_in((NO_CONSUMER, Some(Ok(got.delivery))));
            }
        }
        self.take_in_all();
        Ok(())
    }

    /// Makes sure that the queue has received all acknowledgements on the channel, so that it may be closed.
    ///
    /// A channel of the broker sends only a few acknowledgements to a queue at a time. It keeps the others until those
    /// are processed, and drops them when it closes. The answer to a `basic.get` arrives after the sent ones are
    /// processed. The others are sent before the answer to the next request. A message from the `basic.get` is returned
    /// as well.
    pub(super) async fn see_off_acknowledgements(&mut self) -> Result<()> {
        let (store, channel) = (self.store.clone(), self.channel.clone());
        let ready = store.names.ready(&self.line.queue);
        let asked = channel.basic_get(ready.into(), BasicGetOptions::default());
        if let Some(got) = answered(&store.config, "checking the queue", false, asked).await? {
            self.take_in_from(channel.clone(), NO_CONSUMER, got.delivery);
            self.be_done_with_nothing();
            let got = self.line.take_pool();
            self.give_back(got);
            while self.leaving.join_next().await.is_some() {}
        }
        answered(&store.config, "checking the queue", false, channel.confirm_select(ConfirmSelectOptions::default()))
            .await
    }

    /// Returns messages that arrived after their consumer was cancelled, which the driver drops. A message from the
    /// registry shows how many deliveries there were on the channel.
    async fn find_missed(&mut self) -> Result<()> {
        let Some(marker) = self.marker().await? else {
            tracing::warn!(queue = %self.line.queue, "registry is empty, missed deliveries return with the channel");
            return Ok(());
        };
        self.take_in_all();
        self.note(marker);
        let missed: Vec<DeliveryTag> = (self.known + 1..marker).filter(|tag| !self.came.contains(tag)).collect();
        if !missed.is_empty() {
            tracing::warn!(queue = %self.line.queue, n = missed.len(), "returning deliveries of cancelled consumers");
        }
        let (store, channel) = (self.store.clone(), self.channel.clone());
        let back = async {
            for tag in missed {
                channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue: true }).await?;
            }
            channel.basic_nack(marker, BasicNackOptions { multiple: false, requeue: true }).await
        };
        answered(&store.config, "returning missed deliveries", false, back).await?;
        if marker > self.known {
            self.came = self.came.split_off(&(marker + 1));
            self.known = marker;
            self.go_on();
        }
        Ok(())
    }

    /// Takes a message from the registry, which must be returned. Returns its delivery tag.
    async fn marker(&mut self) -> Result<Option<DeliveryTag>> {
        let (store, channel) = (self.store.clone(), self.channel.clone());
        for pause in MARKER_PAUSES {
            let registry = store.names.registry();
            let asked = channel.basic_get(registry.into(), BasicGetOptions::default());
            if let Some(marker) = answered(&store.config, "looking for missed deliveries", false, asked).await? {
                return Ok(Some(marker.delivery_tag));
            }
            // Another client has the message for a moment.
            sleep(pause).await;
        }
        Ok(None)
    }
}

/// Publishes `n` markers to a queue's ready queue, and returns whether all were confirmed. Markers that nobody receives
/// expire.
async fn publish_markers(store: &Store, queue: &QueueName, n: usize) -> bool {
    let marker = |_| {
        let message = Message::marker(store.ids.number(), store.ids.task_id());
        let mut outgoing = store.outbox.to_queue(store.names.ready(queue), &message);
        outgoing.properties = outgoing.properties.with_expiration(MARKER_MS.to_string().into());
        outgoing
    };
    let markers: Vec<Outgoing> = (0..n).map(marker).collect();
    store.outbox.publisher.publish(&markers).await.iter().all(Result::is_ok)
}
