//! The contents of a gate: tasks by due time, and tombstones that wait for their tasks. A state machine without I/O: it
//! gets the time and the messages, and returns what to do with them.
//!
//! - Every message that arrived is in exactly one place: held, reported as done, or leaving ([`Leaving`]).
//! - Of two copies of a task, which only a crash creates, it holds one: the one that was claimed last.
//! - Beyond a number of bytes, it holds a task without its payload, as a stub. When the stub is due or must be changed,
//!   it is *recalled*: returned to the broker, which delivers it again at once.
//! - A tombstone stays until its task arrives, or until [`KEEP_MS`] after its task was due. It changes one task once,
//!   in the order in which the changes were requested.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::codec::kind::{Kind, TombstoneAction};
use crate::codec::message::Message;

/// Time that a tombstone waits for an overdue task, in milliseconds.
pub(crate) const KEEP_MS: i64 = 10_000;

/// Maximum number of tombstones. Beyond it, the one that ends first is forgotten.
const TOMBSTONES_MAX: usize = 100_000;

/// The delivery tag of a message on this channel.
pub(crate) type Tag = u64;

#[derive(Debug)]
pub(crate) struct Hold {
    tasks: BTreeMap<Place, Held>,
    places: HashMap<u128, Place>,
    /// Tombstones by the number of their task, in the order of the requests.
    tombstones: HashMap<u128, Vec<Tombstone>>,
    /// For each tombstone: when it ends, its serial number, and the number of its task.
    ends: BTreeSet<(i64, u64, u128)>,
    serial: u64,
    /// Number of tombstones that are not acknowledged.
    unsettled: usize,
    unsettled_max: usize,
    /// A task that is due later than this many milliseconds from now goes back into the levels.
    far_ms: i64,
    bytes: usize,
    bytes_max: usize,
    /// Stubs that were returned and have not arrived again, with their sizes.
    recalled: HashMap<u128, usize>,
    recalled_bytes: usize,
}

/// A task that is not due yet.
#[derive(Debug)]
enum Held {
    Whole(Message),
    Stub { number: u128, fence: u64, bytes: usize },
}

/// The position of a task: due time, then sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    due_ms: i64,
    seq: u64,
    tag: Tag,
}

#[derive(Debug)]
struct Tombstone {
    seq: u64,
    serial: u64,
    /// `None` once it is acknowledged.
    tag: Option<Tag>,
    action: TombstoneAction,
    end_ms: i64,
}

/// What to do with a message that arrived.
#[derive(Debug, PartialEq)]
pub(crate) enum Arrived {
    Held,
    /// Acknowledge these.
    Done(Vec<Tag>),
    Leaves(Box<Leaving>),
    /// Return these to the broker, which delivers them again.
    Recalled(Vec<Tag>),
}

/// What to do now.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Due {
    pub(crate) leaving: Vec<Leaving>,
    /// Messages to return to the broker, because their payloads are needed.
    pub(crate) recalled: Vec<Tag>,
}

/// A message to publish. Once it is confirmed, its tags are done.
#[derive(Debug, PartialEq)]
pub(crate) struct Leaving {
    pub(crate) message: Message,
    pub(crate) tags: Vec<Tag>,
    /// Whether it is due. If not, it goes back into the levels.
    pub(crate) due: bool,
}

impl Hold {
    /// Holds at most `hold_max` unacknowledged messages, of which tombstones get a quarter, and about `bytes_max` bytes
    /// of tasks.
    pub(crate) fn new(hold_max: usize, bytes_max: usize, far_ms: i64) -> Self {
        Self {
            tasks: BTreeMap::new(),
            places: HashMap::new(),
            tombstones: HashMap::new(),
            ends: BTreeSet::new(),
            serial: 0,
            unsettled: 0,
            unsettled_max: hold_max / 4,
            far_ms,
            bytes: 0,
            bytes_max,
            recalled: HashMap::new(),
            recalled_bytes: 0,
        }
    }

    /// Handles a message from the broker.
    pub(crate) fn arrived(&mut self, tag: Tag, message: Message, now_ms: i64) -> Arrived {
        match message.kind {
            Kind::Tombstone { target, action } => self.tombstone(tag, message, target, action, now_ms),
            Kind::Task | Kind::Dead { .. } => self.task(tag, message, now_ms),
        }
    }

