//! Declares queues, exchanges and bindings.

use delayline_core::{Result, meter};
use futures_util::future::try_join_all;
use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use crate::codec::table::{long, text};
use crate::limits::NAME;
use crate::transport::asking::{close, look_for_exchange, look_for_queue};
use crate::transport::connection::Link;
use crate::transport::failure;

/// Delivery limit of quorum queues, after which they drop a message. The default of RabbitMQ 4.x is 20.
const DELIVERIES_MAX: i64 = 1_000_000_000;

/// Number of channels on which queues are declared at the same time.
const CHANNELS: usize = 8;

/// A queue to declare.
pub(super) struct Wanted {
    pub(super) queue: String,
    arguments: Vec<(&'static str, AMQPValue)>,
    /// Bindings to it: exchanges and keys.
    bindings: Vec<(String, String)>,
}

impl Wanted {
    pub(super) fn new(queue: String, arguments: Vec<(&'static str, AMQPValue)>) -> Self {
        Self { queue, arguments, bindings: Vec::new() }
    }

    pub(super) fn bound(mut self, exchange: String, key: String) -> Self {
        self.bindings.push((exchange, key));
        self
    }
}

/// Declares queues and binds them, over a few channels. A quorum queue takes a broker some time, and it works on
/// different channels in parallel.
pub(super) async fn make(link: &Link, queues: Vec<Wanted>) -> Result<()> {
    let each = queues.len().div_ceil(CHANNELS);
    let mut queues = queues.into_iter();
    let mut parts = Vec::new();
    loop {
        let part: Vec<Wanted> = queues.by_ref().take(each).collect();
        if part.is_empty() {
            break;
        }
        parts.push(async move {
            let channel = link.channel().await?;
            for wanted in part {
                declare(&channel, &wanted).await?;
            }
            close(channel).await;
            Ok(())
        });
    }
    try_join_all(parts).await.map(drop)
}

/// Declares a durable quorum queue and binds it.
pub(super) async fn declare(channel: &Channel, wanted: &Wanted) -> Result<()> {
    let queue = wanted.queue.as_str();
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text("quorum"));
    table.insert("x-delivery-limit".into(), long(DELIVERIES_MAX));
    for (name, value) in &wanted.arguments {
        table.insert((*name).into(), value.clone());
    }
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    meter::round_trip(NAME);
    let declared = channel.queue_declare(queue.into(), options, table).await;
    declared.map_err(|e| failure::failed(&format!("declaring queue `{queue}`"), &e, false))?;
    for (exchange, key) in &wanted.bindings {
        let (exchange, key, options) = (exchange.as_str(), key.as_str(), QueueBindOptions::default());
        meter::round_trip(NAME);
        let bound = channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await;
        bound.map_err(|e| failure::failed(&format!("binding queue `{queue}` to `{exchange}`"), &e, false))?;
    }
    Ok(())
}

pub(super) async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind, alternate: Option<&str>) -> Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    if let Some(alternate) = alternate {
        arguments.insert("alternate-exchange".into(), text(alternate));
    }
    meter::round_trip(NAME);
    let declared = channel.exchange_declare(name.into(), kind, options, arguments).await;
    declared.map_err(|e| failure::failed(&format!("declaring exchange `{name}`"), &e, false))
}

/// Binds an exchange to another one, with a key.
pub(super) async fn bind_exchange(channel: &Channel, to: &str, from: &str, key: &str) -> Result<()> {
    let options = ExchangeBindOptions::default();
    meter::round_trip(NAME);
    let bound = channel.exchange_bind(to.into(), from.into(), key.into(), options, FieldTable::default()).await;
    bound.map_err(|e| failure::failed(&format!("binding exchange `{to}` to `{from}`"), &e, false))
}

/// Whether an exchange exists. If not, the broker has closed the channel.
pub(super) async fn is_exchange(channel: &Channel, name: &str) -> Result<bool> {
    meter::round_trip(NAME);
    match look_for_exchange(channel, name).await {
        Ok(()) => Ok(true),
        Err(e) if failure::is_not_found(&e) => Ok(false),
        Err(e) => Err(failure::failed(&format!("looking for exchange `{name}`"), &e, false)),
    }
}

/// Whether a queue exists. If not, the broker has closed the channel.
pub(super) async fn is_queue(channel: &Channel, name: &str) -> Result<bool> {
    meter::round_trip(NAME);
    match look_for_queue(channel, name).await {
        Ok(_) => Ok(true),
        Err(e) if failure::is_not_found(&e) => Ok(false),
        Err(e) => Err(failure::failed(&format!("looking for queue `{name}`"), &e, false)),
    }
}

/// Deletes a queue, if it exists.
pub(super) async fn delete_queue(channel: &Channel, name: &str) -> Result<()> {
    meter::round_trip(NAME);
    let deleted = channel.queue_delete(name.into(), QueueDeleteOptions::default()).await;
    deleted.map(drop).map_err(|e| failure::failed(&format!("deleting queue `{name}`"), &e, false))
}
