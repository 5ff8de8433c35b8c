//! One process's consumption of one queue: what has arrived, what is under lease, and how much is wanted.
//!
//! All intakes of a queue share one line, and leases outlive them. A lease is an unacknowledged message on the line's
//! channel and a timer here; when the channel is lost, all its leases are.
//!
//! 1. A message is in exactly one place: the pool (arrived, claimed by nobody), the leases, or on its way back.
//! 2. What leaves the leases or the pool is acknowledged only after whatever replaces it was confirmed by the broker.
//! 3. What nobody claims within [`HOARD_MAX`] goes back to the broker, and no more is asked for until the next claim.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use delayline_core::{BuryCause, Claim, ClaimedTask, Error, Lease, QueueName, Receipt, Timestamp};
use lapin::message::Delivery;
use lapin::{Acker, Channel};
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, watch};
use tokio::time::{Instant, timeout};

use crate::message::{self, Foreign, Kind, Message};
use crate::shared::{SOON_MS, Shared};

/// How long what has arrived waits for a claim.
const HOARD_MAX: Duration = Duration::from_millis(200);

/// How long nothing has to have arrived before a consumer with room is cancelled.
const QUIET: Duration = Duration::from_millis(50);

/// The most by which a due time is rounded up.
const SOON: Duration = Duration::from_millis(SOON_MS.cast_unsigned());

/// The most messages that are asked for at once.
const WANT_MAX: usize = 2_000;

/// The most verdicts whose outcome is unknown that are remembered.
const UNCLEAR_MAX: usize = 4_096;

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
    /// How much each open intake still wants, by its number.
    intakes: HashMap<u64, usize>,
    next_intake: u64,
    /// When the last intake left.
    left_at: Option<Instant>,
    /// When a message came last, or room was made for one.
    came_at: Option<Instant>,
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
    pub(crate) acker: Acker,
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
    pub(crate) more: bool,
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
        found.more = !state.pool.is_empty();
        let wanted = if found.more { 0 } else { (claim.max - found.tasks.len()).min(WANT_MAX) };
        if let Some(want) = state.intakes.get_mut(&intake) {
            *want = wanted;
        }
        drop(state);
        self.changed.notify_one();
        found
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

    /// Takes a lease out, for a verdict on it.
    pub(crate) fn take(&self, lease: &Lease) -> Looked<Leased> {
        let mut state = self.state.lock();
        if state.leases.get(&lease.fence).is_some_and(|leased| leased.is(lease)) {
            let leased = state.leases.remove(&lease.fence).expect("a lease that was there under this lock");
            state.ends.remove(&(leased.ends, lease.fence));
            state.ending += 1;
            return Looked::Live(leased);
        }
        if state.unclear.contains(&lease.fence) { Looked::Unclear } else { Looked::Lost }
    }

    /// Puts a lease back whose verdict did not take effect. One that has ended meanwhile goes its way from here.
    pub(crate) fn put_back(&self, fence: u64, leased: Leased) {
        let mut state = self.state.lock();
        if leased.held.generation == state.generation {
            state.ends.insert((leased.ends, fence));
            state.leases.insert(fence, leased);
        }
        drop(state);
        self.ended(1);
    }

    /// Verdicts or burials have come to their end.
    pub(crate) fn ended(&self, n: usize) {
        self.state.lock().ending -= n;
        self.changed.notify_one();
    }

    /// Remembers that a verdict may have taken effect.
    pub(crate) fn note_unclear(&self, fence: u64) {
        let mut state = self.state.lock();
        if state.unclear.len() == UNCLEAR_MAX {
            state.unclear.pop_front();
        }
        state.unclear.push_back(fence);
    }

    /// Makes a lease end later, and answers when; `None` if that were later than the broker lets it.
    pub(crate) fn extend(&self, shared: &Shared, lease: &Lease, by: Duration) -> Looked<Option<Timestamp>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(leased) = state.leases.get_mut(&lease.fence).filter(|leased| leased.is(lease)) else {
            return if state.unclear.contains(&lease.fence) { Looked::Unclear } else { Looked::Lost };
        };
        let (ends, expires_at) = shared.end_of_lease(Instant::now(), by);
        if ends > leased.ends_max {
            return Looked::Live(None);
        }
        if ends > leased.ends {
            state.ends.remove(&(leased.ends, lease.fence));
            state.ends.insert((ends, lease.fence));
            leased.ends = ends;
            leased.expires_at = expires_at;
        }
        let expires_at = leased.expires_at;
        self.changed.notify_one();
        Looked::Live(Some(expires_at))
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

    /// Notes why nothing comes now; claims need not wait for an answer.
    pub(crate) fn set_trouble(&self, e: Error) {
        self.state.lock().trouble = Some(e);
        self.answer(self.asked());
    }

    /// A message is about to be acknowledged, which gives the consumer it came by room for another. Noted before: once it is
    /// acknowledged, the other may be on its way.
    pub(crate) fn acknowledging(&self, consumer: u64) {
        let mut state = self.state.lock();
        state.unsettled = true;
        state.came_at = Some(Instant::now());
        if let Some((_, outstanding)) = state.consumers.get_mut(&consumer) {
            *outstanding = outstanding.saturating_sub(1);
        }
    }
}

