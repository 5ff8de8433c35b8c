//! One live lease at a time, fences that rise, dispositions that count once, attempts that are counted (DUP).

use super::index::{Effect, Handout, Index, Queue, Settling, Task};
use super::report::Findings;
use super::span::Span;
use crate::history::{Change, Disposition};

/// Checks one queue.
pub(super) fn check(index: &Index<'_>, queue: &Queue<'_>, findings: &mut Findings) {
    for task in &queue.tasks {
        fences_rise(task, findings);
        for handout in &task.handouts {
            extensions_never_shorten(index, task, handout, findings);
            one_disposition(task, handout, findings);
        }
        // Where an id may stand for several tasks, one of them says nothing about another.
        if !queue.unique_ids && task.versions.all().len() > 1 {
            continue;
        }
        for (i, handout) in task.handouts.iter().enumerate() {
            let next = task.handouts.get(i + 1);
            if let Some(next) = next {
                one_live_lease(index, queue, task, handout, next, findings);
                stale_leases_are_refused(task, handout, next, findings);
            }
            live_leases_are_accepted(index, queue, task, handout, next, findings);
            let before = i.checked_sub(1).map(|before| &task.handouts[before]);
            attempts_are_counted(index, queue, task, before, handout, findings);
        }
    }
}

fn fences_rise(task: &Task<'_>, findings: &mut Findings) {
    for pair in task.handouts.windows(2) {
        if pair[0].fence() == pair[1].fence() {
            findings.report("DUP-6", [pair[0].span().call, pair[1].span().call], || {
                format!("{} was delivered twice with fence {}", task.id, pair[0].fence())
            });
        }
    }
    // They are sorted by fence: a higher one must not have been answered before a lower one was asked for.
    let mut earliest: Option<&Handout<'_>> = None;
    for handout in task.handouts.iter().rev() {
        if let Some(higher) = earliest.filter(|h| h.fence() > handout.fence() && h.span().is_before(&handout.span())) {
            findings.report("DUP-6", [higher.span().call, handout.span().call], || {
                format!("{} was delivered with fence {} and then with {}", task.id, higher.fence(), handout.fence())
            });
        }
        if earliest.is_none_or(|h| handout.span().to < h.span().to) {
            earliest = Some(handout);
        }
    }
}

/// When a lease ends at the earliest, as far as it was not ended before: of what was asked for before a place.
pub(super) fn lease_end_us(task: &Task<'_>, handout: &Handout<'_>, until: usize) -> u64 {
    let extended = task
        .extensions_of(handout.fence())
        .iter()
        .filter(|extension| extension.effect == Effect::Certain && extension.span.from < until);
    let ends = extended.map(|extension| extension.span.from_us.saturating_add(extension.by_us));
    ends.fold(handout.span().from_us.saturating_add(handout.claim.lease_us), u64::max)
}

/// Whether anything may have ended a lease before a place, its own end and another claim aside.
fn may_have_ended(queue: &Queue<'_>, task: &Task<'_>, handout: &Handout<'_>, not: Option<Span>, until: usize) -> bool {
    let claimed = handout.span().from;
    let settled =
        |settling: &Settling| settling.effect.is_possible() && settling.span.from < until && Some(settling.span) != not;
    task.settlings_of(handout.fence()).iter().any(settled)
        || task.another_version(handout.sole(), claimed, until)
        || queue.deletes.any(claimed, until)
        || may_have_made_way(queue, task, handout, until)
}

/// Whether its task may have been cancelled in flight, which leaves the id free, and a dead letter of that id redriven.
fn may_have_made_way(queue: &Queue<'_>, task: &Task<'_>, handout: &Handout<'_>, until: usize) -> bool {
    let claimed = handout.span().from;
    let mut changes = queue.changes_of(task, handout.group(), claimed, until).into_iter();
    let cancelled = changes.find(|change| change.change == Change::Cancel);
    cancelled.is_some_and(|cancel| queue.may_be_redriven(task, cancel.span.from, until))
}

