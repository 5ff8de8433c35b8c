//! Calls on connections that break.

use delayline_conformance::proxy::Link;
use delayline_core::ErrorKind;
use futures_util::future::join_all;
use sqlx::postgres::PgPoolOptions;

use super::*;

const TERMINATE: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

async fn restart(mut server: Postgres) -> Postgres {
    let restarted = tokio::task::spawn_blocking(move || {
        server.kill().unwrap();
        server.start().unwrap();
        server
    });
    restarted.await.unwrap()
}

#[tokio::test]
async fn live_idle_connections_that_died_are_not_noticed() {
    let server = server(&[]).await;
    counter(&server);
    let db = db(&server.url());
    for effect in [Effect::Write, Effect::Repeat, Effect::Read] {
        let open = join_all((0..4).map(|_| text(&db, Effect::Read, "SELECT pg_sleep(0.05)::text"))).await;
        assert!(open.iter().all(Result::is_ok));
        // So long is one believed to work.
        sleep(Duration::from_millis(1_100)).await;
        server.ask(TERMINATE).unwrap();
        until("all sessions end", || sessions(&server) == 0).await;
        let answers = join_all((0..4).map(|_| text(&db, effect, "SELECT 'here'"))).await;
        assert!(answers.iter().all(|answer| matches!(answer.as_deref(), Ok("here"))), "{effect:?}: {answers:?}");
    }
}

#[tokio::test]
async fn live_a_server_that_comes_back_is_found_by_the_next_call() {
    let mut server = server(&[]).await;
    counter(&server);
    let db = db(&server.url());
    assert_eq!(count(&db).await.unwrap(), 1);
    sleep(Duration::from_millis(1_100)).await;
    server.kill().unwrap();
    let e = count(&db).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
    assert!(e.message().contains(&server.port().to_string()), "{e}");
    assert!(!format!("{e:?}").contains("s3cret"), "{e:?}");
    let _server = restart(server).await;
    assert_eq!(count(&db).await.unwrap(), 2);
}

#[tokio::test]
async fn loss_a_lost_answer_is_ambiguous_and_the_next_call_works() {
    let server = server(&[]).await;
    counter(&server);
    let (proxy, url) = proxied(&server).await;
    let db = db(&url);
    count(&db).await.unwrap();
    proxy.set(Link::NO_ANSWERS);
    let cut = async {
        sleep(Duration::from_millis(100)).await;
        proxy.reset();
        // What was kept back must not slip through before the reset.
        sleep(Duration::from_millis(50)).await;
        proxy.set(Link::GOOD);
    };
    let (lost, ()) = tokio::join!(count(&db), cut);
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::Ambiguous);
    assert_eq!(count(&db).await.unwrap(), 3, "it had taken effect");
}

#[tokio::test]
async fn loss_what_may_be_repeated_is_repeated_when_its_connection_broke() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let db = db(&url);
    for effect in [Effect::Read, Effect::Repeat] {
        text(&db, effect, "SELECT ''").await.unwrap();
        proxy.set(Link::HALF_OPEN);
        let cut = async {
            sleep(Duration::from_millis(100)).await;
            proxy.reset();
            sleep(Duration::from_millis(50)).await;
            proxy.set(Link::GOOD);
        };
        let (answer, ()) = tokio::join!(text(&db, effect, "SELECT 'again'"), cut);
        assert_eq!(answer.unwrap(), "again");
    }
}

