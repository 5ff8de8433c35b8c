//! Writing histories by hand: calls with their times, in milliseconds.

use delayline_core::{GroupName, Headers, OperationId, QueueName, Receipt, TaskId, TaskRef, Timestamp};

use crate::check::{Findings, check};
use crate::history::{
    Accepted, Answer, Change, Content, DeclaredOrder, Delivered, Disposition, Due, Event, Extended, Header, Held, Item,
    Op, Planned, Recording, Tally, What,
};

/// Where the wall clock starts.
pub(super) const WALL: i64 = 1_900_000_000_000;

/// A history that is being written. Calls take from one millisecond to another, `at.0..at.1`.
pub(super) struct Written {
    pub(super) recording: Recording,
    ahead_us: i64,
}

type At = (u64, u64);

pub(super) fn queue() -> QueueName {
    QueueName::new("q").unwrap()
}

pub(super) fn id(key: &str) -> TaskId {
    TaskId::new(key).unwrap()
}

pub(super) fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

pub(super) fn wall(ms: i64) -> Timestamp {
    Timestamp::from_unix_millis(WALL + ms)
}

/// A task with the id as its payload, due after so many milliseconds.
pub(super) fn task(key: &str, after_ms: u64) -> Planned {
    Planned {
        id: Some(id(key)),
        due: Due::AfterUs(after_ms * 1000),
        expires: None,
        content: content(key),
        replace: false,
    }
}

pub(super) fn content(payload: &str) -> Content {
    let payload_hash = payload.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    Content { payload_len: payload.len(), payload_hash, headers: Headers::new(), group: None, attempts_max: 3 }
}

impl Planned {
    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(super) fn replacing(self, payload: &str) -> Self {
        let content = content(payload);
        self.with(|task| (task.replace, task.content) = (true, content))
    }
}

/// What a claim brings: the task, its fence and its attempt.
pub(super) fn out(task: &Planned, fence: u64, attempt: u32) -> Delivered {
    Delivered {
        lease: Held { id: task.id.clone().unwrap(), fence },
        attempt,
        lease_expires: wall(1_000_000),
        due_at: wall(0),
        lateness_us: 0,
        expires_at: None,
        content: task.content.clone(),
    }
}

impl Written {
    pub(super) fn new() -> Self {
        let header = Header {
            test: "written".into(),
            seed: 0,
            backend: "none".into(),
            resolution_us: 1_000,
            lateness_us: 1_000,
            order: DeclaredOrder::Exact,
            retry_window_us: 0,
            unique_ids: true,
            leases_stored: true,
        };
        Self { recording: Recording { header, events: vec![] }, ahead_us: WALL * 1000 }
    }

    pub(super) fn declaring(change: impl FnOnce(&mut Header)) -> Self {
        let mut written = Self::new();
        change(&mut written.recording.header);
        written
    }

    fn event(&mut self, at_ms: u64, call: u64, what: What) {
        let wall = Timestamp::from_unix_micros(self.ahead_us + at_ms as i64 * 1000);
        self.recording.events.push(Event { at_us: at_ms * 1000, wall, call, what });
    }

    fn next(&self) -> u64 {
        self.recording.events.len() as u64
    }

    /// A call; without an answer its outcome is unknown.
    pub(super) fn call(&mut self, at: At, op: Op, answer: Option<Answer>) {
        let end = answer.map_or(What::Unknown { why: "dropped".into() }, What::Ok);
        self.ended(at, op, end);
    }

    pub(super) fn ended(&mut self, at: At, op: Op, end: What) {
        let call = self.next();
        self.event(at.0, call, What::Invoked { client: 0, queue: queue(), op });
        self.event(at.1, call, end);
    }

    pub(super) fn schedule_as(&mut self, at: At, tasks: &[(&Planned, &str)]) {
        let item = |(task, outcome): &(&Planned, &str)| match *outcome {
            "failed" => Item::Failed("Full".into()),
            "unknown" => Item::Unknown,
            outcome => Item::Ok(Accepted {
                task: TaskRef::new(task.id.clone().unwrap(), wall(0), Receipt::NONE),
                outcome: outcome.into(),
            }),
        };
        let answer = Answer::Schedule(tasks.iter().map(item).collect());
        self.call(at, Op::Schedule(tasks.iter().map(|(task, _)| (*task).clone()).collect()), Some(answer));
    }

    pub(super) fn schedule(&mut self, at: At, tasks: &[&Planned]) {
        self.schedule_as(at, &tasks.iter().map(|task| (*task, "created")).collect::<Vec<_>>());
    }

