//! The kind of a message and its headers: a task, a dead letter, or a tombstone.

use delayline_core::DeadLetterCause;
use lapin::types::{AMQPValue, FieldTable};

use super::table::{long, number, string, text};

/// The kind of a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Task,
    /// A dead-lettered task.
    Dead {
        cause: DeadLetterCause,
        dead_lettered_ms: i64,
    },
    /// Travels ahead of a task and changes it when it arrives.
    Tombstone {
        target: u128,
        action: TombstoneAction,
    },
}

/// The change of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TombstoneAction {
    Cancel,
    /// Makes it visible at this millisecond.
    MoveTo(i64),
    /// Makes it visible this many milliseconds later, or sooner if negative.
    Shift(i64),
}

/// Why a message is foreign or corrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Foreign(pub(crate) &'static str);

impl Kind {
    /// Writes the kind into the headers, with `put`.
    pub(super) fn put(&self, mut put: impl FnMut(&str, AMQPValue)) {
        match self {
            Kind::Task => {}
            Kind::Dead { cause, dead_lettered_ms } => {
                put("cause", text(cause.as_str()));
                put("buried", long(*dead_lettered_ms));
            }
            Kind::Tombstone { target, action } => {
                put("target", text(&to_hex(*target)));
                match action {
                    TombstoneAction::Cancel => {}
                    TombstoneAction::MoveTo(to) => put("to", long(*to)),
                    TombstoneAction::Shift(by) => put("by", long(*by)),
                }
            }
        }
    }

    /// Reads the kind from the headers.
    pub(super) fn read(table: &FieldTable) -> Result<Self, Foreign> {
        if let Some(target) = string(table, "target") {
            let action = match (number(table, "to"), number(table, "by")) {
                (None, None) => TombstoneAction::Cancel,
                (Some(to), None) => TombstoneAction::MoveTo(to),
                (None, Some(by)) => TombstoneAction::Shift(by),
                (Some(_), Some(_)) => return Err(Foreign("it has both `to` and `by`")),
            };
            return Ok(Self::Tombstone {
                target: from_hex(&target).ok_or(Foreign("its `target` is not a task number"))?,
                action,
            });
        }
        let Some(cause) = string(table, "cause") else { return Ok(Self::Task) };
        let causes = [DeadLetterCause::AttemptsUsedUp, DeadLetterCause::Expired, DeadLetterCause::Requested];
        let cause = causes.into_iter().find(|c| c.as_str() == cause).ok_or(Foreign("its `cause` is unknown"))?;
        Ok(Self::Dead { cause, dead_lettered_ms: number(table, "buried").ok_or(Foreign("it has no `buried`"))? })
    }
}

/// A number as text: 32 hexadecimal digits.
pub(super) fn to_hex(number: u128) -> String {
    format!("{number:032x}")
}

pub(super) fn from_hex(text: &str) -> Option<u128> {
    if text.len() != 32 {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}
