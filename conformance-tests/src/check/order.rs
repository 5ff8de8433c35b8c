//! Delivery by (visible at, sequence), as far as it is declared (ORDER-1).
//!
//! Compared are first deliveries of tasks that were never moved, by when they were scheduled as the client saw it: never by
//! what the store says of their due times. A task *passed* another if it was delivered although the other was waiting,
//! was visible before it for certain, and came later.

use std::collections::HashMap;

use super::index::{Handout, Index, Queue, Task, Version, signed};
use super::report::Findings;
use super::span::Span;
use crate::history::{DeclaredOrder, Due};

/// Checks one queue.
pub(super) fn check(index: &Index<'_>, queue: &Queue<'_>, findings: &mut Findings) {
    let (sequences, apart) = match index.header.order {
        DeclaredOrder::Exact => (1, 0),
        DeclaredOrder::PerShard(shards) => (shards.max(1), 0),
        DeclaredOrder::WithinUs(by) => (1, by),
        DeclaredOrder::Any => return,
    };
    let mut first: Vec<First<'_, '_>> = Vec::new();
    for task in &queue.tasks {
        let handouts = task.handouts.iter().enumerate();
        first.extend(handouts.filter_map(|(i, handout)| comparable(index, queue, task, i, handout)));
    }
    first.sort_unstable_by_key(|one| (one.claim().from, one.handout.place));
    findings.summary.ordered += first.len();
    let mut report = |first: &[&First<'_, '_>]| {
        let chains = Chains::of(first, signed(index.grain_us()), signed(apart));
        chains.report(queue, first, sequences, findings);
    };
    let (on_wall, relative) = if index.clocks_agree() {
        (Vec::new(), first.iter().collect::<Vec<_>>())
    } else {
        first.iter().partition(|one| matches!(one.version.planned.due, Due::At(_)))
    };
    report(&on_wall);
    report(&relative);
    if index.header.order == DeclaredOrder::Exact {
        ties_within_a_call(queue, &first, findings);
        ties_between_calls(queue, &first, findings);
    }
}

/// A first delivery.
struct First<'s, 'a> {
    task: &'s Task<'a>,
    version: &'s Version<'a>,
    handout: &'s Handout<'a>,
    /// When it became visible, at the earliest and at the latest, before rounding.
    visible: (i64, i64),
}

impl First<'_, '_> {
    fn claim(&self) -> Span {
        self.handout.span()
    }
}

fn comparable<'s, 'a>(
    index: &Index<'_>,
    queue: &Queue<'a>,
    task: &'s Task<'a>,
    i: usize,
    handout: &'s Handout<'a>,
) -> Option<First<'s, 'a>> {
    let version = task.version(handout.sole()?);
    let claim = handout.span();
    let is_first = handout.delivered.attempt == 1 && (i == 0 || !task.handouts[i - 1].may_be_one_with(handout));
    // A claim that nobody received may have held it for a while.
    let was_held = queue.lost_claims_before(claim.to) > 0;
    let is_one = queue.unique_ids || task.versions.all().len() == 1;
    if !version.is_certain()
        || !is_first
        || was_held
        || !is_one
        || queue.may_be_redriven(task, 0, claim.to)
        || !queue.changes_of(task, handout.group(), version.span.from, claim.to).is_empty()
    {
        return None;
    }
    let accepted = (signed(version.span.from_us), signed(version.span.to_us));
    let visible = match version.planned.due {
        Due::AfterUs(after) => (accepted.0.saturating_add(signed(after)), accepted.1.saturating_add(signed(after))),
        Due::At(_) if !index.steps.is_empty() => return None,
        Due::At(at) => {
            // A time in the past may count as it is, or as the moment of acceptance.
            let at = at.unix_micros();
            (at.saturating_sub(index.wall_ahead.1), at.saturating_sub(index.wall_ahead.0).max(accepted.1))
        }
    };
    Some(First { task, version, handout, visible })
}

