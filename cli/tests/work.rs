//! `work`: several processes on one queue, a killed process, `--max` and `--until-empty`, signals, metrics.
#![cfg(any(feature = "redis", feature = "postgres"))]

mod support;

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::store::{Store, on_every_store};
use support::{Folder, PATIENCE, delayline, parse, read, text};

on_every_store! {
    a_worker_that_is_killed_in_the_middle_of_thirty_thousand_tasks_loses_none
    commands_of_a_killed_worker_run_again_and_no_others
    several_workers_share_a_queue
    it_ends_after_so_many_tasks
    a_signal_ends_it_in_good_order
    a_command_that_is_cut_short_is_given_back
    what_a_slow_reader_has_not_read_stays_this_worker_s
    a_task_whose_line_was_not_written_is_given_back
    metrics_and_health_are_served
    bad_arguments_are_refused
}

const TASKS: usize = 30_000;
/// Number of tasks that `work` claims, writes and completes together.
const BATCH: usize = 256;

/// Tasks that are all due, in order.
fn lines(tasks: usize) -> String {
    (0..tasks).map(|n| format!("{{\"id\":\"{n}\",\"at\":\"2001-01-01T00:00:00Z\"}}\n")).collect()
}

fn a_worker_that_is_killed_in_the_middle_of_thirty_thousand_tasks_loses_none(store: &Store) {
    let folder = Folder::new();
    store.ok(&["push", "--quiet", &folder.file("tasks.jsonl", lines(TASKS))]);
    // A pipe that nobody empties keeps it from being through before it is killed.
    let (mut first, stdout) = support::start_with_pipe(&store.args(&["work", "--lease", "2s"]));
    let mut stdout = BufReader::new(stdout).lines().map(|line| line.expect("a line"));
    let mut seen: Vec<Value> = stdout.by_ref().take(TASKS / 3).map(|line| parse(&line)).collect();
    first.kill().expect("it is running");
    // The last line may be half written.
    seen.extend(stdout.filter_map(|line| serde_json::from_str::<Value>(&line).ok()));
    assert_eq!(first.wait().expect("it can be waited for").code(), None, "it was killed");
    assert!((TASKS / 3..TASKS / 2).contains(&seen.len()), "{} tasks is not the middle", seen.len());

    let second = store.ok(&["work", "--until-empty"]).delivered();
    let of = |lines: &[Value]| lines.iter().map(|line| text(line, "id").to_owned()).collect::<Vec<_>>();
    let (before, after) = (of(&seen), of(&second));
    let before: HashSet<_> = before.into_iter().collect();
    assert_eq!(before.len(), seen.len(), "the first one delivered a task twice");
    assert_eq!(after.iter().collect::<HashSet<_>>().len(), after.len(), "the second one delivered a task twice");
    let all: HashSet<_> = before.iter().chain(&after).collect();
    assert_eq!(all.len(), TASKS, "tasks are lost");
    // Again came what the first one held when it was killed, and nothing else: one batch, whether its lines were out or
    // not.
    let again: HashSet<_> = second.iter().filter(|line| line["attempt"] != 1).map(|line| text(line, "id")).collect();
    assert!(again.len() <= BATCH, "{} tasks came again", again.len());
    let twice: Vec<_> = after.iter().filter(|id| before.contains(*id)).collect();
    assert!(twice.iter().all(|id| again.contains(id.as_str())), "a completed task was delivered again");
    assert_eq!(store.stats()["scheduled"], 0);
}

