//! Never before the due time (TIME-1), never after the expiry (TIME-8); and how late.

use super::index::{Changing, Effect, Handout, Index, Moment, Queue, Reach, Task, signed};
use super::leases::lease_end_us;
use super::report::Findings;
use super::span::Span;
use crate::history::{Change, Disposition, Due};

/// Before every moment of a history.
const LONG_AGO: Moment = Moment::Mono(i64::MIN / 4);

/// A shift sooner is rounded down to the millisecond.
const ROUNDED_DOWN_US: i64 = 1_000;

/// Checks one queue.
pub(super) fn check(index: &Index<'_>, queue: &Queue<'_>, findings: &mut Findings) {
    for task in &queue.tasks {
        for (i, handout) in task.handouts.iter().enumerate() {
            let before = i.checked_sub(1).map(|before| &task.handouts[before]);
            never_early(index, queue, task, before, handout, findings);
            never_expired(index, queue, task, handout, findings);
            if before.is_none() {
                note_lateness(index, queue, task, handout, findings);
            }
        }
    }
}

fn never_early(
    index: &Index<'_>,
    queue: &Queue<'_>,
    task: &Task<'_>,
    before: Option<&Handout<'_>>,
    handout: &Handout<'_>,
    findings: &mut Findings,
) {
    let Some(moments) = earliest(index, queue, task, before, handout) else { return };
    let claim = handout.span();
    let is_early = |moment: &Moment| match moment {
        Moment::Mono(at) => signed(claim.to_us) < *at,
        // A reading may be too small, where its reader was held up.
        Moment::Wall(at) if index.steps.is_empty() => signed(claim.to_us).saturating_add(index.wall_ahead.1) < *at,
        Moment::Wall(at) => handout.claim.wall.1 < *at && !index.stepped(claim.from, claim.to),
    };
    findings.summary.timed += 1;
    if moments.iter().all(is_early) {
        let calls: Vec<u64> = match (before, handout.sole()) {
            (Some(before), _) => vec![before.span().call, claim.call],
            (None, Some(version)) => vec![task.version(version).span.call, claim.call],
            (None, None) => vec![claim.call],
        };
        findings.report("TIME-1", calls, || {
            let (at, wall) = (claim.to_us, handout.claim.wall.1);
            format!("{} in {} was delivered by {at} us, wall {wall}, before {moments:?}", task.id, queue.name)
        });
    }
}

/// The moments of which one is the earliest at which this may be delivered; nothing if that can't be told.
fn earliest(
    index: &Index<'_>,
    queue: &Queue<'_>,
    task: &Task<'_>,
    before: Option<&Handout<'_>>,
    handout: &Handout<'_>,
) -> Option<Vec<Moment>> {
    let claim = handout.span();
    let since = before.map_or(0, |before| before.span().from);
    if queue.may_be_redriven(task, since, claim.to) {
        return None;
    }
    let mut moments = Vec::new();
    let mut add = |start: Moment, waits: Wait| {
        let changes = queue.changes_of(task, handout.group(), waits.maybe_from, claim.to);
        moments.extend(changed(index, start, &waits, &changes, claim)?);
        Some(())
    };
    if before.is_none_or(|before| !before.is_one_with(handout)) {
        for version in handout.versions.iter().map(|version| task.version(*version)) {
            // A group is changed only as far as its members wait, which one that nobody has claimed does for certain.
            let groups = before.is_none() && queue.lost_claims_before(claim.to) == 0 && version.is_certain();
            add(version.due_from(), Wait { maybe_from: version.span.from, from: version.span.to, groups })?;
        }
    }
    if let Some(before) = before.filter(|before| before.may_be_one_with(handout)) {
        let waits = Wait { maybe_from: before.span().from, from: before.span().to, groups: false };
        for start in after_lease(task, before, claim)? {
            add(start, waits)?;
        }
    }
    (!moments.is_empty()).then_some(moments)
}

/// Since when a task waits.
#[derive(Clone, Copy)]
struct Wait {
    /// It may wait from here on.
    maybe_from: usize,
    /// What changed it from here on, changed it while it waited for this delivery.
    from: usize,
    /// Whether a change of its whole group reached it for certain.
    groups: bool,
}

