//! Scheduling and completing within somebody's own transaction.

use delayline_core::{
    Claim, DelayBackend, ErrorKind, Lease, NewTask, QueueName, ScheduleOutcome, SubscriptionOptions, TaskId,
};
use sqlx::{Connection, PgConnection};

use super::*;
use crate::PostgresBackend;

fn name() -> QueueName {
    QueueName::new("exam").unwrap()
}

fn task(n: usize) -> NewTask {
    due_in(Duration::ZERO, n)
}

fn due_in(delay: Duration, n: usize) -> NewTask {
    NewTask::new(delay, n.to_string()).id(TaskId::new(format!("task-{n}")).unwrap())
}

async fn leases(backend: &PostgresBackend, max: usize) -> Vec<Lease> {
    let mut subscription = backend.subscribe(&name(), SubscriptionOptions::default()).await.unwrap();
    let mut leases = Vec::new();
    while leases.len() < max {
        let claimed = subscription.claim(Claim::new(max, Duration::from_secs(60))).await.unwrap().deliveries;
        assert!(!claimed.is_empty(), "there are only {}", leases.len());
        leases.extend(claimed.into_iter().map(|task| task.lease));
    }
    leases
}

async fn run(connection: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

async fn there(backend: &PostgresBackend, n: usize) -> bool {
    backend.find(&name(), &TaskId::new(format!("task-{n}")).unwrap()).await.unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_writes_and_the_end_of_its_task_are_one() {
    let server = server(&[]).await;
    server.ask("CREATE TABLE result (id int8)").unwrap();
    let written = || server.ask("SELECT count(*) FROM result").unwrap();
    let backend = PostgresBackend::connect(config(&server.url())).await.unwrap();
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    // The transaction is the caller's, and so is its isolation.
    for (at, begin) in
        ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE"].into_iter().enumerate()
    {
        let next = 100 + at;
        let put = backend.schedule(&name(), vec![task(1), task(2)]).await.unwrap();
        assert!(put.iter().all(|answer| answer.as_ref().unwrap().outcome == ScheduleOutcome::Created));
        let held = leases(&backend, 2).await;
        for end in ["ROLLBACK", "COMMIT"] {
            run(&mut connection, begin).await;
            run(&mut connection, "INSERT INTO result VALUES (1)").await;
            let done = backend.complete_in(&mut connection, &name(), &held).await.unwrap();
            assert!(done.len() == 2 && done.iter().all(Result::is_ok), "{done:?}");
            let follower = due_in(Duration::from_secs(3_600), next);
            let twice = vec![follower.clone(), follower];
            let later = backend.schedule_in(&mut connection, &name(), twice).await.unwrap();
            let outcomes: Vec<_> = later.into_iter().map(|answer| answer.unwrap().outcome).collect();
            assert_eq!(outcomes, [ScheduleOutcome::Created, ScheduleOutcome::Existing]);
            // Nobody else sees any of it yet.
            assert!(there(&backend, 1).await && there(&backend, 2).await && !there(&backend, next).await);
            run(&mut connection, end).await;
            let kept = end == "COMMIT";
            assert_eq!(there(&backend, next).await, kept, "{begin}, {end}");
            assert_eq!([there(&backend, 1).await, there(&backend, 2).await], [!kept; 2], "{begin}, {end}");
            assert_eq!(written(), (at + usize::from(kept)).to_string(), "{begin}, {end}");
        }
        // What is done already is said, and does not abort the transaction.
        run(&mut connection, begin).await;
        let again = backend.complete_in(&mut connection, &name(), &held).await.unwrap();
        assert!(again.iter().all(|one| one.as_ref().unwrap_err().kind() == ErrorKind::LeaseLost), "{again:?}");
        run(&mut connection, "SELECT 1; COMMIT").await;
    }
    connection.close().await.unwrap();
    backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_statement_takes_is_accepted_and_completed_in_one_transaction() {
    const TASKS: usize = 2_500;
    let server = server(&[]).await;
    let backend = PostgresBackend::connect(config(&server.url())).await.unwrap();
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    run(&mut connection, "BEGIN").await;
    let put = backend.schedule_in(&mut connection, &name(), (0..TASKS).map(task).collect()).await.unwrap();
    assert!(put.len() == TASKS && put.iter().all(Result::is_ok));
    run(&mut connection, "COMMIT").await;
    let mut held = leases(&backend, TASKS).await;
    // One of them twice: it ends once.
    held.push(held[0].clone());
    run(&mut connection, "BEGIN").await;
    let done = backend.complete_in(&mut connection, &name(), &held).await.unwrap();
    let (twice, once) = done.split_last().unwrap();
    assert!(once.iter().all(Result::is_ok));
    assert_eq!(twice.as_ref().unwrap_err().kind(), ErrorKind::LeaseLost);
    run(&mut connection, "COMMIT").await;
    assert_eq!(server.ask("SELECT count(*) FROM delayline.task").unwrap(), "0");
    connection.close().await.unwrap();
    backend.close().await.unwrap();
}
