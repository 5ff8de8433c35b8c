//! The result of the demo: a table for people, one JSON object for programs.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use delayline_conformance::ledger::Tally;
use indicatif::HumanBytes;
use serde::Serialize;

use super::books::Verdict;
use super::show::count;
use crate::console::Console;
use crate::exit::Failure;
use crate::words::span;

/// The result of the demo. Its JSON is a contract: `docs/cli.md` lists the fields, and none is removed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    candidates: u32,
    scheduled: u64,
    cancelled: u64,
    moved: u64,
    shifted: u64,
    delivered: u64,
    retried: u64,
    lost: u64,
    duplicated: u64,
    early: u64,
    lateness_ms: Lateness,
    heap_bytes: Heap,
    seconds: f64,
    #[serde(skip)]
    too_late: u64,
}

#[derive(Debug, Serialize)]
struct Lateness {
    p50: f64,
    p99: f64,
    max: f64,
}

/// Bytes in use: before anything was scheduled, at the peak, and after everything was done.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Heap {
    pub(super) before: u64,
    pub(super) peak: u64,
    pub(super) after: u64,
}

impl Report {
    pub(super) fn new(candidates: u32, verdict: &Verdict, heap_bytes: Heap, took: Duration) -> Self {
        let (counts, [p50, p99, max]) = (verdict.counts, verdict.lateness_ms);
        Self {
            candidates,
            scheduled: counts.scheduled,
            cancelled: counts.cancelled,
            moved: counts.moved,
            shifted: counts.shifted,
            delivered: counts.delivered,
            retried: counts.retried,
            lost: verdict.lost.count,
            duplicated: verdict.twice.count,
            early: verdict.early.count,
            lateness_ms: Lateness { p50, p99, max },
            heap_bytes,
            seconds: (took.as_secs_f64() * 1000.0).round() / 1000.0,
            too_late: counts.too_late,
        }
    }

    /// Writes the result to standard output, which carries nothing else.
    pub(super) fn write(&self, as_json: bool) -> Result<(), Failure> {
        let text = if as_json {
            serde_json::to_string(self).map_err(|e| Failure::new(format!("cannot write the result: {e}")))?
        } else {
            self.table()
        };
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|e| Failure::io("cannot write to stdout", &e))
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY.with_rounded_corners());
        let mut row = |what: &str, number: String, remark: String| {
            table.add_row([what.to_owned(), number, remark]);
        };
        let number = |number: u64| count(number).to_string();
        let must_be_none = |number: u64| if number == 0 { "as promised" } else { "must be 0" }.to_owned();
        row("scheduled", number(self.scheduled), "hand-ins, for the end of the exam".to_owned());
        let too_late = match self.too_late {
            0 => String::new(),
            late => format!("; {} tried too late", count(late)),
        };
        row("cancelled", number(self.cancelled), format!("handed in early by themselves{too_late}"));
        row("moved", number(self.moved), "extra time, each by its own id".to_owned());
        row("shifted", number(self.shifted), "more time for everyone, by one call".to_owned());
        row("handed in", number(self.delivered), "by the worker, at the end".to_owned());
        row("retried", number(self.retried), "after an error or a panic".to_owned());
        row("lost", number(self.lost), must_be_none(self.lost));
        row("twice", number(self.duplicated), must_be_none(self.duplicated));
        row("early", number(self.early), must_be_none(self.early));
        let Lateness { p50, p99, max } = self.lateness_ms;
        row("lateness p50", format!("{p50:.1} ms"), "of first attempts, including the wait for a slot".to_owned());
        row("lateness p99", format!("{p99:.1} ms"), "retries have their own due times".to_owned());
        row("lateness max", format!("{max:.1} ms"), String::new());
        let Heap { before, peak, after } = self.heap_bytes;
        row("heap before", bytes(before), "nothing scheduled yet; includes the demo's own books".to_owned());
        row("heap peak", bytes(peak), "all pending, and the answers to scheduling them".to_owned());
        row("heap after", bytes(after), difference(before, after));
        row("took", span(Duration::from_secs_f64(self.seconds)), String::new());
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt()
    }
}

fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

fn difference(before: u64, after: u64) -> String {
    let sign = if after >= before { "more" } else { "less" };
    format!("{} {sign} than before", bytes(after.abs_diff(before)))
}

/// Names the candidates with errors, or the first of them.
pub(super) fn accuse(console: &Console, verdict: &Verdict) {
    for (what, who) in
        [("lost", &verdict.lost), ("delivered twice", &verdict.twice), ("delivered early", &verdict.early)]
    {
        if who.count > 0 {
            console.say(format_args!("{what}: {}", names(who)));
        }
    }
}

fn names(who: &Tally) -> String {
    let named: Vec<_> = who.first.iter().map(|candidate| format!("exam-1/{candidate}")).collect();
    let more = who.count - named.len() as u64;
    let and_more = if more > 0 { format!(" and {} more", count(more)) } else { String::new() };
    named.join(", ") + &and_more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_went_wrong_are_named() {
        assert_eq!(names(&Tally { count: 1, first: vec![7] }), "exam-1/7");
        assert_eq!(
            names(&Tally { count: 7, first: vec![1, 2, 3, 4, 5] }),
            "exam-1/1, exam-1/2, exam-1/3, exam-1/4, exam-1/5 and 2 more"
        );
    }

    #[test]
    fn the_heap_is_compared() {
        assert_eq!(difference(2048, 1024), "1.00 KiB less than before");
        assert_eq!(difference(1024, 2048), "1.00 KiB more than before");
    }
}
