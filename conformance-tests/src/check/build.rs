//! Building the index: calls are put together from their invocation and end, and sorted by queue and id.

use std::collections::HashMap;

use delayline_core::{GroupName, OperationId, QueueName, TaskId};

use super::index::{
    Changing, Claim, Effect, Entry, Extending, Handout, Index, LostClaim, Queue, Reach, Redrive, Settling, Task,
    Version,
};
use super::span::{Sorted, Span};
use crate::history::{Accepted, Answer, Change, Delivered, Disposition, Event, Item, Op, Planned, Recording, What};

/// Arranges a history.
pub(super) fn index(recording: &Recording) -> Index<'_> {
    let calls = calls_of(&recording.events);
    let unique_ids = recording.header.unique_ids;
    let firsts = first_calls(&calls);
    let mut queues = Queues::default();
    for call in &calls {
        let own = operation_of(call.op).is_none_or(|operation| firsts.get(&operation) == Some(&call.span.call));
        queues.of(call.queue).add(call, own);
    }
    let (mut steps, mut cuts) = (Vec::new(), Vec::new());
    for (place, event) in recording.events.iter().enumerate() {
        match &event.what {
            What::WallStepped => steps.push(place),
            What::ConnectionsEnd => cuts.push(place),
            What::Drained { queue } => queues.of(queue).drained = Some(Span::at(place, event)),
            What::Invoked { .. } | What::Ok(_) | What::Failed { .. } | What::Unknown { .. } => {}
        }
    }
    let ahead = |event: &Event| event.wall.unix_micros().saturating_sub_unsigned(event.at_us);
    let aheads = recording.events.iter().map(ahead);
    let wall_ahead = (aheads.clone().min().unwrap_or(0), aheads.max().unwrap_or(0));
    let queues = queues.all.into_iter().map(|queue| queue.finish(unique_ids)).collect();
    Index { header: &recording.header, queues, steps, cuts, wall_ahead, calls: calls.len() }
}

/// A call, put together.
struct Call<'a> {
    span: Span,
    queue: &'a QueueName,
    op: &'a Op,
    end: End<'a>,
    wall: (i64, i64),
    /// When its end was noted, also that of one without an answer.
    noted_us: u64,
}

#[derive(Clone, Copy)]
enum End<'a> {
    Answered(&'a Answer),
    Failed(&'a str),
    Unknown,
}

impl Span {
    fn at(place: usize, event: &Event) -> Self {
        Self { call: event.call, from: place, to: place, from_us: event.at_us, to_us: event.at_us }
    }
}

fn calls_of(events: &[Event]) -> Vec<Call<'_>> {
    let mut calls: Vec<Call<'_>> = Vec::new();
    let mut open: HashMap<u64, usize> = HashMap::new();
    for (place, event) in events.iter().enumerate() {
        let end = match &event.what {
            What::Invoked { queue, op, .. } => {
                open.insert(event.call, calls.len());
                let span = Span::at(place, event).open();
                let wall = event.wall.unix_micros();
                calls.push(Call { span, queue, op, end: End::Unknown, wall: (wall, wall), noted_us: u64::MAX });
                continue;
            }
            What::Ok(answer) => End::Answered(answer),
            What::Failed { kind, .. } => End::Failed(kind),
            What::Unknown { .. } => End::Unknown,
            What::Drained { .. } | What::WallStepped | What::ConnectionsEnd => continue,
        };
        let Some(call) = open.remove(&event.call).map(|i| &mut calls[i]) else { continue };
        call.end = end;
        call.noted_us = event.at_us;
        call.wall.1 = event.wall.unix_micros();
        if !matches!(end, End::Unknown) {
            (call.span.to, call.span.to_us) = (place, event.at_us);
        }
    }
    calls
}

fn operation_of(op: &Op) -> Option<OperationId> {
    match op {
        Op::ChangeTasks { operation, .. } | Op::ChangeGroup { operation, .. } => *operation,
        Op::Schedule(_)
        | Op::Claim { .. }
        | Op::Settle(_)
        | Op::Extend { .. }
        | Op::Redrive { .. }
        | Op::Purge { .. }
        | Op::Pause
        | Op::Resume
        | Op::Delete => None,
    }
}

