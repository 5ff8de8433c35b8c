//! Standard output: every task, once, never early, in order, in the documented form.

mod support;

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use delayline::{Clock, Timestamp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{Folder, clock, delayline, end_of, parse, start, start_with_pipe, text};

const TASKS: usize = 30_000;

fn timestamp(line: &Value, field: &str) -> Timestamp {
    text(line, field).parse().expect("a time in RFC 3339")
}

/// The delay of a task in milliseconds: many ties, from zero to three seconds.
fn delay_ms(task: usize) -> u64 {
    (task * 7919 % 301) as u64 * 10
}

#[test]
fn thirty_thousand_tasks_come_out_complete_once_never_early_and_in_order() {
    let clock = clock();
    let mut input = String::new();
    let due = clock.wall().saturating_add(Duration::from_secs(2));
    for task in 0..TASKS {
        // Each thirtieth by the wall clock.
        let when = match task % 30 {
            7 => format!("\"at\":\"{}\"", due.saturating_add(Duration::from_millis(delay_ms(task) / 3))),
            _ => format!("\"after\":\"{}ms\"", delay_ms(task)),
        };
        input.push_str(&format!("{{\"id\":\"{task}\",{when},\"payload\":{{\"task\":{task}}}}}\n"));
    }
    let folder = Folder::new();
    let file = folder.file("tasks.jsonl", input);
    let (began, began_wall) = (clock.monotonic(), clock.wall());
    let (child, stdout) = start_with_pipe(&["run", &file]);

    let mut seen = HashSet::new();
    // The last of each kind: their clocks differ, and so may their order within a millisecond or two.
    let mut last: HashMap<bool, (Timestamp, usize)> = HashMap::new();
    let mut counted_from = None;
    for line in BufReader::new(stdout).lines() {
        let line = parse(&line.unwrap());
        let arrived = clock.monotonic();
        let id: usize = text(&line, "id").parse().unwrap();
        assert!(seen.insert(id), "{id} came twice");
        assert_eq!(line["payload"]["task"], id);
        assert_eq!(line["attempt"], 1);

        let due_at = timestamp(&line, "due_at");
        let delivered_at = timestamp(&line, "delivered_at");
        assert!(delivered_at >= due_at, "{line}");
        assert_eq!(
            line["lateness_ms"].as_f64().unwrap(),
            delivered_at.saturating_since(due_at).as_micros() as f64 / 1e3
        );
        let by_wall = id % 30 == 7;
        if by_wall {
            assert!(due_at >= due && clock.wall() >= due_at, "{line}");
        } else {
            let delay = Duration::from_millis(delay_ms(id));
            assert!(delivered_at >= began_wall.saturating_add(delay), "{line}");
            assert!(arrived - began >= delay, "{line}");
            if !delay.is_zero() {
                let from = due_at.saturating_sub(delay);
                assert_eq!(*counted_from.get_or_insert(from), from, "all delays of a file count from one instant");
            }
        }
        if let Some(before) = last.insert(by_wall, (due_at, id)) {
            assert!(before < (due_at, id), "{before:?} came before {line}");
        }
    }
    let (code, stderr) = end_of(child);
    assert_eq!(seen.len(), TASKS);
    assert_eq!(code, 0);
    assert!(stderr.starts_with("delayline: 30000 delivered in "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_line_has_the_promised_form() {
    let input =
        r#"{"id":"a","after":"0s","payload":{"z": [1.50, "é\n", null], "a": 12345678901234567890123},"group":"g"}"#;
    let ran = delayline(&["run", "--queue", "exams", "-"], input.as_bytes());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let begins =
        r#"{"id":"a","queue":"exams","payload":{"z":[1.50,"é\n",null],"a":12345678901234567890123},"due_at":""#;
    assert!(ran.stdout.starts_with(begins), "{}", ran.stdout);
    assert!(ran.stdout.ends_with(",\"attempt\":1,\"group\":\"g\"}\n"), "{}", ran.stdout);
    let order = ["\"due_at\":\"", "\"delivered_at\":\"", "\"lateness_ms\":", "\"attempt\":", "\"group\":"];
    let places: Vec<_> = order.iter().map(|field| ran.stdout.find(field).unwrap()).collect();
    assert!(places.is_sorted(), "{}", ran.stdout);

    let without = delayline(&["run"], b"{\"after\":\"0\"}").delivered();
    assert_eq!(without[0]["payload"], Value::Null);
    assert!(without[0].get("group").is_none());
    assert_eq!(text(&without[0], "queue"), "default");
    assert_eq!(text(&without[0], "id").len(), 36, "an id is made up");
}

#[test]
fn what_is_overdue_comes_at_once_and_says_how_late_it_is() {
    let ran = delayline(
        &["run"],
        b"{\"id\":\"now\",\"after\":\"0\"}\n{\"id\":\"past\",\"at\":\"2001-01-01T01:00:00+01:00\"}",
    );
    assert_eq!((ran.code, ran.ids()), (0, vec!["past".to_owned(), "now".to_owned()]));
    let past = &ran.delivered()[0];
    assert_eq!(text(past, "due_at"), "2001-01-01T00:00:00.000Z");
    assert!(past["lateness_ms"].as_f64().unwrap() > 20.0 * 365.0 * 86_400_000.0);
}

#[test]
fn csv_is_read_by_its_header() {
    let folder = Folder::new();
    let table = "\u{feff}payload,id,after,group,expires\r\n\
                 \"say \"\"hi\"\",\r\nthen go\",a,0s,g,1h\r\n\
                 \r\n\
                 ,b,20ms,,\r\n";
    let ran = delayline(&["run", &folder.file("tasks.CSV", table)], b"");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines = ran.delivered();
    assert_eq!(ran.ids(), ["a", "b"]);
    assert_eq!(text(&lines[0], "payload"), "say \"hi\",\r\nthen go");
    assert_eq!((text(&lines[0], "group"), &lines[1]["payload"]), ("g", &Value::Null));

    let piped = delayline(&["run", "--format", "csv", "-"], b"id,after\nx,0\n");
    assert_eq!((piped.code, piped.ids()), (0, vec!["x".to_owned()]));
}

#[test]
fn a_stream_is_delivered_while_it_stays_open() {
    let mut run = start(&["run", "-"]);
    let mut stdin = run.stdin.take().unwrap();
    stdin
        .write_all(b"{\"id\":\"first\",\"after\":\"0s\"}\n{\"id\":\"later\",\"after\":\"50ms\"}\n{\"id\":\"half")
        .unwrap();
    assert_eq!(text(&parse(&run.line()), "id"), "first");
    assert_eq!(text(&parse(&run.line()), "id"), "later");
    stdin.write_all(b"\",\"after\":\"0s\"}\n{\"id\":\"first\",\"after\":\"0s\"}\n").unwrap();
    assert_eq!(text(&parse(&run.line()), "id"), "half");
    let said = run.says("stdin:4");
    assert_eq!(said, "stdin:4: id `first` was used on line 1 already\n", "although it was delivered long since");
    drop(stdin);
    let ended = run.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (3, ""));
}

#[test]
fn a_reader_who_leaves_ends_it_and_loses_nothing() {
    let folder = Folder::new();
    let rest = folder.path("rest.jsonl");
    let near = "{\"after\":\"0s\"}\n".repeat(3);
    let file = folder.file("tasks.jsonl", near + &"{\"after\":\"200ms\"}\n".repeat(2000));
    let (child, stdout) = start_with_pipe(&["run", &file, "--save-rest", &rest]);
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    for _ in 0..3 {
        line.clear();
        stdout.read_line(&mut line).unwrap();
        parse(&line);
    }
    // Nobody reads on: the rest is noticed to be unwanted although nothing is due just now.
    drop(stdout);
    let (code, stderr) = end_of(child);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.starts_with("delayline: stdout was closed; 2000 tasks are left, the next is due "), "{stderr}");
    assert!(stderr.contains(&format!("saved to {rest}, `delayline run {rest}` continues with it")), "{stderr}");
    let again = delayline(&["run", &rest], b"");
    assert_eq!((again.code, again.delivered().len()), (0, 2000), "{}", again.stderr);
}

#[test]
fn a_reader_who_has_stopped_reading_does_not_keep_it_from_being_stopped() {
    let folder = Folder::new();
    let rest = folder.path("rest.jsonl");
    let tasks: String = (0..20_000).map(|id| format!("{{\"id\":\"{id}\",\"after\":\"0s\"}}\n")).collect();
    let file = folder.file("tasks.jsonl", tasks);
    let (child, stdout) = start_with_pipe(&["run", &file, "--save-rest", &rest]);
    let mut stdout = BufReader::with_capacity(16, stdout);
    let mut written = String::new();
    // Once the first line is here the pipe is being filled, far more than it takes.
    stdout.read_line(&mut written).unwrap();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let (code, stderr) = end_of(child);
    assert_eq!(code, 143, "{stderr}");
    std::io::Read::read_to_string(&mut stdout, &mut written).unwrap();
    let mut ids: Vec<String> = written.lines().map(|line| text(&parse(line), "id").to_owned()).collect();
    ids.extend(support::read(&rest).lines().map(|line| text(&parse(line), "id").to_owned()));
    assert_eq!(ids.len(), 20_000, "each is out or saved, and none is both: {stderr}");
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 20_000);
}

#[test]
fn a_full_disk_is_said_and_nothing_counts_as_delivered() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let mut command = std::process::Command::new(support::program());
    let child = command.args(["run", "-"]).stdin(std::process::Stdio::piped()).stdout(full);
    let mut child = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"after\":\"0\"}\n").unwrap();
    let (code, stderr) = end_of(child);
    assert_eq!(code, 1);
    assert!(stderr.contains("delayline: cannot write to stdout: No space left on device\n"), "{stderr}");
    assert!(stderr.contains("stopped by an error; 1 task is left"), "{stderr}");
}