/// For the pump.
impl Line {
    /// Takes a message in, unless it is not ours.
    pub(crate) fn arrive(&self, delivery: Delivery, consumer: u64) -> Result<(), Box<(Delivery, Foreign)>> {
        let payload = Bytes::from(delivery.data.clone());
        let message = match Message::read(&delivery.properties, payload) {
            Ok(message) if message.kind == Kind::Task => message,
            Ok(_) => return Err(Box::new((delivery, Foreign("it is no task")))),
            Err(foreign) => return Err(Box::new((delivery, foreign))),
        };
        let attempts = message.attempts.saturating_add(message::delivery_count(&delivery.properties));
        let mut state = self.state.lock();
        let place = (message.due_ms, message.seq, delivery.delivery_tag);
        let generation = state.generation;
        state.came(consumer);
        let task = Held { message, attempts, acker: delivery.acker, consumer, generation };
        state.pool.insert(place, Arrived { task, since: Instant::now() });
        Ok(())
    }

    /// A foreign message has come by a consumer.
    pub(crate) fn foreign_came(&self, consumer: u64) {
        self.state.lock().came(consumer);
    }

    /// How many messages are wanted beyond those that the broker may send, if any.
    pub(crate) fn short(&self) -> Option<usize> {
        self.state.lock().short()
    }

    /// What claims have asked the broker so far, to be passed to [`answer`](Self::answer) when it has answered.
    pub(crate) fn asked(&self) -> u64 {
        self.state.lock().asked
    }

    /// Whether a claim waits for the broker.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked() > *self.answered.borrow()
    }

    /// The broker is being asked: what comes or goes from here on is not in its answer.
    pub(crate) fn asking(&self) {
        self.state.lock().unsettled = false;
    }

    pub(crate) fn answer(&self, question: u64) {
        self.answered.send_if_modified(|answered| std::mem::replace(answered, question.max(*answered)) < question);
    }

    /// A new consumer with room for so many messages; its number.
    pub(crate) fn new_consumer(&self, room: usize) -> u64 {
        let mut state = self.state.lock();
        let number = state.next_consumer;
        state.next_consumer += 1;
        state.consumers.insert(number, (room, 0));
        state.unsettled = true;
        number
    }

    /// The consumers, and whether each has all that it may have.
    pub(crate) fn consumers(&self) -> Vec<(u64, bool)> {
        let state = self.state.lock();
        state.consumers.iter().map(|(number, (room, outstanding))| (*number, outstanding >= room)).collect()
    }

    pub(crate) fn end_consumer(&self, number: u64) {
        self.state.lock().consumers.remove(&number);
    }

    /// Whether an intake or a lease still needs the channel.
    pub(crate) fn is_needed(&self) -> bool {
        let state = self.state.lock();
        !state.intakes.is_empty() || !state.leases.is_empty() || state.ending > 0
    }

    /// When something has to be looked at next: a lease that ends, or what nobody has claimed.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let state = self.state.lock();
        let lease = state.ends.first().map(|(ends, _)| *ends);
        lease.into_iter().chain(state.stop_at()).min()
    }

    /// Takes out the leases that have ended: each is visible again from its end on, with its attempt counted.
    pub(crate) fn take_ended(&self) -> Vec<Held> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let mut ended = Vec::new();
        while let Some(&(ends, fence)) = state.ends.first()
            && ends <= now
        {
            state.ends.remove(&(ends, fence));
            if let Some(mut leased) = state.leases.remove(&fence) {
                leased.held.message.due_ms = leased.expires_at.unix_millis_ceil();
                leased.held.message.attempts = leased.attempt;
                leased.held.message.fence = fence;
                ended.push(leased.held);
            }
        }
        ended
    }

    /// Whether consuming has to stop now, for what nobody claims to go back. Nothing is wanted then until the next claim.
    pub(crate) fn stops(&self) -> bool {
        let mut state = self.state.lock();
        let stops = state.stop_at().is_some_and(|at| at <= Instant::now());
        if stops {
            state.intakes.values_mut().for_each(|want| *want = 0);
        }
        stops
    }

    /// Keeps what has arrived for claims that came meanwhile; whether there are any.
    pub(crate) fn keep(&self) -> bool {
        let mut state = self.state.lock();
        let is_wanted = state.intakes.values().any(|want| *want > 0);
        if is_wanted {
            let now = Instant::now();
            state.pool.values_mut().for_each(|arrived| arrived.since = now);
        }
        is_wanted
    }

    /// How long until nothing has come for a while; nothing if that is so, or no consumer has room for more.
    pub(crate) fn until_quiet(&self) -> Option<Duration> {
        let state = self.state.lock();
        let left = (state.came_at? + QUIET).saturating_duration_since(Instant::now());
        (!state.is_full() && !left.is_zero()).then_some(left)
    }

    /// Takes out all that has arrived.
    pub(crate) fn take_pool(&self) -> Vec<Held> {
        let pool = std::mem::take(&mut self.state.lock().pool);
        pool.into_values().map(|arrived| arrived.task.unclaimed()).collect()
    }

    /// The channel is gone, and with it everything that came by it. If that was because nobody needed it, who came since and
    /// asks gets the answer from the next.
    pub(crate) fn channel_lost(&self, unneeded: bool) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.pool.clear();
        state.leases.clear();
        state.ends.clear();
        state.consumers.clear();
        state.channel = None;
        state.getting = None;
        state.unsettled = true;
        let asked = state.asked;
        drop(state);
        if !unneeded {
            self.answer(asked);
        }
    }

    pub(crate) fn set_channel(&self, channel: Channel) {
        let mut state = self.state.lock();
        state.channel = Some(channel);
        state.trouble = None;
    }
}

