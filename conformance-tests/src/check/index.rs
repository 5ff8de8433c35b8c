//! A history by queue and id: the versions of a task, its leases and what ended them, its changes.

use std::collections::{HashMap, HashSet};

use delayline_core::{GroupName, QueueName, TaskId};

use super::span::{Sorted, Span, Spanned};
use crate::history::{Change, Content, Delivered, Disposition, Due, Header, Planned};

/// The whole history.
#[derive(Debug)]
pub(super) struct Index<'a> {
    pub(super) header: &'a Header,
    pub(super) queues: Vec<Queue<'a>>,
    /// Where the wall clock was stepped.
    pub(super) steps: Vec<usize>,
    /// Where connections may have ended.
    pub(super) cuts: Vec<usize>,
    /// The least and the greatest distance from the client's clock to the wall clock that was seen, in microseconds.
    pub(super) wall_ahead: (i64, i64),
    pub(super) calls: usize,
}

impl Index<'_> {
    /// Whether the wall clock was stepped between two places.
    pub(super) fn stepped(&self, after: usize, before: usize) -> bool {
        self.steps.partition_point(|step| *step <= after) < self.steps.partition_point(|step| *step < before)
    }

    /// Whether a lease that was given after a place may have ended before another because its connection did.
    pub(super) fn may_be_cut(&self, after: usize, before: usize) -> bool {
        !self.header.leases_stored && self.cuts.iter().any(|cut| (after..before).contains(cut))
    }

    /// In how many places of the store a task may be that was accepted at the one place, before the other: what was handed over
    /// from one to the next as connections ended may be in both (DUP-16).
    pub(super) fn copies(&self, accepted: usize, before: usize) -> usize {
        if self.header.leases_stored {
            return 1;
        }
        let cuts = self.cuts.iter().filter(|cut| (accepted..before).contains(*cut)).count();
        1 << cuts.min(16)
    }

    /// Whether the wall clock runs exactly as the client's clock does, as a test's own does. A system's is read a little late
    /// at times, by the store as well, and so tells nothing certain about times on the other clock.
    pub(super) fn clocks_agree(&self) -> bool {
        self.wall_ahead.1.saturating_sub(self.wall_ahead.0) <= 2
    }

    /// The unit in which times are kept: what is that far apart is told apart, however it was rounded.
    pub(super) fn grain_us(&self) -> u64 {
        self.header.resolution_us.max(1_000)
    }
}

/// One queue.
#[derive(Debug)]
pub(super) struct Queue<'a> {
    pub(super) name: &'a QueueName,
    /// Whether an id names one task at a time.
    pub(super) unique_ids: bool,
    pub(super) tasks: Vec<Task<'a>>,
    /// Claims that were answered, by invocation.
    pub(super) claims: Sorted<Claim>,
    /// Claims of which nothing is known but that they were made.
    pub(super) lost_claims: Sorted<LostClaim>,
    /// Changes of a group that may have done something.
    pub(super) groups: HashMap<&'a GroupName, Sorted<Changing<'a>>>,
    /// Those of them that cancel.
    pub(super) group_cancels: HashMap<&'a GroupName, Sorted<Span>>,
    /// Redrives that may have brought something back.
    pub(super) redrives: Sorted<Redrive<'a>>,
    pub(super) deletes: Sorted<Span>,
    pub(super) pauses: Sorted<Span>,
    /// What may have ended a pause.
    pub(super) resumes: Sorted<Span>,
    /// Tasks without an id that may have been accepted under one that nobody was told.
    pub(super) nameless: Vec<Version<'a>>,
    /// Where it was drained last.
    pub(super) drained: Option<Span>,
}

impl<'a> Queue<'a> {
    /// How many claims whose outcome is unknown may have taken something before this place.
    pub(super) fn lost_claims_before(&self, place: usize) -> u32 {
        u32::try_from(self.lost_claims.invoked_before(place)).unwrap_or(u32::MAX)
    }

    /// Whether a redrive may have brought this task back between two places.
    pub(super) fn may_be_redriven(&self, task: &Task<'a>, after: usize, before: usize) -> bool {
        let reaches = |redrive: &Redrive<'_>| redrive.ids.as_ref().is_none_or(|ids| ids.contains(task.id));
        task.may_be_dead_lettered && self.redrives.within(after, before).any(|(_, redrive)| reaches(redrive))
    }

