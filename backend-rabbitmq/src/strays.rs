//! What the broker could not route or a queue has let go of: it is put on its way again.
//!
//! The exchanges of the levels have an alternate one, whose queue keeps what has nowhere to go: what lost its gate to an
//! operator. The queues dead-letter to it what a policy takes from them, with their own name as the key. Each process that
//! has a gate consumes that queue; a stray's own queues and bindings are made again, and it is published anew before it is
//! acknowledged.
//!
//! | from | because of | it goes |
//! |---|---|---|
//! | an exchange | no binding | on its way, by its due time |
//! | ready | `delivery_limit` | on its way, with the attempts that the broker counted, one at least: it ends as a dead letter by its own maximum |
//! | ready, gate | `maxlen`, `expired` and others | on its way, with its attempts as they were |
//! | dead | `maxlen` | nowhere: there are as many newer letters as may be |
//! | dead | others | back to the dead letters |
//! | the registry | any | back to the registry |
//!
//! Where an exchange is missing, what has expired stays in its level, and nobody is told. So the same process looks for them,
//! one at each fallback poll.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use delayline_backend_kit::Backoff;
use delayline_core::{Error, ErrorKind, QueueName, Result, meter};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicQosOptions};
use lapin::{BasicProperties, Channel, Consumer};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::codec::message::{self, Message};
use crate::limits::NAME;
use crate::names::Part;
use crate::store::Store;
use crate::transport::asking::{answered, close, look_for_exchange};
use crate::transport::greeting::Version;
use crate::transport::{driver, failure};
use crate::way::Way;

/// How many are on their way at once.
const WINDOW: u16 = 100;

/// The most that are handled by one who only looks.
const AT_ONCE_MAX: usize = 100_000;

/// How long one waits that a full queue has let go of: with a policy that drops the oldest, it takes the place of another.
const LET_GO_PAUSE: Duration = Duration::from_millis(10);

/// The first version that tells how often a message was delivered before its queue let go of it.
const TELLS_COUNT: Version = Version::new(4, 0);

/// How long one that can't be published now is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// A process's care for strays, shared by those that have a gate. It ends when the last of them drops it.
#[derive(Debug)]
pub(crate) struct Strays(JoinHandle<()>);

/// Where the lines of a backend find the one that their gates share.
pub(crate) type Place = Mutex<Weak<Strays>>;

