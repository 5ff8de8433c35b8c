//! Changes, dead letters and listings, in pieces and while tasks move.

use std::future::Future;
use std::task::{Context, Waker};
use std::time::Duration;

use delayline_core::{
    Change, ChangeOutcome, DeadLetterOp, DeadLetterSelect, DelayBackend, Disposition, ErrorKind, GroupName, NewTask,
    OperationId, Page, Select, Shift,
};
use delayline_memory::MemoryBackend;

use crate::support::{LEASE, claim, key, ms, open, put, q, ready, settle};

#[tokio::test(start_paused = true)]
async fn cancel_3_in_flight_is_marked_told_at_the_extension_and_never_redelivered() {
    let backend = MemoryBackend::new();
    let mut subscription = open(&backend).await;
    for disposition in
        [None, Some(Disposition::Release), Some(Disposition::Retry { after: ms(0), reason: "again".into() })]
    {
        let task = put(&backend, NewTask::new(ms(0), "")).await.unwrap();
        let claimed = claim(&mut subscription, 1).await.deliveries.remove(0);
        let cancel = Select::Tasks(vec![task.clone()]);
        let changed = backend.change(&q(), cancel.clone(), Change::cancel()).await.unwrap();
        assert_eq!(changed.outcomes[0].as_ref().unwrap(), &ChangeOutcome::InFlight);
        let extended = backend.extend(&q(), vec![claimed.lease.clone()], LEASE).await.unwrap().remove(0).unwrap();
        assert!(extended.cancelled);
        match disposition {
            Some(disposition) => settle(&backend, claimed, disposition).await.unwrap(),
            None => tokio::time::advance(LEASE).await,
        }
        assert!(claim(&mut subscription, 1).await.deliveries.is_empty());
        let changed = backend.change(&q(), cancel, Change::cancel()).await.unwrap();
        assert_eq!(changed.outcomes[0].as_ref().unwrap(), &ChangeOutcome::NotFound);
    }
}

#[tokio::test(start_paused = true)]
async fn cancel_7_a_repeated_operation_changes_each_task_once_also_when_it_was_dropped_half_way() {
    let backend = MemoryBackend::new();
    let room = GroupName::new("room").unwrap();
    let batch = (0..10_000).map(|_| NewTask::new(Duration::from_secs(3600), "").group(room.clone())).collect();
    backend.schedule(&q(), batch).await.unwrap();
    let shift = Change::shift(Shift::Later(Duration::from_secs(600))).operation(OperationId::random());
    let dropped = ready(backend.change(&q(), Select::Group(room.clone()), shift.clone()));
    assert!(dropped.is_none(), "10,000 take more than one piece");
    let half = backend.list(&q(), Page::first(1)).await.unwrap()[0].visible_at;
    put(&backend, NewTask::new(Duration::from_secs(3600), "later").group(room.clone())).await.unwrap();
    for _ in 0..2 {
        let changed = backend.change(&q(), Select::Group(room.clone()), shift.clone()).await.unwrap();
        assert_eq!((changed.changed, changed.in_flight, changed.refused), (10_000, 0, 0));
    }
    let first = &backend.list(&q(), Page::first(2)).await.unwrap();
    assert_eq!(first[0].payload, "later", "what came after the change began is left alone");
    assert_eq!(first[1].visible_at.saturating_since(half), Duration::from_secs(600));
    tokio::time::advance(Duration::from_secs(4200)).await;
    assert_eq!(backend.stats(&q()).await.unwrap().due, 10_001, "none was shifted twice");

    let other = Change::cancel().operation(shift.operation.unwrap());
    let reused = backend.change(&q(), Select::Group(room.clone()), other).await;
    assert!(reused.is_ok(), "forgotten after its window");
}

