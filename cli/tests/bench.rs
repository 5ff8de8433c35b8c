//! `delayline bench`: its result, its JSON, its page and its exit codes. The unit tests of `src/bench/books.rs` check
//! that broken runs are found.

mod support;

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use support::{delayline, parse, start};

const SMALL: [&str; 9] = ["bench", "--backends", "memory:", "--tasks", "1000", "--repeats", "2", "--duration", "500ms"];

fn small(more: &[&str]) -> support::Ended {
    delayline(&[&SMALL[..], more].concat(), b"")
}

fn names(of: &Value) -> BTreeSet<&str> {
    of.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn every_scenario_is_clean_on_memory_and_the_page_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("pages");
    let ended = small(&["--quiet", "--report", pages.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{ended:?}");
    for scenario in ["herd", "steady", "order-timeout", "session-expiry", "retry-storm", "far-future"] {
        assert!(ended.stdout.contains(scenario), "{}", ended.stdout);
    }
    assert!(!ended.stdout.contains("BROKEN") && !ended.stdout.contains("failed"), "{}", ended.stdout);
    let page = fs::read_to_string(pages.join("index.html")).unwrap();
    assert!(page.contains("session-expiry") && page.contains("<svg"), "{page}");
    assert!(fs::read_to_string(pages.join("throughput.svg")).unwrap().starts_with("<svg"));
    let report = parse(&fs::read_to_string(pages.join("report.json")).unwrap());
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 6);
    assert!(results.iter().all(|result| result["verdict"] == "clean"), "{report}");
}

#[test]
fn the_json_has_the_documented_fields() {
    let ended = small(&["--scenario", "herd", "--json"]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (0, 1), "{ended:?}");
    let report = parse(&ended.stdout);
    let documented =
        ["backends", "command", "delayline", "format", "machine", "results", "seconds", "settings", "started_at"];
    assert_eq!(names(&report), BTreeSet::from(documented));
    assert_eq!(report["format"], 1);
    let result = &report["results"][0];
    let documented =
        ["backend", "figures", "lateness", "over_time", "problems", "remarks", "repeats", "scenario", "verdict"];
    assert_eq!(names(result), BTreeSet::from(documented));
    assert_eq!((&result["backend"], &result["repeats"]), (&"memory".into(), &2.into()));
    for figure in ["schedule_batched", "claim_single", "complete_single", "to_last", "lateness_p99", "above_sleep_p50"]
    {
        let figure = &result["figures"][figure];
        assert_eq!(names(figure), BTreeSet::from(["better", "max", "median", "min", "runs", "unit"]), "{result}");
        assert_eq!(figure["runs"].as_array().unwrap().len(), 2);
    }
    let documented = BTreeSet::from(["bare_percentiles", "histogram", "percentiles"]);
    assert_eq!(names(&result["lateness"]), documented);
    let delivered: u64 =
        result["lateness"]["histogram"].as_array().unwrap().iter().map(|row| row[1].as_u64().unwrap()).sum();
    assert_eq!(delivered, 2_000, "each task of both runs once");
    assert!(result["over_time"].as_array().unwrap().iter().all(|row| row.as_array().unwrap().len() == 5), "{result}");
}

#[test]
fn a_report_is_compared_with_an_earlier_one_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    let ended = small(&["--scenario", "retry-storm", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let mut report = parse(&ended.stdout);
    let file = directory.path().join("old.json");
    // What nobody can be worse than, and what nobody can reach.
    for (factor, code, change) in [(1e-6, 0, "better"), (1e6, 9, "worse")] {
        let figure = &mut report["results"][0]["figures"]["handled"];
        for field in ["median", "min", "max"] {
            figure[field] = (1e3 * factor).into();
        }
        let slow = &mut report["results"][0]["figures"]["to_last"];
        for field in ["median", "min", "max"] {
            slow[field] = (1e3 / factor).into();
        }
        fs::write(&file, report.to_string()).unwrap();
        let against = file.to_str().unwrap();
        let ended = small(&["--scenario", "retry-storm", "--json", "--tolerance", "1000", "--against", against]);
        assert_eq!(ended.code, code, "{ended:?}");
        let compared = parse(&ended.stdout)["against"].clone();
        let of =
            |name| compared.as_array().unwrap().iter().find(|one| one["figure"] == name).unwrap()["change"].clone();
        assert_eq!((of("handled"), of("to_last")), (change.into(), change.into()), "{compared}");
    }
}

#[test]
fn what_can_not_start_says_why() {
    for (args, code, says) in [
        (&["bench", "--backends", "kafka://me:secret@host"][..], 1, "unknown URL scheme `kafka`"),
        (&["bench", "--against", "/no/such/file"], 1, "cannot read /no/such/file"),
        (&["bench", "--against", "Cargo.toml"], 1, "is not a report of `delayline bench --json`"),
        (&["bench", "--report", "Cargo.toml/x"], 1, "cannot create the directory"),
        (&["bench", "--scenario", "nothing"], 2, "nothing"),
        (&["bench", "--spawn", "kafka"], 2, "kafka"),
        (&["bench", "--tasks", "1"], 2, "--tasks"),
        (&["bench", "--payload", "0"], 2, "--payload"),
        (&["bench", "--repeats", "0"], 2, "--repeats"),
        (&["bench", "--tolerance", "5"], 2, "--against"),
        (&["bench", "--duration", "0s"], 2, "--duration"),
    ] {
        let ended = delayline(args, b"");
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.contains(says) && !ended.stderr.contains("secret"), "{ended:?}");
        assert_eq!(ended.stdout, "", "{ended:?}");
    }
}

#[test]
fn ctrl_c_ends_it_without_a_result() {
    let running =
        start(&["bench", "--backends", "memory:", "--scenario", "herd,steady", "--repeats", "1", "--duration", "1h"]);
    running.says("memory herd: clean");
    running.signal(Signal::SIGINT);
    let ended = running.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (130, ""), "{ended:?}");
}

#[cfg(feature = "redis")]
#[test]
fn a_private_server_is_measured_and_gone_afterwards() {
    let args = ["bench", "--spawn", "redis", "--scenario", "herd", "--tasks", "1000", "--repeats", "1", "--json"];
    let ended = delayline(&args, b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    let report = parse(&ended.stdout);
    let backend = &report["backends"][0];
    assert_eq!((&backend["name"], &backend["private"]), (&"redis".into(), &true.into()));
    assert!(backend["version"].as_str().is_some_and(|version| !version.is_empty()), "{backend}");
    let figures = &report["results"][0]["figures"];
    assert!(figures["server_cpu"].is_object() && figures["server_memory"].is_object(), "{figures}");
    let address = backend["url"].as_str().unwrap().trim_start_matches("redis://");
    assert!(std::net::TcpStream::connect(address).is_err(), "{address} is still there");
}
