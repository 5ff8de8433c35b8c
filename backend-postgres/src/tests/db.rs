//! Calls on a server that answers.

use delayline_core::ErrorKind;
use futures_util::FutureExt;
use futures_util::future::join_all;
use sqlx::postgres::PgPoolOptions;
use tokio::time::timeout;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bound_no_more_connections_than_allowed_and_none_after_close() {
    let server = server(&[]).await;
    let db = Db::new(&config(&server.url()).pool_size(3).response_timeout(Duration::from_secs(10))).unwrap();
    let calls = tokio::spawn({
        let db = db.clone();
        async move { join_all((0..60).map(|_| text(&db, Effect::Read, "SELECT pg_sleep(0.05)::text"))).await }
    });
    let mut at_work = Vec::new();
    while !calls.is_finished() {
        at_work.push(sessions(&server));
        sleep(Duration::from_millis(20)).await;
    }
    let answers = calls.await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(at_work.iter().max(), Some(&3), "{at_work:?}");
    db.close().await;
    db.close().await;
    assert_eq!(text(&db, Effect::Read, "SELECT ''").await.unwrap_err().kind(), ErrorKind::Closed);
    until("all sessions end", || sessions(&server) == 0).await;
}

#[tokio::test]
async fn close_7_waits_for_what_is_under_way_and_refuses_what_waits() {
    let server = server(&[]).await;
    counter(&server);
    let db = Db::new(&config(&server.url()).pool_size(1)).unwrap();
    count(&db).await.unwrap();
    let mut under_way = Box::pin(text(&db, Effect::Write, "SELECT pg_sleep(0.2)::text"));
    assert!((&mut under_way).now_or_never().is_none());
    sleep(Duration::from_millis(50)).await;
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { count(&db).await }
    });
    sleep(Duration::from_millis(20)).await;
    db.close().await;
    assert!((&mut under_way).now_or_never().expect("it has ended").is_ok());
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    until("all sessions end", || sessions(&server) == 0).await;
}

#[tokio::test]
async fn drop_calls_that_are_dropped_at_any_moment_strand_nothing() {
    let server = server(&[]).await;
    counter(&server);
    let config = config(&server.url()).pool_size(2).response_timeout(Duration::from_secs(10));
    for explicit in [false, true] {
        let db = Db::new(&config).unwrap();
        let before = server.ask("SELECT n FROM counter").unwrap().parse::<i64>().unwrap();
        let mut begun = 0;
        for i in 0..150u64 {
            let call = async {
                if explicit {
                    db.transact("counting", Effect::Write, |connection| one_more(connection)).await
                } else {
                    db.run("counting", Effect::Write, |connection| one_more(connection)).await
                }
            };
            begun += 1;
            // Some end first; most are dropped while connecting, beginning, updating, committing.
            let _ = timeout(Duration::from_micros(i * 40), call).await;
        }
        // Those that wait for a connection are served in their order, so these come after them; `close` waits for the
        // rest.
        assert!(join_all((0..2).map(|_| text(&db, Effect::Read, "SELECT ''"))).await.iter().all(Result::is_ok));
        db.close().await;
        let counted = server.ask("SELECT n FROM counter").unwrap().parse::<i64>().unwrap() - before;
        assert_eq!(counted, begun, "each ran to its end, once");
        assert_eq!(server.ask("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'").unwrap(), "0");
    }
}

fn one_more(connection: &mut sqlx::PgConnection) -> futures_util::future::BoxFuture<'_, sqlx::Result<()>> {
    async move { sqlx::query("UPDATE counter SET n = n + 1").execute(connection).await.map(drop) }.boxed()
}

#[tokio::test]
async fn the_isolation_is_ours_whatever_the_default() {
    let server = server(&[]).await;
    server
        .ask(
            "ALTER DATABASE delayline SET default_transaction_isolation = 'serializable'; \
              ALTER DATABASE delayline SET synchronous_commit = 'off'",
        )
        .unwrap();
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&server.url()).unwrap();
    const SETTINGS: &str =
        "SELECT current_setting('transaction_isolation') || ' ' || current_setting('synchronous_commit')";
    for config in [
        config(&server.url()),
        config(&server.url()).pooler(true),
        PostgresConfig::from_pool(pool.clone()),
        PostgresConfig::from_pool(pool.clone()).pooler(true),
    ] {
        let db = Db::new(&config).unwrap();
        for _ in 0..2 {
            assert_eq!(text(&db, Effect::Read, SETTINGS).await.unwrap(), "read committed on", "{config:?}");
        }
        db.close().await;
    }
    assert!(!pool.is_closed(), "it is the application's");
    pool.close().await;
}

