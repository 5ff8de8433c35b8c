//! The interface between the pump and the line: arrived messages, demand, and when to stop consuming.

use std::time::Duration;

use bytes::Bytes;
use delayline_core::Error;
use lapin::Channel;
use lapin::message::Delivery;
use tokio::time::Instant;

use super::state::{Arrived, Held, Line, State};
use crate::codec::kind::{Foreign, Kind};
use crate::codec::message::{self, Message};

/// Time that arrived messages wait for a claim.
const HOARD_MAX: Duration = Duration::from_millis(200);

/// Time that the consumers stay after the last subscription has closed, because another may open at once.
const LINGER: Duration = Duration::from_millis(10);

/// The kind of a message that arrived.
#[derive(Debug)]
pub(crate) enum Came {
    Task,
    /// A marker, which must be acknowledged.
    Marker,
    Foreign(Box<Delivery>, Foreign),
}

impl Line {
    /// Receives a message, and keeps it if it is a task.
    pub(crate) fn arrive(&self, delivery: Delivery, channel: Channel, consumer: u64) -> Came {
        let payload = Bytes::from(delivery.data.clone());
        let message = match Message::read(&delivery.properties, payload) {
            Ok(message) if message.kind == Kind::Task => message,
            other => {
                self.state.lock().came(consumer);
                return match other {
                    Ok(message) if message.is_marker() => Came::Marker,
                    Ok(_) => Came::Foreign(Box::new(delivery), Foreign("it is not a task")),
                    Err(foreign) => Came::Foreign(Box::new(delivery), foreign),
                };
            }
        };
        let attempts = message.attempts.saturating_add(message::delivery_count(&delivery.properties));
        let mut state = self.state.lock();
        let place = (message.due_ms, message.seq, delivery.delivery_tag);
        let generation = state.generation;
        state.came(consumer);
        state.expected_came(message.due_ms);
        let task = Held { message, attempts, channel, tag: delivery.delivery_tag, consumer, generation };
        state.pool.insert(place, Arrived { task, since: Instant::now() });
        Came::Task
    }

    /// Number of wanted messages, if the consumers have no room for more.
    pub(crate) fn short(&self) -> Option<usize> {
        self.state.lock().short()
    }

    /// The number of the last question that claims have for the broker; pass it to [`answer`](Self::answer) after the
    /// answer.
    pub(crate) fn asked(&self) -> u64 {
        self.state.lock().asked
    }

    /// Whether a claim waits for the broker.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked() > *self.answered.borrow()
    }

    /// Marks the start of a request to the broker. Its answer does not cover later events.
    pub(crate) fn asking(&self) {
        self.state.lock().unsettled = false;
    }

    pub(crate) fn answer(&self, question: u64) {
        self.answered.send_if_modified(|answered| std::mem::replace(answered, question.max(*answered)) < question);
    }

    /// Registers a consumer with room for this many messages. Returns its number.
    pub(crate) fn new_consumer(&self, room: usize) -> u64 {
        let mut state = self.state.lock();
        let number = state.next_consumer;
        state.next_consumer += 1;
        state.consumers.insert(number, (room, 0));
        state.unsettled = true;
        number
    }

    /// The consumers, and whether each one is full.
    pub(crate) fn consumers(&self) -> Vec<(u64, bool)> {
        let state = self.state.lock();
        state.consumers.iter().map(|(number, (room, outstanding))| (*number, outstanding >= room)).collect()
    }

    pub(crate) fn end_consumer(&self, number: u64) {
        self.state.lock().consumers.remove(&number);
    }

    /// Whether a subscription or a lease still needs the channel.
    pub(crate) fn is_needed(&self) -> bool {
        let state = self.state.lock();
        !state.subscriptions.is_empty() || !state.leases.is_empty() || state.ending > 0
    }

    /// The time of the next work: a lease that ends, or messages that no claim took.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let state = self.state.lock();
        let lease = state.ends.first().map(|(ends, _)| *ends);
        lease.into_iter().chain(state.stop_at()).min()
    }

    /// Whether consuming must stop now, so that unclaimed messages return to the queue. Then nothing is wanted until
    /// the next claim.
    pub(crate) fn stops(&self) -> bool {
        let mut state = self.state.lock();
        let stops = state.stop_at().is_some_and(|at| at <= Instant::now());
        if stops {
            state.subscriptions.values_mut().for_each(|want| *want = 0);
        }
        stops
    }

    /// Keeps the arrived messages if claims were made in the meantime. Returns whether there were any.
    pub(crate) fn keep(&self) -> bool {
        let mut state = self.state.lock();
        let is_wanted = state.subscriptions.values().any(|want| *want > 0);
        if is_wanted {
            let now = Instant::now();
            state.pool.values_mut().for_each(|arrived| arrived.since = now);
        }
        is_wanted
    }

    /// Number of messages that the broker may still send.
    pub(crate) fn room(&self) -> usize {
        self.state.lock().room()
    }

    /// Takes all arrived messages.
    pub(crate) fn take_pool(&self) -> Vec<Held> {
        let pool = std::mem::take(&mut self.state.lock().pool);
        pool.into_values().map(|arrived| arrived.task.unclaimed()).collect()
    }

    /// Handles the loss of the channel, with everything that arrived on it. If it was closed because it was `unneeded`,
    /// claims that were made since get their answer from the next channel.
    pub(crate) fn channel_lost(&self, unneeded: bool) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.pool.clear();
        state.leases.clear();
        state.ends.clear();
        state.consumers.clear();
        state.channel = None;
        state.getting = None;
        state.unsettled = true;
        let asked = state.asked;
        drop(state);
        if !unneeded {
            self.answer(asked);
        }
    }

    /// Stores why nothing can arrive now, so that claims do not wait for an answer.
    pub(crate) fn set_trouble(&self, e: Error) {
        self.state.lock().trouble = Some(e);
        self.answer(self.asked());
    }

    /// Call this before a message is acknowledged. The acknowledgement gives its consumer room for another message,
    /// which may be sent at once.
    pub(crate) fn acknowledging(&self, consumer: u64) {
        let mut state = self.state.lock();
        state.unsettled = true;
        if let Some((_, outstanding)) = state.consumers.get_mut(&consumer) {
            *outstanding = outstanding.saturating_sub(1);
        }
    }

    pub(crate) fn set_channel(&self, channel: Channel) {
        let mut state = self.state.lock();
        state.channel = Some(channel);
        state.trouble = None;
    }

    pub(crate) fn set_getting(&self, channel: Channel) {
        self.state.lock().getting = Some(channel);
    }
}

impl State {
    fn came(&mut self, consumer: u64) {
        self.unsettled = true;
        if let Some((_, outstanding)) = self.consumers.get_mut(&consumer) {
            *outstanding += 1;
        }
    }

    /// The time at which consuming must stop, because there is no subscription or no claim.
    fn stop_at(&self) -> Option<Instant> {
        if self.consumers.is_empty() && self.pool.is_empty() {
            return None;
        }
        if self.subscriptions.is_empty() {
            return self.left_at.map(|at| at + LINGER);
        }
        let oldest = self.pool.values().map(|arrived| arrived.since).min()?;
        Some(oldest + HOARD_MAX)
    }
}
