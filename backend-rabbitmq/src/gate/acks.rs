//! Acknowledgements at the gate. Messages are done in another order than they arrived, and the broker searches for each
//! acknowledged message among all unacknowledged ones, from the oldest on.
//!
//! With 30,000 held tasks, single acknowledgements in the order of due times cost the broker twenty seconds. So a round
//! contains only as many single acknowledgements as the broker finds quickly. The others wait until everything before
//! them is done, so that one acknowledgement covers them all, or until fewer messages are held.

use std::collections::{BTreeMap, BTreeSet};

use super::hold::Tag;

/// Maximum number of steps of the broker's search for the acknowledgements of one round: a few milliseconds of one
/// core.
pub(super) const STEPS_MAX: usize = 100_000;

/// Number, fence and due time: they identify a copy of a task. A claim raises the fence, a change moves the due time.
pub(super) type Copied = (u128, u64, i64);

/// The unacknowledged messages of one channel.
#[derive(Debug, Default)]
pub(super) struct Acks {
    unsettled: BTreeSet<Tag>,
    /// Those that are done; with the identity of the task if it is in the ready queue.
    done: BTreeMap<Tag, Option<Copied>>,
}

/// The acknowledgements to send now.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Round {
    /// Each tag, and whether it covers everything before it.
    pub(super) tags: Vec<(Tag, bool)>,
    pub(super) copies: Vec<Copied>,
}

impl Acks {
    pub(super) fn arrived(&mut self, tag: Tag) {
        self.unsettled.insert(tag);
    }

    /// Removes a message that returns to the broker.
    pub(super) fn recalled(&mut self, tag: Tag) {
        self.unsettled.remove(&tag);
        self.done.remove(&tag);
    }

    pub(super) fn done(&mut self, tag: Tag, copied: Option<Copied>) {
        if self.unsettled.contains(&tag) {
            self.done.insert(tag, copied);
        }
    }

    /// Whether acknowledgements wait.
    pub(super) fn is_behind(&self) -> bool {
        !self.done.is_empty()
    }

    /// Takes the acknowledgements to send now. `steps_max` limits the broker's search for single acknowledgements.
    pub(super) fn round(&mut self, steps_max: usize) -> Round {
        let mut round = Round::default();
        let mut together = None;
        while let Some(first) = self.unsettled.first()
            && let Some(copied) = self.done.remove(first)
        {
            round.copies.extend(copied);
            together = self.unsettled.pop_first();
        }
        round.tags.extend(together.map(|tag| (tag, true)));
        let alone = (steps_max / self.unsettled.len().max(1)).max(1);
        for _ in 0..alone {
            let Some((tag, copied)) = self.done.pop_first() else { break };
            self.unsettled.remove(&tag);
            round.tags.push((tag, false));
            round.copies.extend(copied);
        }
        round
    }

    /// When the channel is lost: the messages that are in the ready queue and were not acknowledged here.
    pub(super) fn copies(self) -> impl Iterator<Item = Copied> {
        self.done.into_values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(tags: impl IntoIterator<Item = Tag>) -> Acks {
        let mut acks = Acks::default();
        tags.into_iter().for_each(|tag| acks.arrived(tag));
        acks
    }

    fn round(acks: &mut Acks, done: impl IntoIterator<Item = Tag>, steps_max: usize) -> Vec<(Tag, bool)> {
        done.into_iter().for_each(|tag| acks.done(tag, None));
        acks.round(steps_max).tags
    }

    #[test]
    fn a_round_covers_what_is_done_and_nothing_else() {
        let mut acks = acks(1..=10);
        assert_eq!(round(&mut acks, [2, 1, 5], 1_000), [(2, true), (5, false)]);
        assert_eq!(round(&mut acks, [4], 1_000), [(4, false)]);
        assert_eq!(round(&mut acks, [3, 3, 99], 1_000), [(3, true)]);
        acks.recalled(6);
        assert_eq!(round(&mut acks, 7..=10, 1_000), [(10, true)]);
        assert!(round(&mut acks, [], 1_000).is_empty());
    }

    #[test]
    fn what_is_far_to_look_for_waits_for_what_is_before_it() {
        let mut acks = acks(1..=100);
        // Every second one: two of them by themselves in each round.
        assert_eq!(round(&mut acks, (1..=50).map(|n| n * 2), 200), [(2, false), (4, false)]);
        assert!(acks.is_behind());
        assert_eq!(round(&mut acks, [], 200), [(6, false), (8, false)]);
        let all = round(&mut acks, (1..=50).map(|n| n * 2 - 1), 200);
        assert_eq!(all, [(100, true)]);
        assert!(!acks.is_behind());
    }

    #[test]
    fn what_is_not_acknowledged_when_the_channel_is_lost_is_remembered() {
        let mut acks = acks(1..=3);
        for tag in [2, 3] {
            acks.done(tag, Some((u128::from(tag), 0, 0)));
        }
        let sent = acks.round(1);
        assert_eq!((sent.tags, sent.copies), (vec![(2, false)], vec![(2, 0, 0)]));
        assert_eq!(acks.copies().collect::<Vec<_>>(), [(3, 0, 0)]);
    }
}
