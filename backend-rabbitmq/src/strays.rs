//! What the broker could not route, which is what lost its gate to an operator: it is put on its way again.
//!
//! The exchanges of the levels have an alternate one, whose queue keeps what has nowhere to go. Each process that has a gate
//! consumes that queue; a stray's own queues and bindings are made again, and it is published anew before it is acknowledged.
//!
//! Where an exchange is missing, what has expired stays in its level, and nobody is told. So the same process looks for them,
//! one at each sweep.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use delayline_core::{Error, ErrorKind, QueueName, Result, meter};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicQosOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer, ExchangeKind};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::capabilities::NAME;
use crate::connection::Backoff;
use crate::message::Message;
use crate::shared::Shared;
use crate::way::Way;
use crate::{driver, failure};

/// How many are on their way at once.
const WINDOW: u16 = 100;

/// How long one that can't be published now is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// A process's care for strays, shared by its gates. It ends when the last of them drops it.
#[derive(Debug)]
pub(crate) struct Strays(JoinHandle<()>);

/// Where a backend finds the one that its gates share.
pub(crate) type Place = Mutex<Weak<Strays>>;

impl Strays {
    /// The one that there is, or a new one.
    pub(crate) fn of(shared: &Arc<Shared>) -> Arc<Self> {
        let mut place = shared.strays.lock();
        place.upgrade().unwrap_or_else(|| {
            let strays = Arc::new(Self(tokio::spawn(run(shared.clone()))));
            *place = Arc::downgrade(&strays);
            strays
        })
    }
}

impl Drop for Strays {
    fn drop(&mut self) {
        // What is not acknowledged goes back with the channel; a copy that was published just now is a duplicate.
        self.0.abort();
    }
}

/// How long after a repair a stray is taken for one from before it.
const REPAIR_AGAIN: Duration = Duration::from_secs(5);

async fn run(shared: Arc<Shared>) {
    let mut backoff = Backoff::new();
    loop {
        let e = match open(&shared).await {
            Ok((channel, consumer)) => {
                backoff.reset();
                serve(&shared, &channel, consumer).await
            }
            Err(e) => e,
        };
        if e.kind() == ErrorKind::Closed {
            return;
        }
        tracing::debug!(error = %e, "strays are not looked after for a moment");
        sleep(backoff.next()).await;
    }
}

async fn open(shared: &Shared) -> Result<(Channel, Consumer)> {
    let doing = "consuming what could not be routed";
    shared.open()?;
    shared.topology.base().await?;
    let channel = shared.consuming.channel().await?;
    meter::round_trip(NAME);
    let opened = async {
        channel.basic_qos(WINDOW, BasicQosOptions::default()).await?;
        driver::consume(&channel, &shared.names.unroutable(), shared.consumer_arguments()).await
    };
    match timeout(shared.config.response_timeout, opened).await {
        Ok(Ok(consumer)) => Ok((channel, consumer)),
        Ok(Err(e)) => {
            shared.topology.forget().await;
            Err(failure::failed(doing, &e, false))
        }
        Err(_) => Err(failure::silent(doing, &shared.config, false)),
    }
}

/// Goes on until something fails.
async fn serve(shared: &Shared, channel: &Channel, mut consumer: Consumer) -> Error {
    let doing = "looking after strays";
    // One repair is enough for all that strayed before it.
    let mut repaired: Option<(QueueName, Instant)> = None;
    let levels = shared.config.levels;
    let mut exchanges = (0..=levels).map(|level| shared.names.level(level)).chain([shared.names.gates()]).cycle();
    let mut sweeps = interval_at(Instant::now() + shared.config.sweep, shared.config.sweep);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            next = consumer.next() => next,
            _ = sweeps.tick() => {
                let Some(exchange) = exchanges.next() else { continue };
                match look_for(shared, channel, exchange).await {
                    Ok(()) => continue,
                    Err(e) => return e,
                }
            }
        };
        let delivery = match next {
            Some(Ok(delivery)) => delivery,
            Some(Err(e)) => return failure::failed(doing, &e, false),
            None => return Error::new(ErrorKind::Unavailable, format!("{doing}: the queue is gone")),
        };
        while !put_on_its_way(shared, &delivery, &mut repaired).await {
            sleep(PAUSE).await;
        }
        if let Err(e) = delivery.acker.ack(BasicAckOptions::default()).await {
            return failure::failed(doing, &e, false);
        }
    }
}

/// Makes sure of an exchange that nobody may publish to for long. If it is missing, the channel is gone, and everything is made
/// again with the next one.
async fn look_for(shared: &Shared, channel: &Channel, exchange: String) -> Result<()> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    meter::round_trip(NAME);
    let asked =
        channel.exchange_declare(exchange.as_str().into(), ExchangeKind::Direct, options, FieldTable::default());
    match timeout(shared.config.response_timeout, asked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => {
            if failure::is_not_found(&e) {
                tracing::warn!(exchange, "an exchange is missing: it is made again with its bindings");
            }
            shared.topology.forget().await;
            Err(failure::failed(&format!("looking for exchange `{exchange}`"), &e, false))
        }
        Err(_) => Err(failure::silent("looking for an exchange", &shared.config, false)),
    }
}

/// Whether it may be acknowledged.
async fn put_on_its_way(shared: &Shared, delivery: &Delivery, repaired: &mut Option<(QueueName, Instant)>) -> bool {
    let payload = Bytes::from(delivery.data.clone());
    let queue = Way::queue_of(&delivery.properties);
    let (queue, message) = match (queue, Message::read(&delivery.properties, payload.clone())) {
        (Some(queue), Ok(message)) => (queue, message),
        (_, read) => {
            let why = read.err().map_or("it does not say which way it was on", |foreign| foreign.0);
            return shared.set_aside(&shared.names.unroutable(), why, &delivery.properties, payload).await;
        }
    };
    if repaired.as_ref().is_none_or(|(of, at)| *of != queue || at.elapsed() > REPAIR_AGAIN) {
        tracing::warn!(%queue, "a task found no way to its gate: the queue and its bindings are made again");
        shared.topology.forget().await;
        if shared.ensure(&queue).await.is_err() {
            return false;
        }
        *repaired = Some((queue.clone(), Instant::now()));
    }
    let published = shared.publish(&queue, vec![shared.route(&queue, &message)]).await;
    published.iter().all(Result::is_ok)
}
