//! Consuming as much as is wanted, asking the queue, and stopping without a trace.

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

/// How many consumers that have all they may have are kept for when that is acknowledged.
const FULL_MAX: usize = 3;

/// How long to wait for the registry while others look at it.
const MARKER_PAUSES: [Duration; 6] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
];

/// How long it may take to fill the consumers before they are cancelled all the same.
const FILLING_MAX: Duration = Duration::from_secs(2);

/// The most messages that consumers are filled with at once.
const FILL_MAX: usize = 2_000;

/// How long a message that means nothing stays in a queue.
const MARKER_MS: u32 = 10_000;

/// How many messages the first consumer has room for, where more are wanted; each further one has room for four times as many.
const STEP: usize = 32;

impl Pump {
    /// Adds a consumer with room for so many messages, or for a part of them: what nobody takes of that room has to be filled
    /// before it may be cancelled. One that is there is not made larger, which the broker can't do.
    pub(super) async fn consume(&mut self, room: usize) -> Result<()> {
        let full =
            |line: &Line| line.consumers().into_iter().filter(|(_, full)| *full).map(|(n, _)| n).collect::<Vec<u64>>();
        let room = room.min(STEP << (2 * full(&self.line).len().min(FULL_MAX)));
        if full(&self.line).len() > FULL_MAX {
            // Nothing can be on its way to them while nothing is acknowledged.
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

    /// Stops consuming. What had been on its way is taken in. Nothing may be acknowledged meanwhile.
    pub(super) async fn cancel_all(&mut self) -> Result<()> {
        if self.tags.is_empty() {
            return Ok(());
        }
        let filled = self.fill().await?;
        let all: Vec<u64> = self.tags.keys().copied().collect();
        self.cancel(&all).await?;
        if filled { Ok(()) } else { self.find_missed().await }
    }

    /// Fills the consumers with messages that mean nothing, and answers whether nothing more can come by them.
    ///
    /// What is on its way to a consumer when it is cancelled goes back by itself, and brokers before 4.0 count a failed attempt
    /// for it. To a consumer that has all it may have, nothing is on its way.
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
                // They come when the queue has processed what made the room.
                0 | 1 => room.saturating_sub(on_the_way),
                // They are spread over all consumers of the queue, and not all of these have room.
                _ => room.saturating_mul(share),
            };
            if Instant::now() >= ends {
                return Ok(false);
            }
            let n = n.min(FILL_MAX);
            sent += n;
            match timeout_at(ends, publish_markers(&self.store, &self.line.queue, n)).await {
                Ok(true) => {}
                // The broker takes no messages now.
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

    /// Waits until whatever the queue had sent has come, and answers how many consumers it has.
    pub(super) async fn settle_down(&mut self) -> Result<u32> {
        let (store, channel) = (self.store.clone(), self.channel.clone());
        let queue = store.names.ready(&self.line.queue);
        Ok(answered(&store.config, "asking", false, settle_down(&channel, &queue)).await?.consumer_count())
    }

    /// Takes in what the queue holds for us: one message by asking for it, and what comes by consumers. The queue does this
    /// after all that it was told before, such as acknowledgements that make room; looking at its state it would not.
    pub(super) async fn look_in_the_queue(&mut self) -> Result<()> {
        // A channel of its own, whose numbers of deliveries are not those that are looked over for gaps.
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
            // What consumers got before that has come when this is answered.
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(got)
        };
        let got = answered(&store.config, "asking", false, asked).await?;
        if let Some(got) = got {
            if store.consuming.counts_no_returns() {
                // A lease on it would end when a policy says. Given back it comes by a consumer, and that costs no attempt.
                let back = getting.basic_nack(got.delivery_tag, BasicNackOptions { multiple: false, requeue: true });
                answered(&store.config, "asking", false, back).await?;
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

    /// Makes sure that the queue has what was acknowledged on the channel, which may be ended then.
    ///
    /// A broker's channel that has sent a queue more than a few acknowledgements keeps the others until these are
    /// processed, and ends without sending them. A message that is asked for comes after what was sent; what was kept is
    /// sent before the answer to the next request. If there is one, it goes back as well.
    pub(super) async fn see_off_acknowledgements(&mut self) -> Result<()> {
        let (store, channel) = (self.store.clone(), self.channel.clone());
        let ready = store.names.ready(&self.line.queue);
        let asked = channel.basic_get(ready.into(), BasicGetOptions::default());
        if let Some(got) = answered(&store.config, "asking", false, asked).await? {
            self.take_in_from(channel.clone(), NO_CONSUMER, got.delivery);
            self.be_done_with_nothing();
            let got = self.line.take_pool();
            self.give_back(got);
            while self.leaving.join_next().await.is_some() {}
        }
        answered(&store.config, "asking", false, channel.confirm_select(ConfirmSelectOptions::default())).await
    }

    /// Gives back what came after a consumer was cancelled, which the driver drops: a message from elsewhere shows how many
    /// deliveries there have been on the channel.
    async fn find_missed(&mut self) -> Result<()> {
        let Some(marker) = self.marker().await? else {
            tracing::warn!(queue = %self.line.queue, "the registry is empty: missed deliveries stay until the channel ends");
            return Ok(());
        };
        self.take_in_all();
        self.note(marker);
        let missed: Vec<DeliveryTag> = (self.known + 1..marker).filter(|tag| !self.came.contains(tag)).collect();
        if !missed.is_empty() {
            tracing::warn!(queue = %self.line.queue, n = missed.len(), "deliveries that came after the end of their consumer go back");
        }
        let (store, channel) = (self.store.clone(), self.channel.clone());
        let back = async {
            for tag in missed {
                channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue: true }).await?;
            }
            channel.basic_nack(marker, BasicNackOptions { multiple: false, requeue: true }).await
        };
        answered(&store.config, "giving back missed deliveries", false, back).await?;
        if marker > self.known {
            self.came = self.came.split_off(&(marker + 1));
            self.known = marker;
            self.go_on();
        }
        Ok(())
    }

    /// The number of a delivery that is taken from the registry, and is to be given back.
    async fn marker(&mut self) -> Result<Option<DeliveryTag>> {
        let (store, channel) = (self.store.clone(), self.channel.clone());
        for pause in MARKER_PAUSES {
            let registry = store.names.registry();
            let asked = channel.basic_get(registry.into(), BasicGetOptions::default());
            if let Some(marker) = answered(&store.config, "looking for missed deliveries", false, asked).await? {
                return Ok(Some(marker.delivery_tag));
            }
            // Somebody else has it, for a moment.
            sleep(pause).await;
        }
        Ok(None)
    }
}

/// Puts so many messages that mean nothing into a queue's ready queue, and answers whether that was done. What nobody takes is
/// gone after a while.
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