    /// Whether this group may have been cancelled between two places.
    pub(super) fn group_cancelled(&self, group: Option<&GroupName>, after: usize, before: usize) -> bool {
        group.and_then(|group| self.group_cancels.get(group)).is_some_and(|cancels| cancels.any(after, before))
    }

    /// Changes between two places that a task may have been reached by, by its id or its group; by invocation.
    pub(super) fn changes_of<'s>(
        &'s self,
        task: &'s Task<'a>,
        group: Option<&GroupName>,
        after: usize,
        before: usize,
    ) -> Vec<&'s Changing<'a>> {
        let of_group = group.and_then(|group| self.groups.get(group)).into_iter();
        let of_group = of_group.flat_map(|changes| changes.within(after, before));
        let mut changes: Vec<_> =
            of_group.chain(task.changes.within(after, before)).map(|(_, change)| change).collect();
        changes.sort_unstable_by_key(|change| change.span.from);
        changes
    }
}

/// Everything about one id.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub(super) id: &'a TaskId,
    /// What was scheduled under it, or may have been.
    pub(super) versions: Sorted<Version<'a>>,
    /// For each answer to `schedule` that a task with the id is there: its call.
    pub(super) existing: Vec<(Span, &'a Planned)>,
    /// By fence.
    pub(super) handouts: Vec<Handout<'a>>,
    /// By fence, then by invocation.
    pub(super) settlings: Vec<Settling>,
    /// By fence, then by invocation.
    pub(super) extensions: Vec<Extending<'a>>,
    /// Changes that named it and may have done something.
    pub(super) changes: Sorted<Changing<'a>>,
    /// Whatever may have ended it but a claim that dead-lettered it, a group change, and the end of its queue.
    pub(super) endings: Sorted<Span>,
    /// Whether it may ever have become a dead letter.
    pub(super) may_be_dead_lettered: bool,
}

impl<'a> Task<'a> {
    pub(super) fn version(&self, i: usize) -> &Version<'a> {
        &self.versions.all()[i]
    }

    /// What was done to one lease.
    pub(super) fn settlings_of(&self, fence: u64) -> &[Settling] {
        range_of(&self.settlings, |settling| settling.fence, fence)
    }

    /// The extensions of one lease.
    pub(super) fn extensions_of(&self, fence: u64) -> &[Extending<'a>] {
        range_of(&self.extensions, |extension| extension.fence, fence)
    }

    /// Whether a version other than this one may have come between two places.
    pub(super) fn another_version(&self, not: Option<usize>, after: usize, before: usize) -> bool {
        self.versions.within(after, before).any(|(i, _)| Some(i) != not)
    }
}

fn range_of<T>(items: &[T], key: impl Fn(&T) -> u64, value: u64) -> &[T] {
    let from = items.partition_point(|item| key(item) < value);
    let len = items[from..].partition_point(|item| key(item) == value);
    &items[from..from + len]
}

/// One task as it was scheduled.
#[derive(Debug)]
pub(super) struct Version<'a> {
    pub(super) span: Span,
    /// Its place in its call.
    pub(super) item: usize,
    pub(super) planned: &'a Planned,
    pub(super) how: Entry,
}

/// How a version came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Created,
    Replaced,
    /// Perhaps not at all.
    Unknown,
}

impl Version<'_> {
    pub(super) fn is_certain(&self) -> bool {
        self.how != Entry::Unknown
    }

    pub(super) fn group(&self) -> Option<&GroupName> {
        self.planned.content.group.as_ref()
    }

    pub(super) fn content(&self) -> &Content {
        &self.planned.content
    }

    /// When it is due at the earliest.
    pub(super) fn due_from(&self) -> Moment {
        Moment::of(self.planned.due, self.span.from_us)
    }
}

impl Spanned for Version<'_> {
    fn span(&self) -> Span {
        self.span
    }
}

/// A moment on the client's monotonic clock or on the backend's wall clock, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Mono(i64),
    Wall(i64),
}

