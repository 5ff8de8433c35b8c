//! Clients that work on the store in miniature at the same time: calls overlap, are dropped and take effect late. What it does
//! right is never reported; what it does wrong is found.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use delayline_core::{Receipt, TaskRef, Timestamp};
use proptest::prelude::*;

use super::store::{Fault, Store};
use super::written::{content, group, id, queue};
use crate::check::{Findings, check};
use crate::history::{
    Accepted, Answer, Change, DeclaredOrder, Disposition, Due, Event, Header, Held, Item, Op, Planned, Recording, What,
};

/// How a run goes.
#[derive(Clone, Copy, Debug)]
struct Run {
    seed: u64,
    fault: Fault,
    clients: usize,
    /// Calls of each client.
    calls: usize,
    /// Ids that are used again and again.
    ids: u64,
    /// Calls that are dropped, of a hundred.
    dropped: u32,
    changes: bool,
    redrives: bool,
    steps: bool,
}

impl Run {
    fn new(seed: u64, fault: Fault) -> Self {
        Self { seed, fault, clients: 4, calls: 60, ids: 12, dropped: 0, changes: true, redrives: false, steps: false }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Invoke(usize),
    Effect(usize),
    End(usize),
    GiveBack(usize),
}

struct Underway {
    client: usize,
    op: Op,
    dropped: bool,
    answer: Option<Answer>,
}

struct Simulation {
    run: Run,
    store: Store,
    rng: fastrand::Rng,
    events: Vec<Event>,
    calls: Vec<Underway>,
    steps: BinaryHeap<Reverse<(u64, u64, Step)>>,
    order: u64,
    /// Leases that the clients have held.
    held: Vec<Held>,
    named: u64,
}

fn simulated(run: Run) -> Recording {
    let mut simulation = Simulation {
        run,
        store: Store::new(run.fault, run.seed),
        rng: fastrand::Rng::with_seed(run.seed),
        events: vec![],
        calls: vec![],
        steps: BinaryHeap::new(),
        order: 0,
        held: vec![],
        named: 0,
    };
    simulation.go();
    let header = Header {
        test: "simulated".into(),
        seed: run.seed,
        backend: "in miniature".into(),
        resolution_us: 1_000,
        lateness_us: 1_000,
        order: DeclaredOrder::Exact,
        retry_window_us: 0,
        unique_ids: true,
        leases_stored: true,
    };
    Recording { header, events: simulation.events }
}

impl Simulation {
    fn go(&mut self) {
        for client in 0..self.run.clients {
            let start = self.rng.u64(0..500);
            self.at(start, Step::Invoke(client));
        }
        let mut left = vec![self.run.calls; self.run.clients];
        let mut now = 0;
        while let Some(Reverse((at, _, step))) = self.steps.pop() {
            now = at;
            match step {
                Step::Invoke(client) if left[client] > 0 => {
                    left[client] -= 1;
                    self.invoke(now, client);
                }
                Step::Invoke(_) => {}
                Step::Effect(call) => self.take_effect(now, call),
                Step::End(call) => self.end(now, call),
                Step::GiveBack(call) => {
                    if let Some(Answer::Claim { deliveries, .. }) = self.calls[call].answer.take() {
                        self.store.give_back(&deliveries);
                    }
                }
            }
        }
        self.drain(now);
    }

    fn at(&mut self, us: u64, step: Step) {
        self.order += 1;
        self.steps.push(Reverse((us, self.order, step)));
    }

    fn event(&mut self, at_us: u64, call: usize, what: What) {
        let wall = Timestamp::from_unix_micros(at_us as i64 + self.store.ahead_us);
        self.events.push(Event { at_us, wall, call: call as u64, what });
    }

