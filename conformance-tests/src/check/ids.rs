//! An id names one task at a time, and is free again when the task has ended (DUP-8, DUP-10, DUP-11).

use super::index::{Effect, Entry, Index, Queue, Reach, Task, Version};
use super::report::Findings;
use super::span::Span;
use crate::history::{Change, Disposition};

/// Checks one queue.
pub(super) fn check(index: &Index<'_>, queue: &Queue<'_>, findings: &mut Findings) {
    if !queue.unique_ids {
        return;
    }
    let dead_letters = queue.claims.all().iter().any(|claim| claim.dead_lettered > 0) || !queue.lost_claims.is_empty();
    for task in &queue.tasks {
        for pair in task.versions.all().windows(2) {
            is_one_at_a_time(queue, task, &pair[0], &pair[1], dead_letters, findings);
        }
        if task.existing.is_empty() && task.versions.all().len() < 2 {
            continue;
        }
        let ends = certain_ends(task);
        for (call, _) in &task.existing {
            exists(index, queue, task, &ends, *call, findings);
        }
        for version in task.versions.all() {
            is_remembered(index, task, &ends, version, findings);
        }
    }
}

/// Two versions that were both accepted: the second must have found the first.
fn is_one_at_a_time(
    queue: &Queue<'_>,
    task: &Task<'_>,
    one: &Version<'_>,
    two: &Version<'_>,
    dead_letters: bool,
    findings: &mut Findings,
) {
    let in_order = one.span.is_before(&two.span) || one.span.call == two.span.call && one.item < two.item;
    let conflict = one.is_certain() && two.how == Entry::Created && (in_order || one.how == Entry::Created);
    if !conflict {
        return;
    }
    let (from, to) = (one.span.from, two.span.to.max(one.span.to));
    // A third one may have taken the place of the first, and ended.
    let between = || task.versions.within(from, to).map(|(_, version)| version);
    let ended = task.endings.any(from, to)
        || queue.deletes.any(from, to)
        || between().any(|version| queue.group_cancelled(version.group(), from, to));
    // A claim dead-letters what has expired, or was attempted as often as it may be.
    let may_be_dead_lettered = dead_letters
        && (between().any(|version| version.planned.expires.is_some())
            || !queue.lost_claims.is_empty()
            || task.handouts.iter().any(|handout| handout.delivered.attempt >= handout.delivered.content.attempts_max));
    if !ended && !may_be_dead_lettered {
        findings.report("DUP-8", [one.span.call, two.span.call], || {
            format!("{} in {} existed, but scheduling it again answered `created`", task.id, queue.name)
        });
    }
}

/// Something that ended whatever the id named, for certain.
struct End {
    span: Span,
    /// The version that it ended, which may have been answered for only later.
    version: Option<usize>,
    /// Whether its id is remembered.
    completed: bool,
}

/// By their answers.
fn certain_ends(task: &Task<'_>) -> Vec<End> {
    let mut ends = Vec::new();
    for handout in &task.handouts {
        for settling in task.settlings_of(handout.fence()).iter().filter(|s| s.effect == Effect::Certain) {
            let completed = settling.disposition == Disposition::Complete;
            if completed || settling.disposition == Disposition::DeadLetter {
                ends.push(End { span: settling.span, version: handout.sole(), completed });
            }
        }
    }
    for change in task.changes.all() {
        if change.change == Change::Cancel && change.reach != Reach::Possible {
            ends.push(End { span: change.span, version: None, completed: false });
        }
    }
    ends.sort_unstable_by_key(|end| end.span.to);
    ends
}

/// An id that answers `existing` names a task, or one that was completed a short while ago.
fn exists(index: &Index<'_>, queue: &Queue<'_>, task: &Task<'_>, ends: &[End], call: Span, findings: &mut Findings) {
    let n = ends.partition_point(|end| end.span.to < call.from);
    let Some(end) = ends[..n].last() else { return };
    let is_back = task.another_version(end.version, end.span.from, call.to)
        || queue.may_be_redriven(task, end.span.from, call.to);
    let window = index.header.retry_window_us;
    let recent = |end: &End| call.from_us.saturating_sub(end.span.to_us) <= window.saturating_add(index.grain_us());
    let is_remembered = window > 0 && ends[..n].iter().rev().take_while(|end| recent(end)).any(|end| end.completed);
    // A window may be longer than promised.
    let may_be_remembered = is_remembered || window > 0 && end.completed;
    if !(is_back || may_be_remembered) {
        findings.report("DUP-10", [end.span.call, call.call], || {
            format!("{} in {} had ended, but scheduling it again answered `existing`", task.id, queue.name)
        });
    }
}

/// An id that was completed a short while ago answers `existing`.
fn is_remembered(index: &Index<'_>, task: &Task<'_>, ends: &[End], version: &Version<'_>, findings: &mut Findings) {
    let window = index.header.retry_window_us;
    if window == 0 || version.how != Entry::Created || version.planned.replace {
        return;
    }
    let n = ends.partition_point(|end| end.span.to < version.span.from);
    let Some(end) = ends[..n].last().filter(|end| end.completed) else { return };
    let age = version.span.to_us.saturating_sub(end.span.from_us);
    let others = task.versions.within(end.span.from, version.span.to);
    let between = others.filter(|(i, other)| Some(*i) != end.version && other.span != version.span).count();
    if age < window && between == 0 {
        findings.report("DUP-11", [end.span.call, version.span.call], || {
            format!("{} was completed at most {age} us before, but scheduling it again answered `created`", task.id)
        });
    }
}
