//! What is found out before the first call.

use delayline_core::{Durability, Error, ErrorKind, Result};
use futures_util::future::join_all;

use super::*;
use crate::migrate;
use crate::start::{Opened, open};

async fn opened(config: &PostgresConfig) -> Result<Durability> {
    let Opened { db, notifier, durability } = open(config).await?;
    notifier.close().await;
    db.close().await;
    Ok(durability)
}

async fn refused(config: &PostgresConfig, kind: ErrorKind, says: &str) -> Error {
    let e = opened(config).await.unwrap_err();
    assert!(e.kind() == kind && e.message().contains(says), "{e}");
    assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
    e
}

fn tables(server: &Postgres, schema: &str) -> String {
    server
        .ask(&format!(
            "SELECT string_agg(relname || relkind::text, ' ' ORDER BY 1) FROM pg_class c JOIN pg_namespace n \
                         ON n.oid = relnamespace WHERE nspname = '{schema}'"
        ))
        .unwrap()
}

#[tokio::test]
async fn clear_5_a_good_server_is_accepted_and_given_its_tables_once() {
    let server = server(&[]).await;
    let config = config(&server.url());
    assert_eq!(opened(&config).await.unwrap(), Durability::Disk);
    let first = tables(&server, "delayline");
    assert_eq!(opened(&config).await.unwrap(), Durability::Disk);
    assert_eq!(tables(&server, "delayline"), first);
    assert_eq!(server.ask("SELECT version FROM delayline.migration").unwrap(), migrate::VERSION.to_string());
    until("all sessions end", || sessions(&server) == 0).await;
    assert_eq!(opened(&config.clone().flush_accepting(false)).await.unwrap(), Durability::Server);
    server.ask("ALTER DATABASE delayline SET synchronous_commit = 'off'").unwrap();
    assert_eq!(opened(&config).await.unwrap(), Durability::Disk, "we ask for it");
}

#[tokio::test]
async fn clear_5_a_server_that_keeps_nothing_is_declared_so() {
    let server = server(&["fsync=off"]).await;
    assert_eq!(opened(&config(&server.url())).await.unwrap(), Durability::Server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_at_the_same_time_make_the_tables_once() {
    let server = server(&[]).await;
    let slow = config(&server.url()).pool_size(1).response_timeout(Duration::from_secs(20));
    for schema in ["one", "two"] {
        let config = slow.clone().schema(schema);
        let all = join_all((0..10).map(|_| async { opened(&config).await })).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert_eq!(
            server.ask(&format!("SELECT count(*) FROM {schema}.migration")).unwrap(),
            migrate::VERSION.to_string()
        );
    }
}

#[tokio::test]
async fn the_printed_tables_are_the_made_ones() {
    let server = server(&[]).await;
    opened(&config(&server.url())).await.unwrap();
    let printed = config(&server.url()).schema("printed").migrate(false);
    let e = refused(&printed, ErrorKind::Incompatible, "has no tables of delayline").await;
    assert!(e.message().contains("delayline schema"), "{e}");
    server.ask(&migrate::sql("printed", 0).unwrap()).unwrap();
    opened(&printed).await.unwrap();
    assert_eq!(tables(&server, "printed"), tables(&server, "delayline"));
    assert_eq!(migrate::sql("a b", 0).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(migrate::sql("a", migrate::VERSION + 1).unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn clear_5_tables_of_a_newer_version_are_not_touched() {
    let server = server(&[]).await;
    let config = config(&server.url());
    opened(&config).await.unwrap();
    server.ask("INSERT INTO delayline.migration (version) VALUES (1000)").unwrap();
    let before = tables(&server, "delayline");
    refused(&config, ErrorKind::Incompatible, "of version 1000").await;
    refused(&config.clone().migrate(false), ErrorKind::Incompatible, "of version 1000").await;
    assert_eq!(tables(&server, "delayline"), before);
}

#[tokio::test]
async fn clear_5_passwords_users_databases_and_ports() {
    let server = server(&[]).await;
    let url = server.url();
    refused(&config(&url).credentials("delayline", "hunter2"), ErrorKind::Denied, "password authentication failed")
        .await;
    refused(&config(&url).credentials("nobody", "hunter2"), ErrorKind::Denied, "\"nobody\"").await;
    let nowhere = url.strip_suffix("delayline").unwrap().to_owned() + "nowhere";
    refused(&config(&nowhere), ErrorKind::Config, "\"nowhere\" does not exist").await;
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    refused(&config(&format!("postgres://me:hunter2@{unused}/x")), ErrorKind::Unavailable, "can't be reached").await;
    if cfg!(any(feature = "tls-ring", feature = "tls-aws-lc-rs")) {
        refused(&config(&format!("{url}?sslmode=require")), ErrorKind::Incompatible, "TLS").await;
    }
}

#[tokio::test]
async fn clear_5_a_right_that_is_missing_is_named() {
    let server = server(&[]).await;
    server.ask("CREATE ROLE app LOGIN PASSWORD 'hunter2'").unwrap();
    let app = config(&server.url()).credentials("app", "hunter2");
    let e = refused(&app, ErrorKind::Denied, "permission denied for database").await;
    assert!(e.message().contains("delayline schema"), "{e}");
    opened(&config(&server.url())).await.unwrap();
    // What `schema_sql` tells to grant, and each of it is needed.
    let grants = [
        "USAGE ON SCHEMA delayline",
        "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA delayline",
        "USAGE, SELECT ON ALL SEQUENCES IN SCHEMA delayline",
    ];
    let printed = migrate::sql("delayline", 0).unwrap().replace('"', "");
    for grant in grants {
        assert!(printed.contains(&format!("GRANT {grant} TO")), "{grant}");
        server.ask(&format!("GRANT {grant} TO app")).unwrap();
    }
    opened(&app).await.unwrap();
    for (right, names) in [
        ("DELETE ON delayline.task", "DELETE on delayline.task"),
        ("UPDATE ON delayline.queue", "UPDATE on delayline.queue"),
        ("USAGE ON SEQUENCE delayline.task_seq", "USAGE on delayline.task_seq"),
    ] {
        server.ask(&format!("REVOKE {right} FROM app")).unwrap();
        refused(&app, ErrorKind::Denied, names).await;
        server.ask(&format!("GRANT {right} TO app")).unwrap();
    }
    server.ask("REVOKE USAGE ON SCHEMA delayline FROM app").unwrap();
    refused(&app, ErrorKind::Denied, "delayline").await;
}

#[tokio::test]
async fn clear_5_what_takes_no_writes_is_refused() {
    let server = server(&[]).await;
    server.ask("ALTER DATABASE delayline SET default_transaction_read_only = on").unwrap();
    refused(&config(&server.url()), ErrorKind::Incompatible, "read-only").await;
}