#[tokio::test]
async fn live_a_half_open_connection_ends_in_time_and_gives_its_permit_back() {
    let server = server(&[]).await;
    counter(&server);
    let (proxy, url) = proxied(&server).await;
    let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false).connect_lazy(&url).unwrap();
    let short = Duration::from_millis(1_500);
    let of_pool = PostgresConfig::from_pool(pool.clone()).connect_timeout(short).response_timeout(short);
    let own = config(&url).pool_size(1).connect_timeout(short).response_timeout(short);
    let before = tasks();
    for config in [own, of_pool] {
        let db = Db::new(&config).unwrap();
        let first = count(&db).await.unwrap();
        // The driver asks it once more before it is back.
        until("it is back", || pool.num_idle() == pool.size() as usize).await;
        proxy.set(Link::HALF_OPEN);
        let began = Instant::now();
        let e = count(&db).await.unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Ambiguous | ErrorKind::Unavailable), "{e}");
        assert_eq!(text(&db, Effect::Read, "SELECT ''").await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        // Also while it is silent: nobody waits for an answer of it.
        until("the application's pool has none of it", || pool.size() == 0).await;
        proxy.reset();
        sleep(Duration::from_millis(50)).await;
        proxy.set(Link::GOOD);
        assert_eq!(count(&db).await.unwrap(), first + 1, "the only permit is there again");
        db.close().await;
        drop(db);
    }
    until("no task waits for the dead", || tasks() <= before + 4).await;
}

#[tokio::test]
async fn loss_a_statement_nobody_waits_for_is_stopped_by_the_server() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let db = db(&url);
    text(&db, Effect::Read, "SELECT ''").await.unwrap();
    proxy.set(Link::NO_ANSWERS);
    // In one message: a statement that is new to the session is first prepared, and that needs an answer.
    let sleeping = db.run("sleeping", Effect::Write, |connection| {
        Box::pin(async move { sqlx::raw_sql("SELECT pg_sleep(60)").execute(connection).await.map(drop) })
    });
    let e = sleeping.await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Ambiguous, "{e}");
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    until("the server has stopped it", || server.ask(at_work).unwrap() == "0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_sessions_that_are_ended_all_the_time_do_not_stop_the_work() {
    let server = server(&[]).await;
    counter(&server);
    let db = db(&server.url());
    let (mut done, mut unknown) = (0, 0);
    let ending = tokio::task::spawn_blocking(move || {
        for _ in 0..25 {
            server.ask(TERMINATE).unwrap();
            server.ask("SELECT pg_sleep(0.1)").unwrap();
        }
        server
    });
    while !ending.is_finished() {
        for answer in join_all((0..8).map(|_| count(&db))).await {
            match answer {
                Ok(_) => done += 1,
                Err(e) if e.kind() == ErrorKind::Ambiguous => unknown += 1,
                // Ended while it was being opened.
                Err(e) => assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}"),
            }
        }
    }
    let server = ending.await.unwrap();
    assert!(done > 8, "{done} done, {unknown} unknown");
    let counted: i64 = server.ask("SELECT n FROM counter").unwrap().parse().unwrap();
    assert!((done..=done + unknown).contains(&counted), "{done} {unknown} {counted}");
    let last = join_all((0..8).map(|_| count(&db))).await;
    assert!(last.iter().filter(|answer| answer.is_ok()).count() >= 1, "{last:?}");
    assert!(count(&db).await.is_ok());
}

#[tokio::test]
async fn loss_a_reset_in_the_middle_of_many_calls_gives_each_its_one_true_answer() {
    let server = server(&[]).await;
    counter(&server);
    let (proxy, url) = proxied(&server).await;
    let db = db(&url);
    count(&db).await.unwrap();
    proxy.set(Link::slow(Duration::from_millis(3)));
    let calls = join_all((0..200).map(|_| async { count(&db).await.map_err(|e| e.kind()) }));
    let cut = async {
        sleep(Duration::from_millis(150)).await;
        proxy.reset();
        proxy.set(Link::GOOD);
    };
    let (answers, ()) = tokio::join!(calls, cut);
    let done = answers.iter().filter(|answer| answer.is_ok()).count() as i64;
    let ambiguous = answers.iter().filter(|answer| **answer == Err(ErrorKind::Ambiguous)).count() as i64;
    assert!(answers.iter().all(|answer| !matches!(answer, Err(kind) if !kind.retryable())), "{answers:?}");
    let counted = count(&db).await.unwrap() - 2;
    assert!((done..=done + ambiguous).contains(&counted), "{done} {ambiguous} {counted}");
    assert!(done < 200, "the cut hit none");
}
