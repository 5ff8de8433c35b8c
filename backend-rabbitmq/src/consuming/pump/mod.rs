//! What moves a line: opens its channel, consumes as much as is wanted, ends leases, gives back what nobody claims.
//!
//! It ends when no intake and no lease is left, or with the backend.

#[path = "consumers.rs"]
mod consuming;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Result, meter};
use futures_util::future::join_all;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::{DeliveryTag, ShortString};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::capabilities::NAME;
use crate::connection::Backoff;
use crate::gate::Gate;
use crate::line::{Came, Held, Line};
use crate::message::Foreign;
use crate::shared::Shared;
use crate::{driver, failure, giving};

/// How long what is being given back may take when the backend is closed: the rest is left to the broker, which counts an
/// attempt for it.
const LEAVING_MAX: Duration = Duration::from_millis(1_500);

/// How long a claim waits for a gate to begin.
const BEGIN_MAX: Duration = Duration::from_secs(1);

/// In the place of a consumer's number, for what was asked for.
const NO_CONSUMER: u64 = u64::MAX;

/// Why a channel is done with.
enum Over {
    /// Nobody needs the line any more.
    Unneeded,
    Closed,
    /// The broker or the connection ended it.
    Lost,
}

pub(crate) async fn run(shared: Arc<Shared>, line: Arc<Line>) {
    let (mut backoff, mut failed) = (Backoff::new(), false);
    let mut closing = shared.closing();
    loop {
        let over = match open(&shared, &line).await {
            Ok(channel) => {
                backoff.reset();
                if std::mem::take(&mut failed) {
                    // Whoever waits looks again.
                    line.hint();
                }
                let mut pump = Pump::new(shared.clone(), line.clone(), channel);
                let over = pump.work().await;
                pump.end(&over).await;
                over
            }
            Err(e) => {
                // Each attempt; whoever claims is told, and says it once.
                tracing::debug!(queue = %line.queue, error = %e, "the queue can't be consumed now");
                line.set_trouble(e);
                Over::Lost
            }
        };
        match over {
            Over::Closed => break,
            Over::Unneeded if shared.lines.end(&line) => break,
            Over::Unneeded => {}
            Over::Lost if shared.open().is_err() => break,
            Over::Lost if !line.is_needed() && shared.lines.end(&line) => break,
            Over::Lost => {
                failed = true;
                tokio::select! {
                    () = sleep(backoff.next()) => {}
                    () = closed(&mut closing) => {}
                }
            }
        }
    }
    line.hint();
}

/// Waits until the backend is closed.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // The sender lives as long as the backend's shared part, which this task holds.
    let _ = closing.wait_for(|closed| *closed).await;
}

async fn open(shared: &Arc<Shared>, line: &Line) -> Result<Channel> {
    shared.open()?;
    shared.ensure(&line.queue).await?;
    let channel = shared.consuming.channel().await?;
    line.set_channel(channel.clone());
    Ok(channel)
}

/// What is no task: what it came by, its number there, and its consumer.
type Nothing = (Channel, DeliveryTag, u64);

/// Acknowledges what is no task.
async fn done_with(line: &Line, nothing: Vec<Nothing>) {
    let _turn = line.acknowledges.read().await;
    nothing.iter().for_each(|(_, _, consumer)| line.acknowledging(*consumer));
    // If that gets lost, the channel is, and the message comes again.
    driver::send_all(nothing.iter().map(|(channel, tag, _)| channel.basic_ack(*tag, BasicAckOptions::default()))).await;
}

async fn answered<T>(shared: &Shared, doing: &str, asked: impl Future<Output = lapin::Result<T>>) -> Result<T> {
    meter::round_trip(NAME);
    match timeout(shared.config.response_timeout, asked).await {
        Ok(done) => done.map_err(|e| failure::failed(doing, &e, false)),
        Err(_) => Err(failure::silent(doing, &shared.config, false)),
    }
}

