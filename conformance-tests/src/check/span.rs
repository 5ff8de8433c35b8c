//! When a call may have taken effect, and finding the calls that may have done so within a range of time.
//!
//! Precedence goes by the events' places in the list, which tell more than their times: in virtual time many events share a
//! microsecond.

/// A call's range: its effect lies between its invocation and its end, both places in the list of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The call's number.
    pub(super) call: u64,
    /// The place of its invocation.
    pub(super) from: usize,
    /// The place of its answer; beyond every place if there is none, because it may take effect at any time then.
    pub(super) to: usize,
    /// When it was invoked.
    pub(super) from_us: u64,
    /// When it was answered; `u64::MAX` without an answer.
    pub(super) to_us: u64,
}

impl Span {
    /// Whether it had been answered before the other was invoked.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.to < other.from
    }
}

/// What has a span.
pub(super) trait Spanned {
    fn span(&self) -> Span;
}

impl Spanned for Span {
    fn span(&self) -> Span {
        *self
    }
}

/// Things sorted by their invocation, so that those which may fall into a range are found without looking at all.
#[derive(Debug)]
pub(super) struct Sorted<T> {
    items: Vec<T>,
    /// For each place, the latest end of the items up to it.
    latest: Vec<usize>,
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self { items: Vec::new(), latest: Vec::new() }
    }
}

impl<T: Spanned> Sorted<T> {
    pub(super) fn new(mut items: Vec<T>) -> Self {
        items.sort_by_key(|item| item.span().from);
        let ends = items.iter().map(|item| item.span().to);
        let latest = ends.scan(0, |max, to| Some(std::mem::replace(max, to.max(*max)).max(to))).collect();
        Self { items, latest }
    }

    pub(super) fn all(&self) -> &[T] {
        &self.items
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many were invoked before this place.
    pub(super) fn invoked_before(&self, place: usize) -> usize {
        self.items.partition_point(|item| item.span().from < place)
    }

    /// Those that may have taken effect after one place and before the other, with their index, the latest first.
    pub(super) fn within(&self, after: usize, before: usize) -> impl Iterator<Item = (usize, &T)> {
        let n = self.invoked_before(before);
        // Once nothing up to an item ends late enough, nothing before it does.
        (0..n)
            .rev()
            .take_while(move |i| self.latest[*i] > after)
            .map(|i| (i, &self.items[i]))
            .filter(move |(_, item)| item.span().to > after)
    }

    /// Whether any may have.
    pub(super) fn any(&self, after: usize, before: usize) -> bool {
        self.within(after, before).next().is_some()
    }
}
