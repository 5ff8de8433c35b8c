//! The objects of a namespace, and the order in which they are declared.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Error, ErrorKind, QueueName, Result};
use lapin::ExchangeKind;
use lapin::options::ConfirmSelectOptions;
use lapin::types::AMQPValue;
use tokio::time::{Instant, sleep};

use super::declare::{Wanted, bind_exchange, declare, delete_queue, exchange, is_exchange, is_queue, make};
use crate::codec::table::{long, text};
use crate::config::RabbitConfig;
use crate::limits::LEVEL_MS;
use crate::names::Names;
use crate::transport::asking::{close, write_name};
use crate::transport::connection::Link;
use crate::transport::failure;
use crate::turn::Turn;
use crate::way;

/// Version of the layout: how the levels are connected, and the arguments of the queues. It changes when clients of
/// different versions would declare something differently.
const LAYOUT: u32 = 3;

/// Number of concurrent readers of dead letters whose markers fit into a full queue before the oldest letter is
/// dropped.
const MARKERS_MAX: i64 = 8;

/// First and longest pause after the registry refused a name.
const REGISTER_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(400));

/// Maximum number of quarantined messages.
const QUARANTINED_MAX: i64 = 10_000;

#[derive(Debug)]
pub(super) struct Layout {
    config: Arc<RabbitConfig>,
    link: Arc<Link>,
    /// The connection for publishing to the registry: a broker that is short of memory stops reading from publishers.
    publishing: Arc<Link>,
    names: Names,
}

impl Layout {
    pub(super) fn new(config: Arc<RabbitConfig>, link: Arc<Link>, publishing: Arc<Link>) -> Self {
        let names = Names::new(&config.namespace);
        Self { config, link, publishing, names }
    }

    /// Declares the shared topology.
    pub(super) async fn declare_base(&self, is_doubted: bool) -> Result<()> {
        if !is_doubted && self.is_there(&self.link, None).await? {
            return self.check_layout().await;
        }
        let asking = self.asking().await?;
        let made = self.make_base(&asking, is_doubted).await;
        asking.close().await;
        made
    }

    async fn make_base(&self, asking: &Arc<Link>, is_doubted: bool) -> Result<()> {
        let turn = Turn::take(asking, &self.names.turn(None)).await?;
        let is_there = self.is_there(asking, None).await?;
        if is_there {
            // Refuses a namespace of another layout before anything is declared in it.
            self.check_layout().await?;
        }
        let queues = self.shared_queues();
        let all: Vec<String> = queues.iter().map(|wanted| wanted.queue.clone()).collect();
        if is_there && !(is_doubted && missing(asking, &all).await?) {
            turn.end().await;
            // An exchange or a binding may be missing. Several clients may declare the same ones at once.
            return if is_doubted { self.declare_what_is_shared(queues).await } else { Ok(()) };
        }
        self.declare_what_is_shared(queues).await?;
        self.write_down(None).await?;
        self.check_layout().await?;
        turn.end().await;
        Ok(())
    }

    /// Opens a connection for requests that may be refused.
    async fn asking(&self) -> Result<Arc<Link>> {
        // First make sure that the permanent connection works: without it, this is useless, and its callers share one
        // attempt.
        self.link.connection().await?;
        Ok(Arc::new(Link::asking(self.config.clone(), "making")))
    }

    /// Declares the mark of the namespace, whose argument contains the layout.
    async fn check_layout(&self) -> Result<()> {
        let (levels, parallel, mark) = (self.config.levels, self.config.parallel, self.names.layout());
        let layout = format!("format={LAYOUT} levels={levels} parallel={parallel}");
        let channel = self.link.channel().await?;
        exchange(&channel, &mark, ExchangeKind::Fanout, Some(&layout)).await.map_err(of_other_format)?;
        close(channel).await;
        Ok(())
    }

    async fn declare_what_is_shared(&self, queues: Vec<Wanted>) -> Result<()> {
        let channel = self.link.channel().await?;
        let (names, levels) = (&self.names, self.config.levels);
        exchange(&channel, &names.unroutable(), ExchangeKind::Fanout, None).await?;
        let strays = names.unroutable();
        // With more than one routing key, a direct exchange scans all its queues, and a topic exchange uses a lookup
        // (RabbitMQ 3.10).
        exchange(&channel, &names.gates(), ExchangeKind::Topic, Some(&strays)).await?;
        // The exchange above the highest level is the entry.
        for level in 0..=levels {
            exchange(&channel, &names.level(level), ExchangeKind::Direct, Some(&strays)).await?;
        }
        for level in 0..levels {
            bind_exchange(&channel, &names.gates(), &names.level(level), &way::step_to_gates(level)).await?;
        }
        close(channel).await;
        make(&self.link, queues).await
    }