/// For each operation id the call that carried it first, if that was answered before any other was made: what it answers, it
/// did itself. Another may only tell of what was done before, and has done what it says at any of the calls up to it.
fn first_calls(calls: &[Call<'_>]) -> HashMap<OperationId, u64> {
    let mut spans: HashMap<OperationId, (Span, bool)> = HashMap::new();
    for call in calls.iter().filter(|call| !matches!(call.end, End::Failed(_))) {
        let Some(operation) = operation_of(call.op) else { continue };
        let (first, alone) = spans.entry(operation).or_insert((call.span, true));
        *alone &= first.call == call.span.call || first.is_before(&call.span);
    }
    spans.into_iter().filter(|(_, (_, alone))| *alone).map(|(id, (first, _))| (id, first.call)).collect()
}

#[derive(Default)]
struct Queues<'a> {
    all: Vec<Gathered<'a>>,
    by_name: HashMap<&'a QueueName, usize>,
}

impl<'a> Queues<'a> {
    fn of(&mut self, name: &'a QueueName) -> &mut Gathered<'a> {
        let next = self.all.len();
        let i = *self.by_name.entry(name).or_insert(next);
        if i == next {
            self.all.push(Gathered::new(name));
        }
        &mut self.all[i]
    }
}

/// A queue whose parts are being gathered.
struct Gathered<'a> {
    name: &'a QueueName,
    tasks: Vec<Parts<'a>>,
    by_id: HashMap<&'a TaskId, usize>,
    claims: Vec<Claim>,
    lost_claims: Vec<LostClaim>,
    groups: HashMap<&'a GroupName, Vec<Changing<'a>>>,
    redrives: Vec<Redrive<'a>>,
    deletes: Vec<Span>,
    pauses: Vec<Span>,
    resumes: Vec<Span>,
    nameless: Vec<Version<'a>>,
    drained: Option<Span>,
}

