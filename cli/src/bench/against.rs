//! Comparison with an earlier report: figures that became worse by more than the spread of the runs.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::kinds::{Better, find};
use super::report::table::shown;
use super::report::{FORMAT, Figure, Report, Verdict};
use crate::exit::Failure;

/// A difference in milliseconds below this is ignored, whatever its ratio, because it does not matter.
const NEGLIGIBLE_MS: f64 = 1.0;

/// How a figure has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Change {
    Same,
    Better,
    Worse,
}

/// A figure then and now.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Compared {
    backend: String,
    scenario: String,
    figure: String,
    unit: String,
    before: f64,
    now: f64,
    /// Now divided by before.
    ratio: f64,
    pub(super) change: Change,
}

/// Reads an earlier report.
pub(super) fn read(path: &Path) -> Result<Report, Failure> {
    let shown = path.display();
    let file = File::open(path).map_err(|e| Failure::io(format_args!("cannot read {shown}"), &e))?;
    let report: Report = serde_json::from_reader(BufReader::new(file))
        .map_err(|e| Failure::new(format!("{shown} is not a report of `delayline bench --json`: {e}")))?;
    if report.format != FORMAT {
        return Err(Failure::new(format!("{shown} has format {}; expected {FORMAT}", report.format)));
    }
    Ok(report)
}

/// Compares every figure that is in both reports and can be better or worse.
pub(super) fn compare(before: &Report, now: &Report, tolerance_percent: u32) -> Vec<Compared> {
    let mut all = Vec::new();
    for outcome in now.results.iter().filter(|outcome| outcome.verdict == Verdict::Clean) {
        let earlier =
            before.outcome(&outcome.backend, &outcome.scenario).filter(|earlier| earlier.verdict == Verdict::Clean);
        for (name, figure) in &outcome.figures {
            let earlier = earlier.and_then(|earlier| earlier.figures.get(name));
            let Some(earlier) = earlier.filter(|_| figure.better != Better::Neither) else { continue };
            all.push(Compared {
                backend: outcome.backend.clone(),
                scenario: outcome.scenario.clone(),
                figure: name.clone(),
                unit: figure.unit.clone(),
                before: earlier.median,
                now: figure.median,
                ratio: if earlier.median == 0.0 { 1.0 } else { figure.median / earlier.median },
                change: change(earlier, figure, f64::from(tolerance_percent) / 100.0),
            });
        }
    }
    all
}

/// A figure has changed if its median differs by more than the tolerance, and the runs before and now do not overlap.
fn change(before: &Figure, now: &Figure, tolerance: f64) -> Change {
    let apart = now.min > before.max || now.max < before.min;
    let is_time = now.unit == "ms";
    let negligible = is_time && (now.median - before.median).abs() < NEGLIGIBLE_MS;
    // A median of zero before: every other value is beyond the tolerance.
    let most = if is_time { before.median.max(NEGLIGIBLE_MS) } else { before.median };
    let (low, high) = (before.median / (1.0 + tolerance), most * (1.0 + tolerance));
    if !apart || negligible || (low..=high).contains(&now.median) {
        return Change::Same;
    }
    if (now.median > before.median) == (now.better == Better::Higher) { Change::Better } else { Change::Worse }
}

/// The differences as a table, with a warning if the settings differ.
pub(super) fn table(compared: &[Compared], before: &Report, now: &Report) -> String {
    let mut text = String::new();
    if before.settings != now.settings
        || before.machine.cpu != now.machine.cpu
        || before.machine.cores != now.machine.cores
    {
        text.push_str("warning: the earlier report was made with other settings or on another machine\n");
    }
    let changed: Vec<&Compared> = compared.iter().filter(|one| one.change != Change::Same).collect();
    if changed.is_empty() {
        text.push_str(&format!(
            "compared with {}: {} figures, none of which differs beyond noise",
            before.started_at,
            compared.len()
        ));
        return text;
    }
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY.with_rounded_corners());
    table.set_header(["backend", "scenario", "figure", "before", "now", "ratio", ""]);
    for one in &changed {
        let title = find(&one.figure).map_or(one.figure.as_str(), |kind| kind.title);
        let word = if one.change == Change::Worse { "WORSE" } else { "better" };
        let (then, now) = (shown(one.before, &one.unit), shown(one.now, &one.unit));
        table.add_row([&one.backend, &one.scenario, title, &then, &now, &format!("{:.2}", one.ratio), word]);
    }
    for column in 3..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let same = compared.len() - changed.len();
    text.push_str(&format!(
        "compared with {}\n{}\n{same} figures do not differ beyond noise",
        before.started_at,
        table.trim_fmt()
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::sample;

    fn changes(before: [f64; 3], now: [f64; 3]) -> Vec<(String, Change)> {
        let compared = compare(&sample(before), &sample(now), 25);
        let of_memory = compared.into_iter().filter(|one| one.backend == "memory");
        of_memory.map(|one| (one.figure, one.change)).collect()
    }

    fn of(changes: &[(String, Change)], figure: &str) -> Change {
        changes.iter().find(|(name, _)| name == figure).unwrap().1
    }

    #[test]
    fn what_became_worse_is_told_from_noise() {
        let before = [100.0, 95.0, 105.0];
        for (now, expected) in [
            ([100.0, 95.0, 105.0], Change::Same),
            ([50.0, 45.0, 55.0], Change::Worse),
            ([200.0, 210.0, 190.0], Change::Better),
            // Off by more than the tolerance, and one of its runs is as good as before.
            ([50.0, 45.0, 96.0], Change::Same),
            // Apart, and within the tolerance.
            ([90.0, 89.0, 91.0], Change::Same),
        ] {
            let changes = changes(before, now);
            assert_eq!((of(&changes, "handled"), of(&changes, "schedule_batched")), (expected, expected), "{now:?}");
            assert_eq!(of(&changes, "lateness_p99"), Change::Same);
        }
    }

    #[test]
    fn less_is_better_where_it_is_and_a_moment_is_no_matter() {
        let figure = |median: f64| {
            let kind = find("lateness_p99").unwrap();
            Figure::of(kind, vec![median; 3]).unwrap()
        };
        assert_eq!(change(&figure(10.0), &figure(20.0), 0.25), Change::Worse);
        assert_eq!(change(&figure(20.0), &figure(10.0), 0.25), Change::Better);
        assert_eq!(change(&figure(0.2), &figure(0.9), 0.25), Change::Same);
        assert_eq!(change(&figure(0.0), &figure(2.0), 0.25), Change::Worse);
        assert_eq!(change(&figure(0.0), &figure(2.0), 10.0), Change::Same);
        assert_eq!(change(&figure(0.0), &figure(12.0), 10.0), Change::Worse);
    }

    #[test]
    fn the_table_names_what_differs() {
        let (before, now) = (sample([100.0; 3]), sample([50.0; 3]));
        let text = table(&compare(&before, &now, 25), &before, &now);
        assert!(text.contains("WORSE") && text.contains("0.50") && !text.contains("warning"), "{text}");
        let same = table(&compare(&now, &now, 25), &now, &now);
        assert!(same.contains("none of which differs"), "{same}");
    }
}
