//! `delayline demo`: the exam, the contract of its JSON, and its exit codes.

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;

use support::{Ended, delayline, parse, start};

/// A short exam.
const SHORT: [&str; 7] = [
    "demo",
    "--candidates=2000",
    "--exam=1s",
    "--more-time=300ms",
    "--extra-time=200ms",
    "--fail-percent=5",
    "--seed=7",
];

fn short(more: &[&str]) -> Ended {
    delayline(&[&SHORT[..], more].concat(), b"")
}

fn number(of: &Value, field: &str) -> u64 {
    of[field].as_u64().unwrap_or_else(|| panic!("no whole number `{field}` in {of}"))
}

fn fields(of: &Value) -> Vec<&str> {
    of.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn everyone_is_handed_in_once_and_in_time() {
    let ended = short(&["--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.stderr, "", "a program has no use for the story");
    assert_eq!(ended.stdout.lines().count(), 1);
    let result = parse(&ended.stdout);

    for none in ["lost", "duplicated", "early"] {
        assert_eq!(number(&result, none), 0, "{result}");
    }
    assert_eq!(number(&result, "scheduled"), 2000);
    assert_eq!(number(&result, "cancelled") + number(&result, "delivered"), 2000, "{result}");
    // The parts were played. How many exactly depends on the machine: who hands in at the last moment may come too
    // late, and whoever has left gets no extra time.
    assert!((1..=1200).contains(&number(&result, "cancelled")), "{result}");
    assert!((1..=400).contains(&number(&result, "moved")), "{result}");
    assert!(number(&result, "shifted") > 0, "{result}");
    assert!(number(&result, "retried") > 0, "{result}");
}

#[test]
fn the_json_has_the_documented_fields() {
    let result = parse(&short(&["--json", "--quiet"]).stdout);
    let mut documented = [
        "scheduled",
        "cancelled",
        "moved",
        "delivered",
        "retried",
        "lost",
        "duplicated",
        "early",
        "lateness_ms",
        "heap_bytes",
        "candidates",
        "shifted",
        "seconds",
    ];
    documented.sort_unstable();
    let mut found = fields(&result);
    found.sort_unstable();
    assert_eq!(found, documented);

    let lateness = &result["lateness_ms"];
    let [p50, p99, max] = ["p50", "p99", "max"].map(|field| lateness[field].as_f64().expect("a number"));
    assert!(p50 <= p99 && p99 <= max, "{lateness}");
    assert_eq!(fields(lateness).len(), 3);

    let heap = &result["heap_bytes"];
    let [before, peak, after] = ["before", "peak", "after"].map(|field| number(heap, field));
    assert_eq!(fields(heap).len(), 3);
    assert!(peak > before + 100_000, "2,000 tasks were there: {heap}");
    assert!(after < before + 64 * 1024, "LEAK: nothing is left of them: {heap}");
}

#[test]
fn a_seed_fixes_who_does_what() {
    // Nobody hands in early, so that what is retried depends on the plan alone.
    let played = |seed: &str| {
        let args = ["--json", "--early-percent=0", "--extra-percent=50", seed];
        let result = parse(&delayline(&[&SHORT[..6], &args].concat(), b"").stdout);
        assert!(number(&result, "moved") <= 1000, "{result}");
        ["retried", "delivered"].map(|field| number(&result, field))
    };
    assert_eq!(played("--seed=1"), [104, 2000]);
    assert_eq!(played("--seed=1"), played("--seed=1"));
}

#[test]
fn without_json_it_tells_the_story_on_stderr_and_a_table_on_stdout() {
    let ended = short(&[]);
    assert_eq!(ended.code, 0, "{ended:?}");
    for row in ["scheduled", "cancelled", "moved", "handed in", "retried", "lost", "twice", "early", "lateness p99"] {
        assert!(ended.stdout.contains(row), "{row}: {}", ended.stdout);
    }
    assert!(ended.stdout.contains("heap after") && ended.stdout.contains("took"), "{}", ended.stdout);
    for told in ["2,000 hand-ins scheduled", "extra time", "shifted in", "time is up"] {
        assert!(ended.stderr.contains(told), "{told}: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panic"), "the panics are the demo's own: {}", ended.stderr);
}

#[test]
fn everybody_may_leave_early_or_nobody() {
    for (percent, cancelled) in [("0", 0..=0), ("100", 1..=2000)] {
        let ended = short(&["--json", "--early-percent", percent]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let result = parse(&ended.stdout);
        assert!(cancelled.contains(&number(&result, "cancelled")), "{result}");
        assert_eq!(number(&result, "cancelled") + number(&result, "delivered"), 2000, "{result}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for wrong in [
        "--candidates=0",
        "--candidates=1000001",
        "--exam=soon",
        "--exam=0s",
        "--exam=2days",
        "--more-time=-1s",
        "--early-percent=101",
        "--fail-percent=-1",
        "--panic-percent=nan",
        "--concurrency=0",
        "--queue=a b",
        "--seed=x",
    ] {
        let ended = delayline(&["demo", wrong], b"");
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{wrong}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{wrong}");
    }
}

#[test]
fn what_can_not_start_ends_with_1() {
    for (backend, why) in [
        ("nowhere:", "unknown URL scheme `nowhere`"),
        ("postgres://127.0.0.1:1/", if cfg!(feature = "postgres") { "can't be reached" } else { "feature `postgres`" }),
        ("memory:?max_tasks=1000", "refused"),
    ] {
        let ended = short(&["--json", "--backend", backend]);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
    }
}

#[test]
fn stopped_by_ctrl_c_it_says_so_and_ends_with_130() {
    let running = start(&["demo", "--candidates=2000", "--exam=1h"]);
    running.says("hand-ins scheduled");
    running.signal(Signal::SIGINT);
    running.says("the demo was stopped");
    let ended = running.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (130, ""));
}