/// What comes by a consumer; nothing after the last.
type FromBroker = (u64, Option<lapin::Result<Delivery>>);

struct Pump {
    shared: Arc<Shared>,
    line: Arc<Line>,
    channel: Channel,
    /// What the queue is asked on.
    getting: Option<Channel>,
    /// Everything that comes, whichever consumer it comes by.
    streams: SelectAll<BoxStream<'static, FromBroker>>,
    /// The consumers' names at the broker.
    tags: HashMap<u64, ShortString>,
    /// Deliveries on the channel are numbered without gaps: all up to this one were looked at, and these after it have come.
    known: DeliveryTag,
    came: BTreeSet<DeliveryTag>,
    /// Whether something has come that nobody was told of.
    fresh: bool,
    /// How many messages that mean nothing have come, and which of them are to be acknowledged.
    markers: usize,
    nothing: Vec<Nothing>,
    gate: Option<Gate>,
    /// What is on its way back.
    leaving: JoinSet<()>,
}

impl Pump {
    fn new(shared: Arc<Shared>, line: Arc<Line>, channel: Channel) -> Self {
        Self {
            shared,
            line,
            channel,
            getting: None,
            streams: SelectAll::new(),
            tags: HashMap::new(),
            known: 0,
            came: BTreeSet::new(),
            fresh: false,
            markers: 0,
            nothing: Vec::new(),
            gate: None,
            leaving: JoinSet::new(),
        }
    }

