//! Removes a namespace, of this layout or an earlier one.

use std::collections::HashSet;

use delayline_core::{QueueName, Result, meter};
use futures_util::future::try_join_all;
use lapin::options::{BasicGetOptions, ExchangeDeleteOptions, QueueDeleteOptions};
use parking_lot::Mutex;

use crate::config::RabbitConfig;
use crate::limits::{LEVELS_MAX, NAME, PARALLEL_MAX};
use crate::names::Names;
use crate::transport::asking::close;
use crate::transport::connection::Link;
use crate::transport::failure;

/// Number of concurrent deletions. A quorum queue takes a broker some time; more concurrency does not make it faster.
const AT_ONCE: usize = 16;

/// Removes everything that exists. A repeated call removes what is left.
pub(super) async fn remove_once(config: &RabbitConfig, link: &Link) -> Result<()> {
    let names = Names::new(&config.namespace);
    let queues = registered(&names, link).await?;
    // Remove the marks first, so that no client takes a half-removed namespace for complete.
    let marks = queues.iter().map(|queue| names.made(queue)).chain([names.layout()]);
    delete_exchanges(link, marks).await?;
    // For any number of levels.
    let levels = (0..LEVELS_MAX).flat_map(|level| (0..PARALLEL_MAX).map(move |slot| (level, slot)));
    let all = queues.iter().flat_map(|queue| {
        let parts = [names.gate(queue), names.ready(queue), names.dead(queue)];
        parts.into_iter().chain([names.another(Some(queue))])
    });
    let all = all.chain(levels.map(|(level, slot)| names.level_queue(level, slot))).chain([
        names.unroutable(),
        names.quarantined(),
        names.another(None),
    ]);
    delete_queues(link, all.collect()).await?;
    let exchanges = (0..=LEVELS_MAX).map(|level| names.level(level)).chain([names.gates(), names.unroutable()]);
    delete_exchanges(link, exchanges).await?;
    // Remove the registry last: a repeated call after an interrupted removal needs it.
    delete_queues(link, vec![names.registry()]).await
}

/// The names of all logical queues. The messages return to the registry when the channel closes.
async fn registered(names: &Names, link: &Link) -> Result<HashSet<QueueName>> {
    let mut queues = HashSet::new();
    // A policy may have moved some names to the strays.
    for (found_in, any_key) in [(names.registry(), true), (names.unroutable(), false)] {
        let channel = link.channel().await?;
        loop {
            meter::round_trip(NAME);
            match channel.basic_get(found_in.as_str().into(), BasicGetOptions::default()).await {
                Ok(Some(message)) if any_key || message.routing_key.as_str() == names.registry() => {
                    let name = str::from_utf8(&message.data).ok().and_then(|name| QueueName::new(name).ok());
                    queues.extend(name);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    close(channel).await;
                    break;
                }
                Err(e) if failure::is_not_found(&e) => break,
                Err(e) => return Err(failure::failed("reading the queues' names", &e, false)),
            }
        }
    }
    Ok(queues)
}

/// Deletes queues, which may not exist any more, over several channels.
async fn delete_queues(link: &Link, queues: Vec<String>) -> Result<()> {
    let channels = AT_ONCE.min(queues.len());
    let left = Mutex::new(queues.into_iter());
    try_join_all((0..channels).map(|_| delete_some(link, &left))).await.map(drop)
}

async fn delete_some(link: &Link, left: &Mutex<impl Iterator<Item = String>>) -> Result<()> {
    let mut channel = link.channel().await?;
    loop {
        let next = left.lock().next();
        let Some(queue) = next else { break };
        meter::round_trip(NAME);
        let deleted = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
        if is_over(deleted.map(drop), &queue)? {
            channel = link.channel().await?;
        }
    }
    close(channel).await;
    Ok(())
}

/// Deletes exchanges, which may not exist any more. One by one, because RabbitMQ 4.0 fails if two exchanges that are
/// bound to each other are deleted at the same time.
async fn delete_exchanges(link: &Link, exchanges: impl Iterator<Item = String>) -> Result<()> {
    let mut channel = link.channel().await?;
    for exchange in exchanges {
        meter::round_trip(NAME);
        let deleted = channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await;
        if is_over(deleted, &exchange)? {
            channel = link.channel().await?;
        }
    }
    close(channel).await;
    Ok(())
}

/// Whether the broker has closed the channel because the object did not exist.
fn is_over(deleted: lapin::Result<()>, name: &str) -> Result<bool> {
    match deleted {
        Ok(()) => Ok(false),
        Err(e) if failure::is_not_found(&e) => Ok(true),
        Err(e) => Err(failure::failed(&format!("deleting `{name}`"), &e, false)),
    }
}