/// A task whose parts are being gathered.
#[derive(Default)]
struct Parts<'a> {
    versions: Vec<Version<'a>>,
    existing: Vec<(Span, &'a Planned)>,
    handouts: Vec<(Claim, usize, &'a Delivered)>,
    settlings: Vec<Settling>,
    extensions: Vec<Extending<'a>>,
    changes: Vec<Changing<'a>>,
}

impl<'a> Gathered<'a> {
    fn new(name: &'a QueueName) -> Self {
        Self {
            name,
            tasks: vec![],
            by_id: HashMap::new(),
            claims: vec![],
            lost_claims: vec![],
            groups: HashMap::new(),
            redrives: vec![],
            deletes: vec![],
            pauses: vec![],
            resumes: vec![],
            nameless: vec![],
            drained: None,
        }
    }

    fn task(&mut self, id: &'a TaskId) -> &mut Parts<'a> {
        let next = self.tasks.len();
        let i = *self.by_id.entry(id).or_insert(next);
        if i == next {
            self.tasks.push(Parts::default());
        }
        &mut self.tasks[i]
    }

    /// `own`: whether what it answers was done by this call, and not by an earlier one with its operation id.
    fn add(&mut self, call: &Call<'a>, own: bool) {
        let span = call.span;
        match (call.op, call.end) {
            (Op::Claim { lease_us, .. }, end) => self.add_claim(call, *lease_us, end),
            (_, End::Failed(_)) => {}
            (Op::Schedule(planned), end) => self.add_schedule(span, planned, end),
            (Op::Settle(dispositions), end) => {
                for (i, (held, disposition)) in dispositions.iter().enumerate() {
                    let effect = match end {
                        End::Answered(Answer::Settle(items)) => effect_of(items.get(i)),
                        End::Answered(_) | End::Failed(_) | End::Unknown => Effect::Possible,
                    };
                    let span = if effect == Effect::Possible { span.open() } else { span };
                    let settling = Settling { span, fence: held.fence, disposition: *disposition, effect };
                    self.task(&held.id).settlings.push(settling);
                }
            }
            (Op::Extend { leases, by_us }, end) => {
                for (i, held) in leases.iter().enumerate() {
                    let item = match end {
                        End::Answered(Answer::Extend(items)) => items.get(i),
                        End::Answered(_) | End::Failed(_) | End::Unknown => None,
                    };
                    let told = if let Some(Item::Ok(told)) = item { Some(told) } else { None };
                    let effect = effect_of(item);
                    let span = if effect == Effect::Possible { span.open() } else { span };
                    let extension = Extending { span, fence: held.fence, by_us: *by_us, effect, told };
                    self.task(&held.id).extensions.push(extension);
                }
            }
            (Op::ChangeTasks { ids, change, .. }, end) => self.add_changes(span, ids, *change, own, end),
            (Op::ChangeGroup { group, change, .. }, end) => {
                if let Some(reach) = group_reach(*change, own, end) {
                    let changing = Changing { span, change: *change, reach, group: Some(group) };
                    self.groups.entry(group).or_default().push(changing);
                }
            }
            (Op::Redrive { ids, .. }, end) => {
                if !matches!(end, End::Answered(Answer::Dead { affected: 0, .. })) {
                    self.redrives.push(Redrive { span, ids: ids.as_ref().map(|ids| ids.iter().collect()) });
                }
            }
            (Op::Purge { .. }, _) => {}
            (Op::Pause, End::Answered(_)) => self.pauses.push(span),
            (Op::Pause, End::Unknown) => {}
            (Op::Resume, _) => self.resumes.push(span),
            (Op::Delete, _) => {
                self.resumes.push(span);
                self.deletes.push(span);
            }
        }
    }

    fn add_schedule(&mut self, span: Span, planned: &'a [Planned], end: End<'a>) {
        for (item, planned) in planned.iter().enumerate() {
            let answer = match end {
                End::Answered(Answer::Schedule(items)) => items.get(item),
                End::Answered(_) | End::Failed(_) | End::Unknown => None,
            };
            match answer {
                Some(Item::Ok(Accepted { task, outcome })) => {
                    let how = match outcome.as_str() {
                        "existing" => {
                            self.task(&task.id).existing.push((span, planned));
                            continue;
                        }
                        "replaced" => Entry::Replaced,
                        _ => Entry::Created,
                    };
                    self.task(&task.id).versions.push(Version { span, item, planned, how });
                }
                Some(Item::Failed(_)) => {}
                Some(Item::Unknown) | None => {
                    // It may take effect at any time from now on, whenever the others of its call were answered.
                    let span = span.open();
                    let version = Version { span, item, planned, how: Entry::Unknown };
                    match &planned.id {
                        Some(id) => self.task(id).versions.push(version),
                        None => self.nameless.push(version),
                    }
                }
            }
        }
    }

    fn add_claim(&mut self, call: &Call<'a>, lease_us: u64, end: End<'a>) {
        let span = call.span;
        match end {
            End::Answered(Answer::Claim { deliveries, dead_lettered, .. }) => {
                let brought = deliveries.len();
                let claim = Claim { span, lease_us, wall: call.wall, dead_lettered: *dead_lettered, brought };
                self.claims.push(claim);
                for (place, delivered) in deliveries.iter().enumerate() {
                    self.task(&delivered.lease.id).handouts.push((claim, place, delivered));
                }
            }
            End::Failed("OutOfRange" | "TooLarge" | "Invalid" | "Unsupported" | "Denied" | "Closed") => {}
            // Any other error may have come after it took something.
            End::Answered(_) | End::Failed(_) | End::Unknown => {
                let span = span.open();
                self.lost_claims.push(LostClaim { span, given_up_us: call.noted_us, lease_us });
            }
        }
    }

    fn add_changes(&mut self, span: Span, ids: &'a [TaskId], change: Change, own: bool, end: End<'a>) {
        for (i, id) in ids.iter().enumerate() {
            let item = match end {
                End::Answered(Answer::Change { outcomes, .. }) => outcomes.get(i),
                End::Answered(_) | End::Failed(_) | End::Unknown => None,
            };
            let reach = match item.map(item_word) {
                Some("changed") if own => Reach::Changed,
                Some("in_flight") if own && change == Change::Cancel => Reach::InFlight,
                Some("in_flight") if change == Change::Cancel => Reach::Possible,
                Some("in_flight" | "not_found" | "failed") => continue,
                Some(_) | None => Reach::Possible,
            };
            self.task(id).changes.push(Changing { span: open_if_unknown(span, item), change, reach, group: None });
        }
    }

    fn finish(self, unique_ids: bool) -> Queue<'a> {
        let redrives = Sorted::new(self.redrives);
        let lost = u32::try_from(self.lost_claims.len()).unwrap_or(u32::MAX);
        let tasks = in_order(&self.by_id)
            .into_iter()
            .zip(self.tasks)
            .map(|(id, parts)| parts.finish(id, unique_ids, &redrives, lost))
            .collect();
        let cancels = |changes: &[Changing<'_>]| {
            let cancels = changes.iter().filter(|change| change.change == Change::Cancel);
            Sorted::new(cancels.map(|change| change.span).collect())
        };
        let group_cancels = self.groups.iter().map(|(group, changes)| (*group, cancels(changes))).collect();
        Queue {
            name: self.name,
            unique_ids,
            tasks,
            claims: Sorted::new(self.claims),
            lost_claims: Sorted::new(self.lost_claims),
            groups: self.groups.into_iter().map(|(group, changes)| (group, Sorted::new(changes))).collect(),
            group_cancels,
            redrives,
            deletes: Sorted::new(self.deletes),
            pauses: Sorted::new(self.pauses),
            resumes: Sorted::new(self.resumes),
            nameless: self.nameless,
            drained: self.drained,
        }
    }
}

impl<'a> Parts<'a> {
    /// `lost`: how many claims may have taken it without anybody knowing.
    fn finish(mut self, id: &'a TaskId, unique_ids: bool, redrives: &Sorted<Redrive<'a>>, lost: u32) -> Task<'a> {
        self.settlings.sort_by_key(|settling| (settling.fence, settling.span.from));
        self.extensions.sort_by_key(|extension| (extension.fence, extension.span.from));
        self.handouts.sort_by_key(|(claim, place, delivered)| (delivered.lease.fence, claim.span.from, *place));
        let endings = self.endings();
        let may_be_dead_lettered = self.may_be_dead_lettered(lost);
        let versions = Sorted::new(self.versions);
        let may_come_back = may_be_dead_lettered && !redrives.is_empty();
        let current = Current::new(&versions, unique_ids && !may_come_back);
        let handouts = self.handouts.into_iter().map(|(claim, place, delivered)| {
            let versions = current.at(claim.span, delivered);
            Handout { claim, place, delivered, versions }
        });
        let handouts = handouts.collect();
        Task {
            id,
            versions,
            existing: self.existing,
            handouts,
            settlings: self.settlings,
            extensions: self.extensions,
            changes: Sorted::new(self.changes),
            endings,
            may_be_dead_lettered,
        }
    }

    /// By a disposition, or by a claim that met it when it had expired or was used up.
    fn may_be_dead_lettered(&self, lost: u32) -> bool {
        let attempt = self.handouts.iter().map(|(_, _, delivered)| delivered.attempt).max().unwrap_or(0);
        let is_used_up = |max: u32| attempt.saturating_add(lost) >= max;
        let used_up = self.handouts.iter().any(|(_, _, delivered)| is_used_up(delivered.content.attempts_max));
        let dead_letters =
            |settling: &Settling| settling.effect.is_possible() && settling.disposition == Disposition::DeadLetter;
        let may_end = |v: &Version<'_>| v.planned.expires.is_some() || is_used_up(v.planned.content.attempts_max);
        used_up || self.settlings.iter().any(dead_letters) || self.versions.iter().any(may_end)
    }

    fn endings(&self) -> Sorted<Span> {
        let last_attempt = |fence: u64| {
            let i = self.handouts.partition_point(|(_, _, delivered)| delivered.lease.fence < fence);
            let found = self.handouts.get(i).filter(|(_, _, delivered)| delivered.lease.fence == fence);
            found.is_none_or(|(_, _, delivered)| delivered.attempt >= delivered.content.attempts_max)
        };
        let settlings = self.settlings.iter().filter(|settling| {
            settling.effect.is_possible()
                && match settling.disposition {
                    Disposition::Complete | Disposition::DeadLetter => true,
                    Disposition::Retry(_) => last_attempt(settling.fence),
                    Disposition::Snooze(_) | Disposition::Release => false,
                }
        });
        let cancels = self.changes.iter().filter(|change| change.change == Change::Cancel);
        Sorted::new(settlings.map(|settling| settling.span).chain(cancels.map(|change| change.span)).collect())
    }
}

