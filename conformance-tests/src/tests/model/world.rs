//! A queue of the backend and the reference beside it, and the time that both live in.
//!
//! Every step happens on a tick, and what is set by it ends about half a tick away from any other. Where time is real, a step
//! that did not end well before that leaves open what is right: such a trace is [`Unclear`](Stop::Unclear).

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    ChangeOutcome, Changed, DelayBackend, Due, Error, ErrorKind, Lease, OperationId, QueueName, Result as Answer,
    Select, Shift, Subscription, SubscriptionOptions, Support, TaskId, TaskRef, Timestamp,
};
use tokio::time::{Instant, sleep_until};

use super::ops::{Span, Step, What, When};
use super::reference::{MS, Now, Place, Reference, Sure};
use crate::history::History;
use crate::trial::Trial;

/// How far a trace goes on a virtual clock: 99 days, so that hundreds of traces stay within what clocks can show.
const ELAPSED_MAX_US: u64 = (1 << 33) * 1_000;

/// Why a trace ends before its end.
#[derive(Clone, Debug)]
pub(super) enum Stop {
    /// The backend did what it must not.
    Wrong(String),
    /// The machine was too slow, or two clocks too far apart, to know what is right.
    Unclear(String),
}

pub(super) type Checked<T = ()> = Result<T, Stop>;

pub(super) fn wrong<T>(what: impl Into<String>) -> Checked<T> {
    Err(Stop::Wrong(what.into()))
}

/// Fails with both sides shown unless they are equal.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Checked {
    if got == expected { Ok(()) } else { wrong(format!("{what}: {got:?}, the model says {expected:?}")) }
}

/// What an operation id was given to, and what was answered.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) id: OperationId,
    pub(super) select: Select,
    pub(super) action: delayline_core::Action,
    pub(super) answer: Changed,
    pub(super) begun: i64,
}

pub(super) struct World<'t> {
    pub(super) t: &'t Trial,
    pub(super) queue: QueueName,
    /// Two clients; the same one twice where a store lives in its client.
    pub(super) clients: [Arc<dyn DelayBackend>; 2],
    pub(super) history: History,
    pub(super) subscriptions: Vec<(usize, Box<dyn Subscription>)>,
    pub(super) model: Reference,
    /// Whether a subscription was dropped rather than closed.
    pub(super) dropped: bool,
    /// What was accepted, with its sequence: a redriven task has another.
    pub(super) refs: Vec<(TaskRef, u64)>,
    pub(super) leases: Vec<(Lease, usize)>,
    pub(super) operations: Vec<Operation>,
    /// Things that were held against the model.
    pub(super) checks: u64,
    begin: Instant,
    tick: i64,
    tick_us: i64,
    wall: i64,
    slop: i64,
    /// How many tasks were made.
    pub(super) numbers: usize,
    calls: u32,
}

impl<'t> World<'t> {
    pub(super) fn new(
        t: &'t Trial,
        queue: QueueName,
        clients: [Arc<dyn DelayBackend>; 2],
        history: History,
        slower: u32,
    ) -> Self {
        let wall = t.wall().unix_micros();
        let (tick, slop) = tick_and_slop(t, wall % MS == 0);
        let tick = tick * slower;
        Self {
            t,
            queue,
            clients,
            history,
            subscriptions: vec![],
            model: Reference::default(),
            dropped: false,
            refs: vec![],
            leases: vec![],
            operations: vec![],
            checks: 0,
            begin: Instant::now(),
            tick: 0,
            tick_us: us(tick),
            wall,
            slop: us(slop),
            numbers: 0,
            calls: 0,
        }
    }

    /// Makes one step on both sides, and holds them against each other.
    pub(super) async fn run(&mut self, step: &Step) -> Checked {
        let by = usize::from(step.other);
        match &step.what {
            What::Pass { ticks } => {
                let so_far = u64::try_from(self.tick).unwrap_or(0);
                let within = so_far.saturating_add(*ticks) <= ELAPSED_MAX_US / self.tick_us.unsigned_abs();
                return if within { self.pass(*ticks).await } else { Ok(()) };
            }
            What::Schedule(sketches) => self.schedule(by, sketches).await?,
            What::Claim { subscription, max, max_bytes, lease } => {
                self.claim(by, *subscription, *max, max_bytes.map(usize::from), *lease).await?;
            }
            What::Settle(endings) => self.settle(by, endings).await?,
            What::Extend { leases, by: length } => self.extend(by, leases, *length).await?,
            What::Change { tasks, to, operation } => self.change_tasks(by, tasks, *to, *operation).await?,
            What::ChangeGroup { group, to, operation } => self.change_group(by, *group, *to, *operation).await?,
            What::Repeat { operation } => self.repeat(by, *operation).await?,
            What::Misuse { operation } => self.misuse(by, *operation).await?,
            What::Find(task) => self.find(by, *task).await?,
            What::List { page } => self.list(by, *page).await?,
            What::Letters { page } => self.letters(by, *page).await?,
            What::Redrive { ids, staggered } => self.redrive(by, ids.as_deref(), *staggered).await?,
            What::Purge { ids } => self.purge(by, ids.as_deref()).await?,
            What::Stats => self.stats(by).await?,
            What::Queues => self.queues(by).await?,
            What::Pause => self.pause(by, true).await?,
            What::Resume => self.pause(by, false).await?,
            What::Delete => self.delete(by).await?,
            What::Open => self.open(by).await?,
            What::Leave { subscription, closed } => self.leave(*subscription, *closed).await?,
            What::StepWall { ticks, back } => self.step_wall(i64::from(*ticks) * if *back { -1 } else { 1 }),
        }
        self.in_time()
    }

