//! DROP: every future may be dropped at any await point. Here are the calls of the trait; those of `Queue`, `Consumer`,
//! `Delivery` and `Worker` are in `drop_calls`.

use std::time::Duration;

use delayline_core::{
    AdminOp, Change, Claim, DeadLetterOp, DeadLetterSelect, Disposition, Lease, Page, Select, Shift,
    SubscriptionOptions,
};

use crate::dropping::stage::{Expect, Stage, TASKS, dropped_everywhere, operations, room};
use crate::trial::{LONG_LEASE, Trial};

const NOTHING: Expect = Expect::NOTHING;
const ALL_MAY_END: Expect = Expect { may_end: &TASKS, ..NOTHING };
const A_MAY_END: Expect = Expect { may_end: &["a"], ..NOTHING };
const A_MAY_DIE: Expect = Expect { may_die: &["a"], ..NOTHING };
const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(1);

pub async fn drop_1_a_dropped_call_has_done_each_item_or_not(t: &Trial) {
    let operations = operations![
        "schedule" [] Expect { may_come: &["x", "y"], ..NOTHING }, |s| {
            let tasks = vec![s.task("x"), s.task("y")];
            async move { all_ok(s.backend.schedule(&s.name, tasks).await) }
        }
        "schedule what is there" [UniqueIds] NOTHING, |s| {
            let tasks = TASKS.map(|key| s.task(key)).to_vec();
            async move { all_ok(s.backend.schedule(&s.name, tasks).await) }
        }
        "schedule in its place" [UniqueIds Replace] NOTHING, |s| {
            let tasks = TASKS.map(|key| s.task(key).replace()).to_vec();
            async move { all_ok(s.backend.schedule(&s.name, tasks).await) }
        }
        "complete" [] Expect { may_end: &["a", "b"], ..NOTHING }, |s| {
            let dispositions = dispositions(s, &Disposition::Complete).await;
            async move { all_ok(s.backend.settle(&s.name, dispositions).await) }
        }
        "retry" [] Expect { may_cost: &["a", "b"], ..NOTHING }, |s| {
            let dispositions = dispositions(s, &Disposition::Retry { after: SOON, reason: "no".into() }).await;
            async move { all_ok(s.backend.settle(&s.name, dispositions).await) }
        }
        "snooze" [] NOTHING, |s| {
            let dispositions = dispositions(s, &Disposition::Snooze { after: SOON }).await;
            async move { all_ok(s.backend.settle(&s.name, dispositions).await) }
        }
        "dead-letter" [] Expect { may_die: &["a", "b"], ..NOTHING }, |s| {
            let dispositions = dispositions(s, &Disposition::DeadLetter { reason: "no".into() }).await;
            async move { all_ok(s.backend.settle(&s.name, dispositions).await) }
        }
        "release" [] NOTHING, |s| {
            let dispositions = dispositions(s, &Disposition::Release).await;
            async move { all_ok(s.backend.settle(&s.name, dispositions).await) }
        }
        "extend" [Extend] NOTHING, |s| {
            let leases = dispositions(s, &Disposition::Complete).await.into_iter().map(|(lease, _)| lease).collect();
            let by = LONG_LEASE.min(s.t.caps().lease_max);
            async move { all_ok(s.backend.extend(&s.name, leases, by).await) }
        }
    ];
    dropped_everywhere(t, operations).await;
}

pub async fn drop_2_a_dropped_subscription_loses_nothing(t: &Trial) {
    let operations = operations![
        "subscription" [] NOTHING, |s| {
            async move {
                let subscription = s.backend.subscribe(&s.name, SubscriptionOptions::default()).await.unwrap();
                *s.subscription.lock().await = Some(subscription);
            }
        }
        "claim" [] NOTHING, |s| {
            s.open_subscription().await;
            let lease = LONG_LEASE.min(s.t.caps().lease_max);
            async move {
                let mut subscription = s.subscription.lock().await;
                let claimed = subscription.as_mut().unwrap().claim(Claim::new(2, lease)).await.unwrap();
                s.taken.lock().await.extend(claimed.deliveries);
            }
        }
        "claim and wait" [] NOTHING, |s| {
            // Others have what is due, so that it waits.
            let taken = s.take(TASKS.len()).await;
            s.taken.lock().await.extend(taken);
            let lease = LONG_LEASE.min(s.t.caps().lease_max);
            async move {
                let mut subscription = s.subscription.lock().await;
                let subscription = subscription.as_mut().unwrap();
                assert!(subscription.claim(Claim::new(1, lease)).await.unwrap().deliveries.is_empty());
                subscription.wait(SOON).await;
            }
        }
        "close the subscription" [] NOTHING, |s| {
            let taken = s.take(1).await;
            s.taken.lock().await.extend(taken);
            let subscription = s.subscription.lock().await.take().unwrap();
            async move { subscription.close().await.unwrap() }
        }
    ];
    dropped_everywhere(t, operations).await;
}