impl Moment {
    /// A due time counted from a moment, at the earliest: no delay is due as of the millisecond that has begun, and a shift
    /// counts from there.
    pub(super) fn of(due: Due, from_us: u64) -> Self {
        match due {
            Due::AfterUs(0) => Self::Mono(signed(from_us).saturating_sub(1_000)),
            Due::AfterUs(after) => Self::Mono(signed(from_us.saturating_add(after))),
            Due::At(at) => Self::Wall(at.unix_micros()),
        }
    }

    pub(super) fn plus(self, us: i64) -> Self {
        match self {
            Self::Mono(at) => Self::Mono(at.saturating_add(us)),
            Self::Wall(at) => Self::Wall(at.saturating_add(us)),
        }
    }
}

pub(super) fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

/// One delivery.
#[derive(Debug)]
pub(super) struct Handout<'a> {
    pub(super) claim: Claim,
    /// Its place in its claim.
    pub(super) place: usize,
    pub(super) delivered: &'a Delivered,
    /// The versions that it can be of; by content, where that tells.
    pub(super) versions: Vec<usize>,
}

impl Handout<'_> {
    pub(super) fn fence(&self) -> u64 {
        self.delivered.lease.fence
    }

    /// The version that it is of, if that is certain.
    pub(super) fn sole(&self) -> Option<usize> {
        match self.versions.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// Whether the two may be of the same version.
    pub(super) fn may_be_one_with(&self, other: &Self) -> bool {
        self.versions.iter().any(|v| other.versions.contains(v))
    }

    /// Whether the two are of the same version for certain, unless a redrive made another of it.
    pub(super) fn is_one_with(&self, other: &Self) -> bool {
        self.sole().is_some() && self.sole() == other.sole()
    }

    pub(super) fn group(&self) -> Option<&GroupName> {
        self.delivered.content.group.as_ref()
    }

    pub(super) fn span(&self) -> Span {
        self.claim.span
    }
}

/// A claim that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) span: Span,
    pub(super) lease_us: u64,
    /// The wall clock when it was invoked and when it was answered.
    pub(super) wall: (i64, i64),
    pub(super) dead_lettered: u64,
    pub(super) brought: usize,
}

impl Spanned for Claim {
    fn span(&self) -> Span {
        self.span
    }
}

/// A claim whose outcome is unknown.
#[derive(Clone, Copy, Debug)]
pub(super) struct LostClaim {
    pub(super) span: Span,
    /// When its caller learned that, or gave it up; never, if the history ends before.
    pub(super) given_up_us: u64,
    pub(super) lease_us: u64,
}

impl Spanned for LostClaim {
    fn span(&self) -> Span {
        self.span
    }
}

/// How certain it is that something took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Certain,
    Possible,
    /// None, and the lease was said to be lost.
    LeaseLost,
    None,
}

impl Effect {
    pub(super) fn is_possible(self) -> bool {
        matches!(self, Self::Certain | Self::Possible)
    }
}

/// One item of `settle`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    pub(super) span: Span,
    pub(super) fence: u64,
    pub(super) disposition: Disposition,
    pub(super) effect: Effect,
}

/// One item of `extend`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extending<'a> {
    pub(super) span: Span,
    pub(super) fence: u64,
    pub(super) by_us: u64,
    pub(super) effect: Effect,
    /// What was told of it.
    pub(super) told: Option<&'a crate::history::Extended>,
}

/// A change of a task or of a group that may have done something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changing<'a> {
    pub(super) span: Span,
    pub(super) change: Change,
    pub(super) reach: Reach,
    /// Of a group, and which.
    pub(super) group: Option<&'a GroupName>,
}

impl Spanned for Changing<'_> {
    fn span(&self) -> Span {
        self.span
    }
}

/// What is known of a change's effect on its task, or on each member of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Every one was changed, by this call.
    Changed,
    /// It was in flight: marked by a cancel, left alone otherwise. In a group: some were.
    InFlight,
    /// It may have been changed, by this call or one before.
    Possible,
}

/// A redrive.
#[derive(Debug)]
pub(super) struct Redrive<'a> {
    pub(super) span: Span,
    pub(super) ids: Option<HashSet<&'a TaskId>>,
}

impl Spanned for Redrive<'_> {
    fn span(&self) -> Span {
        self.span
    }
}
