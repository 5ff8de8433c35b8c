//! Reroutes *strays*: messages that the broker could not route, or that a policy removed from their queue.
//!
//! The exchanges of the levels have an alternate exchange. Its queue keeps unroutable messages, such as those whose
//! gate an operator deleted. The queues dead-letter to it the messages that a policy removes from them, with their own
//! name as the key. Each process with a gate consumes that queue. It declares the queues and bindings of a stray again,
//! publishes the stray again, and then acknowledges it.
//!
//! | from | reason | destination |
//! |---|---|---|
//! | an exchange | no binding | routed by its due time |
//! | ready | `delivery_limit` | routed by its due time, with the attempts that the broker counted, at least one: it ends as a dead letter at its own maximum |
//! | ready, gate | `maxlen`, `expired` and others | routed by its due time, with unchanged attempts |
//! | dead | `maxlen` | dropped: the queue is full of newer letters |
//! | dead | others | back to the dead letters |
//! | the registry | any | back to the registry |
//!
//! If an exchange is missing, expired messages stay in their level, and the broker reports nothing. So the same process
//! also checks the exchanges, one at each fallback poll.

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

/// Number of unacknowledged strays (prefetch).
const WINDOW: u16 = 100;

/// Maximum number of strays that [`put_all_on_their_way`] handles.
const AT_ONCE_MAX: usize = 100_000;

/// Pause before a message that a full queue dropped is published again. With a policy that drops the oldest message, it
/// takes the place of another message.
const LET_GO_PAUSE: Duration = Duration::from_millis(10);

/// The first version that reports how often a message was delivered before its queue dropped it.
const TELLS_COUNT: Version = Version::new(4, 0);

/// Pause before a stray that can't be published is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The task that handles the strays of a process, shared by its gates. It ends when the last gate drops it.
#[derive(Debug)]
pub(crate) struct Strays(JoinHandle<()>);

/// Where the lines of a backend find the shared task.
pub(crate) type Place = Mutex<Weak<Strays>>;

impl Strays {
    /// The existing task, or a new one.
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
        // Unacknowledged strays return to the queue with the channel. If a copy was just published, it becomes a
        // duplicate.
        self.0.abort();
    }
}

/// Time after a repair during which strays are assumed to be older than the repair.
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
        tracing::debug!(error = %e, "handling of strays failed, trying again");
        sleep(backoff.failed()).await;
    }
}

async fn open(store: &Store) -> Result<(Channel, Consumer)> {
    let doing = "consuming unroutable messages";
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

/// Runs until something fails.
async fn serve(store: &Store, channel: &Channel, mut consumer: Consumer) -> Error {
    let doing = "looking after strays";
    // One repair is enough for all messages that strayed before it.
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
            None => return Error::new(ErrorKind::Unavailable, format!("{doing}: the queue was deleted")),
        };
        while !put_on_its_way(store, &delivery, &mut repaired).await {
            sleep(PAUSE).await;
        }
        // Not with the delivery's acker: if the connection ends at that moment, it may never return.
        if let Err(e) = channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await {
            return failure::failed(doing, &e, false);
        }
    }
}

/// Checks that an exchange exists, because nothing may be published to it for a long time. If it is missing, the broker
/// closes the channel, and everything is declared again with the next channel.
async fn look_for(store: &Store, channel: &Channel, exchange: String) -> Result<()> {
    meter::round_trip(NAME);
    match timeout(store.config.response_timeout, look_for_exchange(channel, &exchange)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => {
            if failure::is_not_found(&e) {
                tracing::warn!(exchange, "an exchange is missing, declaring it and its bindings again");
            }
            store.topology.forget().await;
            Err(failure::failed(&format!("looking for exchange `{exchange}`"), &e, false))
        }
        Err(_) => Err(failure::silent("looking for an exchange", &store.config, false)),
    }
}

/// Handles the strays that exist now, for the case that no process has a gate: for callers that need messages back that
/// a policy removed from a queue.
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
    // Unacknowledged messages return to the queue.
    close(channel).await;
    Ok(())
}

/// Handles a stray. Returns whether it may be acknowledged.
async fn put_on_its_way(store: &Store, delivery: &Delivery, repaired: &mut Option<(QueueName, Instant)>) -> bool {
    let key = delivery.routing_key.as_str();
    if key == store.names.registry() {
        let queue = str::from_utf8(&delivery.data).ok().and_then(|name| QueueName::new(name).ok());
        return match queue {
            Some(queue) => store.topology.register(&queue).await.is_ok(),
            None => quarantine(store, delivery, "it is not the name of a queue").await,
        };
    }
    match (store.names.part(key), Message::read(&delivery.properties, Bytes::from(delivery.data.clone()))) {
        (Some((queue, part)), Ok(message)) => let_go_of(store, delivery, queue, part, message).await,
        (None, Ok(message)) => match Way::queue_of(&delivery.properties) {
            Some(queue) => not_routed(store, queue, message, repaired).await,
            None => quarantine(store, delivery, "its routing keys name no queue").await,
        },
        (_, Err(foreign)) => quarantine(store, delivery, foreign.0).await,
    }
}

async fn quarantine(store: &Store, delivery: &Delivery, why: &str) -> bool {
    let payload = Bytes::from(delivery.data.clone());
    store.outbox.quarantine(&store.names.unroutable(), why, &delivery.properties, payload).await
}

/// Handles an unroutable message: declares its queue again.
async fn not_routed(
    store: &Store,
    queue: QueueName,
    message: Message,
    repaired: &mut Option<(QueueName, Instant)>,
) -> bool {
    if repaired.as_ref().is_none_or(|(of, at)| *of != queue || at.elapsed() > REPAIR_AGAIN) {
        tracing::warn!(%queue, "a task could not be routed to its gate, declaring the queue and its bindings again");
        store.topology.forget().await;
        if store.topology.ensure(&queue).await.is_err() {
            return false;
        }
        *repaired = Some((queue.clone(), Instant::now()));
    }
    let published = store.outbox.publish(&queue, vec![store.outbox.route(&queue, &message)]).await;
    published.iter().all(Result::is_ok)
}

/// Handles a message that a policy removed from its queue.
async fn let_go_of(store: &Store, delivery: &Delivery, queue: QueueName, part: Part, mut message: Message) -> bool {
    let reason = message::death_reason(&delivery.properties).unwrap_or_default();
    if message.is_marker() || (part == Part::Dead && reason == "maxlen") {
        return true;
    }
    tracing::warn!(%queue, ?part, reason, "a policy removed a message from its queue, publishing it again");
    let out = match part {
        Part::Dead => store.outbox.to_queue(store.names.dead(&queue), &message),
        Part::Ready if reason == "delivery_limit" => {
            message.attempts = message.attempts.saturating_add(counted(store, &delivery.properties));
            store.outbox.route(&queue, &message)
        }
        Part::Ready | Part::Gate => {
            // The queue may still be full, and drop another message for this one.
            sleep(LET_GO_PAUSE).await;
            store.outbox.route(&queue, &message)
        }
    };
    store.outbox.publish(&queue, vec![out]).await.iter().all(Result::is_ok)
}

/// The attempts that the broker counted before it dropped a task, at least one. RabbitMQ 3.10 does not report them, 4.0
/// only the deliveries to lost clients. From 4.3 on, the number also includes messages that this backend returned.
fn counted(store: &Store, properties: &BasicProperties) -> u32 {
    match store.consuming.version() {
        Some(version) if version >= TELLS_COUNT => message::delivery_count(properties).max(1),
        Some(_) | None => 1,
    }
}