/// Finds the versions that a delivery can be of.
struct Current<'s, 'a> {
    versions: &'s Sorted<Version<'a>>,
    /// For the certain versions by their end: the end, and the latest invocation up to it. Empty where a version may come
    /// back after another took its place.
    settled: Vec<(usize, usize)>,
}

impl<'s, 'a> Current<'s, 'a> {
    fn new(versions: &'s Sorted<Version<'a>>, superseding: bool) -> Self {
        let certain = versions.all().iter().filter(|version| superseding && version.is_certain());
        let mut settled: Vec<(usize, usize)> = certain.map(|version| (version.span.to, version.span.from)).collect();
        settled.sort_unstable();
        let mut latest = 0;
        for (_, from) in &mut settled {
            latest = latest.max(*from);
            *from = latest;
        }
        Self { versions, settled }
    }

    fn at(&self, claim: Span, delivered: &Delivered) -> Vec<usize> {
        // What had been answered before this version was scheduled, which was accepted before the claim, is no more.
        let n = self.settled.partition_point(|(to, _)| *to < claim.from);
        let since = n.checked_sub(1).map_or(0, |last| self.settled[last].1);
        let possible = self.versions.within(since, claim.to);
        possible.filter(|(_, version)| *version.content() == delivered.content).map(|(i, _)| i).collect()
    }
}