#[tokio::test]
async fn a_deadlock_is_resolved_by_running_it_again() {
    let server = server(&["deadlock_timeout=20ms"]).await;
    server.ask("CREATE TABLE pair (id int4 PRIMARY KEY, n int4); INSERT INTO pair VALUES (1, 0), (2, 0)").unwrap();
    let db = Db::new(&config(&server.url()).response_timeout(Duration::from_secs(20))).unwrap();
    let both = |first: i32, second: i32| {
        let db = db.clone();
        async move {
            db.transact("updating", Effect::Write, move |connection| {
                Box::pin(async move {
                    for id in [first, second] {
                        sqlx::query("UPDATE pair SET n = n + 1 WHERE id = $1")
                            .bind(id)
                            .execute(&mut *connection)
                            .await?;
                        sqlx::query("SELECT pg_sleep(0.01)").execute(&mut *connection).await?;
                    }
                    Ok(())
                })
            })
            .await
        }
    };
    for _ in 0..5 {
        let (a, b) = tokio::join!(both(1, 2), both(2, 1));
        a.unwrap();
        b.unwrap();
    }
    assert_eq!(server.ask("SELECT sum(n) FROM pair").unwrap(), "20");
    // Sessions tell once a second what they counted.
    let deadlocks = "SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = 'delayline'";
    until("some were told", || server.ask(deadlocks).unwrap() == "t").await;
}

#[tokio::test]
async fn clear_errors_say_what_happened_and_show_no_payload() {
    let server = server(&[]).await;
    server.ask("CREATE TABLE t (a text CHECK (a <> 'hunter2'), b int4)").unwrap();
    server.ask("CREATE ROLE other LOGIN PASSWORD 'x'").unwrap();
    let own = db(&server.url());
    let other = db(&server.url().replace("delayline:s3cret-of-the-tests", "other:x"));
    for (db, sql, kind) in [
        (&own, "INSERT INTO t VALUES ('hunter2', 1) RETURNING ''", ErrorKind::Corrupt),
        (&own, "SELECT '' FROM nothing", ErrorKind::Incompatible),
        (&own, "SELECT pg_sleep(10)::text", ErrorKind::Unavailable),
        (&own, "SELECT 1", ErrorKind::Corrupt),
        (&other, "SELECT a FROM t", ErrorKind::Denied),
    ] {
        let e = text(db, Effect::Read, sql).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{sql}: {e}");
        assert!(e.message().starts_with("asking: "), "{e}");
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
    }
    assert_eq!(text(&own, Effect::Read, "SELECT 'works'").await.unwrap(), "works");
}

#[tokio::test]
async fn an_applications_pool_is_shared_and_its_permits_come_back() {
    let server = server(&[]).await;
    counter(&server);
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&server.url()).unwrap();
    let db = Db::new(&PostgresConfig::from_pool(pool.clone())).unwrap();
    let mut answers = join_all((0..20).map(|_| count(&db))).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    answers.sort_unstable();
    assert_eq!(answers, (1..=20).collect::<Vec<_>>());
    db.close().await;
    let both = join_all((0..2).map(|_| pool.acquire())).await;
    assert!(both.iter().all(Result::is_ok));
    assert!(sessions(&server) <= 2);
}

#[tokio::test]
async fn close_maintenance_ends_with_the_backend() {
    let server = server(&[]).await;
    let db = db(&server.url());
    let maintaining = tokio::spawn({
        let db = db.clone();
        async move { db.maintain("sleeping", Duration::from_secs(600), |connection| sleep_long(connection)).await }
    });
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    until("it sleeps", || server.ask(at_work).unwrap() == "1").await;
    db.close().await;
    let ended = timeout(Duration::from_secs(20), maintaining).await.expect("it ends").unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
    until("its session ends", || sessions(&server) == 0).await;
}

fn sleep_long(connection: &mut sqlx::PgConnection) -> futures_util::future::BoxFuture<'_, sqlx::Result<()>> {
    async move {
        for sql in ["SET statement_timeout = 0", "SELECT pg_sleep(600)"] {
            sqlx::query(sql).execute(&mut *connection).await?;
        }
        Ok(())
    }
    .boxed()
}
