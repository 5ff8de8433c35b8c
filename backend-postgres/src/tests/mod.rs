//! What needs a server, and a network that fails.

mod db;
mod faults;
mod inside;
mod lost;
mod notify;
mod plans;
mod pooler;
mod rows;
mod start;

use std::net::SocketAddr;
use std::time::Duration;

use delayline_conformance::proxy::Proxy;
use delayline_conformance::servers::{Kind, Postgres, Release, Server};
use sqlx::Row;
use tokio::time::{Instant, sleep};

use crate::PostgresConfig;
use crate::transport::db::Db;
use crate::transport::failure::Effect;

/// A server of one's own; outside the runtime's threads, because starting it blocks.
async fn server(settings: &'static [&'static str]) -> Postgres {
    let start = move || Postgres::start(&Release::chosen(Kind::Postgres).unwrap(), settings).unwrap();
    tokio::task::spawn_blocking(start).await.unwrap()
}

fn config(url: &str) -> PostgresConfig {
    PostgresConfig::from_url(url).unwrap().response_timeout(Duration::from_millis(900))
}

fn db(url: &str) -> Db {
    Db::new(&config(url)).unwrap()
}

async fn proxied(server: &Postgres) -> (Proxy, String) {
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).await.unwrap();
    let url = proxy.url(&server.url());
    (proxy, url)
}

/// One text, of one row.
async fn text(db: &Db, effect: Effect, sql: &'static str) -> delayline_core::Result<String> {
    let named = db.named();
    db.run("asking", effect, move |connection| {
        Box::pin(async move { sqlx::query(sql).persistent(named).fetch_one(connection).await?.try_get(0) })
    })
    .await
}

/// A table with one number in it, which [`count`] makes one larger.
fn counter(server: &Postgres) {
    server.ask("CREATE TABLE counter (n int8 NOT NULL); INSERT INTO counter VALUES (0)").unwrap();
}

async fn count(db: &Db) -> delayline_core::Result<i64> {
    let n = text(db, Effect::Write, "UPDATE counter SET n = n + 1 RETURNING n::text").await?;
    Ok(n.parse().unwrap())
}

fn sessions(server: &Postgres) -> u64 {
    let others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                  AND application_name <> 'delayline harness'";
    server.ask(others).unwrap().parse().unwrap()
}

/// Waits for what happens by itself, for as long as only a defect takes.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
