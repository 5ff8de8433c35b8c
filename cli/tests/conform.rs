//! `delayline conform`: its result, its JSON and its exit codes.

mod support;

use serde_json::Value;

use support::{delayline, parse};

fn fields(of: &Value) -> Vec<&str> {
    of.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn promises_that_hold_are_a_table_and_code_0() {
    let ended = delayline(&["conform", "--only", "order_1", "--only", "clear_8"], b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains("ORDER-1") && ended.stdout.contains("CLEAR-8"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("DUP-") && !ended.stdout.contains("failed"), "{}", ended.stdout);
    assert_eq!(ended.stderr, "");
}

#[test]
fn the_json_has_the_documented_fields() {
    let ended = delayline(&["conform", "--only", "dup_8", "--only", "loss_4", "--json", "--seed", "0xff"], b"");
    assert_eq!((ended.code, ended.stdout.lines().count()), (0, 1), "{ended:?}");
    let result = parse(&ended.stdout);
    let mut documented =
        ["backend", "failed", "operations", "passed", "seed", "tests", "unsupported", "untested"].to_vec();
    documented.sort_unstable();
    let mut there = fields(&result);
    there.sort_unstable();
    assert_eq!(there, documented);
    assert_eq!((&result["backend"], &result["seed"]), (&"memory".into(), &"0x00000000000000ff".into()));
    let tests = result["tests"].as_array().expect("a list");
    assert_eq!(result["passed"].as_u64().unwrap() + result["untested"].as_u64().unwrap(), tests.len() as u64);
    for test in tests {
        assert!(["passed", "untested"].contains(&test["outcome"].as_str().unwrap()), "{test}");
        assert!(["DUP-8", "LOSS-4"].contains(&test["promise"].as_str().unwrap()), "{test}");
        assert!(test["operations"].as_u64().is_some() && test["seconds"].as_f64().is_some(), "{test}");
    }
    // Nobody can kill a server of which only a URL is known.
    assert!(tests.iter().any(|test| test["outcome"] == "untested" && test["why"].is_string()), "{result}");
}

#[test]
fn what_can_not_start_is_one_line_and_code_1() {
    for (args, says) in [
        (&["conform", "--only", "nothing"][..], "no test's name begins with `nothing`; the names begin with bound, "),
        (&["conform", "--backend", "kafka://secret@host"], "unknown URL scheme `kafka`"),
        (&["conform", "--check", "/no/such/file"], "cannot read /no/such/file"),
        (
            &["conform", "--check", "Cargo.toml"],
            "Cargo.toml is not the history of a failed test: line 1: expected the header",
        ),
    ] {
        let ended = delayline(args, b"");
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.contains(says) && ended.stderr.lines().count() == 1, "{ended:?}");
        assert!(!ended.stderr.contains("secret"), "{ended:?}");
    }
    assert_eq!(delayline(&["conform", "--jobs", "0"], b"").code, 2);
}

/// A task that is delivered a second before it is due.
const EARLY: &str = r#"{"test":"by_hand","seed":1,"backend":"none","resolution_us":1000,"lateness_us":1000,"order":"exact","retry_window_us":0}
{"at_us":0,"wall":"2030-01-01T00:00:00Z","call":0,"what":{"invoked":{"client":0,"queue":"q","op":{"schedule":[{"id":"a","due":{"after_us":2000000},"expires":null,"content":{"payload_len":0,"payload_hash":1,"headers":{},"group":null,"max_attempts":20},"replace":false}]}}}}
{"at_us":10,"wall":"2030-01-01T00:00:00Z","call":0,"what":{"ok":{"schedule":[{"ok":{"task":{"id":"a","due_at":"2030-01-01T00:00:02Z"},"outcome":"created"}}]}}}
{"at_us":1000000,"wall":"2030-01-01T00:00:01Z","call":1,"what":{"invoked":{"client":0,"queue":"q","op":{"claim":{"max":1,"max_bytes":1000,"lease_us":1000000}}}}}
{"at_us":1000010,"wall":"2030-01-01T00:00:01Z","call":1,"what":{"ok":{"claim":{"deliveries":[{"lease":{"id":"a","fence":1},"attempt":1,"lease_expires":"2030-01-01T00:00:02Z","due_at":"2030-01-01T00:00:01Z","lateness_us":0,"expires_at":null,"content":{"payload_len":0,"payload_hash":1,"headers":{},"group":null,"max_attempts":20}}],"next_due_us":null,"buried":0,"set_aside":0}}}}
"#;

#[test]
fn a_history_that_shows_a_broken_promise_is_code_5() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("early.jsonl");
    std::fs::write(&file, EARLY).unwrap();
    let path = file.to_str().unwrap();
    let ended = delayline(&["conform", "--check", path], b"");
    assert_eq!(ended.code, 5, "{ended:?}");
    assert!(ended.stdout.contains("TIME-1"), "{}", ended.stdout);
    let result = parse(&delayline(&["conform", "--check", path, "--json"], b"").stdout);
    assert_eq!((&result["violations"][0]["promise"], &result["events"]), (&"TIME-1".into(), &4.into()), "{result}");

    // Two seconds later it is nothing to complain of.
    std::fs::write(&file, EARLY.replace("\"at_us\":10000", "\"at_us\":30000")).unwrap();
    assert_eq!(delayline(&["conform", "--check", path], b"").code, 0);
}
