//! The result of the suite: a table for people, one JSON object for programs.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use delayline_conformance::check::Findings;
use delayline_conformance::history::Recording;
use delayline_conformance::{Outcome, Report as Tested, suite};
use indicatif::HumanCount;
use serde::Serialize;

use crate::console::Console;
use crate::exit::Failure;
use crate::scratch::left::Left;

/// The result of the suite. Its JSON is a contract: `docs/cli.md` lists the fields, and none is removed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    backend: &'static str,
    /// As text, because JSON's numbers can't represent every seed.
    seed: String,
    passed: usize,
    failed: usize,
    unsupported: usize,
    untested: usize,
    operations: u64,
    tests: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    test: &'static str,
    promise: String,
    outcome: &'static str,
    operations: u64,
    seconds: f64,
    /// What the backend lacks, what could not be done, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<String>,
}

const PASSED: &str = "passed";
const FAILED: &str = "failed";
const UNSUPPORTED: &str = "unsupported";
const UNTESTED: &str = "untested";

/// Whether a test has failed.
pub(super) fn has_failed(tested: &Tested) -> bool {
    matches!(tested.outcome, Outcome::Failed(_))
}

impl Line {
    fn new(tested: Tested) -> Self {
        let promise = suite::find(tested.test).map(suite::Test::promise).unwrap_or_default();
        let (outcome, why, history) = match tested.outcome {
            Outcome::Passed => (PASSED, None, None),
            Outcome::Unsupported(needs) => {
                let fields: Vec<_> = needs.iter().map(|need| need.field()).collect();
                (UNSUPPORTED, Some(fields.join(", ")), None)
            }
            Outcome::Untested(why) => (UNTESTED, Some(why), None),
            Outcome::Failed(failure) => {
                let history = failure.history.as_ref().map(|path| path.display().to_string());
                (FAILED, Some(failure.to_string()), history)
            }
            _ => (FAILED, Some("an outcome that this program version does not know".to_owned()), None),
        };
        let seconds = (tested.took.as_secs_f64() * 1000.0).round() / 1000.0;
        Self { test: tested.test, promise, outcome, operations: tested.operations, seconds, why, history }
    }

    /// The test's name as words, without the promise's number.
    fn words(&self) -> String {
        self.test.split('_').skip(2).collect::<Vec<_>>().join(" ")
    }
}

impl Report {
    pub(super) fn new(backend: &'static str, seed: u64, tested: Vec<Tested>) -> Self {
        let tests: Vec<Line> = tested.into_iter().map(Line::new).collect();
        let count = |outcome| tests.iter().filter(|line| line.outcome == outcome).count();
        Self {
            backend,
            seed: format!("{seed:#018x}"),
            passed: count(PASSED),
            failed: count(FAILED),
            unsupported: count(UNSUPPORTED),
            untested: count(UNTESTED),
            operations: tests.iter().map(|line| line.operations).sum(),
            tests,
        }
    }

    /// Whether the tests saw no broken promise.
    pub(super) fn holds(&self) -> bool {
        self.failed == 0
    }

    /// Writes the result to standard output, which carries nothing else.
    pub(super) fn write(&self, as_json: bool) -> Result<(), Failure> {
        out(&if as_json { json(self)? } else { self.table() })
    }

    /// Reports what went wrong in each failed test.
    pub(super) fn accuse(&self, console: &Console) {
        for line in self.tests.iter().filter(|line| line.outcome == FAILED) {
            let why = line.why.as_deref().unwrap_or_default();
            console.say(format_args!("{} failed (seed {}): {why}", line.test, self.seed));
        }
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY.with_rounded_corners());
        table.set_header(["promise", "", "checked", "what"]);
        for line in &self.tests {
            let why = match (line.outcome, &line.why) {
                (UNSUPPORTED | UNTESTED, Some(why)) => format!("{} ({why})", line.words()),
                _ => line.words(),
            };
            let checked = HumanCount(line.operations).to_string();
            table.add_row([line.promise.as_str(), line.outcome, &checked, &why]);
        }
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let counts =
            [(self.passed, PASSED), (self.failed, FAILED), (self.unsupported, UNSUPPORTED), (self.untested, UNTESTED)];
        let counts: Vec<_> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let checked = HumanCount(self.operations);
        format!(
            "{}\n{}: {}; {checked} answers checked; seed {}",
            table.trim_fmt(),
            self.backend,
            counts.join(", "),
            self.seed
        )
    }
}

/// The result of checking a history again.
pub(super) fn write_findings(recording: &Recording, findings: &Findings, as_json: bool) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Checked<'a> {
        test: &'a str,
        backend: &'a str,
        events: usize,
        violations: Vec<Found>,
    }
    #[derive(Serialize)]
    struct Found {
        promise: &'static str,
        what: String,
        calls: Vec<u64>,
    }
    let header = &recording.header;
    if as_json {
        let found = |v: &delayline_conformance::check::Violation| Found {
            promise: v.promise,
            what: v.what.clone(),
            calls: v.calls.clone(),
        };
        let violations = findings.violations.iter().map(found).collect();
        return out(&json(&Checked {
            test: &header.test,
            backend: &header.backend,
            events: recording.events.len(),
            violations,
        })?);
    }
    let span = recording.events.last().map_or(Duration::ZERO, |event| Duration::from_micros(event.at_us));
    let mut text = format!("{} on {}: {} events in {span:?}", header.test, header.backend, recording.events.len());
    text.push_str(&format!("\n  {}\n  {}", findings.summary, findings.lateness));
    for violation in &findings.violations {
        text.push_str(&format!("\n  {violation}"));
    }
    if findings.violations.is_empty() {
        text.push_str("\n  every promise that the history can show holds");
    }
    out(&text)
}

/// The result of `--remove-left`.
pub(super) fn write_left(left: &Left, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return out(&json(left)?);
    }
    let lines = left.removed.iter().map(|name| format!("removed {name}"));
    let lines = lines.chain(left.in_use.iter().map(|name| format!("in use: {name}")));
    let lines: Vec<_> =
        lines.chain(left.failed.iter().map(|one| format!("failed: {}: {}", one.name, one.why))).collect();
    out(&if lines.is_empty() { "nothing was left".to_owned() } else { lines.join("\n") })
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::new(format!("cannot write the result: {e}")))
}

fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|e| Failure::io("cannot write to stdout", &e))
}
