//! The commands on RabbitMQ: what works, what can only be requested, what is unsupported, and a broker that refuses.
//!
//! For the other stores, see `store.rs` and `work.rs`.
#![cfg(feature = "rabbitmq")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use delayline_conformance::servers::{Kind, Rabbit, Release, Server};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::store::Store;
use support::{Ended, delayline, parse, text};

fn store() -> Store {
    Store::on(Kind::RabbitMq)
}

/// Checks that the message is one line.
fn one_line(ended: &Ended, code: i32, says: &[&str]) {
    assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.starts_with("delayline: "), "{ended:?}");
    for word in says {
        assert!(ended.stderr.contains(word), "`{word}` in {ended:?}");
    }
}

/// Pushes these lines, and returns the `ref` of each.
fn refs(store: &Store, lines: &str) -> Vec<String> {
    let pushed = store.run_with(&["push", "--json"], lines.as_bytes());
    assert_eq!(pushed.code, 0, "{pushed:?}");
    pushed.stdout.lines().map(|line| text(&parse(line), "ref").to_owned()).collect()
}

#[test]
fn what_a_broker_can_not_do_is_one_clear_line_and_code_7() {
    let store = store();
    for (args, says) in [
        (&["stats"][..], "can't count tasks"),
        (&["find", "x"], "can't show tasks"),
        (&["list"], "can't list tasks"),
        (&["pause"], "can't pause queues"),
        (&["resume"], "can't resume queues"),
        (&["delete", "--yes"], "can't delete queues"),
        (&["cancel", "--group", "g", "--yes"], "`cancel --group` is not available"),
        (&["shift", "--group", "g", "--by", "1m"], "can't change groups"),
        (&["cancel", "x"], "give the `ref` that"),
        (&["move", "x", "--after", "1s"], "give the `ref` that"),
        (&["push", "--replace"], "`push --replace` is not available"),
        (&["work", "--until-empty"], "`work --until-empty` is not available"),
    ] {
        one_line(&store.run(args), 7, &["rabbitmq", says]);
    }
    let queues = delayline(&["queues", "--backend", &store.url], b"");
    one_line(&queues, 7, &["can't list queues"]);
    let lease = store.run(&["work", "--lease", "2h"]);
    one_line(&lease, 2, &["25m"]);
    let group = store.run_with(&["push"], b"{\"after\":\"0s\",\"group\":\"g\"}\n");
    assert!(group.code == 3 && group.stderr.contains("stdin:1: "), "{group:?}");
    let pong = parse(&delayline(&["ping", "--json", "--backend", &store.url], b"").stdout);
    assert_eq!(pong["backend"], "rabbitmq");
}

#[test]
fn tasks_of_a_file_run_when_they_are_due() {
    let store = store();
    let lines = b"{\"id\":\"c\",\"after\":\"3s\"}\n{\"id\":\"a\",\"after\":\"0s\",\"payload\":{\"x\":1.50}}\n{\"id\":\"b\",\"after\":\"1500ms\"}\n";
    let ended = store.run_with(&["run", "-"], lines);
    assert_eq!((ended.code, ended.ids()), (0, ["a", "b", "c"].map(str::to_owned).to_vec()), "{ended:?}");
    assert!(ended.stdout.contains("{\"x\":1.50}") && ended.stderr.contains("3 delivered"), "{ended:?}");
    for line in ended.delivered() {
        assert!(line["lateness_ms"].as_f64().is_some_and(|late| late >= 0.0), "{line}");
    }
    let ended = store.run_with(&["run", "--exec", "exit 3", "--max-attempts", "2", "--retry-delay", "50ms"], lines);
    assert_eq!(ended.code, 4, "{ended:?}");
    assert_eq!(ended.stderr.matches("after 2 attempts: exit code 3").count(), 3, "{ended:?}");
    // Cut short, what waits stays at the broker.
    let run = store.start(&["run", "-"]);
    let mut stdin = run.stdin.as_ref().expect("it is open");
    stdin.write_all(b"{\"after\":\"0s\"}\n{\"after\":\"5s\",\"id\":\"left\"}\n").expect("it reads");
    run.line();
    run.signal(Signal::SIGINT);
    let ended = run.end();
    assert_eq!(ended.code, 130, "{ended:?}");
    assert!(ended.stderr.contains("1 task is left; it stays"), "{ended:?}");
    assert_eq!(store.ok(&["work", "--max", "1"]).ids(), ["left"]);
}