/// When a task is visible again after a delivery. Nothing if its lease just ended: whether it had is DUP-1.
fn after_lease(task: &Task<'_>, before: &Handout<'_>, claim: Span) -> Option<Vec<Moment>> {
    let settlings = task.settlings_of(before.fence());
    let possible = settlings.iter().filter(|s| s.effect.is_possible() && s.span.from < claim.to);
    let certain = settlings.iter().any(|s| s.effect == Effect::Certain);
    let mut moments = Vec::new();
    for settling in possible {
        match settling.disposition {
            Disposition::Complete | Disposition::DeadLetter => {}
            // At its old place, which may lie anywhere before.
            Disposition::Release => moments.push(LONG_AGO),
            Disposition::Retry(after) | Disposition::Snooze(after) => {
                moments.push(Moment::of(Due::AfterUs(after), settling.span.from_us));
            }
        }
    }
    if !certain {
        if moments.is_empty() {
            return None;
        }
        moments.push(Moment::Mono(signed(lease_end_us(task, before, claim.to))));
    }
    Some(moments)
}

/// When it is visible after the changes that may have reached it.
fn changed(
    index: &Index<'_>,
    start: Moment,
    waits: &Wait,
    changes: &[&Changing<'_>],
    claim: Span,
) -> Option<Vec<Moment>> {
    let moves = changes.iter().filter(|change| change.change != Change::Cancel);
    let is_certain = |change: &&&Changing<'_>| {
        let reached = change.reach == Reach::Changed && (change.group.is_none() || waits.groups);
        reached && waits.from < change.span.from && change.span.is_before(&claim)
    };
    let shifts = moves.clone().any(|change| matches!(change.change, Change::Shift(_)));
    if shifts && !index.steps.is_empty() {
        // A time on the wall clock that was shifted may be kept on either clock.
        return None;
    }
    let all: Vec<&Changing<'_>> = moves.clone().copied().collect();
    let one_by_one = all.windows(2).all(|pair| pair[0].span.is_before(&pair[1].span));
    if one_by_one && moves.clone().all(|change| is_certain(&change)) {
        return Some(vec![all.iter().fold(start, |at, change| match change.change {
            Change::Cancel => at,
            Change::MoveTo(due) => Moment::of(due, change.span.from_us),
            Change::Shift(by) => at.plus(if by < 0 { by.saturating_sub(ROUNDED_DOWN_US) } else { by }),
        })]);
    }
    // Any of them may have been the last, and every shift to sooner may have come after it.
    let sooner = all.iter().fold(0_i64, |sum, change| match change.change {
        Change::Shift(by) if by < 0 => sum.saturating_add(by).saturating_sub(ROUNDED_DOWN_US),
        Change::Cancel | Change::MoveTo(_) | Change::Shift(_) => sum,
    });
    let moved = all.iter().filter_map(|change| match change.change {
        Change::MoveTo(due) => Some(Moment::of(due, change.span.from_us)),
        Change::Cancel | Change::Shift(_) => None,
    });
    Some(std::iter::once(start).chain(moved).map(|at| at.plus(sooner)).collect())
}

fn never_expired(
    index: &Index<'_>,
    queue: &Queue<'_>,
    task: &Task<'_>,
    handout: &Handout<'_>,
    findings: &mut Findings,
) {
    // The expiry is rounded up to the millisecond, and holds until that one is over.
    let (claim, grain) = (handout.span(), 2 * index.grain_us());
    let has_expired = |version: &usize| {
        let version = task.version(*version);
        match version.planned.expires {
            None => false,
            Some(Due::AfterUs(after)) => claim.from_us > version.span.to_us.saturating_add(after).saturating_add(grain),
            Some(Due::At(at)) => {
                let wall = match index.steps.is_empty() {
                    true => signed(claim.from_us).saturating_add(index.wall_ahead.0),
                    false => handout.claim.wall.0,
                };
                wall > at.unix_micros().saturating_add(signed(grain)) && !index.stepped(claim.from, claim.to)
            }
        }
    };
    let expired = !handout.versions.is_empty() && handout.versions.iter().all(has_expired);
    if expired && !queue.may_be_redriven(task, 0, claim.to) {
        findings.report("TIME-8", [claim.call], || {
            format!("{} in {} was delivered after it had expired", task.id, queue.name)
        });
    }
}

fn note_lateness(
    index: &Index<'_>,
    queue: &Queue<'_>,
    task: &Task<'_>,
    handout: &Handout<'_>,
    findings: &mut Findings,
) {
    let Some(version) = handout.sole().map(|version| task.version(version)).filter(|version| version.is_certain())
    else {
        return;
    };
    let claim = handout.span();
    if !queue.changes_of(task, handout.group(), version.span.from, claim.to).is_empty() {
        return;
    }
    let since_accepted = claim.to_us.saturating_sub(version.span.to_us);
    let late = match version.planned.due {
        Due::AfterUs(after) => since_accepted.saturating_sub(after),
        Due::At(_) if !index.steps.is_empty() => return,
        Due::At(at) => {
            let late = handout.claim.wall.1.saturating_sub(at.unix_micros());
            since_accepted.min(u64::try_from(late).unwrap_or(0))
        }
    };
    findings.lateness.record(late);
}
