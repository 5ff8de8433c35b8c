//! Rows that other transactions hold, that nobody of ours wrote, or that are too many.

use std::collections::BTreeMap;

use delayline_core::{
    Change, ChangeOutcome, Claim, ClaimedTask, DeadLetterOp, DeadLetterSelect, DelayBackend, Disposition, Due,
    ErrorKind, GroupName, NewTask, QueueName, Reason, ScheduleOutcome, Select, Shift, SubscriptionOptions, TaskId,
};
use sqlx::{Connection, PgConnection};

use super::*;
use crate::PostgresBackend;

const LEASE: Duration = Duration::from_secs(60);

async fn backend(server: &Postgres) -> PostgresBackend {
    let config = PostgresConfig::from_url(&server.url()).unwrap().dead_letters_max(7);
    PostgresBackend::connect(config).await.unwrap()
}

fn name() -> QueueName {
    QueueName::new("exam").unwrap()
}

fn id(n: u32) -> TaskId {
    TaskId::new(format!("task-{n:03}")).unwrap()
}

fn task(n: u32) -> NewTask {
    NewTask::new(Duration::ZERO, format!("{n}")).id(id(n))
}

async fn put(backend: &PostgresBackend, tasks: impl IntoIterator<Item = NewTask>) {
    for answer in backend.schedule(&name(), tasks.into_iter().collect()).await.unwrap() {
        assert_eq!(answer.unwrap().outcome, ScheduleOutcome::Created);
    }
}

async fn claim(backend: &PostgresBackend, max: usize) -> Vec<ClaimedTask> {
    let mut subscription = backend.subscribe(&name(), SubscriptionOptions::default()).await.unwrap();
    subscription.claim(Claim::new(max, LEASE)).await.unwrap().deliveries
}

/// A transaction of somebody's, which has run this and is not over.
async fn somebody(server: &Postgres, sql: &str) -> PgConnection {
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("BEGIN; {sql}"))).execute(&mut connection).await.unwrap();
    connection
}

async fn end(mut somebody: PgConnection) {
    sqlx::raw_sql("ROLLBACK").execute(&mut somebody).await.unwrap();
    somebody.close().await.unwrap();
}