    fn task(&mut self, tag: Tag, mut message: Message, now_ms: i64) -> Arrived {
        let mut tags = vec![tag];
        if let Some(bytes) = self.recalled.remove(&message.number) {
            self.recalled_bytes -= bytes;
        }
        if let Some(place) = self.places.get(&message.number).copied() {
            if self.tasks.get(&place).is_some_and(|held| held.fence() >= message.fence) {
                return Arrived::Done(tags);
            }
            tags.push(place.tag);
            self.remove(place);
        }
        if let Some(tombstones) = self.tombstones.remove(&message.number) {
            let mut cancelled = false;
            for tombstone in tombstones {
                self.forget(&tombstone, message.number);
                tags.extend(tombstone.tag);
                cancelled |= !change(&mut message, tombstone.action);
            }
            return match cancelled {
                true => Arrived::Done(tags),
                false => Arrived::Leaves(Box::new(Leaving { due: message.due_ms <= now_ms, message, tags })),
            };
        }
        if message.due_ms - now_ms > self.far_ms {
            return Arrived::Leaves(Box::new(Leaving { message, tags, due: false }));
        }
        self.insert(tag, message, now_ms);
        // The kept copy keeps its tag; the tag of the other copy is done.
        match tags.len() {
            1 => Arrived::Held,
            _ => Arrived::Done(tags.split_off(1)),
        }
    }

    fn tombstone(&mut self, tag: Tag, message: Message, target: u128, action: TombstoneAction, now_ms: i64) -> Arrived {
        if message.due_ms - now_ms > self.far_ms {
            return Arrived::Leaves(Box::new(Leaving { message, tags: vec![tag], due: false }));
        }
        let mut recalled = vec![];
        if let Some(place) = self.places.get(&target).copied() {
            let tags = vec![tag, place.tag];
            match self.remove(place).expect("a place that is known holds a task") {
                Held::Whole(mut task) => {
                    return match change(&mut task, action) {
                        false => Arrived::Done(tags),
                        true => Arrived::Leaves(Box::new(Leaving { due: task.due_ms <= now_ms, message: task, tags })),
                    };
                }
                Held::Stub { .. } if action == TombstoneAction::Cancel => return Arrived::Done(tags),
                Held::Stub { number, bytes, .. } => {
                    self.recall(number, bytes);
                    recalled.push(place.tag);
                }
            }
        }
        let end_ms = message.due_ms.max(now_ms).saturating_add(KEEP_MS);
        let keeps = !recalled.is_empty() || self.unsettled < self.unsettled_max;
        self.unsettled += usize::from(keeps);
        self.serial += 1;
        let serial = self.serial;
        let waiting = self.tombstones.entry(target).or_default();
        waiting.push(Tombstone { seq: message.seq, serial, tag: keeps.then_some(tag), action, end_ms });
        waiting.sort_by_key(|tombstone| tombstone.seq);
        self.ends.insert((end_ms, serial, target));
        if !recalled.is_empty() {
            // The tombstone stays unacknowledged until its task arrives again, whatever the limit.
            return Arrived::Recalled(recalled);
        }
        let mut done = if keeps { vec![] } else { vec![tag] };
        if self.ends.len() > TOMBSTONES_MAX {
            done.extend(self.end_first());
        }
        if done.is_empty() { Arrived::Held } else { Arrived::Done(done) }
    }

    /// Takes at most `max` due tasks, in order. Stubs are recalled before they leave.
    pub(crate) fn due(&mut self, now_ms: i64, max: usize) -> Due {
        let mut due = Due::default();
        while due.leaving.len() < max {
            let Some((place, held)) = self.tasks.first_key_value().filter(|(place, _)| place.due_ms <= now_ms) else {
                break;
            };
            let place = *place;
            if self.waits(held) {
                break;
            }
            match self.remove(place).expect("the first key has a value") {
                Held::Whole(message) => due.leaving.push(Leaving { message, tags: vec![place.tag], due: true }),
                Held::Stub { number, bytes, .. } => {
                    self.recall(number, bytes);
                    due.recalled.push(place.tag);
                }
            }
        }
        due
    }

    /// Forgets the tombstones whose tasks did not arrive in time. Returns the tags that are done.
    pub(crate) fn ended(&mut self, now_ms: i64) -> Vec<Tag> {
        let mut done = Vec::new();
        while self.ends.first().is_some_and(|(end_ms, ..)| *end_ms <= now_ms) {
            done.extend(self.end_first());
        }
        done
    }

    /// The time of the next work, if no message arrives before.
    pub(crate) fn next_ms(&self) -> Option<i64> {
        // A stub that can't be recalled yet waits for the recalled ones.
        let first = self.tasks.first_key_value().filter(|(_, held)| !self.waits(held));
        let task = first.map(|(place, _)| place.due_ms);
        let end = self.ends.first().map(|(end_ms, ..)| *end_ms);
        task.into_iter().chain(end).min()
    }

    fn insert(&mut self, tag: Tag, message: Message, now_ms: i64) {
        let place = Place { due_ms: message.due_ms, seq: message.seq, tag };
        let (number, bytes) = (message.number, message.byte_len());
        self.places.insert(number, place);
        // A due task leaves at once.
        let held = if message.due_ms > now_ms && self.bytes + bytes > self.bytes_max {
            Held::Stub { number, fence: message.fence, bytes }
        } else {
            self.bytes += bytes;
            Held::Whole(message)
        };
        self.tasks.insert(place, held);
    }

