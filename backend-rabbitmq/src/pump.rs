//! What moves a line: opens its channel, consumes as much as is wanted, ends leases, gives back what nobody claims.
//!
//! It ends when no intake and no lease is left, or with the backend.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Result, meter};
use futures_util::future::join_all;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{DeliveryTag, FieldTable, ShortString};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::capabilities::NAME;
use crate::connection::Backoff;
use crate::gate::Gate;
use crate::line::{Held, Line};
use crate::shared::Shared;
use crate::{failure, giving};

/// How many consumers that have all they may have are kept for when that is acknowledged.
const FULL_MAX: usize = 3;

/// How long what is being given back may take when the backend is closed: the rest is left to the broker, which counts an
/// attempt for it.
const LEAVING_MAX: Duration = Duration::from_millis(700);

/// How long to wait for the registry while others look at it.
const MARKER_PAUSES: [Duration; 6] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
];

/// How long consumers may take to fill, or to fall quiet, before they are cancelled all the same.
const FILLING_MAX: Duration = Duration::from_millis(600);

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

async fn answered<T>(shared: &Shared, doing: &str, asked: impl Future<Output = lapin::Result<T>>) -> Result<T> {
    meter::round_trip(NAME);
    match timeout(shared.config.response_timeout, asked).await {
        Ok(done) => done.map_err(|e| failure::failed(doing, &e, false)),
        Err(_) => Err(failure::silent(doing, &shared.config, false)),
    }
}

/// What comes by a consumer; nothing after the last.
type Came = (u64, Option<lapin::Result<Delivery>>);

