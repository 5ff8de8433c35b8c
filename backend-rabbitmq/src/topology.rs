//! The queues and exchanges: made where they are missing, checked where they are there, removed on demand.
//!
//! Declaring what is there already changes nothing and checks its arguments, so that any number of processes may do it at
//! once. What an operator has deleted is made again when a publish finds it missing.
//!
//! What the broker may refuse is asked on a connection of its own, for that time: a refusal ends the channel, and the driver (lapin
//! 4.12) never opens one of that number again. On a connection that stays, the numbers would be used up some day, and with it
//! would go all leases that it has.
//!
//! What is missing is made by one at a time ([`Turn`]): a broker shows a quorum queue to others before it serves it, and RabbitMQ
//! 3.10 ends the connection of a client that uses it then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Error, ErrorKind, QueueName, Result, meter, owned};
use futures_util::future::try_join_all;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::capabilities::NAME;
use crate::config::{LEVEL_MS, LEVELS_MAX, PARALLEL_MAX};
use crate::connection::Link;
use crate::names::Names;
use crate::turn::Turn;
use crate::{RabbitConfig, failure, way};

/// How the levels are connected; another number for what clients of different versions would do differently.
const LAYOUT: u32 = 2;

/// As often as a quorum queue may deliver a message in vain before it drops it: brokers of 4.x would after 20.
const DELIVERIES_MAX: i64 = 1_000_000_000;

/// How many readers of dead letters may put their markers into a full queue before the oldest letter is dropped for it.
const MARKERS_MAX: i64 = 8;

/// How many channels queues are declared on at once.
const CHANNELS: usize = 8;

/// The first pause after the registry refused a name, and the longest.
const REGISTER_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(400));

/// The most foreign messages that are kept.
const SET_ASIDE_MAX: i64 = 10_000;

#[derive(Debug)]
pub(crate) struct Topology {
    config: Arc<RabbitConfig>,
    link: Arc<Link>,
    /// For the registry, which is published to: a broker short of memory stops reading from whoever publishes.
    publishing: Arc<Link>,
    names: Names,
    /// What is known to be there. Held while declaring, so that all who need it wait for one attempt.
    known: Mutex<Known>,
}

/// A queue that is to be there.
struct Wanted {
    queue: String,
    arguments: Vec<(&'static str, AMQPValue)>,
    /// Exchanges, and the keys by which they lead to it.
    bindings: Vec<(String, String)>,
}

impl Wanted {
    fn new(queue: String, arguments: Vec<(&'static str, AMQPValue)>) -> Self {
        Self { queue, arguments, bindings: Vec::new() }
    }

    fn bound(mut self, exchange: String, key: String) -> Self {
        self.bindings.push((exchange, key));
        self
    }
}

#[derive(Debug, Default)]
struct Known {
    base: bool,
    queues: HashSet<QueueName>,
    /// Until when the broker may forget what was made here: the base, and queues.
    base_is_new: Option<Instant>,
    new: HashMap<QueueName, Instant>,
}

impl Topology {
    pub(crate) fn new(config: Arc<RabbitConfig>, link: Arc<Link>, publishing: Arc<Link>) -> Self {
        let names = Names::new(&config);
        Self { config, link, publishing, names, known: Mutex::default() }
    }

    /// Makes sure of what all queues of the name space share: the levels, and where strays go.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) naming the queue and the argument that is not as ours, [`Denied`](ErrorKind::Denied)
    /// naming the permission, [`Unavailable`](ErrorKind::Unavailable).
    pub(crate) async fn base(self: &Arc<Self>) -> Result<()> {
        if self.known.lock().await.base {
            return Ok(());
        }
        let this = self.clone();
        // Not to be cut short by whoever needs it first.
        let made = async move {
            let mut known = this.known.lock().await;
            if !known.base {
                if this.bounded(this.declare_base()).await? {
                    known.base_is_new = Some(Instant::now() + this.config.new_queue_wait);
                }
                known.base = true;
            }
            Ok(())
        };
        owned(made, |()| async {}).await
    }

    /// Makes sure of a logical queue: its gate, ready queue and dead letters.
    ///
    /// # Errors
    /// As [`base`](Self::base).
    pub(crate) async fn queue(self: &Arc<Self>, queue: &QueueName) -> Result<()> {
        if self.known.lock().await.queues.contains(queue) {
            return Ok(());
        }
        let (this, queue) = (self.clone(), queue.clone());
        // Likewise.
        let made = async move {
            let mut known = this.known.lock().await;
            if !known.queues.contains(&queue) {
                if this.bounded(this.declare_queue(&queue)).await? {
                    known.new.insert(queue.clone(), Instant::now() + this.config.new_queue_wait);
                }
                known.queues.insert(queue);
            }
            Ok(())
        };
        owned(made, |()| async {}).await
    }