#[test]
fn waiting_tasks_are_cancelled_and_moved_by_request() {
    let store = store();
    let lines = "{\"id\":\"gone\",\"after\":\"8s\"}\n{\"id\":\"stays\",\"after\":\"8s\"}\n{\"id\":\"moved\",\"after\":\"8s\"}\n";
    let refs = refs(&store, lines);
    let asked = store.json(&["cancel", "--ref", &refs[0]], 0);
    assert_eq!((&asked["requested"], &asked["changed"]), (&json!(1), &json!(0)));
    assert_eq!(asked["tasks"], json!([{"id": "gone", "outcome": "requested"}]));
    let moved = store.ok(&["move", "--ref", &refs[2], "--after", "10s"]);
    assert!(moved.stdout.contains("1 requested"), "{moved:?}");
    let delivered = store.ok(&["work", "--max", "2"]).delivered();
    let ids: Vec<&str> = delivered.iter().map(|line| text(line, "id")).collect();
    assert_eq!(ids, ["stays", "moved"]);
    assert!(text(&delivered[1], "due_at") > text(&delivered[0], "due_at"), "{delivered:?}");
}

#[test]
fn dead_letters_are_listed_redriven_and_purged() {
    let store = store();
    store.ok(&["dead", "list"]);
    let lines = "{\"id\":\"a\",\"after\":\"0s\",\"payload\":7}\n{\"id\":\"b\",\"after\":\"0s\"}\n{\"id\":\"c\",\"after\":\"0s\"}\n";
    let ended = store.run_with(&["push", "--max-attempts", "1"], lines.as_bytes());
    assert_eq!(ended.code, 0, "{ended:?}");
    let worked = store.run(&["work", "--max", "3", "--concurrency", "1", "--exec", "exit 3"]);
    assert_eq!(worked.code, 4, "{worked:?}");
    let ids = |answer: &Value| -> Vec<String> {
        answer["letters"].as_array().expect("a list").iter().map(|letter| text(letter, "id").to_owned()).collect()
    };
    // Twice, because reading puts them back.
    for _ in 0..2 {
        let listed = store.json(&["dead", "list"], 0);
        assert_eq!(ids(&listed), ["a", "b", "c"]);
        assert_eq!((&listed["letters"][0]["payload"], &listed["letters"][0]["attempts"]), (&json!(7), &json!(1)));
    }
    assert_eq!(store.json(&["dead", "redrive", "b"], 0)["redriven"], 1);
    assert_eq!(store.ok(&["work", "--max", "1"]).ids(), ["b"]);
    assert_eq!(store.run(&["dead", "purge"]).code, 2, "nobody can be asked");
    assert_eq!(store.json(&["dead", "purge", "--yes", "c"], 0)["purged"], 1);
    assert_eq!(store.json(&["dead", "purge", "--yes"], 0)["purged"], 1);
    assert_eq!(ids(&store.json(&["dead", "list"], 0)), Vec::<String>::new());
}

#[test]
fn what_a_killed_worker_held_comes_to_another() {
    const TASKS: usize = 40;
    let store = store();
    store.push(&(0..TASKS).map(|n| format!("{{\"id\":\"{n}\",\"after\":\"0s\"}}\n")).collect::<String>());
    let worker = store.start(&["work", "--concurrency", "4", "--exec", "echo $DELAYLINE_ID; sleep 60"]);
    worker.line();
    // Kills it, and leaves its commands; each of these has said its one line.
    drop(worker);
    let mut rest: Vec<usize> =
        store.ok(&["work", "--max", &TASKS.to_string()]).ids().iter().map(|id| id.parse().expect("a number")).collect();
    rest.sort_unstable();
    assert_eq!(rest, (0..TASKS).collect::<Vec<_>>());
}

#[test]
fn the_demo_leaves_out_what_there_is_not_and_says_so() {
    let store = store();
    let ended = store.ok(&["demo", "--candidates", "300", "--exam", "5s", "--no-progress"]);
    for says in ["has no groups", "can only request", "candidates asked for 1s extra time"] {
        assert!(ended.stderr.contains(says), "`{says}` in {ended:?}");
    }
    let result = parse(&store.ok(&["demo", "--candidates", "300", "--exam", "5s", "--json"]).stdout);
    for (field, expected) in [("scheduled", 300), ("shifted", 0), ("lost", 0), ("duplicated", 0), ("early", 0)] {
        assert_eq!(result[field], expected, "{field}: {result}");
    }
    for field in ["cancelled", "delivered", "moved"] {
        assert!(result[field].as_u64().is_some_and(|some| some > 0), "{field}: {result}");
    }
}

