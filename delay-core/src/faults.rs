//! Faults that the interleaving tests plant, to prove that they would find them. Only those tests compile this module.

use std::cell::Cell;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `wait` forgets the notifications since the last claim.
    NotificationForgotten,
    /// The task of a group commit sees its inbox empty and ends in two separate steps.
    CommitEndsLate,
    /// A caller of a group commit leaves its item behind when it is dropped.
    ItemLeftBehind,
    /// Both the handler and the shutdown settle a task.
    TakenTwice,
    /// The keeper of leases notices a new task only if it waits at that moment.
    KeeperNotTold,
}

thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Plants a fault for the executions that this thread makes from now on.
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Whether this one is planted.
#[must_use]
pub fn is_planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}