fn one_live_lease(
    index: &Index<'_>,
    queue: &Queue<'_>,
    task: &Task<'_>,
    first: &Handout<'_>,
    second: &Handout<'_>,
    findings: &mut Findings,
) {
    let (one, two) = (first.span(), second.span());
    if first.fence() == second.fence() || two.is_before(&one) {
        return;
    }
    let ends = lease_end_us(task, first, two.to);
    let cut = index.may_be_cut(one.from, two.to);
    if two.to_us < ends && !cut && !may_have_ended(queue, task, first, None, two.to) {
        findings.report("DUP-1", [one.call, two.call], || {
            format!(
                "{} in {} was delivered at {} us while lease {} on it ran until {ends} us at least",
                task.id,
                queue.name,
                two.to_us,
                first.fence()
            )
        });
    }
}

/// Nothing is done by a lease whose task was claimed again.
fn stale_leases_are_refused(task: &Task<'_>, stale: &Handout<'_>, next: &Handout<'_>, findings: &mut Findings) {
    if stale.fence() == next.fence() {
        return;
    }
    let claimed = next.span();
    let mut report = |call: Span, what: &str| {
        findings.report("DUP-4", [stale.span().call, claimed.call, call.call], || {
            format!("{} was claimed again, but its stale lease {} still {what}", task.id, stale.fence())
        });
    };
    let settlings = task.settlings_of(stale.fence());
    for settling in settlings.iter().filter(|s| s.effect == Effect::Certain && claimed.is_before(&s.span)) {
        // The answer to an earlier try may come late: then this one tells of that.
        let tried = settlings.iter().any(|s| s.effect == Effect::Possible && s.span.from < settling.span.from);
        if !tried {
            report(settling.span, "settled");
        }
    }
    for extension in task.extensions_of(stale.fence()) {
        if extension.effect == Effect::Certain && claimed.is_before(&extension.span) {
            report(extension.span, "extended");
        }
    }
}

/// A lease is ended by one disposition.
fn one_disposition(task: &Task<'_>, handout: &Handout<'_>, findings: &mut Findings) {
    let settlings = task.settlings_of(handout.fence());
    let first = settlings.iter().filter(|s| s.effect == Effect::Certain).min_by_key(|s| s.span.to);
    let Some(first) = first else { return };
    if settlings.iter().any(|s| s.effect == Effect::Possible) {
        return;
    }
    let mut report = |call: Span, what: &str| {
        findings.report("DUP-4", [handout.span().call, first.span.call, call.call], || {
            format!("lease {} on {} was settled, and then {what} again", handout.fence(), task.id)
        });
    };
    for settling in settlings.iter().filter(|s| s.effect == Effect::Certain && first.span.is_before(&s.span)) {
        report(settling.span, "settled");
    }
    for extension in task.extensions_of(handout.fence()) {
        if extension.effect == Effect::Certain && first.span.is_before(&extension.span) {
            report(extension.span, "extended");
        }
    }
}

/// A lease that is live settles and extends (DUP-4), and so does one that has ended while nobody else took the task
/// (DUP-5).
fn live_leases_are_accepted(
    index: &Index<'_>,
    queue: &Queue<'_>,
    task: &Task<'_>,
    handout: &Handout<'_>,
    next: Option<&Handout<'_>>,
    findings: &mut Findings,
) {
    let settled = task.settlings_of(handout.fence()).iter().map(|s| (s.span, s.effect));
    let extended = task.extensions_of(handout.fence()).iter().map(|e| (e.span, e.effect));
    for (call, _) in settled.chain(extended).filter(|(_, effect)| *effect == Effect::LeaseLost) {
        let cut = index.may_be_cut(handout.span().from, call.to);
        if cut || may_have_ended(queue, task, handout, Some(call), call.to) {
            continue;
        }
        let calls = [handout.span().call, call.call];
        if call.to_us < lease_end_us(task, handout, call.from) {
            findings.report("DUP-4", calls, || {
                format!("lease {} on {} was live, but was reported lost", handout.fence(), task.id)
            });
        // The end of a lease that a connection holds is final (DUP-16).
        } else if index.header.leases_stored && !may_have_been_taken(queue, task, handout, next, call) {
            findings.report("DUP-5", calls, || {
                format!(
                    "nothing had claimed or changed {}, but its lease {} was reported lost",
                    task.id,
                    handout.fence()
                )
            });
        }
    }
}

