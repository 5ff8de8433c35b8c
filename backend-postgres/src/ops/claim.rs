//! Claims from the rows of a queue, and recovers claims whose answer was lost.
//!
//! 1. A subscription remembers the number of a claim whose answer was lost. The next claims first release the tasks
//!    that the lost claim took.
//! 2. A subscription remembers which parts of the index hold no task (`Known`), so that a claim skips the dead entries
//!    there. It never skips a task: every transaction that places a task below the known floor sends a notification
//!    after its commit, and a subscription that may have missed a notification forgets what it knows.

use std::sync::Arc;
use std::time::Duration;

use delayline_backend_kit::times::micros_ceil;
use delayline_backend_kit::{Claims, Lifecycle, ListeningSubscription, Notification};
use delayline_core::{
    Capabilities, Claim, Claimed, ClaimedTask, Disposition, ErrorKind, Lease, QueueName, Result, SubscriptionOptions,
};
use sqlx::postgres::PgRow;
use tokio::time::Instant;

use crate::codec::{self, Body, count, get};
use crate::limits::PIECE;
use crate::notify::channels::Channels;
use crate::ops::{dead, operation, settle};
use crate::store::Store;
use crate::transport::failure::Effect;

/// Tolerance of the search for the lease ends of a lost claim, in milliseconds, in both directions.
const GIVE_BACK_SLACK_MS: i64 = 2_000;

/// Number of fast retries for tasks that other transactions keep locked.
const TRIES_FAST: u32 = 20;

pub(crate) type PostgresSubscription = ListeningSubscription<Rows, Channels>;

/// The rows of a queue, as one subscription uses them.
pub(crate) struct Rows {
    store: Arc<Store>,
    queue: QueueName,
}

#[derive(Default)]
pub(crate) struct State {
    known: Known,
    lost: Vec<Lost>,
    /// Number of consecutive claims that found only due tasks that other transactions had locked.
    contended: u32,
}

/// What a subscription knows about the index; 0 means nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Nothing is visible before this millisecond.
    floor_ms: i64,
    /// Nothing is visible between the last claim's now and this millisecond.
    clear_until_ms: i64,
    /// When it last claimed without this knowledge.
    since: Option<Instant>,
}

/// A claim whose answer was lost. It may still be running on the server, so the search for its tasks is repeated.
struct Lost {
    claim: i64,
    lease: Duration,
    sent: Instant,
    tried: Option<Instant>,
}

/// The server's answer to a claim.
struct Answer {
    us: i64,
    paused: bool,
    first_ms: Option<i64>,
    due: u64,
    had: u64,
    next_ms: Option<i64>,
    lease_end_ms: Option<i64>,
    unreadable: Vec<(Vec<u8>, i64)>,
    claimed: Claimed,
}

impl Known {
    /// Updates the knowledge after a notification.
    fn hear(&mut self, heard: Notification, listening: bool, fallback_poll_interval: Duration) {
        let stale = self.since.is_none_or(|since| since.elapsed() >= fallback_poll_interval);
        if heard.missed || !listening || stale {
            *self = Self { floor_ms: 0, clear_until_ms: 0, since: Some(Instant::now()) };
        }
        if let Some(due_ms) = heard.due_ms {
            self.floor_ms = self.floor_ms.min(due_ms);
            self.clear_until_ms = self.clear_until_ms.min(due_ms);
        }
    }

    /// Updates the knowledge after a claim of at most `max` tasks.
    fn learn(&mut self, answer: &Answer, max: u64) {
        let now_ms = answer.us / 1000;
        self.floor_ms = answer.first_ms.unwrap_or(now_ms + 1);
        // A due task that this claim did not get may be under another claim that isn't committed yet: its lease end is
        // unknown.
        let had_all = answer.had == answer.due && answer.due <= max && !answer.paused;
        let next = [answer.next_ms, answer.lease_end_ms].into_iter().flatten().min();
        self.clear_until_ms = if had_all { next.unwrap_or(i64::MAX) } else { 0 };
    }
}

/// Opens a subscription of a queue.
pub(crate) fn subscribe(
    store: Arc<Store>,
    queue: &QueueName,
    options: SubscriptionOptions,
) -> Result<PostgresSubscription> {
    store.lifecycle.open()?;
    let notifier = store.notifier.clone();
    let rows = Rows { store, queue: queue.clone() };
    Ok(ListeningSubscription::new(rows, State::default(), &notifier, queue.clone(), options))
}

