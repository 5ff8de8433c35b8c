//! A report for tests, and tests of writing and reading it.

use super::*;
use crate::bench::figures::{Run, gather, lateness};
use crate::bench::kinds::find;
use crate::bench::late::histogram;

/// A report of two backends, with a figure, and a scenario that one of them does not support.
pub(in crate::bench) fn sample(handled: [f64; 3]) -> Report {
    let mut late = histogram();
    (1..2_000).for_each(|us| late.record(us * 10).unwrap());
    let runs: Vec<Run> = handled
        .into_iter()
        .map(|value| {
            let mut run = Run::new();
            (run.micros, run.bare) = (late.clone(), late.clone());
            run.figure("handled", value);
            run.figure("schedule_batched", value * 2.0);
            run.figure("lateness_p99", 20.0);
            run
        })
        .collect();
    let outcome = |backend: &str, verdict| Outcome {
        repeats: 3,
        figures: gather(&runs),
        lateness: lateness(&runs),
        over_time: (1..40)
            .map(|i| OverTime(f64::from(i) / 4.0, Some(0.5), Some(2.0), Some(30 << 20), Some(60 << 20)))
            .collect(),
        ..Outcome::without(backend, "herd", verdict, Vec::new())
    };
    let backend = |name: &str| Backend {
        name: name.into(),
        url: format!("{name}://127.0.0.1"),
        version: Some("1.2".into()),
        private: true,
        capabilities: BTreeMap::new(),
    };
    let args = <BenchArgs as clap::FromArgMatches>::from_arg_matches(
        &<BenchArgs as clap::Args>::augment_args(clap::Command::new("bench")).get_matches_from(["bench"]),
    );
    Report {
        format: FORMAT,
        delayline: "0.1.0".into(),
        started_at: "2026-11-23T12:00:00.000Z".into(),
        seconds: 12.5,
        command: "delayline bench <quoted>".into(),
        machine: Machine::here(),
        settings: Settings::of(&args.unwrap()),
        backends: vec![backend("memory"), backend("redis")],
        results: vec![
            outcome("memory", Verdict::Clean),
            outcome("redis", Verdict::Clean),
            Outcome::without("redis", "session-expiry", Verdict::Unsupported, vec!["replace".into()]),
        ],
    }
}

#[test]
fn it_is_read_as_it_was_written() {
    let report = sample([10.0, 30.0, 20.0]);
    let text = serde_json::to_string(&report).unwrap();
    let again: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), text);
    assert_eq!(again.outcome("redis", "herd").unwrap().figures["handled"].median, 20.0);
    assert!(again.outcome("redis", "steady").is_none());
    assert_eq!(again.results[0].figures["handled"].better, find("handled").unwrap().better);
}

#[test]
fn every_delivery_is_in_the_histogram_once() {
    let mut late = histogram();
    for us in [0, 99, 100, 101, 178, 179, 5_000, 1_234_567] {
        late.record(us).unwrap();
    }
    let lateness = Lateness::of(&late, &histogram());
    assert_eq!(lateness.histogram.iter().map(|(_, n)| n).sum::<u64>(), 8, "{:?}", lateness.histogram);
    assert_eq!(lateness.histogram[0], (0.1, 3));
    assert!(lateness.bare_percentiles.is_empty());
}