    fn remove(&mut self, place: Place) -> Option<Held> {
        let held = self.tasks.remove(&place)?;
        let number = match &held {
            Held::Whole(message) => {
                self.bytes -= message.byte_len();
                message.number
            }
            Held::Stub { number, .. } => *number,
        };
        self.places.remove(&number);
        Some(held)
    }

    fn waits(&self, held: &Held) -> bool {
        matches!(held, Held::Stub { .. }) && self.recalled_bytes > self.bytes_max / 2
    }

    /// Stops waiting for recalled stubs: another process may have received them.
    pub(crate) fn forget_recalled(&mut self) {
        self.recalled.clear();
        self.recalled_bytes = 0;
    }

    fn recall(&mut self, number: u128, bytes: usize) {
        self.recalled_bytes += bytes;
        self.recalled.insert(number, bytes);
    }

    fn end_first(&mut self) -> Option<Tag> {
        let (_, serial, target) = self.ends.first().copied()?;
        let waiting = self.tombstones.get_mut(&target)?;
        let at = waiting.iter().position(|tombstone| tombstone.serial == serial)?;
        let tombstone = waiting.remove(at);
        if waiting.is_empty() {
            self.tombstones.remove(&target);
        }
        self.forget(&tombstone, target);
        tombstone.tag
    }

    fn forget(&mut self, tombstone: &Tombstone, target: u128) {
        self.ends.remove(&(tombstone.end_ms, tombstone.serial, target));
        self.unsettled -= usize::from(tombstone.tag.is_some());
    }
}

impl Held {
    fn fence(&self) -> u64 {
        match self {
            Self::Whole(message) => message.fence,
            Self::Stub { fence, .. } => *fence,
        }
    }
}

