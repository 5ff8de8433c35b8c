//! One process's consumption of one queue: what has arrived, what is under lease, and how much is wanted.
//!
//! All intakes of a queue share one line, and leases outlive them ([`leases`]). A lease is an unacknowledged message on the
//! line's channel and a timer here; when the channel is lost, all its leases are. What comes is brought by the line's pump
//! ([`supply`]).
//!
//! 1. A message is in exactly one place: the pool (arrived, claimed by nobody), the leases, or on its way back.
//! 2. What leaves the leases or the pool is acknowledged only after whatever replaces it was confirmed by the broker.
//! 3. What nobody claims within [`HOARD_MAX`] goes back to the broker, and no more is asked for until the next claim.

mod leases;
mod supply;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use delayline_core::{BuryCause, Claim, ClaimedTask, Error, QueueName, Timestamp};
use lapin::Channel;
use lapin::options::BasicAckOptions;
use lapin::types::DeliveryTag;
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, watch};
use tokio::time::{Instant, timeout};

pub(crate) use self::supply::Came;
use crate::message::Message;
use crate::shared::{SOON_MS, Shared};

/// How long what has arrived waits for a claim.
const HOARD_MAX: Duration = Duration::from_millis(200);

/// The most by which a due time is rounded up.
const SOON: Duration = Duration::from_millis(SOON_MS.cast_unsigned());

/// How many tasks are remembered that this process sent on their way, to tell when the next one comes.
const EXPECTED_MAX: usize = 10_000;

/// How long one is expected that does not come: another process may have got it, or a change met it.
const EXPECTED_LATE_MS: i64 = 1_000;

/// How soon to look again for one that is late.
const LATE_AGAIN: Duration = Duration::from_millis(50);

/// The most messages that are asked for at once.
const WANT_MAX: usize = 2_000;

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) queue: QueueName,
    state: Mutex<State>,
    /// Counts what a waiting intake wants to know of: arrivals, reconnects, the end.
    hints: watch::Sender<u64>,
    /// Up to which question of a claim the broker has answered.
    answered: watch::Sender<u64>,
    /// Something that the pump looks at has changed.
    pub(crate) changed: Notify,
    /// Held for writing while consumers are cancelled, for nothing to be acknowledged meanwhile: that makes room for what would
    /// come then.
    pub(crate) acknowledges: RwLock<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the channel that everything here came by; rises when one is lost.
    generation: u64,
    pool: BTreeMap<Place, Arrived>,
    leases: HashMap<u64, Leased>,
    ends: BTreeSet<(Instant, u64)>,
    /// Fences of verdicts whose outcome is unknown.
    unclear: VecDeque<u64>,
    /// How many tasks that this process sent on their way come at which millisecond.
    expected: BTreeMap<i64, usize>,
    /// How much each open intake still wants, by its number.
    intakes: HashMap<u64, usize>,
    next_intake: u64,
    /// When the last intake left.
    left_at: Option<Instant>,
    /// The consumers at the broker, by number: how many messages each may have, and has, unacknowledged.
    consumers: HashMap<u64, (usize, usize)>,
    next_consumer: u64,
    /// Verdicts and burials under way, which need the channel.
    ending: usize,
    /// Whether something may be on its way that claims don't know of: an answer of the broker would tell.
    unsettled: bool,
    /// How often claims have asked the broker, and up to which of them it has answered.
    asked: u64,
    /// What everything here came by.
    channel: Option<Channel>,
    /// What messages came by that were asked for one by one.
    getting: Option<Channel>,
    /// Why there is none.
    trouble: Option<Error>,
}

/// The order of hand-out; the last tells messages of one task apart.
type Place = (i64, u64, u64);

#[derive(Debug)]
struct Arrived {
    task: Held,
    since: Instant,
}

/// A message that this process holds.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) message: Message,
    /// Attempts that are over, those that the broker counted included.
    pub(crate) attempts: u32,
    /// What it came by, and its number there.
    channel: Channel,
    tag: DeliveryTag,
    consumer: u64,
    generation: u64,
}

#[derive(Debug)]
pub(crate) struct Leased {
    pub(crate) held: Held,
    pub(crate) attempt: u32,
    ends: Instant,
    /// Later than that the broker would close the channel.
    ends_max: Instant,
    expires_at: Timestamp,
}

/// What a claim found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) tasks: Vec<ClaimedTask>,
    pub(crate) doomed: Vec<(Held, BuryCause)>,
    /// When the next comes, as far as that is known.
    pub(crate) next_in: Option<Duration>,
}

impl Found {
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.doomed.is_empty()
    }
}

/// What became of a lease that somebody asks for.
#[derive(Debug)]
pub(crate) enum Looked<T> {
    Live(T),
    Lost,
    /// An earlier verdict on it may have taken effect.
    Unclear,
}

impl Line {
    pub(crate) fn new(queue: QueueName) -> Self {
        Self {
            queue,
            state: Mutex::default(),
            hints: watch::Sender::new(0),
            answered: watch::Sender::new(0),
            changed: Notify::new(),
            acknowledges: RwLock::default(),
        }
    }

    /// A new intake's number, and what wakes it.
    pub(crate) fn enter(&self) -> (u64, watch::Receiver<u64>) {
        let mut state = self.state.lock();
        let number = state.next_intake;
        state.next_intake += 1;
        state.intakes.insert(number, 0);
        // Its first claim asks the broker, whatever others have found.
        state.unsettled = true;
        self.changed.notify_one();
        (number, self.hints.subscribe())
    }

