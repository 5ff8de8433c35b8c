//! The books of a run ([`crate::ledger`]) find what the checkers find: the same calls, written into both.

use std::collections::BTreeSet;
use std::time::Duration;

use delayline_core::ChangeOutcome;
use tokio::time::Instant;

use super::written::{Written, out, task};
use crate::history::{Answer, Change, DeclaredOrder, Disposition, Due, Op, Planned};
use crate::ledger::Ledger;

const TASKS: u32 = 4;
/// Calls take one millisecond, and so much lies between them.
const STEP_MS: u64 = 10;
/// Longer than anything takes.
const LEASE_US: u64 = 1 << 40;

/// How a task stands, as the store that answers would know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    Held,
    /// Held, and cancelled meanwhile.
    Marked,
    Completed,
    Cancelled,
    /// Its cancel was asked for, and nobody knows.
    Asked,
}

/// What the store does wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Loses,
    IsEarly,
    Leases,
    BringsBackTheCompleted,
    BringsBackTheCancelled,
    BringsBackTheMarked,
}

/// What is found, in words that both can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Lost,
    Early,
    Again,
    Revived,
}

struct Both {
    written: Written,
    ledger: Ledger,
    origin: Instant,
    now_ms: u64,
    rng: fastrand::Rng,
    tasks: Vec<One>,
}

struct One {
    planned: Planned,
    state: State,
    due_ms: u64,
    /// The fence, and so the attempt: each delivery is another.
    fence: u64,
    /// Somebody asked to cancel it once, so it may be gone at any time.
    asked: bool,
}

impl One {
    /// Whether it has to be completed some time.
    fn is_owed(&self) -> bool {
        matches!(self.state, State::Waits | State::Held) && !self.asked
    }
}

impl Both {
    fn new(seed: u64) -> Self {
        let ledger = Ledger::new(TASKS);
        let mut rng = fastrand::Rng::with_seed(seed);
        let one = |number: u32| {
            let planned =
                task(&number.to_string(), rng.u64(0..20) * STEP_MS).with(|task| task.content.attempts_max = 99);
            One { planned, state: State::Waits, due_ms: 0, fence: 0, asked: false }
        };
        let tasks = (0..TASKS).map(one).collect();
        let written = Written::declaring(|header| header.order = DeclaredOrder::Any);
        let mut both = Self { written, ledger, origin: Instant::now(), now_ms: 0, rng, tasks };
        for number in 0..TASKS {
            let at = both.next();
            let Due::AfterUs(after) = both.tasks[number as usize].planned.due else { unreachable!() };
            let one = &mut both.tasks[number as usize];
            // In the store's favour: from the beginning of the call here, to its end there.
            one.due_ms = at.1 + after / 1000;
            both.written.schedule(at, &[&one.planned]);
            both.ledger.due(number, both.origin + Duration::from_millis(at.0 + after / 1000));
            both.ledger.accepted(number);
        }
        both
    }

    fn next(&mut self) -> (u64, u64) {
        self.now_ms += STEP_MS;
        (self.now_ms, self.now_ms + 1)
    }