    fn invoke(&mut self, now: u64, client: usize) {
        if self.run.steps && self.rng.u32(0..20) == 0 {
            self.store.ahead_us += self.rng.i64(-30_000..30_000);
            self.event(now, 1_000_000 + self.events.len(), What::WallStepped);
        }
        let op = self.op(now);
        let call = self.calls.len();
        let dropped = self.rng.u32(0..100) < self.run.dropped;
        self.event(now, call, What::Invoked { client: client as u32, queue: queue(), op: op.clone() });
        self.calls.push(Underway { client, op, dropped, answer: None });
        let takes = |rng: &mut fastrand::Rng| if rng.bool() { rng.u64(0..300) } else { rng.u64(0..6_000) };
        let effect = now + takes(&mut self.rng);
        let end = effect + takes(&mut self.rng);
        match dropped {
            // It may be dropped before it takes effect, and may never do so.
            true => {
                let given_up = now + self.rng.u64(0..4_000);
                self.at(given_up, Step::End(call));
                if self.rng.u32(0..3) > 0 {
                    self.at(effect, Step::Effect(call));
                    self.at(end, Step::GiveBack(call));
                }
            }
            false => {
                self.at(effect, Step::Effect(call));
                self.at(end, Step::End(call));
            }
        }
    }

    fn end(&mut self, now: u64, call: usize) {
        let what = match self.calls[call].answer.clone() {
            Some(answer) if !self.calls[call].dropped => {
                if let Answer::Claim { deliveries, .. } = &answer {
                    self.held.extend(deliveries.iter().map(|delivered| delivered.lease.clone()));
                }
                What::Ok(answer)
            }
            Some(_) | None => What::Unknown { why: "dropped".into() },
        };
        self.event(now, call, what);
        let next = now + self.rng.u64(0..3_000);
        let client = self.calls[call].client;
        self.at(next, Step::Invoke(client));
    }

    fn op(&mut self, now: u64) -> Op {
        match self.rng.u32(0..100) {
            0..25 => Op::Schedule((0..self.rng.usize(1..5)).map(|_| self.planned(now)).collect()),
            25..55 => {
                let lease_us = self.rng.u64(1..40) * 1_000;
                Op::Claim { max: self.rng.usize(1..6), max_bytes: 1 << 20, lease_us }
            }
            55..85 => match self.a_lease() {
                Some(held) if self.rng.u32(0..6) == 0 => {
                    Op::Extend { leases: vec![held], by_us: self.rng.u64(1..60) * 1_000 }
                }
                Some(held) => Op::Settle(vec![(held, self.disposition())]),
                None => Op::Resume,
            },
            85..97 if self.run.changes => {
                let change = match self.rng.u32(0..4) {
                    0 => Change::Cancel,
                    1 => Change::MoveTo(Due::AfterUs(self.rng.u64(0..40_000))),
                    2 => Change::MoveTo(Due::At(self.instant(now))),
                    _ => Change::Shift(self.rng.i64(-30_000..30_000)),
                };
                if self.rng.u32(0..4) == 0 {
                    Op::ChangeGroup { group: group("g"), change, operation: None }
                } else {
                    let key = self.rng.u64(0..self.run.ids);
                    Op::ChangeTasks { ids: vec![id(&format!("k{key}"))], change, operation: None }
                }
            }
            97..99 if self.run.redrives => Op::Redrive { ids: None, rate: None },
            99 if self.run.redrives && self.rng.bool() => Op::Delete,
            _ => Op::Resume,
        }
    }

    /// One of the latest, which may be stale.
    fn a_lease(&mut self) -> Option<Held> {
        let n = self.held.len();
        (n > 0).then(|| self.held[self.rng.usize(n.saturating_sub(6)..n)].clone())
    }

    fn disposition(&mut self) -> Disposition {
        match self.rng.u32(0..10) {
            0..4 => Disposition::Complete,
            4..6 => Disposition::Retry(self.rng.u64(0..30_000)),
            6..8 => Disposition::Snooze(self.rng.u64(0..30_000)),
            8 => Disposition::DeadLetter,
            _ => Disposition::Release,
        }
    }

    fn instant(&mut self, now: u64) -> Timestamp {
        let wall = now as i64 + self.store.ahead_us;
        Timestamp::from_unix_millis((wall + self.rng.i64(-5_000..30_000)) / 1000 / 4 * 4)
    }