#[tokio::test(start_paused = true)]
async fn cancel_8_an_operation_id_names_one_change() {
    let backend = MemoryBackend::new();
    let task = put(&backend, NewTask::new(Duration::from_secs(60), "")).await.unwrap();
    let select = || Select::Tasks(vec![task.clone()]);
    let id = OperationId::random();
    let shift = Change::shift(Shift::Later(ms(500))).operation(id);
    let first = backend.change(&q(), select(), shift.clone()).await.unwrap();
    let again = backend.change(&q(), select(), shift).await.unwrap();
    assert_eq!((first.changed, again.changed, again.outcomes.len()), (1, 1, 1));
    let view = backend.find(&q(), &task.id).await.unwrap().unwrap();
    assert_eq!(view.visible_at.saturating_since(task.due_at.unwrap()), ms(500));
    let misused = backend.change(&q(), select(), Change::cancel().operation(id)).await;
    assert_eq!(misused.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn loss_8_dead_letters_are_redriven_at_a_rate_and_page_by_page() {
    let backend = MemoryBackend::new();
    let mut subscription = open(&backend).await;
    let batch = (0..3_000).map(|i| NewTask::new(ms(0), format!("{i}"))).collect();
    backend.schedule(&q(), batch).await.unwrap();
    for task in claim(&mut subscription, 5_000).await.deliveries {
        settle(&backend, task, Disposition::DeadLetter { reason: "poison".into() }).await.unwrap();
    }
    let (mut seen, mut after) = (0, None);
    loop {
        let page = backend.dead_letters(&q(), DeadLetterOp::List { after, limit: 700 }).await.unwrap();
        for letter in &page.letters {
            assert_eq!((letter.payload.to_vec(), letter.reason.as_str()), (format!("{seen}").into_bytes(), "poison"));
            seen += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, 3_000);
    for (rate, kind) in [(0.0, ErrorKind::Invalid), (f64::NAN, ErrorKind::Invalid), (1e-9, ErrorKind::OutOfRange)] {
        let op = DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: Some(rate) };
        assert_eq!(backend.dead_letters(&q(), op).await.unwrap_err().kind(), kind);
    }
    let op = DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: Some(1_000.0) };
    assert_eq!(backend.dead_letters(&q(), op).await.unwrap().affected, 3_000);
    tokio::time::advance(ms(1_500)).await;
    let claimed = claim(&mut subscription, 5_000).await.deliveries;
    assert!((1_500..=1_502).contains(&claimed.len()), "{}", claimed.len());
    assert_eq!((claimed[0].lease.attempt, claimed[7].payload.to_vec()), (1, b"7".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn cancel_8_an_operation_id_given_to_another_selection_is_refused_and_keeps_its_progress() {
    let backend = MemoryBackend::new();
    let room = |name: &str| GroupName::new(name).unwrap();
    for name in ["a", "b"] {
        let batch = (0..5_000).map(|_| NewTask::new(Duration::from_secs(60), "").group(room(name))).collect();
        backend.schedule(&q(), batch).await.unwrap();
    }
    let shift = Change::shift(Shift::Later(Duration::from_secs(60))).operation(OperationId::random());
    assert!(ready(backend.change(&q(), Select::Group(room("a")), shift.clone())).is_none());
    for other in [Select::Group(room("b")), Select::Tasks(vec![key("x").into()])] {
        let refused = backend.change(&q(), other, shift.clone()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let changed = backend.change(&q(), Select::Group(room("a")), shift).await.unwrap();
    assert_eq!(changed.changed, 5_000);
    tokio::time::advance(Duration::from_secs(119)).await;
    assert_eq!(backend.stats(&q()).await.unwrap().due, 5_000, "room b at once, room a each a minute later");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(backend.stats(&q()).await.unwrap().due, 10_000, "none twice");
}

#[tokio::test(start_paused = true)]
async fn clear_9_a_task_that_stays_is_listed_also_when_the_end_of_a_page_moves_meanwhile() {
    let backend = MemoryBackend::new();
    let mut subscription = open(&backend).await;
    for (name, wait) in [("a", 0), ("b", 0), ("c", 10_000)] {
        put(&backend, NewTask::new(ms(wait), "").id(key(name))).await.unwrap();
    }
    // So many that a listing takes more than one piece.
    let fillers = (0..40_000).map(|_| NewTask::new(Duration::from_secs(3600), "")).collect();
    backend.schedule(&q(), fillers).await.unwrap();
    let queue = q();
    let mut first = Box::pin(backend.list(&queue, Page::first(2)));
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(claim(&mut subscription, 2).await.deliveries.len(), 2);
    let first = first.await.unwrap();
    assert_eq!(first.len(), 2);
    let next = backend.list(&queue, Page::after(&first[1], 1)).await.unwrap();
    assert_eq!(next[0].task.id, key("c"));
}