/// Whether a task whose lease ran out may have been claimed, dead-lettered or changed before a call was answered.
fn may_have_been_taken(
    queue: &Queue<'_>,
    task: &Task<'_>,
    handout: &Handout<'_>,
    next: Option<&Handout<'_>>,
    call: Span,
) -> bool {
    let since = handout.span().from;
    next.is_some_and(|next| next.span().from < call.to)
        || queue.lost_claims.any(since, call.to)
        || queue.claims.within(since, call.to).any(|(_, claim)| claim.dead_lettered > 0)
        || !queue.changes_of(task, handout.group(), since, call.to).is_empty()
}

fn extensions_never_shorten(index: &Index<'_>, task: &Task<'_>, handout: &Handout<'_>, findings: &mut Findings) {
    let mut told = (handout.span(), handout.delivered.lease_expires.unix_micros());
    let slack = index.wall_ahead.1.saturating_sub(index.wall_ahead.0);
    for extension in task.extensions_of(handout.fence()) {
        let Some(now) = extension.told.map(|told| told.lease_expires.unix_micros()) else { continue };
        let (before, ends) = told;
        // Both are shown on the wall clock: after a step they can't be compared.
        if before.is_before(&extension.span) && !index.stepped(before.from, extension.span.to) && now + slack < ends {
            findings.report("DUP-7", [before.call, extension.span.call], || {
                format!("an extension made lease {} on {} end {} us sooner", handout.fence(), task.id, ends - now)
            });
        }
        if now >= ends {
            told = (extension.span, now);
        }
    }
}

/// DUP-12: what a delivery says of its attempt follows from the delivery before it and how that ended.
fn attempts_are_counted(
    index: &Index<'_>,
    queue: &Queue<'_>,
    task: &Task<'_>,
    before: Option<&Handout<'_>>,
    handout: &Handout<'_>,
    findings: &mut Findings,
) {
    if handout.versions.is_empty() {
        return;
    }
    let claim = handout.span();
    // What a connection was to bring when it ended may count an attempt (DUP-16).
    if index.may_be_cut(before.map_or(0, |before| before.span().from), claim.to) {
        return;
    }
    // A claim that nobody received costs no attempt if it was given back, and one if its lease ended.
    let lost = queue.lost_claims_before(claim.to);
    let counted = |from: u32, to: u32| (from..=to.saturating_add(lost)).contains(&handout.delivered.attempt);
    let redriven = || {
        let since = before.map_or(0, |before| before.span().from);
        queue.may_be_redriven(task, since, claim.to)
    };
    let may_be_first = before.is_none_or(|before| !before.is_one_with(handout));
    if may_be_first && counted(1, 1) {
        return;
    }
    if let Some(before) = before.filter(|before| before.may_be_one_with(handout)) {
        match next_attempt(task, before) {
            Some((from, to)) if !counted(from, to) => {}
            Some(_) | None => return,
        }
    }
    if counted(1, 1) && redriven() {
        return;
    }
    let calls: Vec<u64> = before.iter().map(|before| before.span().call).chain([claim.call]).collect();
    findings.report("DUP-12", calls, || {
        let last =
            before.map_or("it was not delivered before".into(), |b| format!("after attempt {}", b.delivered.attempt));
        format!("{} in {} was delivered for attempt {}: {last}", task.id, queue.name, handout.delivered.attempt)
    });
}

/// The least and the greatest attempt that may follow a delivery; nothing where it was not to be followed at all.
fn next_attempt(task: &Task<'_>, before: &Handout<'_>) -> Option<(u32, u32)> {
    let attempt = before.delivered.attempt;
    let settlings = task.settlings_of(before.fence());
    let gives_back =
        |settling: &Settling| matches!(settling.disposition, Disposition::Release | Disposition::Snooze(_));
    let given_back = settlings.iter().any(|s| s.effect == Effect::Possible && gives_back(s));
    if given_back {
        return Some((attempt, attempt + 1));
    }
    if let Some(settled) = settlings.iter().find(|s| s.effect == Effect::Certain) {
        return match settled.disposition {
            Disposition::Complete | Disposition::DeadLetter => None,
            Disposition::Retry(_) => Some((attempt + 1, attempt + 1)),
            Disposition::Snooze(_) | Disposition::Release if settlings.iter().any(|s| s.effect == Effect::Possible) => {
                Some((attempt, attempt + 1))
            }
            Disposition::Snooze(_) | Disposition::Release => Some((attempt, attempt)),
        };
    }
    Some((attempt + 1, attempt + 1))
}
