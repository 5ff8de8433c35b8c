//! Reads: one task, a page of tasks, counts. Reads of every task run in bounded pieces.

use std::collections::BinaryHeap;

use delayline_core::{Cursor, DueWithin, QueueStats, TaskId, TaskState, TaskView, Timestamp};

use crate::now::{Now, Place};

use super::Store;
use super::task::Entry;

/// Number of places that are read under one lock.
const PIECE: u32 = 16 * 1024;

/// A position in a listing: visible at, sequence.
pub(crate) type Rank = (i64, u64);

/// Finds the first `limit` tasks after a cursor, by (visible at, sequence).
#[derive(Debug)]
pub(crate) struct ListScan {
    at: u32,
    limit: usize,
    after: Option<Rank>,
    /// The best so far; the worst of them on top.
    best: BinaryHeap<(i64, u64, u32)>,
}

/// Counts the tasks.
#[derive(Debug, Default)]
pub(crate) struct StatsScan {
    at: u32,
    pub(crate) stats: QueueStats,
}

impl ListScan {
    pub(crate) fn new(limit: usize, after: Option<Rank>) -> Self {
        Self { at: 0, limit, after, best: BinaryHeap::new() }
    }

    /// The last found place, if there may be more after it.
    pub(crate) fn last(&self) -> Option<Rank> {
        let last = self.best.peek().filter(|_| self.best.len() == self.limit)?;
        Some((last.0, last.1))
    }
}

/// The position that a cursor names.
pub(crate) fn rank_of(cursor: &Cursor) -> Rank {
    (cursor.visible_at.unix_millis_floor(), cursor.receipt.words().map_or(u64::MAX, |[_, seq]| seq))
}

impl Store {
    /// Visits the next places. Returns true when all were visited.
    pub(crate) fn list_piece(&mut self, now: Now, scan: &mut ListScan) -> bool {
        self.note_work(PIECE as usize);
        let end = self.tasks.end().min(scan.at.saturating_add(PIECE));
        for index in scan.at..end {
            let Some(entry) = self.tasks.get(index).filter(|entry| !self.is_over(now, entry)) else { continue };
            let rank = (now.line_ms(entry.place()), entry.seq);
            if scan.after.is_none_or(|after| rank > after) {
                scan.best.push((rank.0, rank.1, index));
                if scan.best.len() > scan.limit {
                    scan.best.pop();
                }
            }
        }
        scan.at = end;
        end >= self.tasks.end()
    }

    /// The found tasks, in their current state, at the places where they were found: a task that moved in the meantime
    /// must not move the start of the next page.
    pub(crate) fn list_done(&self, now: Now, scan: ListScan) -> Vec<TaskView> {
        let found = scan.best.into_sorted_vec();
        let view_of = |(ms, seq, index): (i64, u64, u32)| {
            let entry = self.tasks.get(index).filter(|entry| entry.seq == seq)?;
            let mut view = self.view(now, index, entry);
            view.visible_at = Timestamp::from_unix_millis(ms);
            Some(view)
        };
        found.into_iter().filter_map(view_of).collect()
    }

    pub(crate) fn find(&self, now: Now, id: &TaskId) -> Option<TaskView> {
        let index = self.by_id(id)?;
        let entry = self.tasks.get(index)?;
        (!self.is_over(now, entry)).then(|| self.view(now, index, entry))
    }

    /// Whether it was cancelled and its lease has ended. The next operation that finds it removes it.
    fn is_over(&self, now: Now, entry: &Entry) -> bool {
        entry.cancelled() && !self.leased(now, entry)
    }

    /// Counts the next places. Returns true when all were visited.
    pub(crate) fn stats_piece(&mut self, now: Now, scan: &mut StatsScan) -> bool {
        self.note_work(PIECE as usize);
        let end = self.tasks.end().min(scan.at.saturating_add(PIECE));
        let stats = &mut scan.stats;
        let due_within = stats.due_within.get_or_insert_with(DueWithin::default);
        for index in scan.at..end {
            let Some(entry) = self.tasks.get(index) else { continue };
            let place = entry.place();
            if self.leased(now, entry) {
                stats.in_flight += 1;
            } else if entry.cancelled() {
            } else if now.reached(place) {
                stats.due += 1;
                stats.oldest_due = stats.oldest_due.max(Some(now.since(place)));
            } else {
                stats.scheduled += 1;
                let wait = now.until(place);
                due_within.count(wait);
                stats.next_due_in = Some(stats.next_due_in.map_or(wait, |other| other.min(wait)));
            }
        }
        scan.at = end;
        if end < self.tasks.end() {
            return false;
        }
        stats.dead = self.dead_len();
        stats.dead_dropped = self.dead_dropped();
        stats.paused = self.paused;
        true
    }

    fn view(&self, now: Now, index: u32, entry: &Entry) -> TaskView {
        let due = self.due_of(entry);
        let state = match (self.leased(now, entry), entry.cancelled()) {
            (true, true) => TaskState::Cancelling,
            (true, false) => TaskState::InFlight,
            (false, _) => TaskState::Pending,
        };
        let task = self.task_ref(now, index, entry, due);
        let mut view = TaskView::new(task, state, now.shown(entry.place()), self.payload_of(entry));
        view.attempt = entry.attempt();
        view.attempts_max = self.max_attempts_of(entry);
        if let Some(extra) = self.extra(entry) {
            view.expires_at = extra.expires.map(|expires| now.shown(expires));
            view.group = extra.group.clone();
            view.headers = extra.headers.clone();
            view.last_failure = extra.last_failure.as_ref().map(ToString::to_string);
        }
        view
    }

    /// The due time of a task; for a claimed one, its due time at that claim.
    pub(super) fn due_of(&self, entry: &Entry) -> Place {
        self.leases.get(entry.live).map_or(entry.place(), |live| live.old_place)
    }
}