    /// Waits until the broker can't forget a queue any more, if it was made here just now.
    ///
    /// A broker writes the names of its quorum queues to disk when it has made no more of them for half a second to a second.
    /// Killed before, it has lost the queue with all that it confirmed (seen with 3.10.8).
    pub(crate) async fn lasting(&self, queue: &QueueName) {
        let until = {
            let known = self.known.lock().await;
            known.new.get(queue).copied().max(known.base_is_new)
        };
        let Some(until) = until else { return };
        sleep_until(until).await;
        let mut known = self.known.lock().await;
        let now = Instant::now();
        known.new.retain(|_, until| *until > now);
        known.base_is_new = known.base_is_new.filter(|until| *until > now);
    }

    /// Something was missing: all of it is made sure of again when it is needed next.
    pub(crate) async fn forget(&self) {
        let mut known = self.known.lock().await;
        known.base = false;
        known.queues.clear();
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        // Many requests, each of them quick; a broker that makes a hundred queues for the first time takes a while.
        match timeout(self.config.response_timeout * 6, work).await {
            Ok(done) => done,
            Err(_) => Err(failure::silent("making the queues", &self.config, false)),
        }
    }

    /// A connection for what may be refused.
    async fn asking(&self) -> Result<Arc<Link>> {
        // Without the one that stays, there is nothing to ask for, and all who need that one wait for the same attempt.
        self.link.connection().await?;
        Ok(Arc::new(Link::new(self.config.clone(), "making")))
    }

    /// Whether it was not there.
    async fn declare_base(&self) -> Result<bool> {
        let asking = self.asking().await?;
        let is_new = self.declare_base_asking(&asking).await;
        asking.close().await;
        is_new
    }

    async fn declare_base_asking(&self, asking: &Arc<Link>) -> Result<bool> {
        // The registry is made last.
        let turn = turn(asking, &self.names.turn(None), &[self.names.registry()]).await?;
        let is_new = turn.is_some() && missing(asking, &[self.names.registry()]).await?;
        self.declare_what_is_shared().await?;
        over(turn).await;
        Ok(is_new)
    }

    async fn declare_what_is_shared(&self) -> Result<()> {
        let channel = self.link.channel().await?;
        let (names, parallel) = (&self.names, self.config.parallel);
        let levels = self.config.levels;
        let layout = format!("format={LAYOUT} levels={levels} parallel={parallel}");
        exchange(&channel, &names.layout(), ExchangeKind::Fanout, Some(&layout)).await?;
        exchange(&channel, &names.unroutable(), ExchangeKind::Fanout, None).await?;
        let strays = names.unroutable();
        // A topic exchange finds one of many queues by looking, where a direct one goes through all of them if there is more than
        // one key (RabbitMQ 3.10).
        exchange(&channel, &names.gates(), ExchangeKind::Topic, Some(&strays)).await?;
        // The one above the highest level is for what comes in.
        for level in 0..=levels {
            exchange(&channel, &names.level(level), ExchangeKind::Direct, Some(&strays)).await?;
        }
        for level in 0..levels {
            bind_exchange(&channel, &names.gates(), &names.level(level), &way::step_to_gates(level)).await?;
        }
        close(channel).await;
        let bounded = vec![("x-max-length", long(SET_ASIDE_MAX)), ("x-overflow", text("drop-head"))];
        let mut queues = vec![
            Wanted::new(names.unroutable(), Vec::new()).bound(names.unroutable(), String::new()),
            Wanted::new(names.set_aside(), bounded),
        ];
        for (level, slot) in (0..levels).flat_map(|level| (0..parallel).map(move |slot| (level, slot))) {
            let arguments = vec![
                ("x-message-ttl", long((LEVEL_MS << level).cast_signed())),
                ("x-dead-letter-exchange", text(&names.level(level))),
                ("x-dead-letter-strategy", text("at-least-once")),
                ("x-overflow", text("reject-publish")),
            ];
            let queue = Wanted::new(names.level_queue(level, slot), arguments);
            let steps = (level + 1..=levels).map(|from| (names.level(from), way::step(from, level, slot)));
            queues.push(steps.fold(queue, |queue, (exchange, step)| queue.bound(exchange, step)));
        }
        self.make(queues).await?;
        self.make(vec![Wanted::new(names.registry(), Vec::new())]).await
    }