    fn planned(&mut self, now: u64) -> Planned {
        let key = self.rng.u32(0..3) > 0;
        let due = match self.rng.u32(0..4) {
            0 => Due::AfterUs(0),
            1 => Due::At(self.instant(now)),
            _ => Due::AfterUs(self.rng.u64(0..8) * 4_000),
        };
        let expires = match (self.rng.u32(0..8), due) {
            (0, Due::AfterUs(after)) => Some(Due::AfterUs(after + self.rng.u64(0..10_000))),
            _ => None,
        };
        let mut content = content(&format!("p{}", self.rng.u32(0..50)));
        content.group = (self.rng.u32(0..3) == 0).then(|| group("g"));
        let key = key.then(|| id(&format!("k{}", self.rng.u64(0..self.run.ids))));
        Planned { replace: key.is_some() && self.rng.bool(), id: key, due, expires, content }
    }

    fn take_effect(&mut self, now: u64, call: usize) {
        let store = &mut self.store;
        let lost = || "LeaseLost".to_string();
        let answer = match &self.calls[call].op {
            Op::Schedule(planned) => Answer::Schedule(
                planned
                    .iter()
                    .map(|planned| {
                        self.named += 1;
                        let key = planned.id.clone().unwrap_or_else(|| id(&format!("given-{}", self.named)));
                        let outcome = store.schedule(now, planned, key.clone());
                        let task = TaskRef::new(key, Timestamp::UNIX_EPOCH, Receipt::NONE);
                        Item::Ok(Accepted { task, outcome: outcome.into() })
                    })
                    .collect(),
            ),
            Op::Claim { max, lease_us, .. } => {
                let (deliveries, dead_lettered) = store.claim(now, *max, *lease_us);
                Answer::Claim { deliveries, next_due_us: None, dead_lettered, quarantined: 0 }
            }
            Op::Settle(dispositions) => Answer::Settle(
                dispositions
                    .iter()
                    .map(
                        |(held, disposition)| {
                            if store.settle(now, held, *disposition) { Item::Ok(()) } else { Item::Failed(lost()) }
                        },
                    )
                    .collect(),
            ),
            Op::Extend { leases, by_us } => {
                let extended = leases.iter().map(|held| store.extend(now, held, *by_us));
                Answer::Extend(extended.map(|told| told.map_or_else(|| Item::Failed(lost()), Item::Ok)).collect())
            }
            Op::ChangeTasks { ids, change, .. } => {
                let outcomes = ids.iter().map(|id| Item::Ok(store.change(now, id, *change).to_string())).collect();
                Answer::Change { outcomes, tally: Default::default() }
            }
            Op::ChangeGroup { group, change, .. } => {
                Answer::Change { outcomes: vec![], tally: store.change_group(now, group, *change) }
            }
            Op::Redrive { .. } => {
                let (affected, kept) = store.redrive(now);
                Answer::Dead { affected, kept }
            }
            Op::Delete => {
                store.delete();
                Answer::Done
            }
            Op::Purge { .. } | Op::Pause | Op::Resume => Answer::Done,
        };
        self.calls[call].answer = Some(answer);
    }

    /// One client takes and completes what is left.
    fn drain(&mut self, mut now: u64) {
        let mut patience = 200;
        while patience > 0 && (!self.store.is_empty() || patience > 195) {
            patience -= 1;
            now += 2_000;
            let claim = self.at_once(now, Op::Claim { max: 100, max_bytes: 1 << 20, lease_us: 100_000 });
            let Some(Answer::Claim { deliveries, .. }) = claim else { unreachable!("a claim's answer") };
            for delivered in deliveries {
                now += 10;
                self.at_once(now, Op::Settle(vec![(delivered.lease, Disposition::Complete)]));
            }
        }
        now += 100_000_000;
        self.at_once(now, Op::Claim { max: 100, max_bytes: 1 << 20, lease_us: 100_000 });
        self.event(now + 20, 2_000_000, What::Drained { queue: queue() });
    }