    /// The queues that all logical queues share.
    fn shared_queues(&self) -> Vec<Wanted> {
        let (names, levels, parallel) = (&self.names, self.config.levels, self.config.parallel);
        let bounded = vec![("x-max-length", long(QUARANTINED_MAX)), ("x-overflow", text("drop-head"))];
        // Messages that a policy removes from the strays are quarantined: they could not be routed back.
        let to_quarantine = lossless("", &names.quarantined());
        let mut queues = vec![
            Wanted::new(names.unroutable(), to_quarantine).bound(names.unroutable(), String::new()),
            Wanted::new(names.quarantined(), bounded),
            Wanted::new(names.registry(), lossless(&names.unroutable(), &names.registry())),
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
        queues
    }

    /// Declares a logical queue.
    pub(super) async fn declare_queue(&self, queue: &QueueName, is_doubted: bool) -> Result<()> {
        let asking = self.asking().await?;
        let made = self.make_queue(&asking, queue, is_doubted).await;
        asking.close().await;
        made
    }

    async fn make_queue(&self, asking: &Arc<Link>, queue: &QueueName, is_doubted: bool) -> Result<()> {
        let names = &self.names;
        if !is_doubted && self.is_there(asking, Some(queue)).await? {
            // This checks that its maximum length is the same as in this configuration.
            return make(asking, vec![self.dead(queue)]).await;
        }
        let turn = Turn::take(asking, &names.turn(Some(queue))).await?;
        let is_there = self.is_there(asking, Some(queue)).await?;
        let all = [names.gate(queue), names.ready(queue), names.dead(queue)];
        let is_whole = is_there && !missing(asking, &all).await?;
        if !is_there {
            // Register the queue before declaring it, so that `remove` finds everything that was declared.
            self.register(queue).await?;
        }
        let mut gate = lossless(&names.unroutable(), &names.gate(queue));
        gate.push(("x-single-active-consumer", AMQPValue::Boolean(true)));
        let gate = Wanted::new(names.gate(queue), gate).bound(names.gates(), way::step_to_gate(queue));
        let ready = Wanted::new(names.ready(queue), lossless(&names.unroutable(), &names.ready(queue)));
        make(&self.link, vec![gate, ready, self.dead(queue)]).await?;
        if !is_whole {
            self.write_down(Some(queue)).await?;
            let channel = self.link.channel().await?;
            exchange(&channel, &names.made(queue), ExchangeKind::Fanout, None).await?;
            close(channel).await;
        }
        turn.end().await;
        Ok(())
    }

    fn dead(&self, queue: &QueueName) -> Wanted {
        // With room for the markers of readers.
        let letters = long(i64::from(self.config.dead_letters_max) + MARKERS_MAX);
        let name = self.names.dead(queue);
        let arguments = vec![
            ("x-max-length", letters),
            // With this overflow mode, at-least-once dead-lettering is impossible: a letter that a policy removes may
            // be lost if the broker fails at that moment.
            ("x-overflow", text("drop-head")),
            ("x-dead-letter-exchange", text(&self.names.unroutable())),
            ("x-dead-letter-routing-key", text(&name)),
        ];
        Wanted::new(name, arguments)
    }

    /// Whether the mark of the namespace, or of a queue, exists.
    async fn is_there(&self, link: &Link, queue: Option<&QueueName>) -> Result<bool> {
        let mark = queue.map_or_else(|| self.names.layout(), |queue| self.names.made(queue));
        let channel = link.channel().await?;
        let is_there = is_exchange(&channel, &mark).await?;
        if is_there {
            close(channel).await;
        }
        Ok(is_there)
    }

    /// Makes the broker persist the declared queues.
    ///
    /// The broker keeps the last declared quorum queue in memory for about a second. If it is killed within that time,
    /// the queue is lost, with all messages that it confirmed (seen with 3.10.8, 4.0.5 and 4.3.6). Declaring another
    /// queue persists it.
    async fn write_down(&self, queue: Option<&QueueName>) -> Result<()> {
        let (channel, another) = (self.link.channel().await?, self.names.another(queue));
        // A queue that an interrupted client left behind would not be declared anew, so delete it first.
        delete_queue(&channel, &another).await?;
        declare(&channel, &Wanted::new(another.clone(), Vec::new())).await?;
        delete_queue(&channel, &another).await?;
        close(channel).await;
        Ok(())
    }

    /// Writes a queue's name to the registry, for [`remove`](super::remove()).
    pub(super) async fn register(&self, queue: &QueueName) -> Result<()> {
        let channel = self.publishing.channel().await?;
        let doing = "registering a queue's name";
        let failed = |e| failure::failed(doing, &e, false);
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
        let registry = self.names.registry();
        let (ends, mut pause) = (Instant::now() + self.config.response_timeout, REGISTER_PAUSES.0);
        while Instant::now() < ends {
            if write_name(&channel, &registry, queue.as_str()).await.map_err(failed)? {
                close(channel).await;
                return Ok(());
            }
            // A new queue may have no leader yet, and a busy one may be slow.
            sleep(pause).await;
            pause = (pause * 2).min(REGISTER_PAUSES.1);
        }
        Err(Error::new(ErrorKind::Unavailable, format!("{doing}: queue `{registry}` did not accept it")))
    }
}

/// The arguments of a queue that dead-letters messages to `exchange`, with this key, if an operator's policy removes
/// them: after a number of deliveries, beyond a length, or after a time. Without these arguments, such messages would
/// be lost. A full queue refuses messages.
fn lossless(exchange: &str, key: &str) -> Vec<(&'static str, AMQPValue)> {
    vec![
        ("x-overflow", text("reject-publish")),
        ("x-dead-letter-exchange", text(exchange)),
        ("x-dead-letter-routing-key", text(key)),
        ("x-dead-letter-strategy", text("at-least-once")),
    ]
}

/// Whether one of these queues is missing.
async fn missing(link: &Link, queues: &[String]) -> Result<bool> {
    let channel = link.channel().await?;
    for queue in queues {
        if !is_queue(&channel, queue).await? {
            return Ok(true);
        }
    }
    close(channel).await;
    Ok(false)
}

/// The error for a namespace of another version, with what to do about it.
fn of_other_format(e: Error) -> Error {
    let ours = format!("format={LAYOUT} ");
    if e.kind() != ErrorKind::Config || e.message().matches(&ours).count() > 1 {
        return e;
    }
    let what = "another version of delayline created this namespace: complete its tasks with that version and \
                remove it (`delayline remove-namespace`), or use another namespace";
    Error::new(ErrorKind::Config, format!("{}: {what}", e.message()))
}
