//! Publishes messages and reports the outcome of each: confirmed, returned, or refused.
//!
//! A batch has exclusive use of a channel. The driver attaches a returned message to the next confirmation, which may
//! belong to another message. Once all confirmations of a batch have arrived, all its returns have, too. The number in
//! each message tells them apart.

use std::sync::Arc;

use bytes::Bytes;
use delayline_backend_kit::answers::unsent;
use delayline_core::{Error, ErrorKind, Result, meter};
use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::asking::in_time;
use super::connection::Link;
use super::{driver, failure};
use crate::config::RabbitConfig;
use crate::limits::NAME;

/// Number of messages that are published before the channel is checked.
const PIECE: usize = 2_000;

/// Maximum number of unconfirmed messages of one batch. The driver keeps room for this many.
const PIPELINED: usize = 400;

/// A message on its way to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Empty to publish to the queue that the routing key names.
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    /// All properties but the correlation id, which the publisher sets.
    pub(crate) properties: BasicProperties,
    pub(crate) payload: Bytes,
}

/// Why a message was not accepted.
#[derive(Clone, Debug)]
pub(crate) enum NotPublished {
    /// No queue exists for it: the topology must be declared again.
    Unroutable,
    /// The broker refused it (`basic.nack`): a queue is full or is not working.
    Refused,
    /// The connection or channel failed; `Ambiguous` if it may have been accepted.
    Failed(Error),
}

impl NotPublished {
    /// The error for the caller, when nothing more can be done.
    pub(crate) fn into_error(self, doing: &str) -> Error {
        match self {
            Self::Unroutable => Error::new(ErrorKind::Unavailable, format!("{doing}: a queue or binding is missing")),
            Self::Refused => Error::new(ErrorKind::Unavailable, format!("{doing}: the broker refused the message")),
            Self::Failed(e) => e,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Publisher {
    config: Arc<RabbitConfig>,
    link: Arc<Link>,
    /// Limits the number of batches under way.
    turns: Semaphore,
    /// Unused channels in confirm mode, with the number of their connection, so that a discarded connection is not kept
    /// open.
    idle: Mutex<Vec<(u64, Channel)>>,
}

impl Publisher {
    pub(crate) fn new(config: Arc<RabbitConfig>, link: Arc<Link>) -> Self {
        let turns = Semaphore::new(config.publish_channels.into());
        Self { config, link, turns, idle: Mutex::default() }
    }

    /// Publishes a batch, in order, and returns the outcome of each message, in order.
    ///
    /// # Cancel safety
    /// A dropped call may have published a part of the batch. Call it from a task that is not dropped.
    pub(crate) async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<(), NotPublished>> {
        if batch.is_empty() {
            return Vec::new();
        }
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let (generation, channel) = match self.channel().await {
            Ok(channel) => channel,
            Err(e) => return batch.iter().map(|_| Err(NotPublished::Failed(e.clone()))).collect(),
        };
        let (mut answers, mut missing) = (Vec::with_capacity(batch.len()), false);
        for piece in batch.chunks(PIECE) {
            match answers.last() {
                // The channel is closed: the following messages were not sent.
                Some(Err(NotPublished::Failed(e))) => {
                    let e = unsent(e);
                    answers.extend(piece.iter().map(|_| Err(NotPublished::Failed(e.clone()))));
                }
                _ => answers.extend(self.piece(&channel, piece, &mut missing).await),
            }
        }
        if channel.status().connected() && !answers.iter().any(|a| matches!(a, Err(NotPublished::Failed(_)))) {
            self.idle.lock().push((generation, channel));
        }
        answers
    }

    /// Returns a channel in confirm mode.
    async fn channel(&self) -> Result<(u64, Channel)> {
        if self.link.blocked() {
            return Err(self.blocked());
        }
        let generation = self.link.generation();
        loop {
            let idle = self.idle.lock().pop();
            match idle {
                Some((of, channel)) if of == generation && channel.status().connected() => return Ok((of, channel)),
                Some(_) => {}
                None => break,
            }
        }
        let channel = self.link.channel().await?;
        let asked = channel.confirm_select(ConfirmSelectOptions::default());
        in_time(&self.config, "asking for confirmations", false, asked).await?;
        Ok((self.link.generation(), channel))
    }

    /// Publishes a piece of a batch. Sets `missing` if the channel was closed because an exchange is missing.
    async fn piece(&self, channel: &Channel, piece: &[Outgoing], missing: &mut bool) -> Vec<Result<(), NotPublished>> {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        meter::round_trip(NAME);
        let sent = piece.iter().enumerate().map(|(at, message)| async move {
            let properties = message.properties.clone().with_correlation_id(at.to_string().into());
            let (exchange, key) = (message.exchange.clone(), message.routing_key.clone());
            channel.basic_publish(exchange, key, options, &message.payload, properties).await
        });
        // Each message is sent at its first poll, in this order.
        let confirmed = driver::sending(sent).map(|sent| async move { sent?.await }).buffered(PIPELINED);
        let Ok(confirmed) = timeout(self.config.response_timeout, confirmed.collect::<Vec<_>>()).await else {
            let e = match self.link.blocked() {
                true => Error::new(ErrorKind::Ambiguous, format!("publishing: {}", self.blocked().message())),
                false => failure::silent("publishing", &self.config, true),
            };
            return piece.iter().map(|_| Err(NotPublished::Failed(e.clone()))).collect();
        };
        let is_missing = |(answer, message): (&lapin::Result<Confirmation>, &Outgoing)| {
            answer.as_ref().is_err_and(|e| failure::is_no_exchange(e, message.exchange.as_str()))
        };
        *missing |= confirmed.iter().zip(piece).any(is_missing);
        let mut returned = Vec::new();
        let mut answers: Vec<Result<(), NotPublished>> = Vec::with_capacity(piece.len());
        for (confirmation, message) in confirmed.into_iter().zip(piece) {
            answers.push(match &confirmation {
                Ok(Confirmation::Ack(_) | Confirmation::NotRequested) => Ok(()),
                Ok(Confirmation::Nack(_)) => Err(NotPublished::Refused),
                Err(e) if failure::is_no_exchange(e, message.exchange.as_str()) => Err(NotPublished::Unroutable),
                // Messages that were not sent are published again with the others, once the exchange exists.
                Err(e) if failure::is_unsent(e) && *missing => Err(NotPublished::Unroutable),
                Err(e) if failure::is_unsent(e) => Err(NotPublished::Failed(failure::failed("publishing", e, false))),
                // Another message closed the channel: the outcome of this one is unknown.
                Err(e) if failure::is_not_found(e) => Err(NotPublished::Failed(failure::unknown("publishing", e))),
                Err(e) => Err(NotPublished::Failed(failure::failed("publishing", e, true))),
            });
            returned.extend(confirmation.ok().and_then(Confirmation::take_message));
        }
        for message in returned {
            let at = message.properties.correlation_id().as_ref().and_then(|at| at.as_str().parse::<usize>().ok());
            if let Some(answer) = at.and_then(|at| answers.get_mut(at)) {
                *answer = Err(NotPublished::Unroutable);
            }
        }
        answers
    }

    fn blocked(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!("{} accepts no messages now: it is short of memory or disk", self.config.server()),
        )
    }

    /// Closes the unused channels. Those in use close when their batch ends.
    pub(crate) fn close(&self) {
        self.idle.lock().clear();
    }
}
