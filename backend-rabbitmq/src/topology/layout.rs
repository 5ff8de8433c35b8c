//! What there is in a namespace, and in which order it is made.

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

/// How the levels are connected, and what the queues are made with; another number for what clients of different versions would
/// do differently.
const LAYOUT: u32 = 3;

/// How many readers of dead letters may put their markers into a full queue before the oldest letter is dropped for it.
const MARKERS_MAX: i64 = 8;

/// The first pause after the registry refused a name, and the longest.
const REGISTER_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(400));

/// The most foreign messages that are kept.
const QUARANTINED_MAX: i64 = 10_000;

#[derive(Debug)]
pub(super) struct Layout {
    config: Arc<RabbitConfig>,
    link: Arc<Link>,
    /// For the registry, which is published to: a broker short of memory stops reading from whoever publishes.
    publishing: Arc<Link>,
    names: Names,
}

impl Layout {
    pub(super) fn new(config: Arc<RabbitConfig>, link: Arc<Link>, publishing: Arc<Link>) -> Self {
        let names = Names::new(&config.namespace);
        Self { config, link, publishing, names }
    }

    /// Makes what all queues share.
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
            // One of another layout is refused before anything is made in it.
            self.check_layout().await?;
        }
        let queues = self.shared_queues();
        let all: Vec<String> = queues.iter().map(|wanted| wanted.queue.clone()).collect();
        if is_there && !(is_doubted && missing(asking, &all).await?) {
            turn.end().await;
            // An exchange or a binding may be missing: many may make the same one at once.
            return if is_doubted { self.declare_what_is_shared(queues).await } else { Ok(()) };
        }
        self.declare_what_is_shared(queues).await?;
        self.write_down(None).await?;
        self.check_layout().await?;
        turn.end().await;
        Ok(())
    }

    /// A connection for what may be refused.
    async fn asking(&self) -> Result<Arc<Link>> {
        // Without the one that stays, there is nothing to ask for, and all who need that one wait for the same attempt.
        self.link.connection().await?;
        Ok(Arc::new(Link::asking(self.config.clone(), "making")))
    }

    /// Declares the mark of the namespace, whose argument says how it is laid out.
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
        // A topic exchange finds one of many queues by looking, where a direct one goes through all of them if there is
        // more than one key (RabbitMQ 3.10).
        exchange(&channel, &names.gates(), ExchangeKind::Topic, Some(&strays)).await?;
        // The one above the highest level is for what comes in.
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
        // What can't stay with the strays is kept with what is foreign: it would find no way back to where it came from.
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

    /// Makes a logical queue.
    pub(super) async fn declare_queue(&self, queue: &QueueName, is_doubted: bool) -> Result<()> {
        let asking = self.asking().await?;
        let made = self.make_queue(&asking, queue, is_doubted).await;
        asking.close().await;
        made
    }

    async fn make_queue(&self, asking: &Arc<Link>, queue: &QueueName, is_doubted: bool) -> Result<()> {
        let names = &self.names;
        if !is_doubted && self.is_there(asking, Some(queue)).await? {
            // Which shows that it is as large as here.
            return make(asking, vec![self.dead(queue)]).await;
        }
        let turn = Turn::take(asking, &names.turn(Some(queue))).await?;
        let is_there = self.is_there(asking, Some(queue)).await?;
        let all = [names.gate(queue), names.ready(queue), names.dead(queue)];
        let is_whole = is_there && !missing(asking, &all).await?;
        if !is_there {
            // Registered before it is made, so that `remove` finds whatever was made.
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
        // With room for the markers of those who read them.
        let letters = long(i64::from(self.config.dead_letters_max) + MARKERS_MAX);
        let name = self.names.dead(queue);
        let arguments = vec![
            ("x-max-length", letters),
            // With which it can't dead-letter at least once: a letter that a policy takes away may be lost if the broker
            // fails then.
            ("x-overflow", text("drop-head")),
            ("x-dead-letter-exchange", text(&self.names.unroutable())),
            ("x-dead-letter-routing-key", text(&name)),
        ];
        Wanted::new(name, arguments)
    }

    /// Whether the mark of the namespace, or of a queue, is there.
    async fn is_there(&self, link: &Link, queue: Option<&QueueName>) -> Result<bool> {
        let mark = queue.map_or_else(|| self.names.layout(), |queue| self.names.made(queue));
        let channel = link.channel().await?;
        let is_there = is_exchange(&channel, &mark).await?;
        if is_there {
            close(channel).await;
        }
        Ok(is_there)
    }

    /// Has the broker write down which queues it has made.
    ///
    /// It keeps the last quorum queue that it made in memory for about a second: killed within that, it has lost the queue,
    /// with all that it confirmed (seen with 3.10.8, 4.0.5 and 4.3.6). As soon as it makes another one, the one before is
    /// written.
    async fn write_down(&self, queue: Option<&QueueName>) -> Result<()> {
        let (channel, another) = (self.link.channel().await?, self.names.another(queue));
        // One that somebody left behind who was cut short would not be made.
        delete_queue(&channel, &another).await?;
        declare(&channel, &Wanted::new(another.clone(), Vec::new())).await?;
        delete_queue(&channel, &another).await?;
        close(channel).await;
        Ok(())
    }

    /// Notes a queue's name, for [`remove`](super::remove()).
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
            // A queue that has just been made may have no leader yet, and one that is busy takes its time.
            sleep(pause).await;
            pause = (pause * 2).min(REGISTER_PAUSES.1);
        }
        Err(Error::new(ErrorKind::Unavailable, format!("{doing}: `{registry}` did not take it")))
    }
}

/// The arguments of a queue whose messages go there, with this key, if a policy of the operator takes them away: after so many
/// deliveries, beyond a length, or after a time. Without them they would be lost. A full one refuses.
fn lossless(exchange: &str, key: &str) -> Vec<(&'static str, AMQPValue)> {
    vec![
        ("x-overflow", text("reject-publish")),
        ("x-dead-letter-exchange", text(exchange)),
        ("x-dead-letter-routing-key", text(key)),
        ("x-dead-letter-strategy", text("at-least-once")),
    ]
}

/// Whether one of these queues is not there.
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

/// What a namespace of another version answers, with what to do about it.
fn of_other_format(e: Error) -> Error {
    let ours = format!("format={LAYOUT} ");
    if e.kind() != ErrorKind::Config || e.message().matches(&ours).count() > 1 {
        return e;
    }
    let what = "another version of delayline made this namespace: have that one complete its tasks and remove it \
                (`delayline remove-namespace`), or take another name";
    Error::new(ErrorKind::Config, format!("{}; {what}", e.message()))
}