    fn instant(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    fn deliver(&mut self, number: u32) {
        let at = self.next();
        let one = &mut self.tasks[number as usize];
        one.fence += 1;
        one.state = if one.state == State::Marked { State::Marked } else { State::Held };
        let answer = Answer::Claim {
            deliveries: vec![out(&one.planned, one.fence, one.fence as u32)],
            next_due_us: None,
            dead_lettered: 0,
            quarantined: 0,
        };
        self.written.call(at, Op::Claim { max: 1, max_bytes: 1 << 20, lease_us: LEASE_US }, Some(answer));
        self.ledger.delivered(number, self.instant(at.1));
    }

    fn complete(&mut self, number: u32) {
        let at = self.next();
        let one = &mut self.tasks[number as usize];
        one.state = State::Completed;
        self.written.settle(at, &number.to_string(), one.fence, Disposition::Complete);
        self.ledger.completed(number);
    }

    fn retry(&mut self, number: u32) {
        let at = self.next();
        let after = self.rng.u64(1..10) * STEP_MS;
        let one = &mut self.tasks[number as usize];
        one.state = if one.state == State::Marked { State::Cancelled } else { State::Waits };
        one.due_ms = at.1 + after;
        self.written.settle(at, &number.to_string(), one.fence, Disposition::Retry(after * 1000));
        self.ledger.given_back(number, self.instant(at.0 + after));
    }

    fn cancel(&mut self, number: u32) {
        let at = self.next();
        let one = &mut self.tasks[number as usize];
        let (state, word, answer) = match one.state {
            State::Waits if self.rng.bool() => (State::Asked, "requested", ChangeOutcome::Requested),
            State::Waits | State::Asked => (State::Cancelled, "changed", ChangeOutcome::Changed),
            State::Held | State::Marked => (State::Marked, "in_flight", ChangeOutcome::InFlight),
            gone @ (State::Completed | State::Cancelled) => (gone, "not_found", ChangeOutcome::NotFound),
        };
        one.asked |= state == State::Asked;
        one.state = state;
        self.written.change(at, &number.to_string(), Change::Cancel, word);
        self.ledger.cancelled(number, Some(answer), self.instant(at.1));
    }

    /// Something that a sound store and its clients may do.
    fn step(&mut self) {
        let number = self.rng.u32(0..TASKS);
        let one = &self.tasks[number as usize];
        match (one.state, self.rng.u32(0..4)) {
            (_, 0) => self.cancel(number),
            (State::Waits | State::Asked, _) if one.due_ms <= self.now_ms => self.deliver(number),
            (State::Held | State::Marked, 1) => self.retry(number),
            (State::Held | State::Marked, 2) => self.complete(number),
            _ => drop(self.next()),
        }
    }

    /// Any task that stands so, if there is one.
    fn any(&self, is: impl Fn(&One) -> bool) -> Option<u32> {
        self.tasks.iter().position(is).map(|number| number as u32)
    }

    /// Does it, if a task is there that it can be done to.
    fn go_wrong(&mut self, fault: Fault) -> bool {
        let now = self.now_ms + STEP_MS;
        let meets = match fault {
            Fault::None => return true,
            Fault::Loses => return self.any(One::is_owed).is_some(),
            Fault::IsEarly => self.any(|one| one.state == State::Waits && one.due_ms > now + 2),
            Fault::Leases => self.any(|one| one.state == State::Held),
            Fault::BringsBackTheCompleted => self.any(|one| one.state == State::Completed),
            Fault::BringsBackTheCancelled => self.any(|one| one.state == State::Cancelled && one.due_ms <= now),
            Fault::BringsBackTheMarked => self.any(|one| one.state == State::Marked),
        };
        meets.map(|number| self.deliver(number)).is_some()
    }

    /// Everything that is left is worked on, but for one task if the store loses one.
    fn end(&mut self, fault: Fault) {
        self.now_ms += 1_000;
        let mut loses = fault == Fault::Loses;
        for number in 0..TASKS {
            let one = &self.tasks[number as usize];
            if loses && one.is_owed() {
                loses = false;
                continue;
            }
            match one.state {
                State::Waits | State::Asked => {
                    self.deliver(number);
                    self.complete(number);
                }
                State::Held | State::Marked => self.complete(number),
                State::Completed | State::Cancelled => {}
            }
        }
        // A last look, beyond every lease.
        self.now_ms += LEASE_US / 1000;
        let at = self.next();
        self.written.claim(at, vec![]);
        self.written.drained(at.1 + 1);
    }

    fn found(self) -> (BTreeSet<Found>, BTreeSet<Found>) {
        let verdict = self.ledger.verdict();
        let tallies = [
            (Found::Lost, verdict.lost),
            (Found::Early, verdict.early),
            (Found::Again, verdict.again),
            (Found::Revived, verdict.revived),
        ];
        let books = tallies.into_iter().filter(|(_, tally)| tally.count > 0).map(|(found, _)| found).collect();
        let findings = self.written.checked();
        let promise = |promise: &str| match promise {
            "LOSS-1" | "LOSS-2" => Found::Lost,
            "TIME-1" => Found::Early,
            "DUP-1" | "DUP-2" | "DUP-3" => Found::Again,
            "CANCEL-2" | "CANCEL-3" => Found::Revived,
            other => panic!("{other} is no promise that the books know: {:#?}", findings.violations),
        };
        (books, findings.violations.iter().map(|violation| promise(violation.promise)).collect())
    }
}

#[test]
fn the_books_find_what_the_history_shows() {
    let faults = [
        (Fault::None, None),
        (Fault::Loses, Some(Found::Lost)),
        (Fault::IsEarly, Some(Found::Early)),
        (Fault::Leases, Some(Found::Again)),
        (Fault::BringsBackTheCompleted, Some(Found::Again)),
        (Fault::BringsBackTheCancelled, Some(Found::Revived)),
        (Fault::BringsBackTheMarked, Some(Found::Revived)),
    ];
    for (fault, shows) in faults {
        let mut met = 0;
        for seed in 0..400 {
            let mut both = Both::new(seed);
            for _ in 0..both.rng.u32(5..60) {
                both.step();
            }
            if !both.go_wrong(fault) {
                continue;
            }
            met += 1;
            both.end(fault);
            let (books, history) = both.found();
            assert_eq!(books, history, "{fault:?} of seed {seed}: the books and the history");
            assert!(shows.is_none_or(|shows| books.contains(&shows)), "{fault:?} of seed {seed}: {books:?}");
            assert!(fault != Fault::None || books.is_empty(), "seed {seed}: {books:?}");
        }
        assert!(met > 50, "{fault:?} was met {met} times");
    }
}