impl Strays {
    /// The one that there is, or a new one.
    pub(crate) fn of(place: &Place, store: &Arc<Store>) -> Arc<Self> {
        let mut place = place.lock();
        place.upgrade().unwrap_or_else(|| {
            let strays = Arc::new(Self(tokio::spawn(run(store.clone()))));
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

async fn run(store: Arc<Store>) {
    let mut backoff = Backoff::new();
    loop {
        let e = match open(&store).await {
            Ok((channel, consumer)) => {
                backoff.succeeded();
                serve(&store, &channel, consumer).await
            }
            Err(e) => e,
        };
        if e.kind() == ErrorKind::Closed {
            return;
        }
        tracing::debug!(error = %e, "strays are not looked after for a moment");
        sleep(backoff.failed()).await;
    }
}

async fn open(store: &Store) -> Result<(Channel, Consumer)> {
    let doing = "consuming what could not be routed";
    store.lifecycle.open()?;
    store.topology.base().await?;
    let channel = store.consuming.channel().await?;
    meter::round_trip(NAME);
    let opened = async {
        channel.basic_qos(WINDOW, BasicQosOptions::default()).await?;
        driver::consume(&channel, &store.names.unroutable(), store.consuming.consumer_arguments()).await
    };
    match timeout(store.config.response_timeout, opened).await {
        Ok(Ok(consumer)) => Ok((channel, consumer)),
        Ok(Err(e)) => {
            store.topology.forget().await;
            Err(failure::failed(doing, &e, false))
        }
        Err(_) => Err(failure::silent(doing, &store.config, false)),
    }
}

/// Goes on until something fails.
async fn serve(store: &Store, channel: &Channel, mut consumer: Consumer) -> Error {
    let doing = "looking after strays";
    // One repair is enough for all that strayed before it.
    let mut repaired: Option<(QueueName, Instant)> = None;
    let levels = store.config.levels;
    let others = [store.names.gates(), store.names.unroutable()];
    let mut exchanges = (0..=levels).map(|level| store.names.level(level)).chain(others).cycle();
    let mut fallback_polls =
        interval_at(Instant::now() + store.config.fallback_poll_interval, store.config.fallback_poll_interval);
    fallback_polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            next = consumer.next() => next,
            _ = fallback_polls.tick() => {
                let Some(exchange) = exchanges.next() else { continue };
                match look_for(store, channel, exchange).await {
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
        while !put_on_its_way(store, &delivery, &mut repaired).await {
            sleep(PAUSE).await;
        }
        // Not by the delivery's own acker: one that is asked as the connection ends may never answer.
        if let Err(e) = channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await {
            return failure::failed(doing, &e, false);
        }
    }
}

/// Makes sure of an exchange that nobody may publish to for long. If it is missing, the channel is gone, and everything is made
/// again with the next one.
async fn look_for(store: &Store, channel: &Channel, exchange: String) -> Result<()> {
    meter::round_trip(NAME);
    match timeout(store.config.response_timeout, look_for_exchange(channel, &exchange)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => {
            if failure::is_not_found(&e) {
                tracing::warn!(exchange, "an exchange is missing: it is made again with its bindings");
            }
            store.topology.forget().await;
            Err(failure::failed(&format!("looking for exchange `{exchange}`"), &e, false))
        }
        Err(_) => Err(failure::silent("looking for an exchange", &store.config, false)),
    }
}

/// Handles what is there now, where no process with a gate may be: after something was taken from a queue that its user
/// looks at.
pub(crate) async fn put_all_on_their_way(store: &Store) -> Result<()> {
    let doing = "looking after strays";
    let channel = store.consuming.channel().await?;
    let mut repaired = None;
    for _ in 0..AT_ONCE_MAX {
        let asked = channel.basic_get(store.names.unroutable().into(), BasicGetOptions::default());
        let Some(got) = answered(&store.config, doing, false, asked).await? else { break };
        if !put_on_its_way(store, &got.delivery, &mut repaired).await {
            break;
        }
        let done = channel.basic_ack(got.delivery.delivery_tag, BasicAckOptions::default()).await;
        done.map_err(|e| failure::failed(doing, &e, false))?;
    }
    // What is not acknowledged goes back.
    close(channel).await;
    Ok(())
}

/// Whether it may be acknowledged.
async fn put_on_its_way(store: &Store, delivery: &Delivery, repaired: &mut Option<(QueueName, Instant)>) -> bool {
    let key = delivery.routing_key.as_str();
    if key == store.names.registry() {
        let queue = str::from_utf8(&delivery.data).ok().and_then(|name| QueueName::new(name).ok());
        return match queue {
            Some(queue) => store.topology.register(&queue).await.is_ok(),
            None => quarantined(store, delivery, "it is no queue's name").await,
        };
    }
    match (store.names.part(key), Message::read(&delivery.properties, Bytes::from(delivery.data.clone()))) {
        (Some((queue, part)), Ok(message)) => let_go_of(store, delivery, queue, part, message).await,
        (None, Ok(message)) => match Way::queue_of(&delivery.properties) {
            Some(queue) => not_routed(store, queue, message, repaired).await,
            None => quarantined(store, delivery, "it does not say which way it was on").await,
        },
        (_, Err(foreign)) => quarantined(store, delivery, foreign.0).await,
    }
}

async fn quarantined(store: &Store, delivery: &Delivery, why: &str) -> bool {
    let payload = Bytes::from(delivery.data.clone());
    store.outbox.quarantined(&store.names.unroutable(), why, &delivery.properties, payload).await
}

/// No exchange knew where to: the queue is made again.
async fn not_routed(
    store: &Store,
    queue: QueueName,
    message: Message,
    repaired: &mut Option<(QueueName, Instant)>,
) -> bool {
    if repaired.as_ref().is_none_or(|(of, at)| *of != queue || at.elapsed() > REPAIR_AGAIN) {
        tracing::warn!(%queue, "a task found no way to its gate: the queue and its bindings are made again");
        store.topology.forget().await;
        if store.topology.ensure(&queue).await.is_err() {
            return false;
        }
        *repaired = Some((queue.clone(), Instant::now()));
    }
    let published = store.outbox.publish(&queue, vec![store.outbox.route(&queue, &message)]).await;
    published.iter().all(Result::is_ok)
}

/// A queue has let go of it.
async fn let_go_of(store: &Store, delivery: &Delivery, queue: QueueName, part: Part, mut message: Message) -> bool {
    let reason = message::death_reason(&delivery.properties).unwrap_or_default();
    if message.is_marker() || (part == Part::Dead && reason == "maxlen") {
        return true;
    }
    tracing::warn!(%queue, ?part, reason, "a policy took a message from its queue: it goes on its way again");
    let out = match part {
        Part::Dead => store.outbox.to_queue(store.names.dead(&queue), &message),
        Part::Ready if reason == "delivery_limit" => {
            message.attempts = message.attempts.saturating_add(counted(store, &delivery.properties));
            store.outbox.route(&queue, &message)
        }
        Part::Ready | Part::Gate => {
            // The queue may still be as full as it was, and let go of the next one for it.
            sleep(LET_GO_PAUSE).await;
            store.outbox.route(&queue, &message)
        }
    };
    store.outbox.publish(&queue, vec![out]).await.iter().all(Result::is_ok)
}

/// How many attempts the broker counted before it let go of a task, of which there was one at least: RabbitMQ 3.10 does not
/// say, 4.0 only where a holder was gone. From 4.3 on, what is returned here is counted as well.
fn counted(store: &Store, properties: &BasicProperties) -> u32 {
    match store.consuming.version() {
        Some(version) if version >= TELLS_COUNT => message::delivery_count(properties).max(1),
        Some(_) | None => 1,
    }
}
