//! What a line has: where each message is, and who wants more.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use delayline_core::{Error, QueueName, Timestamp};
use lapin::Channel;
use lapin::options::BasicAckOptions;
use lapin::types::DeliveryTag;
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, watch};
use tokio::time::Instant;

use crate::codec::message::Message;

/// The most messages that are asked for at once.
pub(super) const WANT_MAX: usize = 2_000;

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) queue: QueueName,
    pub(super) state: Mutex<State>,
    /// Counts what a waiting subscription wants to know of: arrivals, reconnects, the end.
    pub(super) notifications: watch::Sender<u64>,
    /// Up to which question of a claim the broker has answered.
    pub(super) answered: watch::Sender<u64>,
    /// Something that the pump looks at has changed.
    pub(crate) changed: Notify,
    /// Held for writing while consumers are cancelled, for nothing to be acknowledged meanwhile: that makes room for what would
    /// come then.
    pub(crate) acknowledges: RwLock<()>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Of the channel that everything here came by; rises when one is lost.
    pub(super) generation: u64,
    pub(super) pool: BTreeMap<Place, Arrived>,
    pub(super) leases: HashMap<u64, Leased>,
    pub(super) ends: BTreeSet<(Instant, u64)>,
    /// Fences of dispositions whose outcome is unknown.
    pub(super) unclear: VecDeque<u64>,
    /// How many tasks that this process sent on their way come at which millisecond.
    pub(super) expected: BTreeMap<i64, usize>,
    /// How much each open subscription still wants, by its number.
    pub(super) subscriptions: HashMap<u64, usize>,
    pub(super) next_subscription: u64,
    /// When the last subscription left.
    pub(super) left_at: Option<Instant>,
    /// The consumers at the broker, by number: how many messages each may have, and has, unacknowledged.
    pub(super) consumers: HashMap<u64, (usize, usize)>,
    pub(super) next_consumer: u64,
    /// Dispositions and burials under way, which need the channel.
    pub(super) ending: usize,
    /// Whether something may be on its way that claims don't know of: an answer of the broker would tell.
    pub(super) unsettled: bool,
    /// How often claims have asked the broker, and up to which of them it has answered.
    pub(super) asked: u64,
    /// What everything here came by.
    pub(super) channel: Option<Channel>,
    /// What messages came by that were asked for one by one.
    pub(super) getting: Option<Channel>,
    /// Why there is none.
    pub(super) trouble: Option<Error>,
}

/// The order of delivery; the last tells messages of one task apart.
pub(super) type Place = (i64, u64, u64);

#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) task: Held,
    pub(super) since: Instant,
}

/// A message that this process holds.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) message: Message,
    /// Attempts that are over, those that the broker counted included.
    pub(crate) attempts: u32,
    /// What it came by, and its number there.
    pub(super) channel: Channel,
    pub(super) tag: DeliveryTag,
    pub(super) consumer: u64,
    pub(super) generation: u64,
}

#[derive(Debug)]
pub(crate) struct Leased {
    pub(crate) held: Held,
    pub(crate) attempt: u32,
    pub(super) ends: Instant,
    /// Later than that the broker would close the channel.
    pub(super) ends_max: Instant,
    pub(super) expires_at: Timestamp,
}

impl Line {
    pub(crate) fn new(queue: QueueName) -> Self {
        Self {
            queue,
            state: Mutex::default(),
            notifications: watch::Sender::new(0),
            answered: watch::Sender::new(0),
            changed: Notify::new(),
            acknowledges: RwLock::default(),
        }
    }

    /// A new subscription's number, and what wakes it.
    pub(crate) fn enter(&self) -> (u64, watch::Receiver<u64>) {
        let mut state = self.state.lock();
        let number = state.next_subscription;
        state.next_subscription += 1;
        state.subscriptions.insert(number, 0);
        // Its first claim asks the broker, whatever others have found.
        state.unsettled = true;
        self.changed.notify_one();
        (number, self.notifications.subscribe())
    }

    pub(crate) fn leave(&self, subscription: u64) {
        let mut state = self.state.lock();
        state.subscriptions.remove(&subscription);
        if state.subscriptions.is_empty() {
            state.left_at = Some(Instant::now());
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.state.lock().subscriptions.len()
    }

    /// Wakes whoever waits.
    pub(crate) fn notification(&self) {
        self.notifications.send_modify(|n| *n += 1);
    }

    /// The channels that leases are acknowledged on.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        let state = self.state.lock();
        state.channel.iter().chain(&state.getting).cloned().collect()
    }

    /// Why nothing comes now, if that is known.
    pub(crate) fn trouble(&self) -> Option<Error> {
        self.state.lock().trouble.clone()
    }
}

impl Held {
    /// As it goes back: what the broker counted is in our header from now on.
    pub(super) fn unclaimed(mut self) -> Self {
        self.message.attempts = self.attempts;
        self
    }

    pub(crate) fn consumer(&self) -> u64 {
        self.consumer
    }

    /// Acknowledges it; done when that has been sent.
    pub(crate) async fn acknowledge(&self) -> lapin::Result<()> {
        // Not by the delivery's own acker: one that is asked as the connection ends may never answer.
        self.channel.basic_ack(self.tag, BasicAckOptions::default()).await
    }
}

impl State {
    pub(super) fn room(&self) -> usize {
        self.consumers.values().map(|(room, outstanding)| room.saturating_sub(*outstanding)).sum()
    }

    /// How many messages are wanted, if the broker may send no more.
    pub(super) fn short(&self) -> Option<usize> {
        if self.room() > 0 {
            return None;
        }
        let wanted = self.subscriptions.values().sum::<usize>().saturating_sub(self.pool.len()).min(WANT_MAX);
        (wanted > 0).then_some(wanted)
    }

    /// One that was expected is not any more.
    pub(super) fn expected_came(&mut self, due_ms: i64) {
        if let Some(n) = self.expected.get_mut(&due_ms) {
            *n -= 1;
            if *n == 0 {
                self.expected.remove(&due_ms);
            }
        }
    }
}