impl Claims for Rows {
    type State = State;

    fn capabilities(&self) -> &Capabilities {
        &self.store.caps
    }

    fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.store.lifecycle
    }

    fn queue(&self) -> &QueueName {
        &self.queue
    }

    fn notified(&self, state: &mut State, notification: Notification, listening: bool) {
        state.known.hear(notification, listening, self.store.config.fallback_poll_interval);
    }

    async fn claim(&self, state: &mut State, claim: Claim) -> Result<Claimed> {
        self.give_back_lost(state).await?;
        let max = claim.max.min(PIECE.items) as u64;
        let mut answer = self.ask(state, claim, max).await?;
        if state.known.floor_ms > answer.us / 1000 + 1 {
            // The clock was set back.
            state.known = Known { since: state.known.since, ..Known::default() };
            answer = self.ask(state, claim, max).await?;
        }
        state.known.learn(&answer, max);
        let unreadable = std::mem::take(&mut answer.unreadable);
        if !unreadable.is_empty() {
            answer.claimed.quarantined = unreadable.len() as u64;
            // If that fails, a later claim finds them and tries again.
            if let Err(e) = settle::quarantine(&self.store, &self.queue, unreadable).await {
                tracing::warn!(queue = %self.queue, error = %e, "could not quarantine undecodable rows");
            }
        }
        self.store.vacuum.left_dead(answer.had);
        operation::forget_when_due(&self.store).await;
        dead::dead_lettered(&self.store, &self.queue, answer.claimed.dead_lettered).await;
        answer.claimed.next_due_in = state.next_due_in(&answer, max);
        Ok(answer.claimed)
    }

    async fn settle(&self, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        settle::settle(&self.store, &self.queue, &dispositions).await
    }

    fn is_clean(&self, state: &State) -> bool {
        state.lost.is_empty()
    }

    async fn clean_up(&self, state: &mut State) -> Result<()> {
        state.lost.iter_mut().for_each(|lost| lost.tried = None);
        self.give_back_lost(state).await
    }

    fn poll_interval(&self) -> Option<Duration> {
        Some(self.store.config.poll_interval)
    }
}

impl Rows {
    async fn ask(&self, state: &mut State, claim: Claim, max: u64) -> Result<Answer> {
        let number = self.store.ids.positive();
        let (queue, known) = (self.queue.clone(), state.known);
        let bytes = i64::try_from(claim.max_bytes).unwrap_or(i64::MAX);
        let sent = Instant::now();
        let rows = self.store.rows("claiming", Effect::Write, &self.store.sql.claim, move |query| {
            query
                .bind(queue.as_str())
                .bind(known.floor_ms)
                .bind(max as i64)
                .bind(bytes)
                .bind(micros_ceil(claim.lease))
                .bind(number)
                .bind(known.clear_until_ms)
        });
        match rows.await {
            Ok(rows) => Answer::read(&rows),
            Err(e) => {
                if e.kind() == ErrorKind::Ambiguous {
                    state.lost.push(Lost { claim: number, lease: claim.lease, sent, tried: None });
                }
                Err(e)
            }
        }
    }

    /// Releases the tasks of claims whose answers were lost.
    async fn give_back_lost(&self, state: &mut State) -> Result<()> {
        let patience = self.store.config.response_timeout;
        let mut at = 0;
        while let Some(lost) = state.lost.get_mut(at) {
            at += 1;
            if lost.tried.is_some_and(|tried| tried.elapsed() < Duration::from_secs(1)) {
                continue;
            }
            let (queue, number) = (self.queue.clone(), lost.claim);
            let lease_ms = micros_ceil(lost.lease) / 1000;
            let elapsed_ms = i64::try_from(lost.sent.elapsed().as_millis()).unwrap_or(i64::MAX);
            let rows = self.store.rows("releasing", Effect::Repeat, &self.store.sql.give_back, move |query| {
                query
                    .bind(queue.as_str())
                    .bind(number)
                    .bind(lease_ms.saturating_sub(elapsed_ms) - GIVE_BACK_SLACK_MS)
                    .bind(lease_ms + GIVE_BACK_SLACK_MS)
            });
            let rows = rows.await?;
            lost.tried = Some(Instant::now());
            let least_ms = match rows.first() {
                Some(row) => get::<Option<i64>>(row, 0)?,
                None => None,
            };
            if let Some(least_ms) = least_ms {
                state.known.hear(Notification { due_ms: Some(least_ms), missed: false }, true, Duration::MAX);
                self.store.placed(&self.queue, Some(least_ms)).await;
            }
        }
        // After this time, the claim can't run any more: the server stops the statements of lost sessions.
        state.lost.retain(|lost| lost.tried.is_none() || lost.sent.elapsed() < 2 * patience);
        Ok(())
    }
}

