//! What is found out before the first call.

use delayline_conformance::servers::Server;
use delayline_core::{DelayBackend, Durability, Error, ErrorKind, NewTask, QueueName, Result};
use tokio::io::AsyncWriteExt;

use super::*;
use crate::start;

/// The permissions that `docs/backends.md` tells to give.
const DOCUMENTED: &str = "resetchannels ~{delayline:* &delayline:* -@all \
                          +@connection +@read +@write +@scripting +@pubsub +time +info +scan";

async fn check(url: &str) -> Result<()> {
    let config = config(url);
    start::check(&Connection::new(&config)?, &config).await
}

async fn refused(url: &str, kind: ErrorKind, says: &str) -> Error {
    let e = check(url).await.unwrap_err();
    assert!(e.kind() == kind && e.message().contains(says), "{e}");
    assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
    e
}

#[tokio::test]
async fn clear_5_a_good_server_is_accepted_and_left_as_it_was() {
    let server = server(&[]).await;
    check(&server.url()).await.unwrap();
    assert_eq!(server.ask("DBSIZE").unwrap(), "0");
}

#[tokio::test]
async fn clear_5_keys_of_a_newer_version_are_not_touched() {
    let server = server(&[]).await;
    let backend = crate::RedisBackend::connect(config(&server.url())).await.unwrap();
    let key = "{delayline:exam:0}:m";
    server.ask(&format!("HSET {key} n 2.1 c 5")).unwrap();
    refused(&server.url(), ErrorKind::Incompatible, "format 2").await;
    // One that appears later is met by the first call.
    let queue = QueueName::new("exam").unwrap();
    let e = backend.schedule(&queue, vec![NewTask::new(Duration::ZERO, "x")]).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Incompatible && e.message().contains("{delayline:exam:0}"), "{e}");
    assert_eq!(server.ask("DBSIZE").unwrap(), "1");
    server.ask(&format!("HSET {key} n 1.2")).unwrap();
    check(&server.url()).await.unwrap();
    let e = backend.schedule(&queue, vec![NewTask::new(Duration::ZERO, "x")]).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Config && e.message().contains("shards"), "{e}");
}

#[tokio::test]
async fn clear_5_passwords_users_and_databases() {
    let server = server(&[]).await;
    server.ask("CONFIG SET requirepass right").unwrap();
    let url = |credentials: &str| server.url().replace("//", &format!("//{credentials}@"));
    check(&url(":right")).await.unwrap();
    check(&format!("{}/3", url(":right"))).await.unwrap();
    refused(&url(":hunter2"), ErrorKind::Denied, "wrong user name or password").await;
    refused(&url("nobody:hunter2"), ErrorKind::Denied, "wrong user name or password").await;
    refused(&server.url(), ErrorKind::Denied, "authentication required").await;
    refused(&format!("{}/99", url(":right")), ErrorKind::Config, "database number").await;
}

#[tokio::test]
async fn clear_5_a_forbidden_command_key_or_channel_is_named() {
    let server = server(&[]).await;
    let names = ["default", "zrangebylex", "publish", "info", "evalsha", "eval", "keys", "channels", "subscribe"];
    for (i, name) in names.into_iter().enumerate() {
        let rule = match name {
            "default" => DOCUMENTED.to_string(),
            "keys" => "resetchannels ~other:* &delayline:* +@all".to_string(),
            "channels" => "~{delayline:* resetchannels &other +@all".to_string(),
            command => format!("resetchannels ~{{delayline:* &delayline:* +@all -{command}"),
        };
        server.ask(&format!("ACL SETUSER user{i} reset on >hunter2 {rule}")).unwrap();
        let url = server.url().replace("//", &format!("//user{i}:hunter2@"));
        match name {
            "default" => check(&url).await.unwrap(),
            "keys" => drop(refused(&url, ErrorKind::Denied, "needs EVAL, EVALSHA and the keys").await),
            "channels" => drop(refused(&url, ErrorKind::Denied, "PUBLISH").await),
            command => {
                let e = check(&url).await.unwrap_err();
                let text = e.message().to_ascii_lowercase();
                assert!(e.kind() == ErrorKind::Denied && text.contains(command), "{e}");
                assert!(!format!("{e:?}").contains("hunter2"), "{e}");
            }
        }
    }
}

