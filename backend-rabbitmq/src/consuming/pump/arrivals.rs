//! Messages that arrive on a line's channel: receives them, separates tasks from other messages, and returns them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::{DeliveryTag, ShortString};
use tokio::task::JoinSet;

use crate::codec::kind::Foreign;
use crate::consuming::giving;
use crate::consuming::line::{Came, Held, Line};
use crate::consuming::lines::Lines;
use crate::gate::Gate;
use crate::store::Store;
use crate::strays::Strays;
use crate::transport::driver;

/// The consumer number for messages from `basic.get`.
pub(super) const NO_CONSUMER: u64 = u64::MAX;

/// A message from a consumer; `None` after the last.
pub(super) type FromBroker = (u64, Option<lapin::Result<Delivery>>);

pub(super) struct Pump {
    pub(super) store: Arc<Store>,
    pub(super) lines: Arc<Lines>,
    pub(super) line: Arc<Line>,
    pub(super) channel: Channel,
    /// The channel for `basic.get`.
    pub(super) getting: Option<Channel>,
    /// The messages of all consumers.
    pub(super) streams: SelectAll<BoxStream<'static, FromBroker>>,
    /// The consumer tags at the broker.
    pub(super) tags: HashMap<u64, ShortString>,
    /// Delivery tags on the channel have no gaps: all up to `known` were handled, and of the later ones those in `came`
    /// have arrived.
    pub(super) known: DeliveryTag,
    pub(super) came: BTreeSet<DeliveryTag>,
    /// Whether a task has arrived since the last notification.
    pub(super) fresh: bool,
    /// Number of markers that have arrived, and those that must be acknowledged.
    pub(super) markers: usize,
    pub(super) nothing: Vec<Nothing>,
    pub(super) gate: Option<Gate>,
    /// The handling of strays, as long as there is a gate.
    pub(super) strays: Option<Arc<Strays>>,
    /// Messages that are being returned.
    pub(super) leaving: JoinSet<()>,
}

/// A message that is not a task: its channel, delivery tag and consumer.
pub(super) type Nothing = (Channel, DeliveryTag, u64);

impl Pump {
    pub(super) fn new(store: Arc<Store>, lines: Arc<Lines>, line: Arc<Line>, channel: Channel) -> Self {
        Self {
            store,
            lines,
            line,
            channel,
            getting: None,
            streams: SelectAll::new(),
            tags: HashMap::new(),
            known: 0,
            came: BTreeSet::new(),
            fresh: false,
            markers: 0,
            nothing: Vec::new(),
            gate: None,
            strays: None,
            leaving: JoinSet::new(),
        }
    }

    /// Receives all messages that have arrived, and returns whether a consumer has ended unexpectedly.
    pub(super) fn take_in_all(&mut self) -> bool {
        let mut lost = false;
        while let Some(Some(came)) = self.streams.next().now_or_never() {
            lost |= self.take_in(came);
        }
        self.be_done_with_nothing();
        lost
    }

    pub(super) fn be_done_with_nothing(&mut self) {
        if !self.nothing.is_empty() {
            let (line, nothing) = (self.line.clone(), std::mem::take(&mut self.nothing));
            self.leaving.spawn(async move { done_with(&line, nothing).await });
        }
    }

    pub(super) fn take_in(&mut self, (consumer, came): FromBroker) -> bool {
        let delivery = match came {
            Some(Ok(delivery)) => delivery,
            Some(Err(_)) => return true,
            None => return self.tags.contains_key(&consumer),
        };
        let channel = if consumer == NO_CONSUMER { self.getting.clone() } else { Some(self.channel.clone()) };
        let Some(channel) = channel else { return false };
        if consumer != NO_CONSUMER {
            self.note(delivery.delivery_tag);
        }
        self.take_in_from(channel, consumer, delivery);
        false
    }

    pub(super) fn take_in_from(&mut self, channel: Channel, consumer: u64, delivery: Delivery) {
        let tag = delivery.delivery_tag;
        let (store, line) = (self.store.clone(), self.line.clone());
        match self.line.arrive(delivery, channel.clone(), consumer) {
            Came::Task => self.fresh = true,
            Came::Marker => {
                self.markers += 1;
                self.nothing.push((channel, tag, consumer));
            }
            Came::Foreign(delivery, Foreign(why)) => {
                self.leaving.spawn(async move {
                    let found_in = store.names.ready(&line.queue);
                    let payload = delivery.data.into();
                    if store.outbox.quarantine(&found_in, why, &delivery.properties, payload).await {
                        done_with(&line, vec![(channel, tag, consumer)]).await;
                    }
                });
            }
        }
    }

    pub(super) fn give_back(&mut self, held: Vec<Held>) {
        if held.is_empty() {
            return;
        }
        let (store, line) = (self.store.clone(), self.line.clone());
        self.leaving.spawn(async move { giving::give_back(&store, &line, held).await });
    }

    /// Records a delivery.
    pub(super) fn note(&mut self, tag: DeliveryTag) {
        self.came.insert(tag);
        self.go_on();
    }

    /// Advances `known` to the next gap in the delivery tags.
    pub(super) fn go_on(&mut self) {
        while self.came.remove(&(self.known + 1)) {
            self.known += 1;
        }
    }
}

/// Acknowledges messages that are not tasks.
async fn done_with(line: &Line, nothing: Vec<Nothing>) {
    let _turn = line.acknowledges.read().await;
    nothing.iter().for_each(|(_, _, consumer)| line.acknowledging(*consumer));
    // If this is lost, the channel is lost, too, and the broker delivers the message again.
    driver::send_all(nothing.iter().map(|(channel, tag, _)| channel.basic_ack(*tag, BasicAckOptions::default()))).await;
}