    /// Whether it was not there.
    async fn declare_queue(&self, queue: &QueueName) -> Result<bool> {
        let asking = self.asking().await?;
        let is_new = self.declare_queue_asking(&asking, queue).await;
        asking.close().await;
        is_new
    }

    async fn declare_queue_asking(&self, asking: &Arc<Link>, queue: &QueueName) -> Result<bool> {
        let names = &self.names;
        let all = [names.dead(queue), names.ready(queue), names.gate(queue)];
        let turn = turn(asking, &names.turn(Some(queue)), &all).await?;
        let is_new = turn.is_some() && missing(asking, &[names.dead(queue)]).await?;
        if is_new {
            // Registered before it is made, so that `remove` finds whatever was made.
            self.register(queue).await?;
        }
        let one_at_a_time = vec![("x-single-active-consumer", AMQPValue::Boolean(true))];
        // With room for the markers of those who read them.
        let letters = long(i64::from(self.config.dead_letters_max) + MARKERS_MAX);
        self.make(vec![
            Wanted::new(names.gate(queue), one_at_a_time).bound(names.gates(), way::step_to_gate(queue)),
            Wanted::new(names.ready(queue), Vec::new()),
            Wanted::new(names.dead(queue), vec![("x-max-length", letters), ("x-overflow", text("drop-head"))]),
        ])
        .await?;
        over(turn).await;
        Ok(is_new)
    }

    /// Declares queues and binds them, over a few channels: a broker takes its time for each quorum queue, and works on
    /// those of different channels at once.
    async fn make(&self, queues: Vec<Wanted>) -> Result<()> {
        let each = queues.len().div_ceil(CHANNELS);
        let mut queues = queues.into_iter();
        let mut parts = Vec::new();
        loop {
            let part: Vec<Wanted> = queues.by_ref().take(each).collect();
            if part.is_empty() {
                break;
            }
            parts.push(async move {
                let channel = self.link.channel().await?;
                for wanted in part {
                    declare(&channel, &wanted).await?;
                }
                close(channel).await;
                Ok(())
            });
        }
        try_join_all(parts).await.map(drop)
    }

