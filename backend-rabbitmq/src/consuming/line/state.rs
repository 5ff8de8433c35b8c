//! The state of a line: the location of each message, and the demand for more.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use delayline_core::{Error, QueueName, Timestamp};
use lapin::Channel;
use lapin::options::BasicAckOptions;
use lapin::types::DeliveryTag;
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, watch};
use tokio::time::Instant;

use crate::codec::message::Message;

/// Maximum number of messages that are requested at once.
pub(super) const WANT_MAX: usize = 2_000;

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) queue: QueueName,
    pub(super) state: Mutex<State>,
    /// Counts events that wake a waiting subscription: arrivals, reconnects, the end.
    pub(super) notifications: watch::Sender<u64>,
    /// The number of the last question that the broker has answered.
    pub(super) answered: watch::Sender<u64>,
    /// Wakes the pump after a change.
    pub(crate) changed: Notify,
    /// Locked for writing while consumers are cancelled. An acknowledgement in that time would make room for a message
    /// that would arrive too late.
    pub(crate) acknowledges: RwLock<()>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Number of the channel on which everything here arrived. It rises when a channel is lost.
    pub(super) generation: u64,
    pub(super) pool: BTreeMap<Place, Arrived>,
    pub(super) leases: HashMap<u64, Leased>,
    pub(super) ends: BTreeSet<(Instant, u64)>,
    /// Fences of dispositions whose outcome is unknown.
    pub(super) unclear: VecDeque<u64>,
    /// For each millisecond, the number of tasks from this process that become due then.
    pub(super) expected: BTreeMap<i64, usize>,
    /// The demand of each open subscription, by its number.
    pub(super) subscriptions: HashMap<u64, usize>,
    pub(super) next_subscription: u64,
    /// Time at which the last subscription closed.
    pub(super) left_at: Option<Instant>,
    /// The consumers at the broker, by number: the maximum and the current number of unacknowledged messages of each.
    pub(super) consumers: HashMap<u64, (usize, usize)>,
    pub(super) next_consumer: u64,
    /// Number of dispositions and dead-letterings under way, which need the channel.
    pub(super) ending: usize,
    /// Whether messages may be under way that claims don't know of. Only an answer of the broker can tell.
    pub(super) unsettled: bool,
    /// The number of the last question of a claim to the broker.
    pub(super) asked: u64,
    /// The channel on which everything here arrived.
    pub(super) channel: Option<Channel>,
    /// The channel for `basic.get`.
    pub(super) getting: Option<Channel>,
    /// Why there is no channel.
    pub(super) trouble: Option<Error>,
}

/// The order of delivery: due time, sequence, and the delivery tag, which distinguishes messages of the same task.
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
    /// Attempts that have ended, including those that the broker counted.
    pub(crate) attempts: u32,
    /// The channel on which it arrived, and its delivery tag.
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
    /// The latest possible end: the broker closes the channel after it.
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

    /// Registers a subscription. Returns its number, and the receiver that wakes it.
    pub(crate) fn enter(&self) -> (u64, watch::Receiver<u64>) {
        let mut state = self.state.lock();
        let number = state.next_subscription;
        state.next_subscription += 1;
        state.subscriptions.insert(number, 0);
        // The first claim of a subscription asks the broker, whatever the answers to other claims were.
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

    /// Wakes the waiting subscriptions.
    pub(crate) fn notify(&self) {
        self.notifications.send_modify(|n| *n += 1);
    }

    /// The channels on which leases are acknowledged.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        let state = self.state.lock();
        state.channel.iter().chain(&state.getting).cloned().collect()
    }

    /// Why nothing can arrive now, if known.
    pub(crate) fn trouble(&self) -> Option<Error> {
        self.state.lock().trouble.clone()
    }
}

impl Held {
    /// The message as it is returned: its header includes the attempts that the broker counted.
    pub(super) fn unclaimed(mut self) -> Self {
        self.message.attempts = self.attempts;
        self
    }

    pub(crate) fn consumer(&self) -> u64 {
        self.consumer
    }

    /// Acknowledges the message. Returns when the acknowledgement was sent.
    pub(crate) async fn acknowledge(&self) -> lapin::Result<()> {
        // Not with the delivery's acker: if the connection ends at that moment, it may never return.
        self.channel.basic_ack(self.tag, BasicAckOptions::default()).await
    }
}

impl State {
    pub(super) fn room(&self) -> usize {
        self.consumers.values().map(|(room, outstanding)| room.saturating_sub(*outstanding)).sum()
    }

    /// Number of wanted messages, if the consumers have no room for more.
    pub(super) fn short(&self) -> Option<usize> {
        if self.room() > 0 {
            return None;
        }
        let wanted = self.subscriptions.values().sum::<usize>().saturating_sub(self.pool.len()).min(WANT_MAX);
        (wanted > 0).then_some(wanted)
    }

    /// Removes an expected task.
    pub(super) fn expected_came(&mut self, due_ms: i64) {
        if let Some(n) = self.expected.get_mut(&due_ms) {
            *n -= 1;
            if *n == 0 {
                self.expected.remove(&due_ms);
            }
        }
    }
}