pub async fn drop_11_a_dropped_change_has_changed_some_or_all(t: &Trial) {
    let operations = operations![
        "cancel" [Cancel] A_MAY_END, |s| { change_a(s, Change::cancel()) }
        "cancel as an operation" [Cancel Operations] A_MAY_END, |s| {
            change_a(s, Change::cancel().operation(s.t.operation()))
        }
        "cancel in flight" [Cancel] A_MAY_END, |s| {
            let taken = s.take(1).await;
            s.taken.lock().await.extend(taken);
            change_a(s, Change::cancel())
        }
        "move" [Reschedule] NOTHING, |s| { change_a(s, Change::move_to(SOON)) }
        "shift later" [Reschedule] NOTHING, |s| { change_a(s, Change::shift(Shift::Later(SOON))) }
        "shift sooner" [Reschedule] NOTHING, |s| { change_a(s, Change::shift(Shift::Sooner(HOUR))) }
        "cancel the group" [Groups Cancel] ALL_MAY_END, |s| { change_room(s, Change::cancel()) }
        "cancel the group as an operation" [Groups Cancel Operations] ALL_MAY_END, |s| {
            change_room(s, Change::cancel().operation(s.t.operation()))
        }
        "move the group" [Groups Reschedule] NOTHING, |s| { change_room(s, Change::move_to(SOON)) }
        "shift the group" [Groups Reschedule] NOTHING, |s| { change_room(s, Change::shift(Shift::Later(SOON))) }
    ];
    dropped_everywhere(t, operations).await;
}

pub async fn drop_11_a_dropped_redrive_purge_or_delete_has_done_some_or_all(t: &Trial) {
    let operations = operations![
        "redrive" [DeadLetters] A_MAY_DIE, |s| {
            s.dead_letter_a().await;
            dead(s, DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None })
        }
        "redrive by id" [DeadLetters] A_MAY_DIE, |s| {
            s.dead_letter_a().await;
            dead(s, DeadLetterOp::Redrive { select: DeadLetterSelect::Ids(vec![s.t.id("a")]), rate: Some(1_000.0) })
        }
        "purge" [DeadLetters] Expect { must_end: &["a"], ..NOTHING }, |s| {
            s.dead_letter_a().await;
            dead(s, DeadLetterOp::Purge { select: DeadLetterSelect::All })
        }
        "pause" [Pause] NOTHING, |s| { administer(s, AdminOp::Pause) }
        "resume" [Pause] NOTHING, |s| {
            s.backend.administer(&s.name, AdminOp::Pause).await.unwrap();
            administer(s, AdminOp::Resume)
        }
        "delete" [Delete] ALL_MAY_END, |s| { administer(s, AdminOp::Delete) }
        "delete in flight" [Delete] ALL_MAY_END, |s| {
            let taken = s.take(2).await;
            s.taken.lock().await.extend(taken);
            administer(s, AdminOp::Delete)
        }
    ];
    dropped_everywhere(t, operations).await;
}

pub async fn drop_12_a_dropped_look_changes_nothing(t: &Trial) {
    let operations = operations![
        "find" [Inspect] NOTHING, |s| {
            async move { assert!(s.backend.find(&s.name, &s.t.id("a")).await.unwrap().is_some()) }
        }
        "list" [Inspect] NOTHING, |s| {
            async move { assert!(!s.backend.list(&s.name, Page::first(10)).await.unwrap().is_empty()) }
        }
        "list the dead letters" [DeadLetters] A_MAY_DIE, |s| {
            s.dead_letter_a().await;
            dead(s, DeadLetterOp::List { after: None, limit: 10 })
        }
        "stats" [Stats] NOTHING, |s| { async move { s.backend.stats(&s.name).await.map(drop).unwrap() } }
        "queues" [Stats] NOTHING, |s| {
            async move { assert!(s.backend.queues().await.unwrap().contains(&s.name)) }
        }
        "ping" [] NOTHING, |s| { async move { s.backend.ping().await.unwrap() } }
    ];
    dropped_everywhere(t, operations).await;
}

/// Takes `a` and `b`, whose leases stay known to the stage, and gives both this disposition.
async fn dispositions(s: &Stage<'_>, disposition: &Disposition) -> Vec<(Lease, Disposition)> {
    let taken = s.take(2).await;
    let dispositions = taken.iter().map(|task| (task.lease.clone(), disposition.clone())).collect();
    s.taken.lock().await.extend(taken);
    dispositions
}

fn all_ok<T>(answer: delayline_core::Result<Vec<delayline_core::Result<T>>>) {
    for item in answer.unwrap() {
        item.map(drop).unwrap();
    }
}

async fn change_a(s: &Stage<'_>, change: Change) {
    let changed = s.backend.change(&s.name, Select::Tasks(vec![s.a()]), change).await.unwrap();
    assert_eq!((changed.outcomes.len(), changed.not_found, changed.refused), (1, 0, 0), "{changed:?}");
}

async fn change_room(s: &Stage<'_>, change: Change) {
    let changed = s.backend.change(&s.name, Select::Group(room()), change).await.unwrap();
    assert_eq!(changed.changed, TASKS.len() as u64, "{changed:?}");
}

async fn dead(s: &Stage<'_>, op: DeadLetterOp) {
    let answer = s.backend.dead_letters(&s.name, op).await.unwrap();
    assert_eq!(answer.affected + answer.letters.len() as u64, 1, "{answer:?}");
}

async fn administer(s: &Stage<'_>, op: AdminOp) {
    s.backend.administer(&s.name, op).await.unwrap();
}