    pub(super) fn schedule_unknown(&mut self, at: At, task: &Planned) {
        self.call(at, Op::Schedule(vec![task.clone()]), None);
    }

    /// A claim with leases of 100 ms.
    pub(super) fn claim(&mut self, at: At, deliveries: Vec<Delivered>) {
        self.claim_dead_lettering(at, deliveries, 0);
    }

    pub(super) fn claim_dead_lettering(&mut self, at: At, deliveries: Vec<Delivered>, dead_lettered: u64) {
        let answer = Answer::Claim { deliveries, next_due_us: None, dead_lettered, quarantined: 0 };
        self.call(at, Self::claim_op(), Some(answer));
    }

    pub(super) fn claim_op() -> Op {
        Op::Claim { max: 100, max_bytes: 1 << 20, lease_us: 100_000 }
    }

    pub(super) fn settle(&mut self, at: At, key: &str, fence: u64, disposition: Disposition) {
        self.settle_as(at, key, fence, disposition, Some(Item::Ok(())));
    }

    pub(super) fn settle_as(
        &mut self,
        at: At,
        key: &str,
        fence: u64,
        disposition: Disposition,
        item: Option<Item<()>>,
    ) {
        let op = Op::Settle(vec![(Held { id: id(key), fence }, disposition)]);
        self.call(at, op, item.map(|item| Answer::Settle(vec![item])));
    }

    pub(super) fn extend(&mut self, at: At, key: &str, fence: u64, by_ms: u64, told_ms: i64) {
        let op = Op::Extend { leases: vec![Held { id: id(key), fence }], by_us: by_ms * 1000 };
        let extended = Extended { lease_expires: wall(told_ms), cancelled: false };
        self.call(at, op, Some(Answer::Extend(vec![Item::Ok(extended)])));
    }

    pub(super) fn change(&mut self, at: At, key: &str, change: Change, word: &str) {
        self.change_under(at, key, change, word, None);
    }

    pub(super) fn change_under(
        &mut self,
        at: At,
        key: &str,
        change: Change,
        word: &str,
        operation: Option<OperationId>,
    ) {
        let op = Op::ChangeTasks { ids: vec![id(key)], change, operation };
        let answer = Answer::Change { outcomes: vec![Item::Ok(word.into())], tally: Tally::default() };
        self.call(at, op, Some(answer));
    }

    pub(super) fn change_group(&mut self, at: At, name: &str, change: Change, tally: Tally) {
        let op = Op::ChangeGroup { group: group(name), change, operation: None };
        self.call(at, op, Some(Answer::Change { outcomes: vec![], tally }));
    }

    pub(super) fn done(&mut self, at: At, op: Op) {
        self.call(at, op, Some(Answer::Done));
    }

    pub(super) fn redrive(&mut self, at: At, affected: u64) {
        self.call(at, Op::Redrive { ids: None, rate: None }, Some(Answer::Dead { affected, kept: 0 }));
    }

    pub(super) fn drained(&mut self, at_ms: u64) {
        let call = self.next();
        self.event(at_ms, call, What::Drained { queue: queue() });
    }

    pub(super) fn connections_end(&mut self, at_ms: u64) {
        let call = self.next();
        self.event(at_ms, call, What::ConnectionsEnd);
    }

    pub(super) fn step_wall(&mut self, at_ms: u64, by_ms: i64) {
        self.ahead_us += by_ms * 1000;
        let call = self.next();
        self.event(at_ms, call, What::WallStepped);
    }

    /// Checks it. Calls may have been written in any order: their events are put in the order of their times, ends before
    /// beginnings.
    pub(super) fn checked(mut self) -> Findings {
        let is_beginning = |event: &Event| matches!(event.what, What::Invoked { .. });
        self.recording.events.sort_by_key(|event| (event.at_us, is_beginning(event)));
        check(&self.recording)
    }

    #[track_caller]
    pub(super) fn shows(self, promise: &str) {
        let findings = self.checked();
        let promises: Vec<&str> = findings.violations.iter().map(|violation| violation.promise).collect();
        assert!(promises.contains(&promise), "{promise} was not found among {:#?}", findings.violations);
        assert!(promises.iter().all(|found| *found == promise), "more than {promise}: {:#?}", findings.violations);
    }

    #[track_caller]
    pub(super) fn shows_nothing(self) {
        let findings = self.checked();
        assert_eq!(findings.violations, vec![]);
    }
}