#[cfg(test)]
impl State {
    /// The floor, and the time until which nothing is visible.
    pub(crate) fn known(&self) -> (i64, i64) {
        (self.known.floor_ms, self.known.clear_until_ms)
    }
}

impl State {
    /// Time that the caller may wait without a notification.
    fn next_due_in(&mut self, answer: &Answer, max: u64) -> Option<Duration> {
        let claimed = &answer.claimed;
        let until = |ms: i64| Duration::from_micros(u64::try_from(ms * 1000 - answer.us).unwrap_or(0));
        let next = [answer.next_ms, answer.lease_end_ms].into_iter().flatten().min().map(until);
        let done = claimed.deliveries.len() as u64 + claimed.dead_lettered + claimed.quarantined;
        if answer.paused {
            return None;
        }
        // There are more due tasks than `max`, more than fit, or rows that changed before this claim locked them.
        if answer.due > max || done < answer.had {
            return Some(Duration::ZERO);
        }
        if answer.had == answer.due {
            self.contended = 0;
            return next;
        }
        // Other transactions hold the rest. If these are claims, their lease ends are not visible before the commit.
        self.contended = if done > 0 { 0 } else { self.contended + 1 };
        let pause_ms = match self.contended {
            n if n <= TRIES_FAST => (2_u64 << n.min(8)).min(50),
            _ => 1_000,
        };
        let pause = Duration::from_millis(pause_ms);
        Some(next.map_or(pause, |next| next.min(pause)))
    }
}

impl Answer {
    fn read(rows: &[PgRow]) -> Result<Self> {
        let first = rows.first().ok_or_else(codec::corrupt)?;
        let mut answer = Self {
            us: get(first, 0)?,
            paused: get(first, 1)?,
            first_ms: get(first, 2)?,
            due: count(first, 3)?,
            had: count(first, 4)?,
            next_ms: get(first, 5)?,
            lease_end_ms: get(first, 13)?,
            unreadable: Vec::new(),
            claimed: Claimed::default(),
        };
        answer.claimed.dead_lettered = count(first, 6)?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            // If the claim got no task, its only row is empty here.
            let Some(id) = get::<Option<&[u8]>>(row, 7)? else { break };
            let fence = get(row, 9)?;
            match answer.read_task(row, id, fence) {
                Ok(task) => tasks.push((get::<i64>(row, 12)?, get::<i64>(row, 8)?, task)),
                Err(_) => answer.unreadable.push((id.to_vec(), fence)),
            }
        }
        tasks.sort_unstable_by_key(|(place, seq, _)| (*place, *seq));
        answer.claimed.deliveries = tasks.into_iter().map(|(_, _, task)| task).collect();
        Ok(answer)
    }

    fn read_task(&self, row: &PgRow, id: &[u8], fence: i64) -> Result<ClaimedTask> {
        let (attempt, allowed) = (get::<i16>(row, 10)?, get::<i16>(row, 11)?);
        let (place, ends) = (get::<i64>(row, 12)?, get::<i64>(row, 13)?);
        let body = Body::read(row, 15)?;
        let receipt = codec::receipt(get(row, 8)?);
        // The table's constraints ensure that the columns are positive.
        let lease =
            Lease::new(codec::read_id(id)?, fence as u64, u32::from(attempt as u16), codec::millis(ends), receipt);
        let late = Duration::from_micros(u64::try_from(self.us - place * 1000).unwrap_or(0));
        let mut task = ClaimedTask::new(lease, codec::millis(place), late, body.payload);
        task.attempts_max = u32::from(allowed as u16);
        task.expires_at = get::<Option<i64>>(row, 14)?.map(codec::millis);
        task.headers = body.headers;
        task.group = body.group;
        Ok(task)
    }
}
