//! Publishing that knows what became of each message: confirmed, returned, or refused.
//!
//! A batch has a channel for itself while it is under way. The driver hands a returned message to whichever confirmation
//! comes next, not to that of the message; once all confirmations of a batch are there, all its returns are too, and are
//! told apart by the number that each message carries.

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

/// How many messages are published before it is looked at whether the channel still works.
const PIECE: usize = 2_000;

/// How many messages of one batch are on their way before the first has to be confirmed. The driver keeps room for as many.
const PIPELINED: usize = 400;

/// A message on its way to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Empty for the queue that the routing key names.
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    /// Everything but the correlation id, which is the publisher's.
    pub(crate) properties: BasicProperties,
    pub(crate) payload: Bytes,
}

/// Why a message was not accepted.
#[derive(Clone, Debug)]
pub(crate) enum NotPublished {
    /// No queue is there for it: the topology has to be made again.
    Unroutable,
    /// The broker refused it (`basic.nack`): a queue is full or is not working.
    Refused,
    /// The connection or channel failed; `Ambiguous` if it may have been accepted.
    Failed(Error),
}

impl NotPublished {
    /// As the caller is told, when nothing more can be done.
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
    /// For the batches that are under way.
    turns: Semaphore,
    /// Channels in confirm mode that nobody uses now, and of which connection they are: one that was given up is not kept open.
    idle: Mutex<Vec<(u64, Channel)>>,
}

impl Publisher {
    pub(crate) fn new(config: Arc<RabbitConfig>, link: Arc<Link>) -> Self {
        let turns = Semaphore::new(config.publish_channels.into());
        Self { config, link, turns, idle: Mutex::default() }
    }

    /// Publishes a batch, in order, and answers what became of each message, in order.
    ///
    /// # Cancel safety
    /// Dropped, some may have been published: call it from what is not dropped.
    pub(crate) async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<(), NotPublished>> {
        if batch.is_empty() {
            return Vec::new();
        }
        // Nobody closes the semaphore.
        let _turn = self.turns.acquire().await;
        let (generation, channel) = match self.channel().await {
            Ok(channel) => channel,
            Err(e) => return batch.iter().map(|_| Err(NotPublished::Failed(e.clone()))).collect(),
        };
        let (mut answers, mut missing) = (Vec::with_capacity(batch.len()), false);
        for piece in batch.chunks(PIECE) {
            match answers.last() {
                // The channel is gone: what follows was not sent.
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

    /// A channel in confirm mode.
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

    /// `missing` tells whether the channel was ended because an exchange is missing.
    async fn piece(&self, channel: &Channel, piece: &[Outgoing], missing: &mut bool) -> Vec<Result<(), NotPublished>> {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        meter::round_trip(NAME);
        let sent = piece.iter().enumerate().map(|(at, message)| async move {
            let properties = message.properties.clone().with_correlation_id(at.to_string().into());
            let (exchange, key) = (message.exchange.clone(), message.routing_key.clone());
            channel.basic_publish(exchange, key, options, &message.payload, properties).await
        });
        // Each is on its way at its first poll, in this order.
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
                // What was not sent is published again with the others, once the exchange is there.
                Err(e) if failure::is_unsent(e) && *missing => Err(NotPublished::Unroutable),
                Err(e) if failure::is_unsent(e) => Err(NotPublished::Failed(failure::failed("publishing", e, false))),
                // That of another message ended the channel: of this one nothing is known.
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
            format!("{} takes no messages now, being short of memory or disk", self.config.server()),
        )
    }

    /// Lets go of the channels; those in use close when their batch ends.
    pub(crate) fn close(&self) {
        self.idle.lock().clear();
    }
}