fn commands_of_a_killed_worker_run_again_and_no_others(store: &Store) {
    const COMMANDS: usize = 300;
    const AT_ONCE: usize = 4;
    let folder = Folder::new();
    store.ok(&["push", "--quiet", &folder.file("tasks.jsonl", lines(COMMANDS))]);
    let log = folder.path("log");
    // Each says so much that they wait for the reader.
    let command = format!("echo $DELAYLINE_ID $DELAYLINE_ATTEMPT >> {log}; printf '%3000s\\n' done");
    let args = store.args(&["work", "--lease", "2s", "--concurrency", "4", "--exec", &command]);
    let (mut first, stdout) = support::start_with_pipe(&args);
    let mut stdout = BufReader::new(stdout).lines();
    assert_eq!(stdout.by_ref().take(COMMANDS / 3).count(), COMMANDS / 3);
    first.kill().expect("it is running");
    assert_eq!(first.wait().expect("it can be waited for").code(), None, "it was killed");
    // Its commands go on; they have ended when nobody holds the pipe any more.
    stdout.for_each(drop);
    store.ok(&["work", "--until-empty", "--exec", &command]);
    let mut runs: HashMap<String, Vec<String>> = HashMap::new();
    for line in read(&log).lines() {
        let (id, attempt) = line.split_once(' ').expect("an id and an attempt");
        runs.entry(id.to_owned()).or_default().push(attempt.to_owned());
    }
    assert_eq!(runs.len(), COMMANDS, "tasks are lost");
    let twice: Vec<_> = runs.iter().filter(|(_, attempts)| attempts.len() > 1).collect();
    assert!(twice.len() <= AT_ONCE, "more ran twice than were in flight: {twice:?}");
    assert!(twice.iter().all(|(_, attempts)| **attempts == ["1", "2"]), "{twice:?}");
}

fn several_workers_share_a_queue(store: &Store) {
    const SHARED: usize = 6_000;
    let workers: Vec<_> = (0..3).map(|_| store.start(&["work"])).collect();
    let folder = Folder::new();
    store.ok(&["push", "--quiet", &folder.file("tasks.jsonl", lines(SHARED))]);
    // Ends when all are done, whoever does them.
    let rest = store.ok(&["work", "--until-empty"]).ids();
    workers.iter().for_each(|worker| worker.signal(Signal::SIGTERM));
    let mut ids = rest;
    for worker in workers {
        let ended = worker.end();
        assert_eq!(ended.code, 0, "{ended:?}");
        ids.extend(ended.ids());
    }
    assert_eq!(ids.len(), SHARED, "each once");
    assert_eq!(ids.into_iter().collect::<HashSet<_>>().len(), SHARED);
}

fn it_ends_after_so_many_tasks(store: &Store) {
    store.push(&lines(10));
    assert_eq!(store.ok(&["work", "--max", "3"]).ids(), ["0", "1", "2"]);
    let ran = store.ok(&["work", "--max", "4", "--concurrency", "3", "--exec", "echo $DELAYLINE_ID"]).stdout;
    let mut ran: Vec<_> = ran.lines().collect();
    ran.sort_unstable();
    assert_eq!(ran, ["3", "4", "5", "6"]);
    assert_eq!(store.stats()["due"], 3, "what was not run is not held either");
    assert_eq!(store.ok(&["work", "--max", "100", "--until-empty"]).ids(), ["7", "8", "9"]);
    // It waits for those that are not there yet.
    let waiting = store.start(&["work", "--max", "2"]);
    store.push("{\"id\":\"a\",\"after\":\"0s\"}\n");
    assert_eq!(text(&parse(&waiting.line()), "id"), "a");
    store.push("{\"id\":\"b\",\"after\":\"0s\"}\n");
    assert_eq!(waiting.end().ids(), ["b"]);
}

fn a_signal_ends_it_in_good_order(store: &Store) {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        // Without another end, that is how it ends.
        for (args, code) in [(&["work"][..], 0), (&["work", "--max", "9"], code), (&["work", "--until-empty"], code)] {
            store.push("{\"id\":\"now\",\"after\":\"0s\"}\n{\"id\":\"later\",\"after\":\"1h\"}\n");
            let worker = store.start(args);
            worker.line();
            worker.signal(signal);
            let ended = worker.end();
            assert_eq!(ended.code, code, "{args:?} {signal}: {ended:?}");
            assert!(ended.stderr.contains("terminated; 1 delivered"), "{ended:?}");
            let stats = store.stats();
            assert_eq!((&stats["scheduled"], &stats["in_flight"]), (&1.into(), &0.into()), "{stats}");
            store.ok(&["delete", "--yes"]);
        }
    }
}

