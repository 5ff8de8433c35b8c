//! The tables on the terminal: one per scenario, with a row per figure and a column per backend.

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::HumanCount;

use super::{Figure, Outcome, Report, Verdict};
use crate::bench::kinds::KINDS;

/// The result as text.
pub(in crate::bench) fn table(report: &Report) -> String {
    let mut text = String::new();
    for scenario in scenarios(report) {
        text.push_str(&format!("{scenario}\n{}\n\n", of_scenario(report, scenario)));
    }
    let Report { machine, settings, seconds, .. } = report;
    let repeats = if settings.repeats == 1 {
        "one run of each".to_owned()
    } else {
        format!("medians of {} runs ± half their spread", settings.repeats)
    };
    let debug = if settings.debug_build { "; A DEBUG BUILD: figures of the client are meaningless" } else { "" };
    text.push_str(&format!("{}, {} cores; {repeats}; took {seconds:.0} s{debug}", machine.cpu, machine.cores));
    text
}

/// The scenarios that were played, in order.
pub(super) fn scenarios(report: &Report) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for outcome in &report.results {
        if !names.contains(&outcome.scenario.as_str()) {
            names.push(&outcome.scenario);
        }
    }
    names
}

fn of_scenario(report: &Report, scenario: &str) -> String {
    let outcomes: Vec<Option<&Outcome>> =
        report.backends.iter().map(|backend| report.outcome(&backend.name, scenario)).collect();
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY.with_rounded_corners());
    table.set_header(std::iter::once(String::new()).chain(report.backends.iter().map(|backend| backend.name.clone())));
    table.add_row(
        std::iter::once("verdict".to_owned())
            .chain(outcomes.iter().map(|outcome| outcome.map_or_else(String::new, verdict))),
    );
    for kind in KINDS {
        let cells: Vec<Option<&Figure>> =
            outcomes.iter().map(|outcome| outcome.and_then(|outcome| outcome.figures.get(kind.name))).collect();
        if cells.iter().any(Option::is_some) {
            let shown = cells.into_iter().map(|figure| figure.map_or_else(String::new, cell));
            table.add_row(std::iter::once(kind.title.to_owned()).chain(shown));
        }
    }
    for column in 1..=outcomes.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// The verdict in a word or two. The problems are listed beside the table.
pub(in crate::bench) fn verdict(outcome: &Outcome) -> String {
    match outcome.verdict {
        Verdict::Clean => "clean".to_owned(),
        Verdict::Broken => format!("BROKEN: {}", promises(outcome)),
        Verdict::Unsupported => format!("unsupported: {}", outcome.problems.join(", ")),
        Verdict::Failed => "failed".to_owned(),
    }
}

fn promises(outcome: &Outcome) -> String {
    let mut names: Vec<&str> =
        outcome.problems.iter().filter_map(|problem| problem.split_once(':')).map(|(name, _)| name).collect();
    names.retain(|name| name.contains('-'));
    names.dedup();
    names.join(", ")
}

/// A figure with its unit and, of several runs, half their spread.
pub(super) fn cell(figure: &Figure) -> String {
    let value = shown(figure.median, &figure.unit);
    let spread = (figure.max - figure.min) / 2.0;
    match figure.runs.len() {
        0 | 1 => value,
        _ if figure.median == 0.0 => value,
        _ => format!("{value} ±{:.0} %", spread / figure.median * 100.0),
    }
}

/// A value with its unit, with three digits.
pub(in crate::bench) fn shown(value: f64, unit: &str) -> String {
    match unit {
        "bytes" if value >= 10_000.0 => {
            let (value, unit) = if value >= 1e9 { (value / 1e9, "GB") } else { (value / 1e6, "MB") };
            format!("{} {unit}", digits(value))
        }
        "tasks/s" => format!("{}/s", digits(value)),
        "1/s" => format!("{}/s", digits(value)),
        "tasks" => digits(value),
        _ => format!("{} {unit}", digits(value)),
    }
}

/// Three digits, or all of a large number, with its thousands apart.
pub(super) fn digits(value: f64) -> String {
    match value {
        v if v >= 1_000.0 => HumanCount(three(v) as u64).to_string(),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        0.0 => "0".to_owned(),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

fn three(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor() - 2.0);
    (value / unit).round() * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::sample;

    #[test]
    fn figures_are_shown_to_three_digits() {
        for (value, unit, text) in [
            (12_345.0, "tasks/s", "12,300/s"),
            (1_000_000.0, "tasks", "1,000,000"),
            (0.1234, "ms", "0.12 ms"),
            (12.34, "ms", "12.3 ms"),
            (310.0, "bytes", "310 bytes"),
            (123_456_789.0, "bytes", "123 MB"),
            (0.0, "s", "0 s"),
        ] {
            assert_eq!(shown(value, unit), text);
        }
    }

    #[test]
    fn what_is_broken_is_shown_instead_of_figures() {
        let mut report = sample([10.0, 30.0, 20.0]);
        assert!(table(&report).contains("20.0/s ±50 %"), "{}", table(&report));
        let problems = vec!["LOSS-1: 1 of 5 tasks lost".to_owned(), "DUP-1: 2 of 5 tasks".to_owned()];
        for outcome in &mut report.results[..2] {
            *outcome = Outcome::without(&outcome.backend, "herd", Verdict::Broken, problems.clone());
        }
        let text = table(&report);
        assert!(text.contains("BROKEN: LOSS-1, DUP-1") && !text.contains("/s"), "{text}");
        assert!(text.contains("unsupported: replace"), "{text}");
    }
}