    /// Whether the steps since the last tick ended well before what was set for half a tick later.
    pub(super) fn in_time(&mut self) -> Checked {
        let now = self.now();
        self.slop = self.slop.max((self.t.wall().unix_micros() - self.wall - now.to).abs());
        let late = now.to - self.tick * self.tick_us;
        if late > self.tick_us * 2 / 5 || self.slop > self.tick_us / 4 {
            return Err(Stop::Unclear(format!("a step was {late} us late, the clocks {} us apart", self.slop)));
        }
        Ok(())
    }

    /// Lets time pass until a later tick.
    pub(super) async fn pass(&mut self, ticks: u64) -> Checked {
        let ticks = if self.t.is_virtual() { ticks } else { ticks.min(4) };
        self.tick += i64::try_from(ticks).expect("a distance within a trace");
        let until = self.begin + Duration::from_micros((self.tick * self.tick_us).unsigned_abs());
        while Instant::now() < until {
            // Timers hold about two years; a trace may want more.
            sleep_until(until.min(Instant::now() + Duration::from_secs(300 * 86_400))).await;
        }
        self.in_time()
    }

    pub(super) fn step_wall(&mut self, ticks: i64) {
        let by = Duration::from_micros((ticks * self.tick_us).unsigned_abs());
        let shift = if ticks < 0 { Shift::Sooner(by) } else { Shift::Later(by) };
        // Where the harness can't, the trace goes on without.
        if self.t.harness().step_wall(shift) {
            self.history.wall_stepped();
            self.wall += ticks * self.tick_us;
        }
    }

    /// Now, which begins a call.
    pub(super) fn now(&self) -> Now {
        let at = us(self.begin.elapsed());
        Now { from: at, to: at, wall: self.wall, slop: self.slop }
    }

    /// Ends the call that began then.
    pub(super) fn until_now(&self, began: Now) -> Now {
        Now { to: us(self.begin.elapsed()), ..began }
    }

    pub(super) fn next_call(&mut self) -> u32 {
        self.calls += 1;
        self.calls
    }

    /// Whether every time is known to the microsecond: a call takes none, and milliseconds begin with those of the trace on
    /// both clocks.
    pub(super) fn exact(&self) -> bool {
        self.t.is_virtual() && self.slop == 0
    }

    /// What a store may round a time up by.
    fn rounding(&self) -> i64 {
        match us(self.t.caps().resolution) {
            fine if fine <= MS && self.exact() => 0,
            resolution => resolution.max(MS),
        }
    }

    pub(super) fn tick_us(&self) -> i64 {
        self.tick_us
    }

    pub(super) fn length(&self, span: Span) -> Duration {
        if span.ticks == 0 {
            return Duration::ZERO;
        }
        let fine = match span.fine {
            Span::ON_THE_TICK if self.exact() => self.tick_us / 2,
            fine => i64::from(fine.min(4)) * MS,
        };
        let ticks = i64::try_from(span.ticks).unwrap_or(i64::MAX).saturating_mul(self.tick_us);
        let length = ticks.saturating_sub(self.tick_us / 2).saturating_add(fine);
        Duration::from_micros(length.max(1) as u64 + if span.fraction { 300 } else { 0 })
    }

    /// As much later than the call, on the monotonic clock.
    pub(super) fn after(&self, now: &Now, by: Duration, call: u32) -> Place {
        let by = us(by);
        let from = now.from + by;
        let (from, to) = (up(from, self.exact()), up(now.to + by, self.exact()) + self.rounding());
        Place::Mono { from, to, call }
    }

    pub(super) fn due(&self, when: When) -> Due {
        let on_the_wall =
            |distance: i64| Due::At(Timestamp::from_unix_micros(self.wall + self.tick * self.tick_us + distance));
        match when {
            When::After(span) => Due::After(self.length(span)),
            // Half a tick ago, where the two clocks are not one.
            When::At(span) if span.ticks == 0 && self.slop > 0 => on_the_wall(-self.tick_us / 2),
            When::At(span) => on_the_wall(us(self.length(Span { fine: span.fine.min(4), ..span }))),
            When::Past(span) => on_the_wall(-us(self.length(Span { fine: span.fine.min(4), ..span }))),
        }
    }

