//! Requests to the broker that many modules use, with the configured response timeout.

use delayline_core::{Result, meter};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ExchangeKind, Queue};
use tokio::time::timeout;

use super::failure;
use crate::config::RabbitConfig;
use crate::limits::NAME;

/// Waits for the answer to a request. `sent` tells whether the request may take effect even without an answer.
pub(crate) async fn answered<T>(
    config: &RabbitConfig,
    doing: &str,
    sent: bool,
    asked: impl Future<Output = lapin::Result<T>>,
) -> Result<T> {
    meter::round_trip(NAME);
    in_time(config, doing, sent, asked).await
}

/// The same for a request that has no answer of its own.
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

/// Checks that a queue exists. Its answer arrives after everything it sent before. If it does not exist, the broker
/// closes the channel.
pub(crate) async fn look_for_queue(channel: &Channel, name: &str) -> lapin::Result<Queue> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, FieldTable::default()).await
}

/// Checks that an exchange exists, of any kind.
pub(crate) async fn look_for_exchange(channel: &Channel, name: &str) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), ExchangeKind::Direct, options, FieldTable::default()).await
}

/// Waits until everything that a queue has sent has arrived. It sends a request to the queue, whose answer takes the
/// same way, and then one to the channel, which first passes on what it received before.
pub(crate) async fn settle_down(channel: &Channel, queue: &str) -> lapin::Result<Queue> {
    let queue = look_for_queue(channel, queue).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(queue)
}

/// Publishes a name to a queue of names, on a channel in confirm mode, and returns whether the queue accepted it.
pub(crate) async fn write_name(channel: &Channel, queue: &str, name: &str) -> lapin::Result<bool> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let persistent = BasicProperties::default().with_delivery_mode(2);
    meter::round_trip(NAME);
    let sent = channel.basic_publish("".into(), queue.into(), options, name.as_bytes(), persistent).await;
    let confirmation = sent?.await?;
    Ok(confirmation.is_ack() && confirmation.take_message().is_none())
}

/// Closes a channel and waits for it. A dropped channel closes as well.
pub(crate) async fn close(channel: Channel) {
    let _ = channel.close(200, "done".into()).await;
}