fn lock(n: u32) -> String {
    format!("SELECT 1 FROM delayline.task WHERE id = 'k{}' FOR UPDATE", id(n))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_somebody_holds_is_busy_and_the_others_of_its_batch_are_done() {
    let server = server(&["fsync=off"]).await;
    let backend = backend(&server).await;
    put(&backend, (0..100).map(task)).await;
    let leases: BTreeMap<_, _> =
        claim(&backend, 100).await.into_iter().map(|t| (t.lease.id.clone(), t.lease)).collect();
    let holder = somebody(&server, &lock(41)).await;
    let extended = backend.extend(&name(), leases.values().cloned().collect(), 2 * LEASE).await.unwrap();
    for (n, answer) in (0..).zip(extended) {
        assert_eq!(answer.map_err(|e| e.kind()).err(), (n == 41).then_some(ErrorKind::Busy), "{n}");
    }
    let all: Vec<_> = (0..100).map(|n| id(n).into()).collect();
    let marked = backend.change(&name(), Select::Tasks(all[40..43].to_vec()), Change::cancel()).await.unwrap();
    let kinds: Vec<_> = marked.outcomes.iter().map(|o| o.as_ref().map_err(delayline_core::Error::kind)).collect();
    assert_eq!(kinds, [Ok(&ChangeOutcome::InFlight), Err(ErrorKind::Busy), Ok(&ChangeOutcome::InFlight)]);
    // A third of them each way, the one that is held among those that are completed.
    let disposition = |n: u32| match n % 3 {
        0 => Disposition::Release,
        1 => Disposition::DeadLetter { reason: Reason::new("enough") },
        _ => Disposition::Complete,
    };
    let dispositions = (0..).zip(leases.values()).map(|(n, lease)| (lease.clone(), disposition(n))).collect();
    let settled = backend.settle(&name(), dispositions).await.unwrap();
    for (n, answer) in (0..).zip(settled) {
        assert_eq!(answer.map_err(|e| e.kind()).err(), (n == 41).then_some(ErrorKind::Busy), "{n}");
    }
    end(holder).await;
    let again = backend.settle(&name(), vec![(leases[&id(41)].clone(), Disposition::Complete)]).await.unwrap();
    assert!(again[0].is_ok(), "{again:?}");
    let stats = backend.stats(&name()).await.unwrap();
    assert_eq!((stats.due, stats.in_flight), (33, 0), "those that were released, but the one that was cancelled");
    assert_eq!((stats.dead, stats.dead_dropped), (7, 25), "of 32, as many as are kept");
    backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_somebody_is_scheduling_is_busy_and_the_others_of_its_batch_are_accepted() {
    let server = server(&["fsync=off"]).await;
    let backend = backend(&server).await;
    let mut other = PgConnection::connect(&server.url()).await.unwrap();
    let mut open = other.begin().await.unwrap();
    let inside = backend.schedule_in(&mut open, &name(), vec![task(50)]).await.unwrap();
    assert_eq!(inside[0].as_ref().unwrap().outcome, ScheduleOutcome::Created);
    let answers = backend.schedule(&name(), (0..100).map(task).collect()).await.unwrap();
    for (n, answer) in (0..).zip(answers) {
        assert_eq!(answer.map_err(|e| e.kind()).err(), (n == 50).then_some(ErrorKind::Busy), "{n}");
    }
    open.rollback().await.unwrap();
    let again = backend.schedule(&name(), vec![task(50), task(51)]).await.unwrap();
    let outcomes: Vec<_> = again.into_iter().map(|answer| answer.unwrap().outcome).collect();
    assert_eq!(outcomes, [ScheduleOutcome::Created, ScheduleOutcome::Existing]);
    assert_eq!(claim(&backend, 200).await.len(), 100);
    other.close().await.unwrap();
    backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_change_passes_a_row_that_stays_held_and_changes_all_others_once() {
    let server = server(&["fsync=off"]).await;
    let backend = backend(&server).await;
    let group = GroupName::new("room-1").unwrap();
    let at = delayline_core::Timestamp::from_unix_millis(2_500_000_000_000);
    let member = |n| NewTask::new(Due::At(at), "x").id(id(n)).group(group.clone());
    put(&backend, (0..1_500).map(|n| member(n).id(TaskId::new(format!("m-{n}")).unwrap()))).await;
    put(&backend, (0..3).map(member)).await;
    let holder = somebody(&server, &lock(1)).await;
    let shift = Change::shift(Shift::Later(Duration::from_secs(1)));
    for change in [shift.clone(), shift.operation(delayline_core::OperationId::random())] {
        let changed = backend.change(&name(), Select::Group(group.clone()), change).await.unwrap();
        assert_eq!((changed.changed, changed.refused), (1_502, 1), "{changed:?}");
        assert_eq!(changed.first_refusal.unwrap().kind(), ErrorKind::Busy);
    }
    end(holder).await;
    let places = "SELECT visible_at - 2500000000000, count(*) FROM delayline.task GROUP BY 1 ORDER BY 1";
    assert_eq!(server.ask(places).unwrap(), "0|1\n2000|1502");
    backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_task_that_somebody_holds_is_tried_again_but_not_spun_on() {
    let server = server(&["fsync=off"]).await;
    let backend = backend(&server).await;
    put(&backend, [task(1)]).await;
    let holder = somebody(&server, &lock(1)).await;
    let mut subscription = backend.subscribe(&name(), SubscriptionOptions::default()).await.unwrap();
    let mut waits = Vec::new();
    for _ in 0..25 {
        let claimed = subscription.claim(Claim::new(10, LEASE)).await.unwrap();
        assert!(claimed.deliveries.is_empty());
        waits.push(claimed.next_due_in.unwrap().as_millis());
    }
    assert!(waits.is_sorted() && waits[0] >= 2 && waits[10] == 50 && waits[24] == 1_000, "{waits:?}");
    end(holder).await;
    assert_eq!(subscription.claim(Claim::new(10, LEASE)).await.unwrap().deliveries.len(), 1);
    subscription.close().await.unwrap();
    backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_rows_that_nobody_of_ours_wrote_are_quarantined_and_hold_nothing_up() {
    let server = server(&["fsync=off"]).await;
    let backend = backend(&server).await;
    let foreign = "INSERT INTO delayline.task (visible_at, seq, attempt, attempts_max, cancelled, queue, id, headers, payload) \
                   VALUES (1, 1, 0, 20, false, 'exam', 'xyz', NULL, 'p'), (1, 2, 0, 20, false, 'exam', 'kfine', '\\xff', 'p')";
    server.ask(foreign).unwrap();
    put(&backend, [task(1)]).await;
    let mut subscription = backend.subscribe(&name(), SubscriptionOptions::default()).await.unwrap();
    let claimed = subscription.claim(Claim::new(10, LEASE)).await.unwrap();
    assert_eq!((claimed.deliveries.len(), claimed.quarantined), (1, 2));
    assert_eq!(backend.stats(&name()).await.unwrap().quarantined, 2);
    assert_eq!(server.ask("SELECT count(*) FROM delayline.set_aside WHERE what LIKE '%exam%'").unwrap(), "2");
    subscription.close().await.unwrap();
    backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bound_7_the_oldest_dead_letters_are_dropped_and_counted() {
    let server = server(&["fsync=off"]).await;
    let backend = backend(&server).await;
    put(&backend, (0..10).map(task)).await;
    let mut claimed = claim(&backend, 10).await;
    claimed.sort_by_key(|task| task.lease.id.to_text().into_owned());
    for task in claimed {
        let dead_letter = Disposition::DeadLetter { reason: Reason::new("enough") };
        backend.settle(&name(), vec![(task.lease, dead_letter)]).await.unwrap()[0].as_ref().unwrap();
    }
    let listed = backend.dead_letters(&name(), DeadLetterOp::List { after: None, limit: 100 }).await.unwrap();
    let ids: Vec<_> = listed.letters.iter().map(|letter| letter.id.clone()).collect();
    assert_eq!(ids, (3..10).map(id).collect::<Vec<_>>());
    assert_eq!(backend.stats(&name()).await.unwrap().dead_dropped, 3);
    backend.dead_letters(&name(), DeadLetterOp::Purge { select: DeadLetterSelect::All }).await.unwrap();
    backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_a_claim_whose_answer_was_lost_is_given_back_by_the_next() {
    let server = server(&["fsync=off"]).await;
    let quiet = backend(&server).await;
    put(&quiet, (0..20).map(task)).await;
    let (proxy, url) = proxied(&server).await;
    let backend = PostgresBackend::connect(config(&url)).await.unwrap();
    let mut subscription = backend.subscribe(&name(), SubscriptionOptions::default()).await.unwrap();
    // A claim of nothing first, so that what follows is on a connection that is there.
    subscription.claim(Claim::new(0, LEASE)).await.unwrap();
    proxy.set(delayline_conformance::proxy::Link::NO_ANSWERS);
    let lost = subscription.claim(Claim::new(20, LEASE)).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Ambiguous, "{lost}");
    proxy.set(delayline_conformance::proxy::Link::GOOD);
    until("the claim was made", || server.ask("SELECT count(*) FROM delayline.task WHERE claim > 0").unwrap() == "20")
        .await;
    let mut found = Vec::new();
    let began = Instant::now();
    while found.len() < 20 {
        assert!(began.elapsed() < Duration::from_secs(20), "{} came back", found.len());
        match subscription.claim(Claim::new(20, LEASE)).await {
            Ok(claimed) => found.extend(claimed.deliveries),
            Err(e) => assert!(e.retryable(), "{e}"),
        }
    }
    assert!(found.iter().all(|task| task.lease.attempt == 1), "{found:?}");
    subscription.close().await.unwrap();
    backend.close().await.unwrap();
    quiet.close().await.unwrap();
}