struct Pump {
    shared: Arc<Shared>,
    line: Arc<Line>,
    channel: Channel,
    /// What the queue is asked on.
    getting: Option<Channel>,
    /// Everything that comes, whichever consumer it comes by.
    streams: SelectAll<BoxStream<'static, Came>>,
    /// The consumers' names at the broker.
    tags: HashMap<u64, ShortString>,
    /// Deliveries on the channel are numbered without gaps: all up to this one were looked at, and these after it have come.
    known: DeliveryTag,
    came: BTreeSet<DeliveryTag>,
    /// Whether something has come that nobody was told of.
    fresh: bool,
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
            self.wait_for_quiet().await;
            self.cancel_all().await?;
            drop(no_acknowledgements);
            if !self.line.keep() {
                let unclaimed = self.line.take_pool();
                self.give_back(unclaimed);
            }
        }
        if self.line.is_asked() {
            // What is on its way back is in the queue before the queue is asked.
            while self.leaving.join_next().await.is_some() {}
        }
        if let Some(room) = self.line.short() {
            self.consume(room).await?;
        }
        let question = self.line.asked();
        if self.line.is_asked() {
            self.line.asking();
            self.look_in_the_queue().await?;
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

    /// Adds a consumer with room for so many messages. One that is there is not made larger: the broker can't, and what is on
    /// its way when a consumer is cancelled may count an attempt.
    async fn consume(&mut self, room: usize) -> Result<()> {
        let full =
            |line: &Line| line.consumers().into_iter().filter(|(_, full)| *full).map(|(n, _)| n).collect::<Vec<u64>>();
        if full(&self.line).len() > FULL_MAX {
            // Nothing can be on its way to them while nothing is acknowledged.
            let line = self.line.clone();
            let _no_acknowledgements = line.acknowledges.write().await;
            self.cancel(&full(&line)).await?;
        }
        let (channel, queue) = (self.channel.clone(), self.shared.names.ready(&self.line.queue));
        let prefetch = u16::try_from(room).unwrap_or(u16::MAX);
        let shared = self.shared.clone();
        let started = answered(&shared, "consuming", async {
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
        });
        let stream = match started.await {
            Ok(stream) => stream,
            Err(e) => {
                // An operator may have deleted the queue.
                self.shared.topology.forget().await;
                return Err(e);
            }
        };
        let number = self.line.new_consumer(usize::from(prefetch));
        self.tags.insert(number, stream.tag());
        let end = futures_util::stream::iter([(number, None)]);
        self.streams.push(stream.map(move |came| (number, Some(came))).chain(end).boxed());
        Ok(())
    }

    /// Stops consuming. What had been on its way is taken in.
    async fn cancel_all(&mut self) -> Result<()> {
        if self.tags.is_empty() {
            return Ok(());
        }
        self.settle_down().await?;
        self.take_in_all();
        let all: Vec<u64> = self.tags.keys().copied().collect();
        self.cancel(&all).await
    }

    async fn cancel(&mut self, consumers: &[u64]) -> Result<()> {
        for number in consumers {
            let Some(tag) = self.tags.remove(number) else { continue };
            let (shared, channel) = (self.shared.clone(), self.channel.clone());
            answered(&shared, "cancelling a consumer", channel.basic_cancel(tag, BasicCancelOptions::default()))
                .await?;
            self.take_in_all();
            self.line.end_consumer(*number);
        }
        self.find_missed().await
    }

    /// Waits until whatever the queue had sent has come: asks the queue, whose answer goes the same way, and then the channel,
    /// which passes on what came to it before.
    async fn settle_down(&mut self) -> Result<()> {
        let (shared, channel) = (self.shared.clone(), self.channel.clone());
        let queue = shared.names.ready(&self.line.queue);
        let asked = async {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await
        };
        answered(&shared, "asking", asked).await
    }

    /// Takes in what the queue holds for us: one message by asking for it, and what comes by consumers. The queue does this
    /// after all that it was told before, such as acknowledgements that make room; looking at its state it would not.
    async fn look_in_the_queue(&mut self) -> Result<()> {
        // A channel of its own, whose numbers of deliveries are not those that are looked over for gaps.
        let getting = match &self.getting {
            Some(getting) => getting.clone(),
            None => {
                let getting = self.shared.consuming.channel().await?;
                self.line.set_getting(getting.clone());
                self.getting.insert(getting).clone()
            }
        };
        let (shared, channel) = (self.shared.clone(), self.channel.clone());
        let ready = shared.names.ready(&self.line.queue);
        let asked = async {
            let got = getting.basic_get(ready.into(), BasicGetOptions::default()).await?;
            // What consumers got before that has come when this is answered.
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(got)
        };
        let got = answered(&shared, "asking", asked).await?;
        if let Some(got) = got {
            self.take_in((NO_CONSUMER, Some(Ok(got.delivery))));
        }
        self.take_in_all();
        Ok(())
    }

    /// Gives back what came after a consumer was cancelled, which the driver drops: a message from elsewhere shows how many
    /// deliveries there have been on the channel.
    async fn find_missed(&mut self) -> Result<()> {
        let Some(marker) = self.marker().await? else {
            tracing::warn!(queue = %self.line.queue, "the registry is empty: missed deliveries stay until the channel ends");
            return Ok(());
        };
        self.take_in_all();
        self.note(marker);
        let missed: Vec<DeliveryTag> = (self.known + 1..marker).filter(|tag| !self.came.contains(tag)).collect();
        if !missed.is_empty() {
            tracing::warn!(queue = %self.line.queue, n = missed.len(), "deliveries that came after the end of their consumer go back");
        }
        let (shared, channel) = (self.shared.clone(), self.channel.clone());
        let back = async {
            for tag in missed {
                channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue: true }).await?;
            }
            channel.basic_nack(marker, BasicNackOptions { multiple: false, requeue: true }).await
        };
        answered(&shared, "giving back missed deliveries", back).await?;
        if marker > self.known {
            self.came = self.came.split_off(&(marker + 1));
            self.known = marker;
            self.go_on();
        }
        Ok(())
    }

    /// The number of a delivery that is taken from the registry, and is to be given back.
    async fn marker(&mut self) -> Result<Option<DeliveryTag>> {
        let (shared, channel) = (self.shared.clone(), self.channel.clone());
        for pause in MARKER_PAUSES {
            let registry = shared.names.registry();
            let asked = channel.basic_get(registry.into(), BasicGetOptions::default());
            if let Some(marker) = answered(&shared, "looking for missed deliveries", asked).await? {
                return Ok(Some(marker.delivery_tag));
            }
            // Somebody else has it, for a moment.
            sleep(pause).await;
        }
        Ok(None)
    }

    /// Notes a delivery.
    fn note(&mut self, tag: DeliveryTag) {
        self.came.insert(tag);
        self.go_on();
    }

    /// Goes on to the next gap in the numbers that have come.
    fn go_on(&mut self) {
        while self.came.remove(&(self.known + 1)) {
            self.known += 1;
        }
    }

    /// Takes in what is there now, and answers whether a consumer has ended that should not.
    fn take_in_all(&mut self) -> bool {
        let mut lost = false;
        while let Some(Some(came)) = self.streams.next().now_or_never() {
            lost |= self.take_in(came);
        }
        lost
    }

    fn take_in(&mut self, (consumer, came): Came) -> bool {
        let delivery = match came {
            Some(Ok(delivery)) => delivery,
            Some(Err(_)) => return true,
            None => return self.tags.contains_key(&consumer),
        };
        if consumer != NO_CONSUMER {
            self.note(delivery.delivery_tag);
        }
        let Err(stranger) = self.line.arrive(delivery, consumer) else {
            self.fresh = true;
            return false;
        };
        let (delivery, foreign) = *stranger;
        self.line.foreign_came(consumer);
        let (shared, line) = (self.shared.clone(), self.line.clone());
        self.leaving.spawn(async move {
            let found_in = shared.names.ready(&line.queue);
            let payload = delivery.data.into();
            if shared.set_aside(&found_in, foreign.0, &delivery.properties, payload).await {
                let _turn = line.acknowledges.read().await;
                line.acknowledging(consumer);
                let _ = delivery.acker.ack(BasicAckOptions::default()).await;
            }
        });
        false
    }

    fn give_back(&mut self, held: Vec<Held>) {
        if held.is_empty() {
            return;
        }
        let (shared, line) = (self.shared.clone(), self.line.clone());
        self.leaving.spawn(async move { giving::give_back(&shared, &line, held).await });
    }

    /// Waits until nothing more is likely to come, but not for long: the consumers are full, or nothing came for a while.
    async fn wait_for_quiet(&mut self) {
        let ends = Instant::now() + FILLING_MAX;
        self.take_in_all();
        while let Some(left) = self.line.until_quiet().filter(|_| Instant::now() < ends) {
            match timeout(left, self.streams.next()).await {
                Ok(Some(came)) => {
                    self.take_in(came);
                }
                Ok(None) => break,
                Err(_) => {}
            }
        }
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
                self.wait_for_quiet().await;
                let _ = self.cancel_all().await;
                let pool = self.line.take_pool();
                self.give_back(pool);
                while self.leaving.join_next().await.is_some() {}
            };
            let _ = timeout(at_most, leave).await;
        }
        if let Some(gate) = gate {
            let _ = timeout(at_most, gate.close()).await;
        }
        self.line.channel_lost(matches!(over, Over::Unneeded));
        if !matches!(over, Over::Lost) {
            let channels = self.getting.into_iter().chain([self.channel]);
            let closing = channels.map(|channel| async move { channel.close(200, "done".into()).await });
            let _ = timeout(LEAVING_MAX, join_all(closing)).await;
        }
    }
}