    pub(super) fn place(&self, now: &Now, due: Due, call: u32) -> Place {
        match due {
            Due::After(by) => self.after(now, by, call),
            Due::At(at) => Place::Wall(at.unix_millis_ceil() * MS),
            _ => unreachable!("one that the suite does not know"),
        }
    }

    /// Whether a due time is farther than the backend goes.
    pub(super) fn too_far(&self, now: &Now, due: Due) -> Sure {
        let max = self.t.caps().delay_max;
        match due {
            Due::After(by) => (by > max).into(),
            Due::At(_) => self.place_too_far(now, self.place(now, due, 0)),
            _ => unreachable!("one that the suite does not know"),
        }
    }

    pub(super) fn place_too_far(&self, now: &Now, place: Place) -> Sure {
        let max = us(self.t.caps().delay_max);
        match now.span(place) {
            (_, to) if to - now.from <= max => Sure::No,
            (from, _) if from - now.to > max => Sure::Yes,
            _ => Sure::Maybe,
        }
    }

    /// Whether a time that the backend shows may be this place.
    pub(super) fn check_shown(&self, what: &str, now: &Now, shown: Timestamp, place: Place) -> Checked {
        let (from, to) = now.span(place);
        let slack = if self.t.is_virtual() { self.slop } else { self.slop + MS };
        let at = shown.unix_micros() - now.wall;
        if at >= from - slack && at <= to + slack {
            return Ok(());
        }
        wrong(format!("{what} is {shown}, {at} us since the trace began; the model says {from}..{to}"))
    }

    /// Whether the backend lacks something that a call needs, and then must have said so.
    pub(super) fn lacking<T: std::fmt::Debug>(needs: &[Support], answer: &Answer<T>) -> Checked<bool> {
        if needs.iter().all(|need| *need == Support::Definite) {
            return Ok(false);
        }
        match answer {
            Err(e) if e.kind() == ErrorKind::Unsupported => Ok(true),
            other => wrong(format!("CANCEL-11: not supported, and answered {other:?}")),
        }
    }

    /// The one that came so long ago.
    pub(super) fn recent<T>(list: &[T], ago: u8) -> Option<&T> {
        let ago = usize::from(ago).checked_rem(list.len())?;
        list.get(list.len() - 1 - ago)
    }

    pub(super) async fn open(&mut self, by: usize) -> Checked {
        if self.subscriptions.len() < 3 {
            let subscription = self.clients[by].subscribe(&self.queue, SubscriptionOptions::default()).await;
            self.subscriptions.push((by, subscription.or_else(|e| wrong(format!("subscription: {e}")))?));
        }
        Ok(())
    }

    pub(super) async fn leave(&mut self, subscription: u8, closed: bool) -> Checked {
        if self.subscriptions.is_empty() {
            return Ok(());
        }
        let (_, subscription) = self.subscriptions.remove(usize::from(subscription) % self.subscriptions.len());
        match closed {
            true => subscription.close().await.or_else(|e: Error| wrong(format!("closing a subscription: {e}"))),
            // Given up in the background, perhaps.
            false => {
                self.dropped = true;
                Ok(())
            }
        }
    }
}

/// How long a tick is, and how far the clocks may be apart. Where time is virtual and the wall clock runs with it, in step,
/// they are one; a wall clock that is read from the system is not.
fn tick_and_slop(t: &Trial, in_step: bool) -> (Duration, Duration) {
    let (unit, caps) = (t.units(1), t.caps());
    match (t.is_virtual(), in_step) {
        (true, true) => (unit.max(caps.resolution * 10), Duration::ZERO),
        (true, false) => ((unit * 4).max(caps.resolution * 20), Duration::from_millis(4)),
        (false, _) => {
            let tick = unit.max((caps.resolution + caps.lateness) * 5);
            (tick, tick / 10)
        }
    }
}

pub(super) fn us(by: Duration) -> i64 {
    // Sums of a few of these do not overflow.
    i64::try_from(by.as_micros()).unwrap_or(i64::MAX).min(i64::MAX / 8)
}

/// Rounded up to the millisecond where that is exact.
fn up(at: i64, exact: bool) -> i64 {
    if exact { at + (-at).rem_euclid(MS) } else { at }
}

/// How an answer to one task of a change reads.
pub(super) fn kind_of(outcome: &Answer<ChangeOutcome>) -> Result<ChangeOutcome, ErrorKind> {
    outcome.as_ref().copied().map_err(Error::kind)
}

/// The id alone.
pub(super) fn bare(id: &TaskId) -> TaskRef {
    TaskRef::from(id)
}