    async fn work(&mut self) -> Over {
        let mut closing = self.shared.closing();
        loop {
            if let Err(e) = self.tend().await {
                tracing::debug!(queue = %self.line.queue, error = %e, "consuming failed");
                return Over::Lost;
            }
            if !self.line.is_needed() && self.tags.is_empty() {
                return Over::Unneeded;
            }
            let look_at = self.line.next_look();
            let look = async {
                match look_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let streams = &mut self.streams;
            let next = async {
                match streams.next().await {
                    Some(came) => came,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = closed(&mut closing) => return Over::Closed,
                came = next => {
                    let lost = self.take_in(came) | self.take_in_all();
                    self.tell();
                    if lost {
                        // The broker has ended the consumer, its queue being gone, or the channel is.
                        self.shared.topology.forget().await;
                        return Over::Lost;
                    }
                }
                () = look => {}
                () = self.line.changed.notified() => {}
                Some(_) = self.leaving.join_next() => {}
            }
        }
    }

    /// Does what is to be done now.
    async fn tend(&mut self) -> Result<()> {
        self.tend_gate().await;
        let ended = self.line.take_ended();
        self.give_back(ended);
        if self.line.stops() {
            // Cancelled first, or what goes back would come again at once.
            let line = self.line.clone();
            let no_acknowledgements = line.acknowledges.write().await;
            self.cancel_all().await?;
            drop(no_acknowledgements);
            if !self.line.keep() {
                let unclaimed = self.line.take_pool();
                self.give_back(unclaimed);
            }
        }
        if self.line.is_asked() {
            // What is overdue, or on its way back, is in the queue before the queue is asked.
            if let Some(gate) = &mut self.gate {
                gate.begun(BEGIN_MAX).await;
            }
            while self.leaving.join_next().await.is_some() {}
        }
        if let Some(room) = self.line.short() {
            self.consume(room).await?;
        }
        let question = self.line.asked();
        if self.line.is_asked() {
            self.line.asking();
            self.look_in_the_queue().await?;
            // As long as that is less than what is wanted, and than what there is.
            while let Some(room) = self.line.short() {
                self.consume(room).await?;
                self.settle_down().await?;
                self.take_in_all();
            }
        }
        self.tell();
        self.line.answer(question);
        Ok(())
    }

    /// Wakes those who wait, if something has come.
    fn tell(&mut self) {
        if std::mem::take(&mut self.fresh) {
            self.line.hint();
        }
    }

    /// One process of those that consume the queue keeps its gate.
    async fn tend_gate(&mut self) {
        let wanted = self.line.intakes() > 0;
        match (wanted, self.gate.take()) {
            (true, None) => self.gate = Some(Gate::start(self.shared.clone(), self.line.queue.clone())),
            (false, Some(gate)) => gate.close().await,
            (_, gate) => self.gate = gate,
        }
    }

    /// Takes in what is there now, and answers whether a consumer has ended that should not.
    fn take_in_all(&mut self) -> bool {
        let mut lost = false;
        while let Some(Some(came)) = self.streams.next().now_or_never() {
            lost |= self.take_in(came);
        }
        self.be_done_with_nothing();
        lost
    }

    fn be_done_with_nothing(&mut self) {
        if !self.nothing.is_empty() {
            let (line, nothing) = (self.line.clone(), std::mem::take(&mut self.nothing));
            self.leaving.spawn(async move { done_with(&line, nothing).await });
        }
    }

    fn take_in(&mut self, (consumer, came): FromBroker) -> bool {
        let delivery = match came {
            Some(Ok(delivery)) => delivery,
            Some(Err(_)) => return true,
            None => return self.tags.contains_key(&consumer),
        };
        let channel = if consumer == NO_CONSUMER { self.getting.clone() } else { Some(self.channel.clone()) };
        let Some(channel) = channel else { return false };
        if consumer != NO_CONSUMER {
            self.note(delivery.delivery_tag);
        }
        self.take_in_from(channel, consumer, delivery);
        false
    }

    fn take_in_from(&mut self, channel: Channel, consumer: u64, delivery: Delivery) {
        let tag = delivery.delivery_tag;
        let (shared, line) = (self.shared.clone(), self.line.clone());
        match self.line.arrive(delivery, channel.clone(), consumer) {
            Came::Task => self.fresh = true,
            Came::Marker => {
                self.markers += 1;
                self.nothing.push((channel, tag, consumer));
            }
            Came::Foreign(delivery, Foreign(why)) => {
                self.leaving.spawn(async move {
                    let found_in = shared.names.ready(&line.queue);
                    let payload = delivery.data.into();
                    if shared.set_aside(&found_in, why, &delivery.properties, payload).await {
                        done_with(&line, vec![(channel, tag, consumer)]).await;
                    }
                });
            }
        }
    }

    fn give_back(&mut self, held: Vec<Held>) {
        if held.is_empty() {
            return;
        }
        let (shared, line) = (self.shared.clone(), self.line.clone());
        self.leaving.spawn(async move { giving::give_back(&shared, &line, held).await });
    }

    /// Gives back what nobody has claimed, and leaves the channel.
    async fn end(mut self, over: &Over) {
        let gate = self.gate.take();
        let at_most = match over {
            // What is left unacknowledged would cost an attempt, and nobody waits for this.
            Over::Unneeded => self.shared.config.response_timeout,
            Over::Closed | Over::Lost => LEAVING_MAX,
        };
        if !matches!(over, Over::Lost) {
            let leave = async {
                let line = self.line.clone();
                let no_acknowledgements = line.acknowledges.write().await;
                let _ = self.cancel_all().await;
                drop(no_acknowledgements);
                let pool = self.line.take_pool();
                self.give_back(pool);
                while self.leaving.join_next().await.is_some() {}
                let _ = self.see_off_acknowledgements().await;
            };
            let _ = timeout(at_most, leave).await;
        }
        if let Some(gate) = gate {
            let _ = timeout(at_most, gate.close()).await;
        }
        self.line.channel_lost(matches!(over, Over::Unneeded));
        let channels = self.getting.into_iter().chain([self.channel]);
        if matches!(over, Over::Lost) {
            // Of a broker that does not answer, what it has sent goes back when it does again.
            channels.for_each(|channel| driver::close_soon(&channel));
        } else {
            let closing = channels.map(|channel| async move { channel.close(200, "done".into()).await });
            let _ = timeout(LEAVING_MAX, join_all(closing)).await;
        }
    }
}