    async fn register(&self, queue: &QueueName) -> Result<()> {
        let channel = self.publishing.channel().await?;
        let doing = "registering a queue's name";
        let failed = |e| failure::failed(doing, &e, false);
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let registry = self.names.registry();
        let (ends, mut pause) = (Instant::now() + self.config.response_timeout, REGISTER_PAUSES.0);
        while Instant::now() < ends {
            let (key, properties) = (registry.as_str().into(), persistent.clone());
            meter::round_trip(NAME);
            let sent = channel.basic_publish("".into(), key, options, queue.as_str().as_bytes(), properties).await;
            let confirmation = sent.map_err(failed)?.await.map_err(failed)?;
            if confirmation.is_ack() && confirmation.take_message().is_none() {
                close(channel).await;
                return Ok(());
            }
            // A queue that has just been made may have no leader yet, and one that is busy takes its time.
            sleep(pause).await;
            pause = (pause * 2).min(REGISTER_PAUSES.1);
        }
        Err(Error::new(ErrorKind::Unavailable, format!("{doing}: `{registry}` did not take it")))
    }
}

/// The turn to make what is missing of these queues; nothing where all are there and nobody is making them.
async fn turn(link: &Arc<Link>, name: &str, queues: &[String]) -> Result<Option<Turn>> {
    let missing = missing(link, queues).await?;
    // Also where nothing is missing: whoever makes it has the turn until the broker serves it.
    let turn = Turn::take(link, name).await?;
    if missing {
        return Ok(Some(turn));
    }
    turn.end().await;
    Ok(None)
}

async fn over(turn: Option<Turn>) {
    if let Some(turn) = turn {
        turn.end().await;
    }
}

/// Whether one of these queues is not there. A channel of its own, because the broker closes it then.
async fn missing(link: &Link, queues: &[String]) -> Result<bool> {
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    for queue in queues {
        meter::round_trip(NAME);
        match channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await {
            Ok(_) => {}
            Err(e) if failure::is_not_found(&e) => return Ok(true),
            Err(e) => return Err(failure::failed(&format!("looking for queue `{queue}`"), &e, false)),
        }
    }
    close(channel).await;
    Ok(false)
}

/// Removes every queue and exchange of the configuration's name space, with all that is in them.
///
/// Whoever uses the name space at that moment may make some of it again.
///
/// # Errors
/// [`Config`](ErrorKind::Config), [`Denied`](ErrorKind::Denied), [`Unavailable`](ErrorKind::Unavailable). Repeated, it
/// goes on with what is left.
///
/// # Cancel safety
/// Dropped, a part of it may have been removed; repeat it.
pub(crate) async fn remove(config: &RabbitConfig, link: &Link) -> Result<()> {
    let names = Names::new(config);
    // The registry goes last: a removal that stops half-way is repeated with what it says.
    for queue in registered(&names, link).await? {
        for part in [names.gate(&queue), names.ready(&queue), names.dead(&queue)] {
            delete_queue(link, &part).await?;
        }
    }
    // However many it was made with.
    for (level, slot) in (0..LEVELS_MAX).flat_map(|level| (0..PARALLEL_MAX).map(move |slot| (level, slot))) {
        delete_queue(link, &names.level_queue(level, slot)).await?;
    }
    for level in 0..=LEVELS_MAX {
        delete_exchange(link, &names.level(level)).await?;
    }
    for exchange in [names.gates(), names.unroutable(), names.layout()] {
        delete_exchange(link, &exchange).await?;
    }
    for queue in [names.unroutable(), names.set_aside(), names.registry()] {
        delete_queue(link, &queue).await?;
    }
    Ok(())
}

/// The names of all logical queues. They are put back when the channel closes.
async fn registered(names: &Names, link: &Link) -> Result<HashSet<QueueName>> {
    let channel = link.channel().await?;
    let mut queues = HashSet::new();
    loop {
        meter::round_trip(NAME);
        match channel.basic_get(names.registry().into(), BasicGetOptions::default()).await {
            Ok(Some(message)) => {
                let name = str::from_utf8(&message.data).ok().and_then(|name| QueueName::new(name).ok());
                queues.extend(name);
            }
            Ok(None) => break,
            Err(e) if failure::is_not_found(&e) => return Ok(queues),
            Err(e) => return Err(failure::failed("reading the queues' names", &e, false)),
        }
    }
    close(channel).await;
    Ok(queues)
}

async fn delete_queue(link: &Link, name: &str) -> Result<()> {
    let channel = link.channel().await?;
    meter::round_trip(NAME);
    match channel.queue_delete(name.into(), QueueDeleteOptions::default()).await {
        Ok(_) => {
            close(channel).await;
            Ok(())
        }
        Err(e) if failure::is_not_found(&e) => Ok(()),
        Err(e) => Err(failure::failed(&format!("deleting queue `{name}`"), &e, false)),
    }
}

async fn delete_exchange(link: &Link, name: &str) -> Result<()> {
    let channel = link.channel().await?;
    meter::round_trip(NAME);
    match channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await {
        Ok(()) => {
            close(channel).await;
            Ok(())
        }
        Err(e) if failure::is_not_found(&e) => Ok(()),
        Err(e) => Err(failure::failed(&format!("deleting exchange `{name}`"), &e, false)),
    }
}

async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind, alternate: Option<&str>) -> Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    if let Some(alternate) = alternate {
        arguments.insert("alternate-exchange".into(), text(alternate));
    }
    meter::round_trip(NAME);
    let declared = channel.exchange_declare(name.into(), kind, options, arguments).await;
    declared.map_err(|e| failure::failed(&format!("declaring exchange `{name}`"), &e, false))
}

/// Declares a durable quorum queue and binds it.
async fn declare(channel: &Channel, wanted: &Wanted) -> Result<()> {
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

/// Lets what has the key go on from one exchange to another.
async fn bind_exchange(channel: &Channel, to: &str, from: &str, key: &str) -> Result<()> {
    let options = ExchangeBindOptions::default();
    meter::round_trip(NAME);
    let bound = channel.exchange_bind(to.into(), from.into(), key.into(), options, FieldTable::default()).await;
    bound.map_err(|e| failure::failed(&format!("binding exchange `{to}` to `{from}`"), &e, false))
}

async fn close(channel: Channel) {
    // It closes when it is dropped as well; this only waits for it.
    let _ = channel.close(200, "done".into()).await;
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.as_bytes().to_vec().into())
}

fn long(number: i64) -> AMQPValue {
    AMQPValue::LongLongInt(number)
}