    pub(crate) fn leave(&self, intake: u64) {
        let mut state = self.state.lock();
        state.intakes.remove(&intake);
        if state.intakes.is_empty() {
            state.left_at = Some(Instant::now());
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn intakes(&self) -> usize {
        self.state.lock().intakes.len()
    }

    /// Wakes whoever waits.
    pub(crate) fn hint(&self) {
        self.hints.send_modify(|n| *n += 1);
    }

    /// Takes what has arrived, the earliest first, and notes how much more is wanted.
    pub(crate) fn claim(&self, shared: &Shared, intake: u64, claim: &Claim) -> Found {
        let now_ms = shared.now_ms();
        let (now, mut bytes) = (Instant::now(), 0);
        let mut found = Found::default();
        let mut state = self.state.lock();
        while found.tasks.len() < claim.max
            && let Some(first) = state.pool.first_entry()
        {
            let task = &first.get().task;
            if let Some(cause) = task.doom(now_ms) {
                found.doomed.push((first.remove().task, cause));
                state.ending += 1;
                continue;
            }
            let size = task.message.payload.len();
            if !found.tasks.is_empty() && bytes + size > claim.max_bytes {
                break;
            }
            bytes += size;
            let held = first.remove().task;
            found.tasks.push(state.lease(shared, held, claim.lease, now));
        }
        let more = !state.pool.is_empty();
        found.next_in = if more { Some(Duration::ZERO) } else { state.next_expected(shared, now) };
        let wanted = if more { 0 } else { (claim.max - found.tasks.len()).min(WANT_MAX) };
        if let Some(want) = state.intakes.get_mut(&intake) {
            *want = wanted;
        }
        drop(state);
        self.changed.notify_one();
        found
    }

    /// Notes that a task is being sent on its way, and comes at this millisecond.
    pub(crate) fn expect(&self, due_ms: i64) {
        let mut state = self.state.lock();
        if state.expected.len() < EXPECTED_MAX {
            *state.expected.entry(due_ms).or_default() += 1;
        }
    }

    /// It was not sent.
    pub(crate) fn expect_not(&self, due_ms: i64) {
        self.state.lock().expected_came(due_ms);
    }

    /// How long until the first that has arrived is due, where its time was rounded up; what is due later than that came by
    /// another clock, and is due.
    pub(crate) fn until_due(&self, shared: &Shared) -> Duration {
        let state = self.state.lock();
        let Some((first_ms, ..)) = state.pool.keys().next() else { return Duration::ZERO };
        let left = shared.until(*first_ms);
        if left <= SOON { left } else { Duration::ZERO }
    }

    /// Has the broker asked for what a claim wants and has not found here, and waits for the answer: not for tasks. Does
    /// nothing if nothing has come or gone since the last answer: whatever comes now wakes who waits.
    pub(crate) async fn ask(&self, at_most: Duration) {
        let question = {
            let mut state = self.state.lock();
            if !state.unsettled && state.short().is_none() {
                return;
            }
            state.asked += 1;
            state.asked
        };
        let mut answered = self.answered.subscribe();
        self.changed.notify_one();
        // The sender lives as long as this. Without an answer, the claim brings nothing.
        let _ = timeout(at_most, answered.wait_for(|answered| *answered >= question)).await;
    }

    /// The channels that leases are acknowledged on.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        let state = self.state.lock();
        state.channel.iter().chain(&state.getting).cloned().collect()
    }

    /// Why nothing comes now, if that is known.
    pub(crate) fn trouble(&self) -> Option<Error> {
        self.state.lock().trouble.clone()
    }
}

impl Held {
    /// Why it is buried rather than handed out.
    fn doom(&self, now_ms: i64) -> Option<BuryCause> {
        if self.message.expires_ms.is_some_and(|expires| expires < now_ms) {
            Some(BuryCause::Expired)
        } else if self.attempts >= self.message.max_attempts {
            Some(BuryCause::AttemptsUsedUp)
        } else {
            None
        }
    }

    /// As it goes back: what the broker counted is in our header from now on.
    fn unclaimed(mut self) -> Self {
        self.message.attempts = self.attempts;
        self
    }

    pub(crate) fn consumer(&self) -> u64 {
        self.consumer
    }

    /// Acknowledges it; done when that has been sent.
    pub(crate) async fn acknowledge(&self) -> lapin::Result<()> {
        // Not by the delivery's own acker: one that is asked as the connection ends may never answer.
        self.channel.basic_ack(self.tag, BasicAckOptions::default()).await
    }
}

impl State {
    fn next_expected(&mut self, shared: &Shared, now: Instant) -> Option<Duration> {
        let late_ms = shared.now_ms() - EXPECTED_LATE_MS;
        self.expected = self.expected.split_off(&late_ms);
        let (first_ms, _) = self.expected.first_key_value()?;
        let left = Some(shared.until(*first_ms)).filter(|left| !left.is_zero()).unwrap_or(LATE_AGAIN);
        // The task of a lease that ends comes, too.
        let lease = self.ends.first().map(|(ends, _)| ends.saturating_duration_since(now).max(LATE_AGAIN));
        Some(lease.map_or(left, |lease| lease.min(left)))
    }

    /// One that was expected is not any more.
    fn expected_came(&mut self, due_ms: i64) {
        if let Some(n) = self.expected.get_mut(&due_ms) {
            *n -= 1;
            if *n == 0 {
                self.expected.remove(&due_ms);
            }
        }
    }
}