/// Changes a task; false if it is cancelled.
fn change(task: &mut Message, action: TombstoneAction) -> bool {
    match action {
        TombstoneAction::Cancel => return false,
        TombstoneAction::MoveTo(ms) => task.due_ms = ms,
        TombstoneAction::Shift(by_ms) => task.due_ms = task.due_ms.saturating_add(by_ms),
    }
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use delayline_core::{NewTask, TaskId};

    use super::*;

    const FAR: i64 = 5_000;

    fn task(number: u128, due_ms: i64, seq: u64) -> Message {
        let id = TaskId::new(format!("task-{number}")).unwrap();
        Message::new(NewTask::new(Duration::ZERO, "payload"), id, number, due_ms, seq, None)
    }

    fn tombstone(target: u128, due_ms: i64, seq: u64, action: TombstoneAction) -> Message {
        Message { kind: Kind::Tombstone { target, action }, ..task(1_000 + u128::from(seq), due_ms, seq) }
    }

    fn hold() -> Hold {
        Hold::new(100, 1 << 20, FAR)
    }

    fn numbers(due: &Due) -> Vec<u128> {
        assert!(due.recalled.is_empty());
        due.leaving.iter().map(|leaving| leaving.message.number).collect()
    }

    #[test]
    fn order_1_tasks_leave_by_due_time_and_sequence_and_none_before() {
        let mut hold = hold();
        for (tag, (due, seq)) in [(20, 4), (10, 9), (20, 3), (10, 8)].into_iter().enumerate() {
            let tag = tag as u64 + 1;
            assert_eq!(hold.arrived(tag, task(tag.into(), due, seq), 0), Arrived::Held);
        }
        assert_eq!(hold.next_ms(), Some(10));
        assert_eq!(hold.due(9, 10), Due::default());
        assert_eq!(numbers(&hold.due(10, 1)), [4]);
        assert_eq!(numbers(&hold.due(20, 10)), [2, 3, 1]);
        assert_eq!((hold.next_ms(), hold.bytes), (None, 0));
    }

    #[test]
    fn cancel_11_a_tombstone_takes_its_task_along_whichever_comes_first() {
        let mut hold = hold();
        assert_eq!(hold.arrived(1, task(1, 100, 1), 0), Arrived::Held);
        let cancel = |target, seq| tombstone(target, 100, seq, TombstoneAction::Cancel);
        assert_eq!(hold.arrived(2, cancel(1, 2), 0), Arrived::Done(vec![2, 1]));
        assert_eq!(hold.arrived(3, cancel(7, 3), 0), Arrived::Held);
        assert_eq!(hold.arrived(4, task(7, 100, 4), 0), Arrived::Done(vec![4, 3]));
        assert_eq!(hold.due(1_000, 9), Due::default());
        assert_eq!((hold.next_ms(), hold.bytes, hold.unsettled), (None, 0, 0));
    }

    #[test]
    fn cancel_11_changes_apply_in_the_order_of_the_requests() {
        let mut hold = hold();
        hold.arrived(2, tombstone(1, 100, 2, TombstoneAction::Shift(-10)), 0);
        hold.arrived(3, tombstone(1, 100, 1, TombstoneAction::MoveTo(500)), 0);
        let Arrived::Leaves(leaving) = hold.arrived(1, task(1, 100, 0), 0) else { panic!("it stays") };
        assert_eq!((leaving.message.due_ms, leaving.tags, leaving.due), (490, vec![1, 3, 2], false));
    }

    #[test]
    fn leak_1_a_tombstone_without_a_task_ends() {
        let mut hold = hold();
        assert_eq!(hold.arrived(1, tombstone(1, 100, 1, TombstoneAction::Cancel), 0), Arrived::Held);
        assert!(hold.ended(99 + KEEP_MS).is_empty());
        assert_eq!(hold.ended(100 + KEEP_MS), [1]);
        assert_eq!((hold.next_ms(), hold.tombstones.len(), hold.unsettled), (None, 0, 0));
    }

    #[test]
    fn bound_15_tombstones_leave_room_for_tasks_and_still_work() {
        let mut hold = Hold::new(8, 1 << 20, FAR);
        let arrive = |hold: &mut Hold, n: u64| hold.arrived(n, tombstone(n.into(), 100, n, TombstoneAction::Cancel), 0);
        assert_eq!(arrive(&mut hold, 1), Arrived::Held);
        assert_eq!(arrive(&mut hold, 2), Arrived::Held);
        assert_eq!(arrive(&mut hold, 3), Arrived::Done(vec![3]));
        assert_eq!(hold.arrived(9, task(3, 100, 9), 0), Arrived::Done(vec![9]));
        assert_eq!(hold.arrived(10, task(1, 100, 9), 0), Arrived::Done(vec![10, 1]));
        assert_eq!(arrive(&mut hold, 4), Arrived::Held);
    }

    #[test]
    fn dup_1_of_two_copies_the_one_that_was_claimed_last_is_held() {
        let mut hold = hold();
        hold.arrived(1, task(1, 100, 1), 0);
        assert_eq!(hold.arrived(2, task(1, 100, 1), 0), Arrived::Done(vec![2]));
        let claimed = Message { fence: 5, ..task(1, 200, 1) };
        assert_eq!(hold.arrived(3, claimed, 0), Arrived::Done(vec![1]));
        let left = hold.due(200, 9).leaving;
        assert_eq!((left.len(), left[0].message.fence, left[0].tags.clone()), (1, 5, vec![3]));
    }

    #[test]
    fn bound_15_beyond_its_bytes_it_holds_stubs_and_recalls_them() {
        let one = task(1, 100, 1).byte_len();
        let mut hold = Hold::new(100, 2 * one, FAR);
        for n in 1..=6 {
            assert_eq!(hold.arrived(n, task(n.into(), 100, n), 0), Arrived::Held);
        }
        assert_eq!(hold.bytes, 2 * one);
        // A cancelled stub needs no payload; one that is moved does.
        let cancel = tombstone(5, 100, 11, TombstoneAction::Cancel);
        assert_eq!(hold.arrived(11, cancel, 0), Arrived::Done(vec![11, 5]));
        let later = tombstone(6, 100, 12, TombstoneAction::MoveTo(400));
        assert_eq!(hold.arrived(12, later, 0), Arrived::Recalled(vec![6]));
        let Arrived::Leaves(moved) = hold.arrived(13, task(6, 100, 6), 0) else { panic!("it stays") };
        assert_eq!((moved.message.due_ms, moved.tags), (400, vec![13, 12]));
        let due = hold.due(100, 10);
        assert_eq!((due.leaving.len(), due.recalled), (2, vec![3, 4]));
        for (tag, n) in [(23, 3_u64), (24, 4)] {
            assert_eq!(hold.arrived(tag, task(n.into(), 100, n), 100), Arrived::Held);
        }
        assert_eq!(numbers(&hold.due(100, 10)), [3, 4]);
        assert_eq!((hold.bytes, hold.recalled_bytes, hold.recalled.len(), hold.unsettled), (0, 0, 0, 0));
    }

    #[test]
    fn what_is_due_far_away_goes_on_its_way_anew() {
        let mut hold = hold();
        let Arrived::Leaves(leaving) = hold.arrived(1, task(1, FAR + 1, 1), 0) else { panic!("it stays") };
        assert!(!leaving.due);
        let late = tombstone(2, FAR + 1, 1, TombstoneAction::Cancel);
        assert!(matches!(hold.arrived(2, late, 0), Arrived::Leaves(_)));
    }
}
