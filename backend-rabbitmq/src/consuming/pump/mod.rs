//! The task that drives a line: opens its channel, consumes as many messages as are wanted, ends leases, and returns
//! unclaimed messages.
//!
//! It ends when no subscription and no lease is left, or with the backend.

mod arrivals;
mod consumers;

use std::sync::Arc;
use std::time::Duration;

use delayline_backend_kit::Backoff;
use delayline_core::Result;
use futures_util::StreamExt;
use futures_util::future::join_all;
use lapin::Channel;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use self::arrivals::Pump;
use crate::consuming::line::Line;
use crate::consuming::lines::Lines;
use crate::gate::Gate;
use crate::store::Store;
use crate::strays::Strays;
use crate::transport::driver;

/// Time limit for returning messages when the backend is closed. The rest is left to the broker, which counts an
/// attempt for it.
const LEAVING_MAX: Duration = Duration::from_millis(1_500);

/// Time that a claim waits for a gate to start.
const BEGIN_MAX: Duration = Duration::from_secs(1);

/// Why a channel has ended.
enum Over {
    /// The line is not needed any more.
    Unneeded,
    Closed,
    /// The broker or the connection closed it.
    Lost,
}

pub(crate) async fn run(store: Arc<Store>, lines: Arc<Lines>, line: Arc<Line>) {
    let (mut backoff, mut failed) = (Backoff::new(), false);
    let mut closing = store.lifecycle.closing();
    loop {
        let over = match open(&store, &line).await {
            Ok(channel) => {
                backoff.succeeded();
                if std::mem::take(&mut failed) {
                    // Make the waiting subscriptions claim again.
                    line.notify();
                }
                let mut pump = Pump::new(store.clone(), lines.clone(), line.clone(), channel);
                let over = pump.work().await;
                pump.end(&over).await;
                over
            }
            Err(e) => {
                // Logged for each attempt at debug level. Claims return the error, and their callers log it once.
                tracing::debug!(queue = %line.queue, error = %e, "could not consume the queue, trying again");
                line.set_trouble(e);
                Over::Lost
            }
        };
        match over {
            Over::Closed => break,
            Over::Unneeded if lines.end(&line) => break,
            Over::Unneeded => {}
            Over::Lost if store.lifecycle.open().is_err() => break,
            Over::Lost if !line.is_needed() && lines.end(&line) => break,
            Over::Lost => {
                failed = true;
                tokio::select! {
                    () = sleep(backoff.failed()) => {}
                    () = closed(&mut closing) => {}
                }
            }
        }
    }
    line.notify();
}

/// Waits until the backend is closed.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // The sender lives as long as the store, which this task holds.
    let _ = closing.wait_for(|closed| *closed).await;
}

async fn open(store: &Arc<Store>, line: &Line) -> Result<Channel> {
    store.lifecycle.open()?;
    store.topology.ensure(&line.queue).await?;
    let channel = store.consuming.channel().await?;
    line.set_channel(channel.clone());
    Ok(channel)
}

impl Pump {
    async fn work(&mut self) -> Over {
        let mut closing = self.store.lifecycle.closing();
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
                        // The broker has cancelled the consumer because its queue was deleted, or the channel is lost.
                        self.store.topology.forget().await;
                        return Over::Lost;
                    }
                }
                () = look => {}
                () = self.line.changed.notified() => {}
                Some(_) = self.leaving.join_next() => {}
            }
        }
    }

    /// Does all pending work.
    async fn tend(&mut self) -> Result<()> {
        self.tend_gate().await;
        let ended = self.line.take_ended();
        self.give_back(ended);
        if self.line.stops() {
            // Cancel first. Otherwise the returned messages would be delivered here again at once.
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
            // Overdue and returning tasks must be in the queue before the request.
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
            // Repeat while fewer messages arrive than are wanted and are in the queue.
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

    /// Wakes the waiting subscriptions, if something has arrived.
    fn tell(&mut self) {
        if std::mem::take(&mut self.fresh) {
            self.line.notify();
        }
    }

    /// Starts the gate with the first subscription, and closes it with the last.
    async fn tend_gate(&mut self) {
        let wanted = self.line.subscriptions() > 0;
        match (wanted, self.gate.take()) {
            (true, None) => {
                self.strays = Some(Strays::of(&self.lines.strays, &self.store));
                self.gate = Some(Gate::start(self.store.clone(), self.line.queue.clone()));
            }
            (false, Some(gate)) => {
                gate.close().await;
                self.strays = None;
            }
            (_, gate) => self.gate = gate,
        }
    }

    /// Returns unclaimed messages, and closes the channel.
    async fn end(mut self, over: &Over) {
        let gate = self.gate.take();
        let at_most = match over {
            // Unacknowledged messages would cost an attempt, and no caller waits for this.
            Over::Unneeded => self.store.config.response_timeout,
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
        drop(self.strays.take());
        self.line.channel_lost(matches!(over, Over::Unneeded));
        let channels = self.getting.into_iter().chain([self.channel]);
        if matches!(over, Over::Lost) {
            // If the broker does not answer, its messages return to the queue when it works again.
            channels.for_each(|channel| driver::close_soon(&channel));
        } else {
            let closing = channels.map(|channel| async move { channel.close(200, "done".into()).await });
            let _ = timeout(LEAVING_MAX, join_all(closing)).await;
        }
    }
}
