//! The commands on a store that outlives the program: the answers of each, as text and as JSON, and what it refuses.
#![cfg(any(feature = "redis", feature = "postgres"))]

mod support;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::store::{Store, on_every_store};
use support::{Ended, Folder, delayline, delayline_with, parse, text};

on_every_store! {
    a_task_is_pushed_and_found_and_listed
    a_push_can_be_repeated_and_may_replace
    a_push_with_bad_lines_pushes_the_others_or_with_strict_none
    a_push_carries_the_trace_of_its_environment
    tasks_are_cancelled_by_id_by_ref_and_from_a_file
    a_group_is_cancelled_and_shifted
    tasks_are_moved
    a_paused_queue_hands_nothing_out
    dead_letters_are_listed_redriven_and_purged
    a_deleted_queue_is_empty
    counts_are_told_of_all_queues_or_of_one
    what_can_not_be_undone_asks
    a_reader_that_goes_away_ends_the_listing
    an_empty_input_is_no_error
    a_large_file_is_pushed_in_order
    a_wrong_store_is_one_clear_line
}

fn ids(answer: &Value, of: &str) -> Vec<String> {
    answer[of].as_array().expect("a list").iter().map(|task| text(task, "id").to_owned()).collect()
}

/// Checks that the message is one line, without a stack of causes.
fn one_line(ended: &Ended, code: i32, says: &[&str]) {
    assert_eq!(ended.code, code, "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.starts_with("delayline: "), "{ended:?}");
    for word in says {
        assert!(ended.stderr.contains(word), "`{word}` in {ended:?}");
    }
}

fn a_task_is_pushed_and_found_and_listed(store: &Store) {
    let lines = r#"{"id":"one","after":"1h","group":"g","payload":{"b":1.50,"a":2},"expires":"2h"}
{"after":"30s","payload":"text"}
"#;
    let pushed = store.push(lines);
    let printed: Vec<_> = pushed.stdout.lines().collect();
    assert_eq!((printed[0], printed.len()), ("one", 2), "an id for each task, in order");
    assert!(pushed.stderr.contains("2 pushed into `test-"), "{pushed:?}");

    let found = store.json(&["find", "one"], 0)["task"].take();
    assert_eq!(found["payload"].to_string(), r#"{"a":2,"b":1.5}"#);
    for (field, expected) in
        [("id", json!("one")), ("queue", json!(store.queue)), ("state", json!("pending")), ("group", json!("g"))]
    {
        assert_eq!(found[field], expected, "{field}");
    }
    assert_eq!((&found["attempt"], &found["max_attempts"]), (&json!(0), &json!(20)));
    for field in ["due_at", "visible_at", "expires_at", "ref"] {
        assert!(!text(&found, field).is_empty());
    }
    let shown = store.ok(&["find", "one"]).stdout;
    assert!(shown.contains("{\"b\":1.50,\"a\":2}"), "a payload's digits and order stay: {shown}");

    let listed = store.json(&["list"], 0);
    assert_eq!(ids(&listed, "tasks"), [printed[1], "one"], "by due time");
    assert_eq!(ids(&store.json(&["list", "--limit", "1"], 0), "tasks"), [printed[1]]);
    let table = store.ok(&["list"]).stdout;
    assert!(table.starts_with("DUE") && table.contains("in 59m") && table.contains("\"text\""), "{table}");

    assert_eq!(store.json(&["find", "nobody"], 6), json!({"task": null}));
    one_line(&store.run(&["find", "nobody"]), 6, &["no task `nobody`"]);
    assert_eq!(store.run(&["find", ""]).code, 2);
    assert_eq!(store.run(&["find"]).code, 2);
    assert_eq!(store.run(&["list", "--limit", "0"]).code, 2);
}

fn a_push_can_be_repeated_and_may_replace(store: &Store) {
    let line = |payload: u32| format!("{{\"id\":\"x\",\"after\":\"1h\",\"payload\":{payload}}}\n");
    let push = |args: &[&str], payload| {
        let ended = store.run_with(&[&["push", "--json"], args].concat(), line(payload).as_bytes());
        assert_eq!(ended.code, 0, "{ended:?}");
        (parse(&ended.stdout), ended.stderr)
    };
    let (first, _) = push(&[], 1);
    assert_eq!((&first["outcome"], &first["line"], text(&first, "id")), (&json!("created"), &json!(1), "x"));
    let (again, said) = push(&[], 2);
    assert_eq!((&again["outcome"], &again["ref"]), (&json!("existing"), &first["ref"]), "it is the same task");
    assert!(said.contains("0 pushed") && said.contains("1 there already"), "{said}");
    assert_eq!(store.json(&["find", "x"], 0)["task"]["payload"], 1);
    let (replaced, _) = push(&["--replace", "--max-attempts", "3"], 3);
    assert_eq!(replaced["outcome"], "replaced");
    let task = store.json(&["find", "x"], 0)["task"].take();
    assert_eq!((&task["payload"], &task["max_attempts"]), (&json!(3), &json!(3)));
    assert_eq!(store.run_with(&["push", "--quiet"], line(4).as_bytes()).stdout, "");
}

fn a_push_with_bad_lines_pushes_the_others_or_with_strict_none(store: &Store) {
    let lines = b"{\"id\":\"a\",\"after\":\"1h\"}\nnonsense\n{\"id\":\"b\",\"after\":\"soon\"}\n{\"id\":\"c\",\"after\":\"1h\"}\n";
    let strict = store.run_with(&["push", "--strict"], lines);
    assert_eq!((strict.code, strict.stdout.as_str()), (3, ""), "{strict:?}");
    assert!(strict.stderr.contains("nothing was pushed"), "{strict:?}");
    assert_eq!(store.stats()["scheduled"], 0);
    let ended = store.run_with(&["push"], lines);
    assert_eq!((ended.code, ended.stdout.as_str()), (3, "a\nc\n"), "{ended:?}");
    assert!(ended.stderr.contains("stdin:2: ") && ended.stderr.contains("stdin:3: `after`"), "{ended:?}");
    assert_eq!(store.stats()["scheduled"], 2);
    let folder = Folder::new();
    let table = folder.file("tasks.csv", "id,after,payload\nd,1h,\"x, y\"\n");
    assert_eq!(store.ok(&["push", "--strict", &table]).stdout, "d\n");
    one_line(&store.run(&["push", &folder.path("nowhere.jsonl")]), 1, &["cannot read", "nowhere.jsonl"]);
    one_line(&store.run(&["push", folder.as_path().to_str().expect("a path")]), 1, &["directory"]);
    assert_eq!(store.run(&["push", "--queue", "a b"]).code, 2);
}

fn a_push_carries_the_trace_of_its_environment(store: &Store) {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let push = |parent| {
        let line = b"{\"after\":\"0s\"}\n";
        let ended = delayline_with(&store.args(&["push"]), line, &[("TRACEPARENT", parent), ("TRACESTATE", "v=1")]);
        assert_eq!(ended.code, 0, "{ended:?}");
    };
    let told = || {
        // What this program was given itself is not the task's.
        let args = store.args(&["work", "--until-empty", "--exec", "echo \"$TRACEPARENT $TRACESTATE.\""]);
        delayline_with(&args, b"", &[("TRACEPARENT", &PARENT.replace('7', "8"))]).stdout
    };
    push(PARENT);
    assert_eq!(told(), format!("{PARENT} v=1.\n"));
    push("nonsense");
    assert_eq!(told(), " .\n");
}

fn tasks_are_cancelled_by_id_by_ref_and_from_a_file(store: &Store) {
    let lines: String = (0..6).map(|n| format!("{{\"id\":\"{n}\",\"after\":\"1h\"}}\n")).collect();
    let pushed = store.run_with(&["push", "--json"], lines.as_bytes()).stdout;
    let refs: Vec<Value> = pushed.lines().map(parse).collect();
    assert_eq!(store.ok(&["cancel", "0"]).stdout, "1 task cancelled\n");
    let answer = store.json(&["cancel", "0", "1", "nobody"], 6);
    assert_eq!((&answer["changed"], &answer["not_found"]), (&json!(1), &json!(2)));
    let outcomes: Vec<_> = answer["tasks"].as_array().expect("a list").iter().map(|one| &one["outcome"]).collect();
    assert_eq!(outcomes, ["not_found", "changed", "not_found"]);
    let people = store.run(&["cancel", "nobody"]);
    assert_eq!((people.code, people.stdout.as_str()), (6, "0 tasks cancelled, 1 not there\n"), "{people:?}");

    // A ref is that very task: another one of the same id is not it.
    let folder = Folder::new();
    assert_eq!(store.ok(&["cancel", "--ref", text(&refs[2], "ref")]).stdout, "1 task cancelled\n");
    store.push("{\"id\":\"2\",\"after\":\"1h\"}\n");
    assert_eq!(store.run(&["cancel", "--ref", text(&refs[2], "ref")]).code, 6);
    assert_eq!(store.run(&["cancel", "--ref", "nonsense"]).code, 2);

    let file = folder.file("refs.jsonl", pushed.lines().skip(3).take(2).collect::<Vec<_>>().join("\n"));
    assert_eq!(store.json(&["cancel", "--from", &file], 0)["changed"], 2);
    let listed = store.run(&["list", "--json"]).stdout;
    let rest = store.run_with(&["cancel", "--from", "-"], listed.as_bytes());
    assert_eq!((rest.code, rest.stdout.as_str()), (0, "2 tasks cancelled\n"), "what `list --json` wrote: {rest:?}");
    assert_eq!(store.stats()["scheduled"], 0);
    for bad in ["", "17", "{\"ref\":\"x\"}", "{\"id\":\"a\"}\n{"] {
        one_line(&store.run_with(&["cancel", "--from", "-"], bad.as_bytes()), 3, &["nothing was done"]);
    }
    one_line(&store.run(&["cancel", "--from", &folder.path("nowhere")]), 1, &["cannot read"]);
    assert_eq!(store.run(&["cancel"]).code, 2, "it has to be said what");
    assert_eq!(store.run(&["cancel", "a", "--group", "g"]).code, 2);
}

fn a_group_is_cancelled_and_shifted(store: &Store) {
    let lines: String = (0..5).map(|n| format!("{{\"id\":\"{n}\",\"after\":\"1h\",\"group\":\"g\"}}\n")).collect();
    store.push(&lines);
    let due = |id: &str| -> delayline::Timestamp {
        text(&store.json(&["find", id], 0)["task"], "due_at").parse().expect("a time")
    };
    let before = due("3");
    let later = store.json(&["shift", "--group", "g", "--by", "10m"], 0);
    assert_eq!((&later["changed"], &later["tasks"]), (&json!(5), &Value::Null));
    assert_eq!(due("3").saturating_since(before).as_secs(), 600);
    assert_eq!(store.ok(&["shift", "--group", "g", "--by", "-20m"]).stdout, "5 tasks shifted\n");
    assert_eq!(before.saturating_since(due("3")).as_secs(), 600);
    assert_eq!(store.ok(&["shift", "--group", "nobody", "--by", "1s"]).stdout, "0 tasks shifted\n");
    for by in ["0s", "soon", "10"] {
        assert_eq!(store.run(&["shift", "--group", "g", "--by", by]).code, 2, "{by}");
    }
    assert_eq!(store.json(&["cancel", "--group", "g", "--yes"], 0)["changed"], 5);
    assert_eq!(store.stats()["scheduled"], 0);
}

fn tasks_are_moved(store: &Store) {
    store.push("{\"id\":\"a\",\"after\":\"1h\"}\n{\"id\":\"b\",\"after\":\"1h\"}\n");
    assert_eq!(store.ok(&["move", "a", "--at", "2030-01-31T12:00:00Z"]).stdout, "1 task moved\n");
    assert_eq!(store.json(&["find", "a"], 0)["task"]["due_at"], "2030-01-31T12:00:00.000Z");
    assert_eq!(store.json(&["move", "a", "b", "--after", "0s"], 0)["changed"], 2);
    assert_eq!(store.stats()["due"], 2);
    assert_eq!(store.run(&["move", "nobody", "--after", "1s"]).code, 6);
    let far = store.run(&["move", "a", "--after", "9000y"]);
    one_line(&far, 1, &["out of range"]);
    assert_eq!(store.run(&["move", "a"]).code, 2, "it has to be said when");
    assert_eq!(store.run(&["move", "--after", "1s"]).code, 2, "it has to be said what");
    assert_eq!(store.run(&["move", "a", "--after", "1s", "--at", "2030-01-31T12:00:00Z"]).code, 2);
    assert_eq!(store.run(&["move", "a", "--at", "tomorrow"]).code, 2);
    // One in flight is left alone, and a cancel marks it.
    let holder = store.start(&["work", "--max", "1", "--grace", "0s", "--exec", "echo started; sleep 60"]);
    holder.line();
    let held = store.json(&["list"], 0);
    let held = held["tasks"].as_array().expect("a list").iter().find(|task| task["state"] == "in_flight");
    let id = text(held.expect("one is in flight"), "id").to_owned();
    assert_eq!(store.json(&["move", &id, "--after", "1h"], 8)["in_flight"], 1);
    let cancelled = store.run(&["cancel", &id]);
    assert_eq!((cancelled.code, cancelled.stdout.as_str()), (8, "0 tasks cancelled, 1 in flight and marked\n"));
    assert_eq!(store.json(&["find", &id], 0)["task"]["state"], "cancelling");
    holder.signal(Signal::SIGTERM);
    assert_eq!(holder.end().code, 143);
    assert_eq!(store.run(&["find", &id]).code, 6, "released, it ended");
}

fn a_paused_queue_hands_nothing_out(store: &Store) {
    store.push("{\"id\":\"a\",\"after\":\"0s\"}\n");
    assert_eq!(store.json(&["pause"], 0), json!({"queue": store.queue, "paused": true}));
    assert_eq!(store.stats()["paused"], true);
    assert!(store.ok(&["stats"]).stdout.contains("paused"));
    assert_eq!(store.ok(&["work", "--until-empty"]).stdout, "", "a paused queue counts as empty");
    assert_eq!(store.json(&["resume"], 0), json!({"queue": store.queue, "paused": false}));
    assert_eq!(store.ok(&["work", "--until-empty"]).ids(), ["a"]);
    assert!(store.ok(&["pause"]).stdout.contains("is paused"));
    assert!(store.ok(&["resume"]).stdout.contains("delivered again"));
}

fn dead_letters_are_listed_redriven_and_purged(store: &Store) {
    let lines: String = (0..3).map(|n| format!("{{\"id\":\"{n}\",\"after\":\"0s\",\"payload\":\"p\"}}\n")).collect();
    assert_eq!(store.run_with(&["push", "--max-attempts", "1"], lines.as_bytes()).code, 0);
    let args = ["work", "--until-empty", "--exec", "echo why >&2; exit 3"];
    let worked = store.run(&args);
    assert_eq!(worked.code, 4, "{worked:?}");
    assert!(worked.stderr.contains("dead letter: 0 after 1 attempt: exit code 3: why"), "{worked:?}");
    let dead = store.json(&["dead", "list"], 0);
    assert_eq!((ids(&dead, "letters").len(), &dead["more"]), (3, &json!(false)));
    let letter = &dead["letters"][0];
    assert_eq!((text(letter, "cause"), text(letter, "reason")), ("attempts_used_up", "exit code 3: why"));
    assert_eq!((&letter["payload"], &letter["attempts"]), (&json!("p"), &json!(1)));
    let first = store.json(&["dead", "list", "--limit", "2"], 0);
    assert_eq!((ids(&first, "letters").len(), &first["more"]), (2, &json!(true)));
    assert!(store.ok(&["dead", "list"]).stdout.contains("attempts used up: exit code 3: why"));

    let redriven = store.json(&["dead", "redrive", "1"], 0);
    assert_eq!((&redriven["redriven"], &redriven["kept"]), (&json!(1), &json!(0)));
    assert_eq!(store.ok(&["work", "--until-empty"]).ids(), ["1"]);
    assert_eq!(store.run(&["dead", "redrive", "nobody"]).code, 6);
    for rate in ["0", "-1", "many"] {
        assert_eq!(store.run(&["dead", "redrive", "--rate", rate]).code, 2, "{rate}");
    }
    assert_eq!(store.json(&["dead", "purge", "2", "--yes"], 0)["purged"], 1);
    // One a second: the first is due at once.
    assert_eq!(store.ok(&["dead", "redrive", "--rate", "1"]).stdout, "1 dead letter redriven\n");
    assert_eq!(store.json(&["dead", "purge", "--yes"], 0)["purged"], 0);
    let none = store.ok(&["dead", "list"]);
    assert!(none.stdout.is_empty() && none.stderr.contains("no dead letters"), "{none:?}");
}

fn a_deleted_queue_is_empty(store: &Store) {
    store.push("{\"after\":\"1h\"}\n{\"after\":\"0s\"}\n");
    let refused = store.run(&["delete"]);
    one_line(&refused, 2, &["2 tasks", "--yes"]);
    assert_eq!(store.json(&["delete", "--yes"], 0), json!({"queue": store.queue, "deleted": true}));
    assert_eq!(store.stats()["scheduled"], 0);
    assert!(!names(store).contains(&store.queue), "it is forgotten");
    let unnamed = delayline(&["delete", "--yes", "--backend", &store.url], b"");
    assert_eq!(unnamed.code, 2, "there is no default for what can't be undone: {unnamed:?}");
}

fn names(store: &Store) -> Vec<String> {
    let ended = delayline(&["queues", "--json", "--backend", &store.url], b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    serde_json::from_value(parse(&ended.stdout)["queues"].take()).expect("names")
}

fn counts_are_told_of_all_queues_or_of_one(store: &Store) {
    store.push("{\"after\":\"500ms\"}\n{\"after\":\"30s\"}\n{\"after\":\"2h\"}\n{\"at\":\"2001-01-01T00:00:00Z\"}\n");
    let stats = store.stats();
    let (scheduled, due) = (stats["scheduled"].as_u64(), stats["due"].as_u64());
    assert!(scheduled.zip(due).is_some_and(|(scheduled, due)| scheduled + due == 4 && due >= 1), "{stats}");
    if !stats["due_within"].is_null() {
        assert_eq!(
            (&stats["due_within"]["day"], scheduled),
            (&stats["scheduled"], stats["due_within"]["day"].as_u64())
        );
        assert!(stats["due_within"]["minute"].as_u64() < scheduled, "{stats}");
    }
    assert!(stats["oldest_due_ms"].as_f64() > Some(1e9), "{stats}");
    assert!(names(store).contains(&store.queue));
    let all = delayline(&["stats", "--json", "--backend", &store.url], b"");
    let all = parse(&all.stdout);
    assert!(all["queues"].as_array().expect("a list").iter().any(|one| one["queue"] == store.queue.as_str()), "{all}");
    let plain = delayline(&["queues", "--backend", &store.url], b"").stdout;
    assert!(plain.lines().any(|line| line == store.queue), "{plain}");
    let pong = delayline(&["ping", "--json", "--backend", &store.url], b"");
    assert!(parse(&pong.stdout)["ping_ms"].is_number(), "{pong:?}");
    assert!(delayline(&["ping", "--backend", &store.url], b"").stdout.contains(" answered in "));
}

fn what_can_not_be_undone_asks(store: &Store) {
    store.push("{\"after\":\"1h\",\"group\":\"g\"}\n");
    // Standard input is no terminal here, so nobody can answer.
    for args in [&["cancel", "--group", "g"][..], &["dead", "purge"], &["delete"]] {
        one_line(&store.run_with(args, b"y\n"), 2, &["--yes"]);
    }
    assert_eq!(store.stats()["scheduled"], 1);
}

fn a_reader_that_goes_away_ends_the_listing(store: &Store) {
    let lines = "{\"after\":\"1h\",\"payload\":\"0123456789012345678901234567890123456789\"}\n".repeat(20_000);
    store.push(&lines);
    for command in ["list", "push"] {
        let args = if command == "list" {
            vec!["list", "--limit", "20000", "--json"]
        } else {
            vec!["push", "--json", "/dev/stdin"]
        };
        let args = store.args(&args);
        let program = support::program();
        let script = "\"$0\" \"$@\" | head -c 100 >/dev/null; echo ${PIPESTATUS[0]}";
        let mut child = std::process::Command::new("bash")
            .args(["-c", script])
            .arg(program)
            .args(args)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("bash starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let feed = lines.clone();
        let feeder = std::thread::spawn(move || {
            let _ = std::io::Write::write_all(&mut stdin, feed.as_bytes());
        });
        let ended = child.wait_with_output().expect("it ends");
        feeder.join().expect("the feeder ends");
        let (code, said) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert_eq!(code.trim(), "1", "{command}: {said}");
        assert!(!said.contains("panicked") && said.lines().count() == 1, "{command}: {said}");
    }
}

fn an_empty_input_is_no_error(store: &Store) {
    let ended = store.run_with(&["push"], b"");
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{ended:?}");
    assert!(ended.stderr.contains("stdin holds no tasks"), "{ended:?}");
}

fn a_large_file_is_pushed_in_order(store: &Store) {
    const TASKS: usize = 30_000;
    let folder = Folder::new();
    let lines: String = (0..TASKS).map(|n| format!("{{\"id\":\"{n}\",\"at\":\"2001-01-01T00:00:00Z\"}}\n")).collect();
    let file = folder.file("tasks.jsonl", lines);
    let pushed = store.ok(&["push", &file]);
    assert!(pushed.stdout.lines().eq((0..TASKS).map(|n| n.to_string())), "in the order of the input");
    let delivered = store.ok(&["work", "--max", "2000"]).ids();
    assert_eq!(delivered, (0..2000).map(|n| n.to_string()).collect::<Vec<_>>(), "and delivered so");
    assert_eq!(store.stats()["due"], TASKS - 2000);
    store.ok(&["delete", "--yes"]);
}

fn a_wrong_store_is_one_clear_line(store: &Store) {
    let away = store.url.rsplit_once(':').expect("a port").0.to_owned() + ":9";
    // `work` waits for it.
    for command in [&["stats"][..], &["ping"], &["push"], &["list"], &["pause"]] {
        let ended = delayline(&[command, &["--backend", &away]].concat(), b"{\"after\":\"0s\"}\n");
        one_line(&ended, 1, &["unavailable", "--backend or DELAYLINE_BACKEND"]);
    }
    let secret = store.url.replace("://", "://nobody:hidden-word@");
    let ended = delayline(&["stats", "--backend", &secret], b"");
    assert!(!format!("{ended:?}").contains("hidden-word"), "{ended:?}");
    let ended = delayline(&["stats", "--backend", "nonsense"], b"");
    one_line(&ended, 1, &["scheme"]);
}