/// For each delivery, the longest row of deliveries that ends with it and in which each was passed by the one before. Sorted
/// sequences, of which there is one for each shard, hold at most one of a row each; so a row can't be longer than there are
/// shards.
struct Chains {
    length: Vec<u32>,
    passed_by: Vec<Option<usize>>,
}

impl Chains {
    fn of(first: &[&First<'_, '_>], grain: i64, apart: i64) -> Self {
        // What is visible by then for certain, and stays behind, was passed.
        let bound = |one: &First<'_, '_>| signed(one.claim().from_us).min(one.visible.0.saturating_sub(apart));
        let mut bounds: Vec<i64> = first.iter().map(|one| bound(one)).collect();
        bounds.sort_unstable_by(|a, b| b.cmp(a));
        bounds.dedup();
        let rank = |at: i64| bounds.partition_point(|bound| *bound > at);
        let mut chains = Self { length: vec![1; first.len()], passed_by: vec![None; first.len()] };
        let claims = claims_of(first);
        let mut by_answer: Vec<&std::ops::Range<usize>> = claims.iter().collect();
        by_answer.sort_unstable_by_key(|claim| first[claim.start].claim().to);
        let mut answered = by_answer.into_iter().peekable();
        let (mut before, mut within) = (Longest::new(bounds.len()), Longest::new(bounds.len()));
        for claim in &claims {
            while let Some(done) =
                answered.next_if(|done| first[done.start].claim().to < first[claim.start].claim().from)
            {
                done.clone().for_each(|i| before.add(rank(bound(first[i])), chains.length[i], i));
            }
            for i in claim.clone() {
                let behind = bounds.partition_point(|bound| *bound >= first[i].visible.1.saturating_add(grain));
                let longest = before.up_to(behind).max(within.up_to(behind));
                if let Some((length, passed_by)) = longest {
                    (chains.length[i], chains.passed_by[i]) = (length + 1, Some(passed_by));
                }
                within.add(rank(bound(first[i])), chains.length[i], i);
            }
            claim.clone().for_each(|i| within.clear(rank(bound(first[i]))));
        }
        chains
    }

    fn report(&self, queue: &Queue<'_>, first: &[&First<'_, '_>], sequences: u32, findings: &mut Findings) {
        for (i, length) in self.length.iter().enumerate().filter(|(_, length)| **length > sequences) {
            let row: Vec<usize> = std::iter::successors(Some(i), |i| self.passed_by[*i]).collect();
            let calls: Vec<u64> = row.iter().rev().map(|i| first[*i].claim().call).collect();
            findings.report("ORDER-1", calls, || {
                let (one, before) = (first[i], first[row[1]]);
                format!(
                    "{} in {}, visible by {} us, was passed by {}, which was not visible before {} us: {length} in a row, \
                     where {sequences} may be",
                    one.task.id, queue.name, one.visible.1, before.task.id, before.visible.0
                )
            });
            if sequences > 1 {
                break;
            }
        }
    }
}

/// The ranges of deliveries that one claim brought.
fn claims_of(first: &[&First<'_, '_>]) -> Vec<std::ops::Range<usize>> {
    let mut claims: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, one) in first.iter().enumerate() {
        match claims.last_mut() {
            Some(claim) if first[claim.start].claim().call == one.claim().call => claim.end = i + 1,
            Some(_) | None => claims.push(i..i + 1),
        }
    }
    claims
}

/// The greatest length up to a rank: a Fenwick tree of maxima.
struct Longest(Vec<Option<(u32, usize)>>);

impl Longest {
    fn new(ranks: usize) -> Self {
        Self(vec![None; ranks + 1])
    }

    fn add(&mut self, rank: usize, length: u32, which: usize) {
        let mut i = rank + 1;
        while i < self.0.len() {
            self.0[i] = self.0[i].max(Some((length, which)));
            i += i & i.wrapping_neg();
        }
    }

    /// Forgets all that was added at a rank; only together with everything else.
    fn clear(&mut self, rank: usize) {
        let mut i = rank + 1;
        while i < self.0.len() {
            self.0[i] = None;
            i += i & i.wrapping_neg();
        }
    }