    fn at_once(&mut self, now: u64, op: Op) -> Option<Answer> {
        let call = self.calls.len();
        self.event(now, call, What::Invoked { client: 99, queue: queue(), op: op.clone() });
        self.calls.push(Underway { client: 99, op, dropped: false, answer: None });
        self.take_effect(now, call);
        let answer = self.calls[call].answer.clone();
        self.event(now + 5, call, What::Ok(answer.clone()?));
        answer
    }
}

fn checked(run: Run) -> Findings {
    check(&simulated(run))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_right_is_not_reported(
        seed: u64,
        clients in 1..8_usize,
        ids in 1..40_u64,
        dropped in prop_oneof![Just(0_u32), 0..30_u32],
        changes: bool,
        redrives: bool,
        steps: bool,
    ) {
        let run = Run { clients, ids, dropped, changes, redrives, steps, ..Run::new(seed, Fault::None) };
        let findings = checked(run);
        prop_assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
        prop_assert!(findings.summary.calls > 0);
    }
}

#[test]
fn much_of_a_history_is_checked() {
    let summary = checked(Run { changes: false, ..Run::new(7, Fault::None) }).summary;
    assert!(summary.accepted > 50 && summary.deliveries > 50 && summary.redeliveries > 20, "{summary}");
    assert!(summary.timed > summary.deliveries / 3 && summary.ordered > 10 && summary.sought > 50, "{summary}");
}

/// Each fault with the promises of which at least one must be seen broken, in most of its runs.
const FAULTS: &[(Fault, &[&str])] = &[
    (Fault::LosesAtScheduling, &["LOSS-1"]),
    (Fault::LosesAtLeaseEnd, &["LOSS-2"]),
    (Fault::LeasesNothing, &["DUP-1"]),
    (Fault::IsEarly, &["TIME-1"]),
    (Fault::TurnsTheOrderRound, &["ORDER-1"]),
    (Fault::OrdersBySchedulingOnly, &["ORDER-1"]),
    (Fault::ForgetsTheOrderWithinACall, &["ORDER-1"]),
    (Fault::SettlesStaleLeases, &["DUP-4"]),
    (Fault::RefusesLiveLeases, &["DUP-4", "DUP-5"]),
    (Fault::BringsBackTheCompleted, &["DUP-3"]),
    (Fault::BringsBackTheDeadLettered, &["DUP-2"]),
    (Fault::RepeatsFences, &["DUP-6"]),
    (Fault::CountsNoAttempts, &["DUP-12"]),
    (Fault::CountsReleases, &["DUP-12"]),
    (Fault::ChangesContent, &["LOSS-5"]),
    (Fault::CreatesTwice, &["DUP-8"]),
    (Fault::RemembersTheEnded, &["DUP-10"]),
    (Fault::IgnoresCancels, &["CANCEL-2", "CANCEL-6"]),
    (Fault::RedeliversTheCancelled, &["CANCEL-3", "CANCEL-6"]),
    (Fault::IgnoresExpiry, &["TIME-8"]),
    (Fault::IgnoresExtensions, &["DUP-1"]),
    (Fault::ShortensExtensions, &["DUP-7"]),
    (Fault::IgnoresRetryDelays, &["TIME-1"]),
    (Fault::IgnoresMovesToLater, &["TIME-1"]),
    (Fault::KeepsTheOldOnReplace, &["DUP-9"]),
    (Fault::MakesUpTasks, &["LOSS-1"]),
];

#[test]
fn what_is_wrong_is_found() {
    for (fault, promises) in FAULTS {
        let shows = |seed: &u64| {
            let findings = checked(Run::new(*seed, *fault));
            promises.iter().any(|promise| findings.found(promise) > 0)
        };
        let found = (0..20).filter(shows).count();
        println!("{fault:?}: {found} of 20");
        assert!(found >= 8, "{fault:?} was found in {found} runs of 20");
    }
}

#[test]
fn a_recording_survives_its_file_and_is_checked_to_the_same_findings() {
    for fault in [Fault::None, Fault::IsEarly] {
        let recording = simulated(Run { dropped: 5, redrives: true, steps: true, ..Run::new(3, fault) });
        let mut file = Vec::new();
        recording.write(&mut file).unwrap();
        let read = Recording::read(file.as_slice()).unwrap();
        assert_eq!(read, recording);
        assert_eq!(check(&read).violations, check(&recording).violations);
        assert_eq!(check(&read).violations.is_empty(), fault == Fault::None);
    }
    assert_eq!(Recording::read(&b""[..]).unwrap_err().line, 1);
}
