//! What was accepted and due is delivered (LOSS-1), and comes back when its lease ends (LOSS-2): looked for when the
//! test says that a queue has been drained.

use super::index::{Claim, Effect, Entry, Index, Queue, Task, Version};
use super::report::Findings;
use super::span::Span;
use crate::history::{Change, Disposition, Due};

/// How long a claim that nobody received may be under way still, in microseconds: callers give one up after so long.
const CLAIM_MAX_US: u64 = 30_000_000;

/// Checks one queue.
pub(super) fn check(index: &Index<'_>, queue: &Queue<'_>, findings: &mut Findings) {
    let Some(drained) = queue.drained else { return };
    let before = &queue.claims.all()[..queue.claims.invoked_before(drained.from)];
    let Some(look) = before.iter().rev().find(|claim| claim.span.is_before(&drained)) else { return };
    let mut dead_lettered = DeadLettered::new(queue, drained);
    for task in &queue.tasks {
        for (i, version) in task.versions.all().iter().enumerate() {
            if !version.is_certain() || version.span.to > look.span.from {
                continue;
            }
            findings.summary.sought += 1;
            if has_ended(queue, task, i, drained) || !is_due(index, queue, task, version, look) {
                continue;
            }
            let held = task.handouts.iter().rev().find(|handout| handout.span().to > version.span.from);
            let lost = Lost { task, version, last: held.map(|handout| handout.span()) };
            if dead_lettered.can_be(index, queue, &lost, look) {
                dead_lettered.perhaps.push(lost);
            } else {
                lost.report(queue, drained, findings);
            }
        }
    }
    dead_lettered.report(queue, drained, findings);
}

/// Whether a version may have ended before the queue was drained.
fn has_ended(queue: &Queue<'_>, task: &Task<'_>, i: usize, drained: Span) -> bool {
    let version = task.version(i);
    let (from, to) = (version.span.from, drained.from);
    // A version that was created later shows that this one had ended, and how is DUP-8's business.
    let took_its_place = |other: &Version<'_>| other.how != Entry::Unknown || other.planned.replace;
    task.endings.any(from, to)
        || queue.deletes.any(from, to)
        || queue.group_cancelled(version.group(), from, to)
        || queue.unique_ids && task.versions.within(from, to).any(|(j, other)| i != j && took_its_place(other))
        || !queue.unique_ids && task.versions.all().len() > 1
}

/// Whether it was visible for certain when the last claim was made.
fn is_due(index: &Index<'_>, queue: &Queue<'_>, task: &Task<'_>, version: &Version<'_>, look: &Claim) -> bool {
    let latest = latest_us(index, queue, task, version, look);
    let late = index.grain_us().saturating_add(index.header.lateness_us);
    latest.is_some_and(|latest| latest.saturating_add(late) <= look.span.from_us)
}

/// When it was visible at the latest; nothing if that can't be told, or lies behind the last claim on the wall clock.
fn latest_us(
    index: &Index<'_>,
    queue: &Queue<'_>,
    task: &Task<'_>,
    version: &Version<'_>,
    look: &Claim,
) -> Option<u64> {
    let wall_us = look.wall.0;
    let from = |due: Due, us: u64| match due {
        Due::AfterUs(after) => Some(us.saturating_add(after)),
        Due::At(at) => {
            let passed = at.unix_micros() <= wall_us && !index.stepped(look.span.from, look.span.to);
            passed.then_some(us)
        }
    };
    let mut latest = from(version.planned.due, version.span.to_us)?;
    for handout in task.handouts.iter().filter(|handout| handout.span().to > version.span.from) {
        let settlings = task.settlings_of(handout.fence());
        if settlings.iter().any(|settling| settling.effect == Effect::Possible) {
            return None;
        }
        let again = match settlings.iter().find(|settling| settling.effect == Effect::Certain) {
            Some(settled) => match settled.disposition {
                Disposition::Retry(after) | Disposition::Snooze(after) => settled.span.to_us.saturating_add(after),
                Disposition::Release | Disposition::Complete | Disposition::DeadLetter => settled.span.to_us,
            },
            None => {
                let extended = task.extensions_of(handout.fence()).iter().filter(|e| e.effect.is_possible());
                let ends = extended.map(|extension| extension.span.to_us.saturating_add(extension.by_us));
                ends.fold(handout.span().to_us.saturating_add(handout.claim.lease_us), u64::max)
            }
        };
        latest = latest.max(again);
    }
    // What a lost claim holds is given back, or comes when the lease ends; and it may be under way for a while.
    for (_, lost) in queue.lost_claims.within(version.span.from, look.span.from) {
        latest = latest.max(lost.given_up_us.saturating_add(lost.lease_us.max(CLAIM_MAX_US)));
    }
    let mut later = 0_u64;
    for change in queue.changes_of(task, version.group(), version.span.from, look.span.to) {
        match change.change {
            Change::Cancel => {}
            Change::MoveTo(due) => latest = latest.max(from(due, change.span.to_us)?),
            Change::Shift(by) => later = later.saturating_add(u64::try_from(by).unwrap_or(0)),
        }
    }
    if later > 0 && matches!(version.planned.due, Due::At(_)) {
        return None;
    }
    Some(latest.saturating_add(later))
}

