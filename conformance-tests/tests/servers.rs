//! The servers that tests start: they come up, keep their data through a `kill -9`, stop and go on, show what they hold,
//! and leave nothing behind.
#![cfg(feature = "servers")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use delayline_conformance::servers::{Kind, Postgres, Rabbit, RabbitCluster, Redis, RedisCluster, Release, Server};

fn release(kind: Kind) -> Release {
    Release::chosen(kind).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn redis_keeps_its_data_through_a_kill() {
    let mut redis = Redis::start(&release(Kind::Redis), &[]).unwrap();
    redis.ask("SET exam 7").unwrap();
    redis.kill().unwrap();
    assert!(redis.ask("PING").is_err(), "it is dead");
    redis.start().unwrap();
    assert_eq!(redis.ask("GET exam").unwrap(), "7");
    let resources = redis.resources().unwrap();
    assert_eq!((resources.0["keys"], resources.0["clients"]), (1, 0));
    assert!(redis.version().starts_with(|c: char| c.is_ascii_digit()), "{}", redis.version());
}

#[test]
fn redis_cluster_serves_every_slot() {
    let mut cluster = RedisCluster::start(&release(Kind::Redis)).unwrap();
    assert_eq!(cluster.urls().len(), 6);
    let nodes = cluster.nodes();
    let served = nodes[0].ask("CLUSTER INFO").unwrap();
    assert!(served.contains("cluster_slots_ok:16384"), "{served}");
    nodes[1].kill().unwrap();
    nodes[1].start().unwrap();
    cluster.wait_ready().unwrap();
}

#[test]
fn postgres_keeps_its_data_through_a_kill() {
    let mut postgres = Postgres::start(&release(Kind::Postgres), &[]).unwrap();
    postgres.ask("CREATE TABLE exam (id int); INSERT INTO exam VALUES (7), (8)").unwrap();
    postgres.kill().unwrap();
    assert!(postgres.ask("SELECT 1").is_err(), "it is dead");
    postgres.start().unwrap();
    assert_eq!(postgres.ask("SELECT sum(id) FROM exam").unwrap(), "15");
    let resources = postgres.resources().unwrap();
    assert_eq!((resources.0["rows of public.exam"], resources.0["sessions"]), (2, 0));
}

#[test]
fn rabbitmq_keeps_its_data_through_a_kill() {
    let mut rabbit = Rabbit::start(&release(Kind::RabbitMq), &[]).unwrap();
    rabbit.control(&["add_vhost", "exam"]).unwrap();
    let before = rabbit.resources().unwrap();
    assert_eq!((before.0["queues"], before.0["connections"]), (0, 0));
    rabbit.kill().unwrap();
    assert!(rabbit.control(&["list_vhosts"]).is_err(), "it is dead");
    rabbit.start().unwrap();
    assert!(rabbit.control(&["list_vhosts"]).unwrap().contains("exam"));
}

#[test]
fn rabbitmq_cluster_of_three() {
    let mut cluster = RabbitCluster::start(&release(Kind::RabbitMq)).unwrap();
    assert_eq!(cluster.running(0).unwrap(), 3);
    cluster.kill(2).unwrap();
    cluster.start_node(2).unwrap();
    assert_eq!(cluster.running(2).unwrap(), 3);
}

/// The processes and the directory of a server, until they are gone.
fn gone(pid: u32, directory: &str) -> bool {
    // A zombie is one that init has not reaped yet; it holds nothing.
    let dead = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    dead && !Path::new(directory).exists()
}

#[test]
fn dropped_a_server_leaves_nothing() {
    let redis = Redis::start(&release(Kind::Redis), &[]).unwrap();
    let (pid, directory) = (redis.pid(), redis.directory().to_str().unwrap().to_string());
    assert!(!gone(pid, &directory));
    drop(redis);
    assert!(gone(pid, &directory));
}

#[test]
fn a_test_run_that_is_killed_leaves_nothing() {
    const CHILD: &str = "DELAYLINE_TEST_IS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let redis = Redis::start(&release(Kind::Redis), &[]).unwrap();
        println!("up {} {}", redis.pid(), redis.directory().display());
        // Until it is killed.
        loop {
            std::thread::park();
        }
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["a_test_run_that_is_killed_leaves_nothing", "--nocapture", "--exact"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let up = lines.find_map(|line| line.split_once("up ").map(|(_, rest)| rest.to_string())).unwrap();
    let (pid, directory) = up.split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    assert!(!gone(pid, directory));
    child.kill().unwrap();
    child.wait().unwrap();
    // The guard works on its own now; a test run does not wait for it.
    let ends = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !gone(pid, directory) {
        assert!(tokio::time::Instant::now() < ends, "{pid} or {directory} is left");
        std::thread::yield_now();
    }
}

#[test]
fn a_missing_server_names_the_command_that_installs_it() {
    let release = Release {
        kind: Kind::Redis,
        name: "none".into(),
        root: None,
        programs: "/nowhere".into(),
        program: "redis-server".into(),
    };
    assert!(Redis::start(&release, &[]).is_err());
    let e = Release::named(Kind::Redis, "redis-1.0").unwrap_err().to_string();
    assert!(e.contains("scripts/servers install"), "{e}");
}

#[test]
fn a_server_that_does_not_come_up_shows_the_end_of_its_log() {
    let e = Redis::start(&release(Kind::Redis), &["--no-such-option", "1"]).unwrap_err().to_string();
    assert!(e.contains("no-such-option"), "{e}");
}

#[test]
fn stopped_a_server_answers_nothing_and_goes_on_afterwards() {
    let mut redis = Redis::start(&release(Kind::Redis), &[]).unwrap();
    redis.ask("SET exam 7").unwrap();
    redis.stop().unwrap();
    let state = std::fs::read_to_string(format!("/proc/{}/stat", redis.pid())).unwrap();
    assert!(state.contains(") T "), "{state}");
    redis.resume().unwrap();
    assert_eq!(redis.ask("GET exam").unwrap(), "7");
}
