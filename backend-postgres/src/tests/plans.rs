//! What statements cost: blocks of tables and indexes that they touch, as EXPLAIN counts them, and what a queue leaves
//! behind.

use std::sync::Arc;

use delayline_core::{Claim, DelayBackend, Disposition, NewTask, QueueName, Subscription, SubscriptionOptions};
use sqlx::{Connection, PgConnection};

use super::*;
use crate::PostgresBackend;
use crate::ops::claim::{self, PostgresSubscription, State};
use crate::store::Store;
use crate::transport::session::planner;

const LEASE: Duration = Duration::from_secs(30);

async fn backend(server: &Postgres) -> PostgresBackend {
    let config = PostgresConfig::from_url(&server.url()).unwrap().response_timeout(Duration::from_secs(60));
    PostgresBackend::connect(config).await.unwrap()
}

fn name() -> QueueName {
    QueueName::new("exam").unwrap()
}

fn subscribe(store: &Arc<Store>) -> PostgresSubscription {
    claim::subscribe(store.clone(), &name(), SubscriptionOptions::default()).unwrap()
}

/// Blocks that a claim of up to 100 tasks touches; it is undone.
async fn blocks(server: &Postgres, store: &Store, (floor, clear): (i64, i64)) -> u64 {
    let sql = format!(
        "{}; SET plan_cache_mode = force_generic_plan; PREPARE claim AS {}; BEGIN; \
         EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) \
         EXECUTE claim ('exam', {floor}, 100, 16777216, 30000000, 77, {clear}); ROLLBACK",
        planner(""),
        store.sql.claim
    );
    // By the driver: the psql of version 14 shows the last answer of several only.
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let lines = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
    let lines: Vec<String> = lines.iter().map(|line| sqlx::Row::get(line, 0)).collect();
    let plan = lines.join("\n");
    connection.close().await.unwrap();
    assert!(!plan.contains("Seq Scan on task"), "{plan}");
    // The first line counts all that is below it.
    let total = plan.lines().find(|line| line.contains("Buffers:")).unwrap();
    total.split(['=', ' ']).filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// Puts tasks that are due in `from_ms` from now and after, one in each millisecond.
fn insert(server: &Postgres, from_ms: i64, first: u32, n: u32) {
    let sql = format!(
        "INSERT INTO delayline.task (visible_at, seq, attempt, attempts_max, cancelled, queue, id, payload) \
         SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8 + {from_ms} + g, nextval('delayline.task_seq'), 0, 20, \
                false, 'exam', decode('75' || lpad(to_hex(g), 32, '0'), 'hex'), decode(repeat('ab', 100), 'hex') \
         FROM generate_series({first}, {first} + {n} - 1) AS g"
    );
    server.ask(&sql).unwrap();
}

#[tokio::test]
async fn a_claim_costs_the_same_before_a_thousand_future_tasks_and_before_two_million() {
    let server = server(&["fsync=off", "max_wal_size=8GB", "autovacuum=off"]).await;
    let backend = backend(&server).await;
    const HOUR_MS: i64 = 3_600_000;
    insert(&server, HOUR_MS, 0, 1_000);
    let empty_small = blocks(&server, &backend.store, (0, 0)).await;
    insert(&server, -20_000_000, 10_000_000, 100);
    let full_small = blocks(&server, &backend.store, (0, 0)).await;
    server.ask("DELETE FROM delayline.task WHERE visible_at < extract(epoch FROM clock_timestamp()) * 1000").unwrap();
    insert(&server, HOUR_MS, 1_000, 1_999_000);
    server.ask("VACUUM ANALYZE delayline.task").unwrap();
    let empty_large = blocks(&server, &backend.store, (0, 0)).await;
    insert(&server, -20_000_000, 10_000_000, 100);
    let full_large = blocks(&server, &backend.store, (0, 0)).await;
    println!("blocks of an empty claim {empty_small} and {empty_large}, of a full one {full_small} and {full_large}");
    // The trees are higher by one or two levels.
    assert!(empty_large <= empty_small + 20 && empty_large < 60, "{empty_small} {empty_large}");
    assert!(full_large <= full_small + 100 * 12, "{full_small} {full_large}");
    backend.close().await.unwrap();
}

/// A round of work on `n` tasks.
async fn round(backend: &PostgresBackend, subscription: &mut PostgresSubscription, n: usize) {
    let tasks = (0..n).map(|_| NewTask::new(Duration::ZERO, vec![7; 100])).collect();
    for answer in backend.schedule(&name(), tasks).await.unwrap() {
        answer.unwrap();
    }
    let mut left = n;
    while left > 0 {
        let claimed = subscription.claim(Claim::new(n, LEASE)).await.unwrap();
        left -= claimed.deliveries.len();
        let dispositions = claimed.deliveries.into_iter().map(|task| (task.lease, Disposition::Complete)).collect();
        for answer in backend.settle(&name(), dispositions).await.unwrap() {
            answer.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_costs_no_more_while_an_old_snapshot_keeps_every_dead_row() {
    let server = server(&["fsync=off", "autovacuum=off"]).await;
    let backend = backend(&server).await;
    let mut old = PgConnection::connect(&server.url()).await.unwrap();
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM delayline.task";
    sqlx::raw_sql(snapshot).execute(&mut old).await.unwrap();
    let mut subscription = subscribe(&backend.store);
    // Until it is listened for, nothing is known for certain.
    until_listening(&backend).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        for _ in 0..10 {
            round(&backend, &mut subscription, 250).await;
        }
        assert!(subscription.claim(Claim::new(10, LEASE)).await.unwrap().deliveries.is_empty());
        let known = blocks(&server, &backend.store, subscription.inspect(State::known).await).await;
        let unknown = blocks(&server, &backend.store, (0, 0)).await;
        seen.push((known, unknown));
    }
    println!("blocks of an empty claim after each 2,500 tasks, with and without what a subscription knows: {seen:?}");
    let (known, unknown): (Vec<u64>, Vec<u64>) = seen.into_iter().unzip();
    assert!(known.iter().all(|blocks| *blocks < 100), "{known:?}");
    assert!(unknown[3] > 2_000, "the snapshot keeps nothing, so nothing was tested: {unknown:?}");
    old.close().await.unwrap();
    backend.close().await.unwrap();
}

async fn until_listening(backend: &PostgresBackend) {
    let began = Instant::now();
    while !backend.store.notifier.listening() {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody listens");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leak_tables_and_indexes_stay_small_over_a_long_churn() {
    let server = server(&["fsync=off", "autovacuum=off"]).await;
    let mut backend = backend(&server).await;
    let few = Arc::get_mut(&mut backend.store).unwrap();
    few.vacuum.dead_rows_max = 5_000;
    insert(&server, 3_600_000, 0, 2_000);
    let mut subscription = subscribe(&backend.store);
    let size = || {
        let sizes = "SELECT pg_table_size('delayline.task') / 1024 || ' ' || pg_indexes_size('delayline.task') / 1024";
        let sizes = server.ask(sizes).unwrap();
        let (table, indexes) = sizes.split_once(' ').unwrap();
        (table.parse::<u64>().unwrap(), indexes.parse::<u64>().unwrap())
    };
    let mut sizes = Vec::new();
    for _ in 0..6 {
        for _ in 0..20 {
            round(&backend, &mut subscription, 250).await;
        }
        sizes.push(size());
    }
    println!("KiB of the table and its indexes after each 5,000 tasks: {sizes:?}");
    // 30,000 tasks leave 60,000 dead rows of about 200 bytes, 12 MB, where nothing takes them away.
    let largest = |of: fn(&(u64, u64)) -> u64| sizes.iter().map(of).max().unwrap();
    assert!(largest(|size| size.0) < 5_000 && largest(|size| size.1) < 5_000, "{sizes:?}");
    drop(subscription);
    backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_leaves_two_dead_rows() {
    let server = server(&["fsync=off", "autovacuum=off"]).await;
    let backend = backend(&server).await;
    let mut subscription = subscribe(&backend.store);
    for _ in 0..4 {
        round(&backend, &mut subscription, 250).await;
    }
    drop(subscription);
    backend.close().await.unwrap();
    let sum = "SELECT n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'task'";
    until("the sessions tell what they did", || server.ask(sum).unwrap() != "0").await;
    assert_eq!(server.ask(sum).unwrap(), "2000", "1,000 tasks, each claimed and deleted");
}