impl Line {
    pub(crate) fn set_getting(&self, channel: Channel) {
        self.state.lock().getting = Some(channel);
    }
}

impl State {
    fn came(&mut self, consumer: u64) {
        self.unsettled = true;
        self.came_at = Some(Instant::now());
        if let Some((_, outstanding)) = self.consumers.get_mut(&consumer) {
            *outstanding += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.consumers.values().all(|(room, outstanding)| outstanding >= room)
    }

    /// When consuming has to stop, because nobody is there or nobody claims.
    ///
    /// What is on its way to a consumer when it is cancelled goes back by itself, and brokers before 4.0 count an attempt
    /// for it. So one with room is cancelled when it has been quiet for a while.
    fn stop_at(&self) -> Option<Instant> {
        if self.consumers.is_empty() && self.pool.is_empty() {
            return None;
        }
        let (from, quiet) = if self.intakes.is_empty() {
            let left_at = self.left_at?;
            (left_at, self.came_at.max(self.left_at)? + QUIET)
        } else {
            let oldest = self.pool.values().map(|arrived| arrived.since).min()?;
            (oldest + HOARD_MAX, self.came_at? + QUIET)
        };
        if self.is_full() { Some(from) } else { Some(quiet.clamp(from, from + HOARD_MAX)) }
    }

    /// How many messages are wanted beyond those that the broker may send, if any.
    fn short(&self) -> Option<usize> {
        let wanted = self.intakes.values().sum::<usize>().saturating_sub(self.pool.len()).min(WANT_MAX);
        let room: usize = self.consumers.values().map(|(room, outstanding)| room.saturating_sub(*outstanding)).sum();
        (wanted > room).then(|| wanted - room)
    }

    fn lease(&mut self, shared: &Shared, held: Held, lease: Duration, now: Instant) -> ClaimedTask {
        let message = &held.message;
        let fence = shared.fence_above(message.fence);
        let (ends, expires_at) = shared.end_of_lease(now, lease);
        let attempt = held.attempts + 1;
        let receipt = Receipt::from_words([shared.instance, fence]);
        let given = Lease::new(message.id.clone(), fence, attempt, expires_at, receipt);
        let due_at = Timestamp::from_unix_millis(message.due_ms);
        let lateness = shared.wall_in(Duration::ZERO).saturating_since(due_at);
        let mut task = ClaimedTask::new(given, due_at, lateness, message.payload.clone());
        task.max_attempts = message.max_attempts;
        task.expires_at = message.expires_ms.map(Timestamp::from_unix_millis);
        task.headers = message.headers.clone();
        self.ends.insert((ends, fence));
        let ends_max = now + shared.hold_max();
        self.leases.insert(fence, Leased { held, attempt, ends, ends_max, expires_at });
        task
    }
}

impl Leased {
    fn is(&self, lease: &Lease) -> bool {
        self.held.message.id == lease.id && self.attempt == lease.attempt
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
}
