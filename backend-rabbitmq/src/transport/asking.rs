//! What the broker is asked in many places, and waiting for its answer no longer than the configuration lets it take.

use delayline_core::{Result, meter};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ExchangeKind, Queue};
use tokio::time::timeout;

use super::failure;
use crate::config::RabbitConfig;
use crate::limits::NAME;

/// What the broker answers to a request; `sent` if the request may take effect without an answer.
pub(crate) async fn answered<T>(
    config: &RabbitConfig,
    doing: &str,
    sent: bool,
    asked: impl Future<Output = lapin::Result<T>>,
) -> Result<T> {
    meter::round_trip(NAME);
    in_time(config, doing, sent, asked).await
}

/// Likewise of what is sent and not answered.
pub(crate) async fn in_time<T>(
    config: &RabbitConfig,
    doing: &str,
    sent: bool,
    asked: impl Future<Output = lapin::Result<T>>,
) -> Result<T> {
    match timeout(config.response_timeout, asked).await {
        Ok(done) => done.map_err(|e| failure::failed(doing, &e, sent)),
        Err(_) => Err(failure::silent(doing, config, sent)),
    }
}

/// Looks for a queue, whose answer comes after what it had sent before. If there is none, the broker closes the channel.
pub(crate) async fn look_for_queue(channel: &Channel, name: &str) -> lapin::Result<Queue> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, FieldTable::default()).await
}

/// Likewise for an exchange, of whichever kind.
pub(crate) async fn look_for_exchange(channel: &Channel, name: &str) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), ExchangeKind::Direct, options, FieldTable::default()).await
}

/// Waits until whatever a queue had sent has come: asks the queue, whose answer goes the same way, and then the channel,
/// which passes on what came to it before.
pub(crate) async fn settle_down(channel: &Channel, queue: &str) -> lapin::Result<Queue> {
    let queue = look_for_queue(channel, queue).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(queue)
}

/// Publishes a name to a queue of names, on a channel in confirm mode, and answers whether the queue has taken it.
pub(crate) async fn write_name(channel: &Channel, queue: &str, name: &str) -> lapin::Result<bool> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let persistent = BasicProperties::default().with_delivery_mode(2);
    meter::round_trip(NAME);
    let sent = channel.basic_publish("".into(), queue.into(), options, name.as_bytes(), persistent).await;
    let confirmation = sent?.await?;
    Ok(confirmation.is_ack() && confirmation.take_message().is_none())
}

/// Closes a channel. It closes when it is dropped as well; this only waits for it.
pub(crate) async fn close(channel: Channel) {
    let _ = channel.close(200, "done".into()).await;
}
