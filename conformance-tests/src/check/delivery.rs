//! A delivered task was scheduled, has the content that was scheduled, and has not ended before (LOSS-5, DUP-3,
//! CANCEL-2, CANCEL-3).

use std::collections::{HashMap, VecDeque};

use super::index::{Changing, Effect, Handout, Index, Queue, Reach, Settling, Task, Version};
use super::report::Findings;
use super::span::{Sorted, Span, Spanned};
use crate::history::{Change, Content, Disposition};

/// Checks one queue.
pub(super) fn check(index: &Index<'_>, queue: &Queue<'_>, findings: &mut Findings) {
    let mut nameless = Nameless::new(&queue.nameless);
    let mut unheard_of = Vec::new();
    for task in &queue.tasks {
        for handout in &task.handouts {
            attempts_are_within_bounds(task, handout, findings);
            if handout.versions.is_empty() {
                if task.versions.any(0, handout.span().to) {
                    report_other_content(queue, task, handout, findings);
                }
                continue;
            }
            nothing_after_its_end(queue, task, handout, findings);
        }
        nothing_after_its_disposition(index, queue, task, findings);
        if let Some(first) = task.handouts.iter().min_by_key(|handout| handout.span().to)
            && !task.versions.any(0, first.span().to)
        {
            unheard_of.push((first, task));
        }
    }
    // The earliest first, so that each gets a call that was made early enough, if there is one.
    unheard_of.sort_by_key(|(first, _)| first.span().to);
    for (first, task) in unheard_of {
        nameless.delivery(queue, task, first, findings);
    }
    nothing_while_paused(queue, findings);
}

fn attempts_are_within_bounds(task: &Task<'_>, handout: &Handout<'_>, findings: &mut Findings) {
    let delivered = handout.delivered;
    if delivered.attempt > delivered.content.attempts_max || delivered.attempt == 0 {
        findings.report("DUP-13", [handout.span().call], || {
            format!("{} was delivered for attempt {} of {}", task.id, delivered.attempt, delivered.content.attempts_max)
        });
    }
}

fn report_other_content(queue: &Queue<'_>, task: &Task<'_>, handout: &Handout<'_>, findings: &mut Findings) {
    let until = handout.span().to;
    let older = task.versions.within(0, until).find(|(_, version)| *version.content() == handout.delivered.content);
    match older {
        Some((_, version)) => findings.report("DUP-9", [version.span.call, handout.span().call], || {
            format!("{} in {} was delivered with its content from before it was replaced", task.id, queue.name)
        }),
        None => findings.report("LOSS-5", [handout.span().call], || {
            format!("{} in {} was delivered with content that was never scheduled under this id", task.id, queue.name)
        }),
    }
}

/// Deliveries after a cancel or the deletion of the queue, of versions that were accepted before.
fn nothing_after_its_end(queue: &Queue<'_>, task: &Task<'_>, handout: &Handout<'_>, findings: &mut Findings) {
    if !queue.unique_ids && task.versions.all().len() > 1 {
        return;
    }
    let accepted = handout.versions.iter().map(|v| task.version(*v).span.to).max().unwrap_or(usize::MAX);
    let claim = handout.span();
    let is_back = |since: Span| queue.may_be_redriven(task, since.from, claim.to);
    if let Some(cancel) = certain_cancel(&task.changes, accepted, claim)
        && !is_back(cancel.span)
    {
        let promise = if cancel.reach == Reach::InFlight { "CANCEL-3" } else { "CANCEL-2" };
        findings.report(promise, [cancel.span.call, claim.call], || {
            format!("{} in {} was cancelled and then delivered", task.id, queue.name)
        });
    }
    let group = handout.sole().and_then(|v| task.version(v).group());
    if let Some(group) = group
        && let Some(cancel) = queue.groups.get(group).and_then(|changes| certain_cancel(changes, accepted, claim))
        && !is_back(cancel.span)
    {
        findings.report("CANCEL-6", [cancel.span.call, claim.call], || {
            format!("{} in {} was cancelled with its group {group} and then delivered", task.id, queue.name)
        });
    }
    let deletes = &queue.deletes.all()[queue.deletes.invoked_before(accepted)..];
    if let Some(delete) = deletes.iter().find(|delete| delete.is_before(&claim)) {
        findings.report("CANCEL-12", [delete.call, claim.call], || {
            format!("{} was delivered after its queue {} had been deleted", task.id, queue.name)
        });
    }
}