impl Span {
    /// The same without its end.
    fn open(self) -> Self {
        Self { to: usize::MAX, to_us: u64::MAX, ..self }
    }
}

fn in_order<'a>(by_id: &HashMap<&'a TaskId, usize>) -> Vec<&'a TaskId> {
    let mut ids: Vec<(usize, &TaskId)> = by_id.iter().map(|(id, i)| (*i, *id)).collect();
    ids.sort_unstable_by_key(|(i, _)| *i);
    ids.into_iter().map(|(_, id)| id).collect()
}

fn effect_of<T>(item: Option<&Item<T>>) -> Effect {
    match item {
        Some(Item::Ok(_)) => Effect::Certain,
        Some(Item::Failed(kind)) if kind == "LeaseLost" => Effect::LeaseLost,
        Some(Item::Failed(_)) => Effect::None,
        Some(Item::Unknown) | None => Effect::Possible,
    }
}

fn item_word(item: &Item<String>) -> &str {
    match item {
        Item::Ok(word) => word,
        Item::Failed(_) => "failed",
        Item::Unknown => "unknown",
    }
}

fn open_if_unknown<T>(span: Span, item: Option<&Item<T>>) -> Span {
    match item {
        Some(Item::Ok(_) | Item::Failed(_)) => span,
        Some(Item::Unknown) | None => span.open(),
    }
}

fn group_reach(change: Change, own: bool, end: End<'_>) -> Option<Reach> {
    let End::Answered(Answer::Change { tally, .. }) = end else { return Some(Reach::Possible) };
    let definite = own && tally.refused + tally.requested == 0;
    match change {
        _ if tally.changed + tally.in_flight + tally.requested == 0 => None,
        Change::Cancel if definite => Some(Reach::Changed),
        Change::MoveTo(_) | Change::Shift(_) if definite && tally.in_flight == 0 => Some(Reach::Changed),
        Change::Cancel | Change::MoveTo(_) | Change::Shift(_) => Some(Reach::Possible),
    }
}
