//! Every operation that a call of the trait can carry, with the capability that declares it. The conformance suite
//! requests each of them from each backend.
//!
//! [`AdminOp`], [`DeadLetterOp`], [`DeadLetterSelect`](crate::DeadLetterSelect) and [`Change`] may grow, so other
//! crates match them with a wildcard arm that returns `Unsupported`. One of the included backends must not reject a new
//! operation in this way merely because nobody implemented it. The match here is therefore exhaustive: a new operation
//! that is missing from its list does not compile, and once it is listed, the suite requests it from every backend
//! (`cancel_11_every_operation_of_what_is_declared_is_there`).

use std::time::Duration;

use crate::{
    Action, AdminOp, Capabilities, Change, DeadLetterOp, DeadLetterSelect, Due, OperationId, Shift, Support, TaskId,
};

/// Lists values of a type, each with the pattern that it matches. Together, the patterns must cover the type.
macro_rules! every {
    ($type:ty; $($pattern:pat => $value:expr, $declared:expr;)+) => {{
        let covered = |value: &$type| match value {
            $($pattern => {})+
        };
        let listed = vec![$({
            let value: $type = $value;
            assert!(matches!(value, $pattern), "{value:?} stands beside the pattern of another");
            covered(&value);
            (value, $declared)
        }),+];
        listed
    }};
}

/// Every operation of [`administer`](crate::DelayBackend::administer), and what the backend declares for it.
#[must_use]
pub fn admin_ops(caps: &Capabilities) -> Vec<(AdminOp, Support)> {
    every! { AdminOp;
        AdminOp::Pause => AdminOp::Pause, caps.pause;
        AdminOp::Resume => AdminOp::Resume, caps.pause;
        AdminOp::Delete => AdminOp::Delete, caps.delete;
    }
}

/// Every operation of [`dead_letters`](crate::DelayBackend::dead_letters), and what the backend declares for it.
#[must_use]
pub fn dead_letter_ops(caps: &Capabilities, id: &TaskId) -> Vec<(DeadLetterOp, Support)> {
    let (has, limit, rate) = (caps.dead_letters, 1, Some(1000.0));
    let one = || DeadLetterSelect::Ids(vec![id.clone()]);
    every! { DeadLetterOp;
        DeadLetterOp::List { after: None, limit: _ } => DeadLetterOp::List { after: None, limit }, has;
        DeadLetterOp::List { after: Some(_), limit: _ } => DeadLetterOp::List { after: Some(0), limit }, has;
        DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None } =>
            DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None }, has;
        DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: Some(_) } =>
            DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate }, has;
        DeadLetterOp::Redrive { select: DeadLetterSelect::Ids(_), rate: None } =>
            DeadLetterOp::Redrive { select: one(), rate: None }, has;
        DeadLetterOp::Redrive { select: DeadLetterSelect::Ids(_), rate: Some(_) } =>
            DeadLetterOp::Redrive { select: one(), rate }, has;
        DeadLetterOp::Purge { select: DeadLetterSelect::All } => DeadLetterOp::Purge { select: DeadLetterSelect::All }, has;
        DeadLetterOp::Purge { select: DeadLetterSelect::Ids(_) } => DeadLetterOp::Purge { select: one() }, has;
    }
}

/// Every change of [`change`](crate::DelayBackend::change), and what the backend declares for it on single tasks. None
/// of them moves a task by more than a second.
#[must_use]
pub fn changes(caps: &Capabilities) -> Vec<(Change, Support)> {
    let (cancel, reschedule, second) = (caps.cancel, caps.reschedule, Duration::from_secs(1));
    let change = |action| Change { action, operation: None };
    let repeatable = |action| Change { action, operation: Some(OperationId::random()) };
    every! { Change;
        Change { action: Action::MoveTo(Due::After(_)), operation: None } =>
            change(Action::MoveTo(Due::After(second))), reschedule;
        Change { action: Action::MoveTo(Due::At(_)), operation: None } =>
            change(Action::MoveTo(Due::At(crate::Timestamp::UNIX_EPOCH))), reschedule;
        Change { action: Action::Shift(Shift::Later(_)), operation: None } =>
            change(Action::Shift(Shift::Later(second))), reschedule;
        Change { action: Action::Shift(Shift::Sooner(_)), operation: None } =>
            change(Action::Shift(Shift::Sooner(second))), reschedule;
        Change { action: Action::MoveTo(_) | Action::Shift(_), operation: Some(_) } =>
            repeatable(Action::MoveTo(Due::After(second))), reschedule;
        Change { action: Action::Cancel, operation: Some(_) } => repeatable(Action::Cancel), cancel;
        Change { action: Action::Cancel, operation: None } => change(Action::Cancel), cancel;
    }
}
