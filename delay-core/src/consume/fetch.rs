//! The one loop that brings due tasks in, for the consumer and the worker: claim, and when nothing came, rest.
//!
//! Invariants
//! 1. No claimed task stays here: what a claim brought is returned by the same poll that got it, so a dropped future
//!    loses nothing.
//! 2. No polling: after a claim that brought nothing, the next one waits for a notification, the next due time, or the safety
//!    fallback poll. Where a backend gives wrong notifications, a pause that grows to `SPIN_PAUSE_MAX` stands in between.
//! 3. A failure that may pass is an outage: it is logged once when it begins and once when it ends, and the tries in
//!    between stand 50 ms to 5 s apart.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::consume_budget;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use super::retry::outage_delays;
use crate::client::line::Line;
use crate::meter::{self, Event};
use crate::{Claim, Claimed, ClaimedTask, Error, ErrorKind, Result, Subscription, SubscriptionOptions};

/// What the beginning and the end of an outage are logged as, so that who wants nothing of single tasks may still want these.
const OUTAGE: &str = "delayline_core::outage";
/// The longest pause between claims that bring nothing although something should be there.
const SPIN_PAUSE_MAX: Duration = Duration::from_millis(25);
/// A wait that returns sooner, though it might have lasted longer, may have been given a wrong notification.
const QUICK: Duration = Duration::from_millis(1);
/// So many quick waits in a row that bring nothing are wrong notifications.
const QUICK_WAITS_MAX: u32 = 8;
/// A backend that declares a longer fallback poll, or none at all, is asked once a day.
const FALLBACK_POLL_MAX: Duration = Duration::from_secs(86_400);
/// A claim that gets no answer for this long is given up, so that a call that hangs is an outage like others.
const CLAIM_PATIENCE: Duration = Duration::from_secs(30);

/// One consumption of one queue.
pub(crate) struct Fetcher {
    line: Arc<Line>,
    options: SubscriptionOptions,
    /// Opened by the first claim.
    subscription: Option<Box<dyn Subscription>>,
    rest: Rest,
    outage: Option<Outage>,
    /// Claims in a row that brought nothing although something was due, or waits that returned at once.
    fruitless: u32,
    nothing_in_sight: bool,
}

/// What to do before the next claim.
#[derive(Clone, Copy, Debug)]
enum Rest {
    /// Nothing: more is there.
    Not,
    /// Wait for a notification, until then at most.
    Notification(Instant),
    /// Nothing to be notified at.
    Pause(Duration),
}

struct Outage {
    began: Instant,
    last: Error,
    delays: Box<dyn Iterator<Item = Duration> + Send>,
}

impl Fetcher {
    pub(crate) fn new(line: Arc<Line>, options: SubscriptionOptions) -> Self {
        Self { line, options, subscription: None, rest: Rest::Not, outage: None, fruitless: 0, nothing_in_sight: false }
    }

    /// Opens the subscription now rather than at the first claim.
    pub(crate) async fn open(&mut self) -> Result<()> {
        if self.subscription.is_none() {
            self.subscription = Some(self.line.backend.subscribe(&self.line.name, self.options.clone()).await?);
        }
        Ok(())
    }