/// A cancel that reached whatever was accepted before the place, and was answered before the claim was invoked.
fn certain_cancel<'s, 'a>(changes: &'s Sorted<Changing<'a>>, accepted: usize, claim: Span) -> Option<&'s Changing<'a>> {
    let later = &changes.all()[changes.invoked_before(accepted)..];
    let mut before_claim = later.iter().take_while(|change| change.span.from < claim.from);
    before_claim.find(|change| {
        change.change == Change::Cancel && change.reach != Reach::Possible && change.span.is_before(&claim)
    })
}

/// Deliveries after a disposition that ended the task, without anything that may have brought the id back.
fn nothing_after_its_disposition(index: &Index<'_>, queue: &Queue<'_>, task: &Task<'_>, findings: &mut Findings) {
    for (i, (settled, next)) in task.handouts.iter().zip(task.handouts.iter().skip(1)).enumerate() {
        let Some(end) = end_before(task, settled, next) else { continue };
        let until = next.span().to;
        let is_back = |handout: &Handout<'_>, end: &Settling| {
            task.another_version(handout.sole(), end.span.from, until)
                || !queue.unique_ids && task.versions.all().len() > 1
                || queue.may_be_redriven(task, end.span.from, until)
        };
        if is_back(settled, end) {
            continue;
        }
        let ended = task.handouts[..=i].iter().filter(|handout| {
            let end = end_before(task, handout, next);
            end.is_some_and(|end| !is_back(handout, end))
        });
        let accepted = settled.versions.iter().map(|v| task.version(*v).span.from).min();
        if ended.count() < index.copies(accepted.unwrap_or(settled.span().from), until) {
            continue;
        }
        let calls = [settled.span().call, end.span.call, next.span().call];
        if end.disposition == Disposition::Complete {
            findings.report("DUP-3", calls, || {
                format!("{} in {} was completed and then delivered again", task.id, queue.name)
            });
        } else {
            findings.report("DUP-2", calls, || {
                format!("{} in {} was dead-lettered and then delivered without a redrive", task.id, queue.name)
            });
        }
    }
}

/// The disposition that ended a task for certain before it was claimed again.
fn end_before<'t>(task: &'t Task<'_>, handout: &Handout<'_>, next: &Handout<'_>) -> Option<&'t Settling> {
    task.settlings_of(handout.fence()).iter().find(|settling| {
        let ends = matches!(settling.disposition, Disposition::Complete | Disposition::DeadLetter);
        ends && settling.effect == Effect::Certain && settling.span.is_before(&next.span())
    })
}

fn nothing_while_paused(queue: &Queue<'_>, findings: &mut Findings) {
    for claim in queue.claims.all().iter().filter(|claim| claim.brought + claim.dead_lettered as usize > 0) {
        let made = &queue.pauses.all()[..queue.pauses.invoked_before(claim.span.from)];
        let Some(pause) = made.iter().rev().find(|pause| pause.is_before(&claim.span)) else { continue };
        if !queue.resumes.any(pause.from, claim.span().to) {
            findings.report("LIVE-12", [pause.call, claim.span.call], || {
                format!(
                    "{} was paused, but a claim returned {} tasks and dead-lettered {}",
                    queue.name, claim.brought, claim.dead_lettered
                )
            });
        }
    }
}

/// Tasks that may have been accepted under an id that nobody was told.
struct Nameless<'s, 'a>(HashMap<u64, VecDeque<&'s Version<'a>>>);

impl<'s, 'a> Nameless<'s, 'a> {
    fn new(versions: &'s [Version<'a>]) -> Self {
        let mut by_content: HashMap<u64, VecDeque<&Version<'a>>> = HashMap::new();
        for version in versions {
            by_content.entry(version.content().payload_hash).or_default().push_back(version);
        }
        Self(by_content)
    }

    /// Finds a call that this id may have come from; each item of a call makes one id at most.
    fn delivery(&mut self, queue: &Queue<'_>, task: &Task<'_>, first: &Handout<'_>, findings: &mut Findings) {
        let content: &Content = &first.delivered.content;
        let made = self.0.get_mut(&content.payload_hash);
        let fits = |version: &&Version<'_>| *version.content() == *content && version.span.from < first.span().to;
        let found = made.and_then(|made| made.iter().position(fits).and_then(|i| made.remove(i)));
        if found.is_none() {
            findings.report("LOSS-1", [first.span().call], || {
                format!("{} in {} was delivered, but never scheduled", task.id, queue.name)
            });
            return;
        }
        for other in task.handouts.iter().filter(|other| other.delivered.content != *content) {
            findings.report("LOSS-5", [first.span().call, other.span().call], || {
                format!("{} in {} was delivered with two different contents", task.id, queue.name)
            });
        }
    }
}
