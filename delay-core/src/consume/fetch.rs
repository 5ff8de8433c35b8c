//! The loop that claims due tasks, for both the consumer and the worker: claim; if nothing came, rest.
//!
//! Invariants
//! 1. No claimed task stays here: the poll that receives the tasks of a claim returns them. A dropped future therefore
//!    loses nothing.
//! 2. No polling: after a claim that brought nothing, the next one waits for a notification, the next due time, or the
//!    end of the fallback poll interval. If a backend sends spurious notifications, a pause that grows to
//!    `SPIN_PAUSE_MAX` is inserted.
//! 3. A failure that may pass is an outage. It is logged once when it begins and once when it ends. Retries during an
//!    outage are 50 ms to 5 s apart. Once a claim was answered, a refusal counts as one, too: a password that is being
//!    rotated must not end what has worked for days.

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

/// Log target for the beginning and the end of an outage. It is separate, so that a filter can keep these without the
/// messages about single tasks.
const OUTAGE: &str = "delayline_core::outage";
/// Maximum pause between claims that bring nothing although a task should be due.
const SPIN_PAUSE_MAX: Duration = Duration::from_millis(25);
/// A wait that ends sooner than this, though it was allowed to last longer, may have got a spurious notification.
const QUICK: Duration = Duration::from_millis(1);
/// After this many quick waits in a row that bring nothing, notifications count as spurious.
const QUICK_WAITS_MAX: u32 = 8;
/// Upper bound for a backend's fallback poll interval: one day.
const FALLBACK_POLL_MAX: Duration = Duration::from_secs(86_400);
/// Time after which a claim without an answer is given up, so that a call that hangs counts as an outage.
const CLAIM_PATIENCE: Duration = Duration::from_secs(30);

/// The subscription to one queue, with the state of its loop.
pub(crate) struct Fetcher {
    line: Arc<Line>,
    options: SubscriptionOptions,
    /// The first claim opens it.
    subscription: Option<Box<dyn Subscription>>,
    rest: Rest,
    outage: Option<Outage>,
    /// Whether a claim was answered. Until then, a refusal is an error.
    started: bool,
    /// Whether a refusal is an error later, too.
    fail_fast: bool,
    /// Number of claims in a row that brought nothing although something was due, or of waits that returned at once.
    fruitless: u32,
    nothing_in_sight: bool,
}

/// What to do before the next claim.
#[derive(Clone, Copy, Debug)]
enum Rest {
    /// Nothing: more tasks are due.
    Not,
    /// Wait for a notification, at most until then.
    Notification(Instant),
    /// Pause; a notification would not end it.
    Pause(Duration),
}

struct Outage {
    began: Instant,
    last: Error,
    delays: Box<dyn Iterator<Item = Duration> + Send>,
}

impl Fetcher {
    pub(crate) fn new(line: Arc<Line>, options: SubscriptionOptions, fail_fast: bool) -> Self {
        Self {
            line,
            options,
            subscription: None,
            rest: Rest::Not,
            outage: None,
            started: false,
            fail_fast,
            fruitless: 0,
            nothing_in_sight: false,
        }
    }

    /// Opens the subscription now, instead of in the first claim.
    pub(crate) async fn open(&mut self) -> Result<()> {
        if self.subscription.is_none() {
            self.subscription = Some(self.line.backend.subscribe(&self.line.name, self.options.clone()).await?);
        }
        Ok(())
    }

    /// Claims once. Returns no tasks if none is due, and also if the store can't be reached now. In both cases,
    /// [`rest`](Self::rest) knows how long to wait. The result contains the tasks, and when their leases end on this
    /// process's clock.
    ///
    /// # Errors
    /// Only permanent ones: [`Closed`](ErrorKind::Closed), what the claim itself is wrong in, and a refusal of the first
    /// claim, or of any with `fail_fast`.
    pub(crate) async fn claim(&mut self, claim: Claim) -> Result<Fetched> {
        // Without this, a store that answers at once would let a loop of claims monopolize its thread.
        consume_budget().await;
        let span = tracing::debug_span!("claim", queue = %self.line.name, max = claim.max);
        let sent_at = Instant::now();
        let answer = match timeout(CLAIM_PATIENCE, self.try_claim(claim).instrument(span)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(ErrorKind::Unavailable, format!("no answer within {CLAIM_PATIENCE:?}"))),
        };
        match answer {
            Ok(claimed) => {
                self.started = true;
                Ok(Fetched { tasks: self.brought(claimed), ends: sent_at + claim.lease })
            }
            Err(e) if e.retryable() || self.started && !self.fail_fast && e.kind().is_refusal() => {
                self.failed(&e);
                Ok(Fetched { tasks: Vec::new(), ends: sent_at })
            }
            Err(e) => Err(e.context(format_args!("claiming from `{}`", self.line.name))),
        }
    }

    /// Waits until the next claim may bring something, or until `until`. Returns at once after a claim that left due
    /// tasks behind.
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

    /// Whether the last claim could not reach the store.
    pub(crate) fn in_outage(&self) -> bool {
        self.outage.is_some()
    }

    /// The error of the last claim, if it failed.
    pub(crate) fn last_failure(&self) -> Option<Error> {
        self.outage.as_ref().map(|outage| outage.last.clone())
    }

    /// Whether the last claim found no task, neither due nor scheduled.
    pub(crate) fn nothing_in_sight(&self) -> bool {
        self.nothing_in_sight
    }

    /// Closes the subscription.
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
            tracing::warn!(queue = %self.line.name, dead_lettered, quarantined, "a claim removed tasks that can't run any more");
        }
        let progress = !claimed.deliveries.is_empty() || claimed.dead_lettered > 0 || claimed.quarantined > 0;
        if progress {
            self.fruitless = 0;
        }
        let fallback_poll_interval = self.line.backend.capabilities().fallback_poll_interval.min(FALLBACK_POLL_MAX);
        self.rest = match claimed.next_due_in {
            Some(Duration::ZERO) if progress => Rest::Not,
            Some(Duration::ZERO) => {
                // A task is due, but somebody else holds it at the moment.
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
            tracing::warn!(target: OUTAGE, %queue, error = %e, "claiming fails; retrying until it works again");
            Outage { began: Instant::now(), last: e.clone(), delays: Box::new(outage_delays()) }
        });
        outage.last = e.clone();
        let pause = outage.delays.next().unwrap_or(CLAIM_PATIENCE);
        tracing::debug!(%queue, error = %e, again_in = ?pause, "claiming failed");
        self.rest = Rest::Pause(pause);
    }
}

/// The result of a claim.
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