fn a_command_that_is_cut_short_is_given_back(store: &Store) {
    store.push("{\"id\":\"a\",\"after\":\"0s\"}\n");
    let worker = store.start(&["work", "--grace", "100ms", "--exec", "echo started; sleep 60"]);
    assert_eq!(worker.line(), "started\n");
    worker.signal(Signal::SIGTERM);
    worker.says("waiting up to 100ms for 1 command to end");
    let ended = worker.end();
    assert!(ended.code == 0 && ended.stderr.contains("1 task released"), "{ended:?}");
    let task = store.json(&["find", "a"], 0)["task"].take();
    assert_eq!((text(&task, "state"), &task["attempt"]), ("pending", &0.into()), "it costs no attempt");
    // What runs has the time that it needs.
    let worker = store.start(&["work", "--exec", "echo started; sleep 1; echo ended"]);
    assert_eq!(worker.line(), "started\n");
    worker.signal(Signal::SIGTERM);
    let ended = worker.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "ended\n"), "{ended:?}");
    assert_eq!(store.run(&["find", "a"]).code, 6, "it was completed");
}

fn what_a_slow_reader_has_not_read_stays_this_worker_s(store: &Store) {
    // More than a pipe holds, so that it waits in the middle of a batch for longer than its lease.
    let payload = "x".repeat(2_000);
    let lines: String =
        (0..BATCH).map(|n| format!("{{\"id\":\"{n}\",\"after\":\"0s\",\"payload\":\"{payload}\"}}\n")).collect();
    store.push(&lines);
    let args = store.args(&["work", "--lease", "4s", "--max", "256"]);
    let (child, mut stdout) = support::start_with_pipe(&args);
    let mut first = [0; 1];
    stdout.read_exact(&mut first).expect("a line");
    // Another one gets nothing as long as the first one lives: it would end at once if the leases did.
    let other = store.start(&["work", "--max", "1"]);
    // Time passes: twice the lease.
    assert_eq!(delayline(&["run"], b"{\"after\":\"8s\"}\n").code, 0);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the other lines");
    assert_eq!(rest.lines().count(), BATCH);
    assert_eq!(support::end_of(child).0, 0);
    store.push("{\"id\":\"end\",\"after\":\"0s\"}\n");
    assert_eq!(other.end().ids(), ["end"]);
}

fn a_task_whose_line_was_not_written_is_given_back(store: &Store) {
    let payload = "x".repeat(2_000);
    let lines: String =
        (0..1_000).map(|n| format!("{{\"id\":\"{n}\",\"after\":\"0s\",\"payload\":\"{payload}\"}}\n")).collect();
    store.push(&lines);
    let (child, mut stdout) = support::start_with_pipe(&store.args(&["work"]));
    let mut some = vec![0; 10_000];
    stdout.read_exact(&mut some).expect("some lines");
    drop(stdout);
    let (code, said) = support::end_of(child);
    assert!(code == 1 && said.contains("stdout was closed"), "{code}: {said}");
    let stats = store.stats();
    assert_eq!(stats["in_flight"], 0, "{stats}");
    let left = stats["due"].as_u64().expect("a number");
    // The pipe holds about thirty lines beside those that were read; they count as delivered, and the rest of the batch
    // does not.
    assert!((940..1_000).contains(&left), "{left} are left");
    assert_eq!(store.ok(&["work", "--until-empty"]).delivered().len() as u64, left);
}

