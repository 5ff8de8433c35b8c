//! What moves a line: opens its channel, consumes as much as is wanted, ends leases, gives back what nobody claims.
//!
//! It ends when no intake and no lease is left, or with the backend.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::Result;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::connection::Backoff;
use crate::gate::Gate;
use crate::line::Line;
use crate::shared::Shared;
use crate::{failure, giving};

/// How long what is being given back may take when a line ends: the rest is left to the broker.
const LEAVING_MAX: Duration = Duration::from_millis(500);

/// Why a channel is done with.
enum Over {
    /// Nobody needs the line any more.
    Unneeded,
    Closed,
    /// The broker or the connection ended it.
    Lost,
}

pub(crate) async fn run(shared: Arc<Shared>, line: Arc<Line>) {
    let mut backoff = Backoff::new();
    let mut closing = shared.closing();
    loop {
        let over = match open(&shared, &line).await {
            Ok(channel) => {
                backoff.reset();
                let mut pump = Pump::new(shared.clone(), line.clone(), channel);
                let over = pump.work().await;
                pump.end(&over).await;
                over
            }
            Err(e) => {
                tracing::warn!(queue = %line.queue, error = %e, "the queue can't be consumed now");
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
                // Whoever waits asks again when there is a channel: nothing is found out by asking before.
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

struct Pump {
    shared: Arc<Shared>,
    line: Arc<Line>,
    channel: Channel,
    consumer: Option<Consuming>,
    gate: Option<Gate>,
    /// What is on its way back.
    leaving: JoinSet<()>,
}

struct Consuming {
    stream: Consumer,
    number: u64,
    prefetch: usize,
}

impl Pump {
    fn new(shared: Arc<Shared>, line: Arc<Line>, channel: Channel) -> Self {
        Self { shared, line, channel, consumer: None, gate: None, leaving: JoinSet::new() }
    }

    async fn work(&mut self) -> Over {
        let mut closing = self.shared.closing();
        // What came and went while there was no channel.
        self.line.hint();
        loop {
            if !self.line.is_needed() {
                return Over::Unneeded;
            }
            self.tend_gate().await;
            if self.line.intakes() == 0 && self.cancel().await.is_err() {
                return Over::Lost;
            }
            let ended = self.line.take_ended();
            self.give_back(ended);
            let unclaimed = self.line.take_unclaimed();
            if !unclaimed.is_empty() {
                // Cancelled first, or what goes back would come again at once.
                if self.cancel().await.is_err() {
                    return Over::Lost;
                }
                self.give_back(unclaimed);
            }
            let prefetch = self.consumer.as_ref().map_or(0, |consuming| consuming.prefetch);
            if let Some(wanted) = self.line.short_of(prefetch)
                && let Err(e) = self.consume(wanted).await
            {
                tracing::warn!(queue = %self.line.queue, error = %e, "consuming failed");
                return Over::Lost;
            }
            let look_at = self.line.next_look();
            let look = async {
                match look_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let next = async {
                match &mut self.consumer {
                    Some(consuming) => consuming.stream.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = closed(&mut closing) => return Over::Closed,
                delivery = next => match delivery {
                    Some(Ok(delivery)) => self.arrive(delivery),
                    // The broker has cancelled the consumer, its queue being gone, or the channel is.
                    Some(Err(_)) | None => {
                        self.shared.topology.forget().await;
                        return Over::Lost;
                    }
                },
                () = look => {}
                () = self.line.changed.notified() => {}
                Some(_) = self.leaving.join_next() => {}
            }
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

    /// Consumes with room for so many; whatever came by the consumer before stays where it is.
    async fn consume(&mut self, wanted: usize) -> Result<()> {
        let doing = "consuming";
        let failed = |e| failure::failed(doing, &e, false);
        self.cancel().await.map_err(failed)?;
        let room = u16::try_from(wanted).unwrap_or(u16::MAX);
        let shared = self.shared.clone();
        let queue = shared.names.ready(&self.line.queue);
        let channel = self.channel.clone();
        let started = async {
            channel.basic_qos(room, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
        };
        let stream = match timeout(shared.config.response_timeout, started).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => {
                if failure::is_not_found(&e) {
                    shared.topology.forget().await;
                }
                return Err(failed(e));
            }
            Err(_) => return Err(failure::silent(doing, &shared.config, false)),
        };
        self.consumer = Some(Consuming { stream, number: self.line.new_consumer(), prefetch: wanted });
        Ok(())
    }

    /// Stops consuming. What had been on its way is taken in: it is ours until it is given back.
    async fn cancel(&mut self) -> lapin::Result<()> {
        let Some(mut consuming) = self.consumer.take() else { return Ok(()) };
        let tag = consuming.stream.tag();
        let cancelled = self.channel.basic_cancel(tag, BasicCancelOptions::default());
        match timeout(self.shared.config.response_timeout, cancelled).await {
            Ok(done) => done?,
            Err(_) => return Err(lapin::ErrorKind::MissingHeartbeatError.into()),
        }
        // The broker's answer came after the last message.
        while let Some(Some(Ok(delivery))) = consuming.stream.next().now_or_never() {
            self.take_in(delivery, consuming.number);
        }
        Ok(())
    }

    fn arrive(&mut self, first: Delivery) {
        let Some(number) = self.consumer.as_ref().map(|consuming| consuming.number) else { return };
        self.take_in(first, number);
        // What came with it, so that those who wait are woken once.
        while let Some(consuming) = &mut self.consumer
            && let Some(Some(Ok(delivery))) = consuming.stream.next().now_or_never()
        {
            self.take_in(delivery, number);
        }
        self.line.hint();
    }

    fn take_in(&mut self, delivery: Delivery, consumer: u64) {
        let Err((delivery, foreign)) = self.line.arrive(delivery, consumer) else { return };
        let (shared, line) = (self.shared.clone(), self.line.clone());
        self.leaving.spawn(async move {
            let found_in = shared.names.ready(&line.queue);
            let payload = delivery.data.into();
            if shared.set_aside(&found_in, foreign.0, &delivery.properties, payload).await {
                let _ = delivery.acker.ack(BasicAckOptions::default()).await;
                line.note_foreign();
            }
        });
    }

    fn give_back(&mut self, held: Vec<crate::line::Held>) {
        if held.is_empty() {
            return;
        }
        let (shared, line) = (self.shared.clone(), self.line.clone());
        self.leaving.spawn(async move { giving::give_back(&shared, &line, held).await });
    }

    /// Gives back what nobody has claimed, and leaves the channel.
    async fn end(mut self, over: &Over) {
        let gate = self.gate.take();
        if !matches!(over, Over::Lost) {
            let leave = async {
                let _ = self.cancel().await;
                let pool = self.line.take_all();
                self.give_back(pool);
                while self.leaving.join_next().await.is_some() {}
            };
            let _ = timeout(LEAVING_MAX, leave).await;
        }
        if let Some(gate) = gate {
            let _ = timeout(LEAVING_MAX, gate.close()).await;
        }
        self.line.channel_lost();
        if !matches!(over, Over::Lost) {
            let _ = timeout(LEAVING_MAX, self.channel.close(200, "done".into())).await;
        }
    }
}