    /// Claims once. Nothing comes where nothing is due, and where the store can't be asked just now: in both cases
    /// [`rest`](Self::rest) knows how long to wait. The answer tells what a claim brought and from when its leases
    /// count on this process's clock.
    ///
    /// # Errors
    /// What will not pass.
    pub(crate) async fn claim(&mut self, claim: Claim) -> Result<Fetched> {
        // A store that answers at once would otherwise let a loop of claims keep its thread to itself.
        consume_budget().await;
        let span = tracing::debug_span!("claim", queue = %self.line.name, max = claim.max);
        let sent_at = Instant::now();
        let answer = match timeout(CLAIM_PATIENCE, self.try_claim(claim).instrument(span)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(ErrorKind::Unavailable, format!("no answer within {CLAIM_PATIENCE:?}"))),
        };
        match answer {
            Ok(claimed) => Ok(Fetched { tasks: self.brought(claimed), ends: sent_at + claim.lease }),
            Err(e) if e.retryable() => {
                self.failed(&e);
                Ok(Fetched { tasks: Vec::new(), ends: sent_at })
            }
            Err(e) => Err(e.context(format_args!("claiming from `{}`", self.line.name))),
        }
    }

    /// Waits until the next claim may bring something, or `at_most`. Right after a claim that left more behind, it
    /// returns at once.
    pub(crate) async fn rest(&mut self, until: Option<Instant>) {
        let rest = self.rest;
        let now = Instant::now();
        let bounded = |at: Instant| until.map_or(at, |until| until.min(at)).saturating_duration_since(now);
        match (rest, &mut self.subscription) {
            (Rest::Not, _) => {}
            (Rest::Notification(at), Some(subscription)) => {
                let at_most = bounded(at);
                subscription.wait(at_most).await;
                let quick = now.elapsed() < QUICK && at_most >= QUICK;
                self.fruitless = if quick { self.fruitless.saturating_add(1) } else { 0 };
                if self.fruitless > QUICK_WAITS_MAX {
                    sleep(spin_pause(self.fruitless - QUICK_WAITS_MAX)).await;
                }
            }
            (Rest::Notification(at), None) => sleep(bounded(at)).await,
            (Rest::Pause(pause), _) => sleep(bounded(now + pause)).await,
        }
        self.rest = Rest::Not;
    }

    /// Whether the store could not be asked by the last claim.
    pub(crate) fn in_outage(&self) -> bool {
        self.outage.is_some()
    }

    /// Why the last claim failed, if it did.
    pub(crate) fn last_failure(&self) -> Option<Error> {
        self.outage.as_ref().map(|outage| outage.last.clone())
    }

    /// Whether the last claim found nothing and nothing that will be due.
    pub(crate) fn nothing_in_sight(&self) -> bool {
        self.nothing_in_sight
    }

    /// Ends it in good order.
    pub(crate) async fn close(self) -> Result<()> {
        match self.subscription {
            Some(subscription) => subscription.close().await,
            None => Ok(()),
        }
    }

    async fn try_claim(&mut self, claim: Claim) -> Result<Claimed> {
        self.open().await?;
        match &mut self.subscription {
            Some(subscription) => subscription.claim(claim).await,
            None => Ok(Claimed::default()),
        }
    }

    fn brought(&mut self, claimed: Claimed) -> Vec<ClaimedTask> {
        if let Some(outage) = self.outage.take() {
            let lasted = outage.began.elapsed();
            tracing::info!(target: OUTAGE, queue = %self.line.name, outage = ?lasted, "claiming works again");
        }
        if claimed.dead_lettered > 0 || claimed.quarantined > 0 {
            let (dead_lettered, quarantined) = (claimed.dead_lettered, claimed.quarantined);
            tracing::warn!(queue = %self.line.name, dead_lettered, quarantined, "a claim met tasks that can't run any more");
        }
        let progress = !claimed.deliveries.is_empty() || claimed.dead_lettered > 0 || claimed.quarantined > 0;
        if progress {
            self.fruitless = 0;
        }
        let fallback_poll_interval = self.line.backend.capabilities().fallback_poll_interval.min(FALLBACK_POLL_MAX);
        self.rest = match claimed.next_due_in {
            Some(Duration::ZERO) if progress => Rest::Not,
            Some(Duration::ZERO) => {
                // Due, but not for us just now: others hold it for the moment.
                self.fruitless = self.fruitless.saturating_add(1);
                Rest::Pause(spin_pause(self.fruitless))
            }
            Some(due_in) => Rest::Notification(Instant::now() + due_in.min(fallback_poll_interval)),
            None => Rest::Notification(Instant::now() + fallback_poll_interval),
        };
        meter::delivered(self.line.name.as_str(), claimed.deliveries.iter().map(|task| task.lateness));
        meter::count(self.line.name.as_str(), Event::DeadLettered, claimed.dead_lettered);
        self.nothing_in_sight = claimed.deliveries.is_empty() && claimed.next_due_in.is_none();
        claimed.deliveries
    }

    fn failed(&mut self, e: &Error) {
        self.nothing_in_sight = false;
        let queue = &self.line.name;
        let outage = self.outage.get_or_insert_with(|| {
            tracing::warn!(target: OUTAGE, %queue, error = %e, "claiming fails; it is tried again until it works");
            Outage { began: Instant::now(), last: e.clone(), delays: Box::new(outage_delays()) }
        });
        outage.last = e.clone();
        let pause = outage.delays.next().unwrap_or(CLAIM_PATIENCE);
        tracing::debug!(%queue, error = %e, again_in = ?pause, "claiming failed");
        self.rest = Rest::Pause(pause);
    }
}

/// What a claim brought.
pub(crate) struct Fetched {
    pub(crate) tasks: Vec<ClaimedTask>,
    /// When the leases end on this process's clock, at the earliest.
    pub(crate) ends: Instant,
}

fn spin_pause(fruitless: u32) -> Duration {
    Duration::from_millis(1 << fruitless.min(5)).min(SPIN_PAUSE_MAX)
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("line", &self.line)
            .field("rest", &self.rest)
            .field("in_outage", &self.in_outage())
            .finish_non_exhaustive()
    }
}