#[tokio::test]
async fn clear_5_a_command_that_was_renamed_away_is_named() {
    let server = server(&["--rename-command", "PUBLISH", ""]).await;
    refused(&server.url(), ErrorKind::Incompatible, "PUBLISH is required").await;
    let server = self::server(&["--rename-command", "HELLO", ""]).await;
    let url = server.url().replace("//", "//:hunter2@");
    refused(&url, ErrorKind::Incompatible, "HELLO").await;
}

#[tokio::test]
async fn clear_5_replicas_clusters_and_evicting_policies() {
    let master = server(&[]).await;
    master.ask("CONFIG SET maxmemory-policy allkeys-lru").unwrap();
    refused(&master.url(), ErrorKind::Config, "`maxmemory-policy` is `allkeys-lru`").await;
    master.ask("CONFIG SET maxmemory-policy noeviction").unwrap();
    let replica = server(&[]).await;
    replica.ask(&format!("REPLICAOF 127.0.0.1 {}", master.port())).unwrap();
    refused(&replica.url(), ErrorKind::Incompatible, "replica").await;
    let node = server(&["--cluster-enabled", "yes"]).await;
    refused(&node.url(), ErrorKind::Incompatible, "cluster").await;
}

#[tokio::test]
async fn loss_4_a_disk_that_is_counted_on_is_looked_at() {
    let server = server(&["--appendfsync", "always"]).await;
    let url = format!("{}?durability=disk", server.url());
    let durability = async |url: &str| {
        crate::RedisBackend::connect(config(url)).await.map(|backend| backend.capabilities().durability)
    };
    assert_eq!(durability(&url).await.unwrap(), Durability::Disk);
    assert_eq!(durability(&server.url()).await.unwrap(), Durability::Server, "nobody counts on it");
    for (name, value, good) in
        [("appendfsync", "everysec", "always"), ("no-appendfsync-on-rewrite", "yes", "no"), ("appendonly", "no", "yes")]
    {
        server.ask(&format!("CONFIG SET {name} {value}")).unwrap();
        let says = if name == "appendonly" { "no append-only file".into() } else { format!("`{name}` is `{value}`") };
        refused(&url, ErrorKind::Config, &says).await;
        check(&server.url()).await.unwrap();
        server.ask(&format!("CONFIG SET {name} {good}")).unwrap();
    }
    // Who may not ask is believed, as far as it can be seen.
    server.ask(&format!("ACL SETUSER asks reset on >hunter2 {DOCUMENTED}")).unwrap();
    let url = url.replace("//", "//asks:hunter2@");
    server.ask("CONFIG SET appendfsync everysec").unwrap();
    assert_eq!(durability(&url).await.unwrap(), Durability::Disk);
    server.ask("CONFIG SET appendonly no").unwrap();
    refused(&url, ErrorKind::Config, "no append-only file").await;
}

#[tokio::test]
async fn bound_a_full_server_is_accepted_so_that_it_can_be_worked_off() {
    let server = server(&[]).await;
    server.ask("CONFIG SET maxmemory 1").unwrap();
    check(&server.url()).await.unwrap();
}

#[tokio::test]
async fn clear_5_what_is_not_redis_is_told_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    refused(&format!("redis://:hunter2@{address}"), ErrorKind::Incompatible, "did not answer like Redis").await;
}

#[tokio::test]
async fn clear_5_nobody_there_is_unavailable() {
    let mut server = server(&[]).await;
    let url = server.url();
    server.kill().unwrap();
    refused(&url, ErrorKind::Unavailable, "can't be reached").await;
}