fn metrics_and_health_are_served(store: &Store) {
    store.push("{\"id\":\"a\",\"after\":\"0s\"}\n{\"id\":\"b\",\"after\":\"1h\"}\n");
    let worker = store.start(&["work", "--metrics", "127.0.0.1:0"]);
    let said = worker.says("metrics on http://");
    let address = said.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address").to_owned();
    worker.line();
    let (head, text) = get(&address, "/metrics");
    assert!(head.contains("200 OK") && head.contains("text/plain; version=0.0.4"), "{head}");
    let queue = &store.queue;
    for line in [
        format!("delayline_delivered_total{{queue=\"{queue}\"}} 1"),
        format!("delayline_retried_total{{queue=\"{queue}\"}} 0"),
        format!("delayline_queue_scheduled{{queue=\"{queue}\"}} 1"),
        format!("delayline_lateness_seconds_count{{queue=\"{queue}\"}} 1"),
        "# TYPE delayline_lateness_seconds histogram".to_owned(),
    ] {
        assert!(text.lines().any(|one| one == line), "`{line}` in\n{text}");
    }
    let trips = text.lines().find(|line| line.starts_with("delayline_round_trips_total{backend="));
    assert!(trips.is_some_and(|line| !line.ends_with(" 0")), "{text}");
    for path in ["/healthz", "/readyz"] {
        assert!(get(&address, path).0.contains("200 OK"), "{path}");
    }
    assert!(get(&address, "/else").0.contains("404"));
    let taken = store.run(&["work", "--metrics", &address]);
    assert!(taken.code == 1 && taken.stderr.contains("cannot serve metrics on 127.0.0.1:"), "{taken:?}");
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.end().code, 0);
}

#[cfg(feature = "redis")]
#[test]
fn a_store_that_is_away_at_the_start_is_waited_for() {
    use delayline_conformance::servers::{self, Kind};
    let mut server = servers::start(Kind::Redis).expect("a server");
    let store = Store { url: server.url(), queue: "late".to_owned() };
    server.kill().expect("it is killed");
    let worker = store.start(&["work", "--max", "1", "--metrics", "127.0.0.1:0"]);
    let said = worker.says("metrics on http://");
    let address = said.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address").to_owned();
    worker.says("the store is unavailable; waiting for it");
    assert!(get(&address, "/healthz").0.contains("200 OK"));
    let (head, why) = get(&address, "/readyz");
    assert!(head.contains("503") && why.starts_with("not connected: "), "{head} {why}");
    server.start().expect("it starts again");
    store.push("{\"id\":\"a\",\"after\":\"0s\"}\n");
    assert!(worker.line().contains("\"id\":\"a\""));
    assert_eq!(worker.end().code, 0);

    // Told to end while it waits; and what will not pass is an error at once.
    server.kill().expect("it is killed");
    for (args, code) in [(&["work"][..], 0), (&["work", "--max", "1"], 143)] {
        let worker = store.start(args);
        worker.says("waiting for it");
        worker.signal(Signal::SIGTERM);
        assert_eq!(worker.end().code, code);
    }
    server.start().expect("it starts again");
    let wrong = Store { url: server.url().replacen("redis://", "redis://me:wrong@", 1), ..store };
    let refused = wrong.run(&["work"]);
    assert!(refused.code == 1 && refused.stderr.contains("denied"), "{refused:?}");
}

fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it is served");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("it is asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

fn bad_arguments_are_refused(store: &Store) {
    for args in [
        &["work", "--max", "0"][..],
        &["work", "--lease", "0s"],
        &["work", "--lease", "9000d"],
        &["work", "--concurrency", "2"],
        &["work", "--exec", ""],
        &["work", "--metrics", "nowhere"],
        &["work", "a-file"],
    ] {
        let ended = store.run(args);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{args:?}: {ended:?}");
    }
    let nobody = delayline(&["work", "--until-empty"], b"");
    assert_eq!(nobody.code, 7, "{nobody:?}");
}