#[test]
fn requests_to_the_broker_are_counted() {
    let store = store();
    store.push("{\"after\":\"0s\"}\n");
    let worker = store.start(&["work", "--metrics", "127.0.0.1:0"]);
    let said = worker.says("metrics on http://");
    let address = said.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    worker.line();
    let mut stream = TcpStream::connect(address).expect("it is served");
    stream.set_read_timeout(Some(support::PATIENCE)).expect("a time-out");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it is asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let trips = answer.lines().find(|line| line.starts_with("delayline_round_trips_total{backend=\"rabbitmq\"}"));
    assert!(trips.is_some_and(|line| !line.ends_with(" 0")), "{answer}");
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.end().code, 0);
}

#[test]
fn the_suite_runs_on_it() {
    let store = store();
    let ended =
        delayline(&["conform", "--only", "clear_6", "--only", "loss_3", "--backend", &store.url, "--json"], b"");
    let result = parse(&ended.stdout);
    assert_eq!((ended.code, &result["backend"]), (0, &json!("rabbitmq")), "{ended:?}");
    assert!(result["passed"].as_u64().is_some_and(|some| some > 0), "{result}");
}

#[test]
fn a_namespace_is_removed_by_one_command() {
    let broker = Rabbit::start(&Release::chosen(Kind::RabbitMq).expect("a release"), &[]).expect("a broker");
    let url = |namespace: &str, more: &str| format!("{}?namespace={namespace}{more}", broker.url());
    let push = |url: &str| {
        let pushed = delayline(&["push", "--backend", url, "--queue", "a.b"], b"{\"after\":\"1h\"}\n");
        assert_eq!(pushed.code, 0, "{pushed:?}");
    };
    // The one that is removed has more levels than the one who removes it says.
    push(&url("mine", "&levels=4&parallel=3"));
    push(&url("yours", "&levels=2"));
    let there = |of: &str| {
        let all = broker.control(&["list_queues", "name"]).expect("queues")
            + &broker.control(&["list_exchanges", "name"]).expect("exchanges");
        all.lines().filter(|name| name.starts_with(of)).count()
    };
    let (mine, yours) = (there("mine."), there("yours."));
    assert!(mine > 0 && yours > 0);
    let asked = delayline(&["remove-namespace", "--backend", &url("mine", "")], b"");
    one_line(&asked, 2, &["--yes", "`mine`"]);
    assert_eq!(there("mine."), mine, "nothing was done");
    let removed = delayline(&["remove-namespace", "--yes", "--json", "--backend", &url("mine", "")], b"");
    assert_eq!(removed.code, 0, "{removed:?}");
    assert!(text(&parse(&removed.stdout), "removed").contains("`mine`"), "{removed:?}");
    assert_eq!((there("mine."), there("yours.")), (0, yours));
    // There is nothing any more, which is what was wanted.
    assert_eq!(delayline(&["remove-namespace", "--yes", "--backend", &url("mine", "")], b"").code, 0);
    let elsewhere = delayline(&["remove-namespace", "--yes", "--backend", "memory:"], b"");
    one_line(&elsewhere, 7, &["RabbitMQ"]);
}

#[test]
fn a_broker_that_refuses_is_one_clear_line() {
    const SECRET: &str = "hunter2hunter2";
    let broker = Rabbit::start(&Release::chosen(Kind::RabbitMq).expect("a release"), &[]).expect("a broker");
    let port = broker.port();
    for command in [
        &["add_vhost", "school"][..],
        &["add_user", "exams", SECRET],
        &["add_user", "reader", SECRET],
        &["set_permissions", "-p", "school", "reader", "^$", ".*", ".*"],
        &["add_user", "writer", SECRET],
        &["set_permissions", "-p", "school", "writer", "^exams\\..*", "^$", ".*"],
    ] {
        broker.control(command).expect("it is done");
    }
    let said = |url: &str, code: i32, says: &[&str]| {
        let ended = delayline(&["push", "--backend", url], b"{\"after\":\"1h\"}\n");
        one_line(&ended, code, says);
        assert!(!ended.stderr.contains(SECRET), "{ended:?}");
    };
    let at = |user: &str, place: &str| format!("amqp://{user}:{SECRET}@127.0.0.1:{port}/{place}");
    said(&format!("amqp://exams:wrong@127.0.0.1:{port}/school"), 1, &["wrong user name or password for user `exams`"]);
    said(&format!("amqp://guest:guest@127.0.0.1:{port}/nowhere"), 1, &["the virtual host `nowhere` does not exist"]);
    said(&at("exams", "school"), 1, &["user `exams` has no access to the virtual host `school`"]);
    said(&at("reader", "school?namespace=exams"), 1, &["configure", "exams."]);
    said(&at("writer", "school?namespace=exams"), 1, &["write", "exams."]);
    said(&at("writer", "school?shards=2"), 1, &["no option `shards`"]);
    drop(broker);
    said(&at("exams", "school"), 1, &["can't be reached"]);
}