    /// Of the first `n` ranks.
    fn up_to(&self, n: usize) -> Option<(u32, usize)> {
        let (mut i, mut longest) = (n, None);
        while i > 0 {
            longest = longest.max(self.0[i]);
            i -= i & i.wrapping_neg();
        }
        longest
    }
}

/// What a due time is compared by: which clock, and the time on it.
fn due_key(due: Due) -> (bool, i64) {
    match due {
        Due::AfterUs(after) => (false, signed(after)),
        Due::At(at) => (true, at.unix_micros()),
    }
}

/// Tasks of one call with one due time go in the order of the batch.
fn ties_within_a_call(queue: &Queue<'_>, first: &[First<'_, '_>], findings: &mut Findings) {
    let mut ties: HashMap<(u64, (bool, i64)), Vec<&First<'_, '_>>> = HashMap::new();
    for one in first {
        ties.entry((one.version.span.call, due_key(one.version.planned.due))).or_default().push(one);
    }
    for mut tied in ties.into_values().filter(|tied| tied.len() > 1) {
        tied.sort_unstable_by_key(|one| one.version.item);
        let mut latest: Option<&First<'_, '_>> = None;
        let mut last_of: HashMap<u64, &First<'_, '_>> = HashMap::new();
        for one in tied {
            // Only what had been accepted when the claim began was there for it.
            if one.version.span.is_before(&one.claim()) {
                let later = latest.filter(|other| one.claim().is_before(&other.claim()));
                let beside = last_of.get(&one.claim().call).filter(|other| other.handout.place > one.handout.place);
                if let Some(other) = later.or(beside.copied()) {
                    report_tie(queue, other, one, findings);
                }
            }
            if latest.is_none_or(|other| other.claim().from < one.claim().from) {
                latest = Some(one);
            }
            let last = last_of.entry(one.claim().call).or_insert(one);
            if last.handout.place < one.handout.place {
                *last = one;
            }
        }
    }
}

/// Tasks for the same instant go in the order in which they were accepted.
fn ties_between_calls(queue: &Queue<'_>, first: &[First<'_, '_>], findings: &mut Findings) {
    let mut ties: HashMap<i64, Vec<&First<'_, '_>>> = HashMap::new();
    for one in first {
        if let (true, at) = due_key(one.version.planned.due) {
            ties.entry(at).or_default().push(one);
        }
    }
    // What was accepted before this place stands before the task, and was there for its claim.
    let limit = |one: &First<'_, '_>| one.version.span.from.min(one.claim().from);
    for tied in ties.into_values().filter(|tied| tied.len() > 1) {
        let mut by_answer = tied.clone();
        by_answer.sort_unstable_by_key(|one| one.version.span.to);
        let mut latest: Vec<&First<'_, '_>> = Vec::with_capacity(by_answer.len());
        for one in &by_answer {
            let last = latest.last().copied().filter(|last| last.claim().from >= one.claim().from);
            latest.push(last.unwrap_or(one));
        }
        // For the same claim: what comes behind within it, and was accepted first of all that do.
        let mut behind: Option<&First<'_, '_>> = None;
        for one in tied.iter().rev() {
            let n = by_answer.partition_point(|other| other.version.span.to < limit(one));
            let earlier = n.checked_sub(1).map(|i| latest[i]).filter(|other| one.claim().is_before(&other.claim()));
            behind = behind.filter(|other| other.claim().call == one.claim().call);
            if let Some(other) = earlier.or(behind.filter(|other| other.version.span.to < limit(one))) {
                report_tie(queue, other, one, findings);
            }
            if behind.is_none_or(|other| one.version.span.to < other.version.span.to) {
                behind = Some(one);
            }
        }
    }
}

fn report_tie(queue: &Queue<'_>, first: &First<'_, '_>, second: &First<'_, '_>, findings: &mut Findings) {
    findings.report("ORDER-1", [first.version.span.call, second.claim().call, first.claim().call], || {
        format!(
            "{} in {} was scheduled before {} for the same time, and was delivered after it",
            first.task.id, queue.name, second.task.id
        )
    });
}