/// A task that is not accounted for.
struct Lost<'s, 'a> {
    task: &'s Task<'a>,
    version: &'s Version<'a>,
    /// The last claim that brought it.
    last: Option<Span>,
}

impl Lost<'_, '_> {
    fn report(&self, queue: &Queue<'_>, drained: Span, findings: &mut Findings) {
        let (id, call) = (self.task.id, self.version.span.call);
        match self.last {
            None => findings.report("LOSS-1", [call, drained.call], || {
                format!("{id} in {} was accepted and due, but not delivered", queue.name)
            }),
            Some(last) => findings.report("LOSS-2", [call, last.call, drained.call], || {
                format!("{id} in {} was due again, but not delivered again", queue.name)
            }),
        }
    }
}

/// Tasks that claims may have dead-lettered, against what they said that they dead-lettered.
struct DeadLettered<'s, 'a> {
    perhaps: Vec<Lost<'s, 'a>>,
    /// Nothing if there are claims that did not say it.
    told: Option<u64>,
}

impl<'s, 'a> DeadLettered<'s, 'a> {
    fn new(queue: &Queue<'a>, drained: Span) -> Self {
        let unknown = queue.lost_claims_before(drained.from) > 0;
        let told = queue.claims.within(0, drained.from).map(|(_, claim)| claim.dead_lettered).sum();
        Self { perhaps: Vec::new(), told: (!unknown).then_some(told) }
    }

    /// Whether a claim may have dead-lettered it: it may have expired, or been attempted as often as it may be.
    fn can_be(&self, index: &Index<'_>, queue: &Queue<'_>, lost: &Lost<'s, 'a>, look: &Claim) -> bool {
        let has_expired = match lost.version.planned.expires {
            None => false,
            Some(Due::AfterUs(after)) => lost.version.span.from_us.saturating_add(after) <= look.span.to_us,
            Some(Due::At(at)) => at.unix_micros() <= look.wall.1 || !index.steps.is_empty(),
        };
        let unheard = queue.lost_claims_before(look.span.to);
        let attempt = lost.task.handouts.iter().map(|handout| handout.delivered.attempt).max().unwrap_or(0);
        has_expired || attempt.saturating_add(unheard) >= lost.version.planned.content.attempts_max
    }

    fn report(&self, queue: &Queue<'_>, drained: Span, findings: &mut Findings) {
        let missing = self.perhaps.len();
        if let Some(told) = self.told.filter(|told| usize::try_from(*told).is_ok_and(|told| told < missing)) {
            let calls: Vec<u64> = self.perhaps.iter().take(20).map(|lost| lost.version.span.call).collect();
            findings.report("LOSS-1", [calls, vec![drained.call]].concat(), || {
                format!(
                    "{missing} tasks that had expired or were used up are gone from {}, {told} were dead-lettered",
                    queue.name
                )
            });
        }
    }
}
