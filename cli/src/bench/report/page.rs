//! The page: one self-contained HTML file, for light and dark mode, narrow and wide screens.

use std::fmt::{self, Write as _};

use super::plot::{Axis, Bars, COLOURS, Colour, Line, SERIES_MAX, bars, bars_alone, lines};
use super::table::{cell, scenarios, shown, verdict};
use super::{Figure, Outcome, Report, Verdict};
use crate::bench::kinds::KINDS;
use crate::exit::Failure;

const STYLE: &str = include_str!("page.css");

/// What the bars show.
const BARS: [&str; 6] =
    ["schedule_batched", "claim_batched", "complete_batched", "schedule_single", "claim_single", "complete_single"];

/// A description of each scenario.
const SCENARIOS: [(&str, &str); 6] = [
    ("herd", "Everything is due at one instant. Then each kind of call by itself, in batches and by single callers."),
    ("steady", "200 tasks per second. Then the highest rate at which p99 lateness stays below 50 ms, found by search."),
    ("order-timeout", "1,000 orders per second, each with a task for its time-out; nine of ten are cancelled before."),
    ("retry-storm", "Everything is due at one instant, and fails three times."),
    (
        "session-expiry",
        "Sessions are touched again and again, by replacing and by moving; almost none ends. Memory must be freed.",
    ),
    (
        "far-future",
        "Near tasks by themselves, and again beside many that are due hours later. Nothing should slow down.",
    ),
];

/// The page as HTML.
pub(in crate::bench) fn page(report: &Report) -> Result<String, Failure> {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>delayline bench</title><style>{COLOURS}{STYLE}</style></head><body><main>"
    );
    let Report { started_at, machine, settings, .. } = report;
    let day = started_at.split('.').next().unwrap_or(started_at).replace('T', " ");
    put(
        &mut html,
        format_args!("<h1>delayline bench</h1><p>{} UTC, {}, {} cores.", text(&day), text(&machine.cpu), machine.cores),
    );
    let spread = if settings.repeats > 1 { " Figures are medians, ± half the spread of the runs." } else { "" };
    put(
        &mut html,
        format_args!(" A run that lost a task, or delivered one twice or early, has no figures.{spread}</p>"),
    );
    if settings.debug_build {
        html.push_str("<p class=\"bad\">A debug build: figures of the client are meaningless.</p>");
    }
    legend(&mut html, report);
    verdicts(&mut html, report);
    let groups = throughput(report);
    if !groups.is_empty() {
        put(
            &mut html,
            format_args!(
                "<h2>Throughput</h2><p>Tasks per second in the herd; the scale is logarithmic.</p>{}",
                bars(&groups)?
            ),
        );
    }
    for scenario in scenarios(report) {
        section(&mut html, report, scenario)?;
    }
    about(&mut html, report);
    html.push_str("</main></body></html>\n");
    Ok(html)
}

/// The bars alone as a picture, for a README; `None` without the scenario `herd`.
pub(in crate::bench) fn picture(report: &Report) -> Result<Option<String>, Failure> {
    let groups = throughput(report);
    if groups.is_empty() { Ok(None) } else { bars_alone(&groups).map(Some) }
}

fn throughput(report: &Report) -> Vec<Bars> {
    let of = |name: &'static str| {
        let figure = |(number, backend): (usize, &super::Backend)| {
            let figure = report.outcome(&backend.name, "herd")?.figures.get(name)?;
            Some((number, backend.name.clone(), figure.median, shown(figure.median, &figure.unit)))
        };
        let bars: Vec<_> = report.backends.iter().enumerate().filter_map(figure).collect();
        let title = KINDS.iter().find(|kind| kind.name == name).map_or(name, |kind| kind.title);
        (!bars.is_empty()).then_some(Bars { title, bars })
    };
    BARS.into_iter().filter_map(of).collect()
}

fn legend(html: &mut String, report: &Report) {
    html.push_str("<p class=\"legend\">");
    for (number, backend) in report.backends.iter().enumerate() {
        let version = backend.version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
        let colour = number % SERIES_MAX;
        put(
            html,
            format_args!(
                "<span><i style=\"background:var(--c{colour})\"></i>{}{}</span> ",
                text(&backend.name),
                text(&version)
            ),
        );
    }
    html.push_str("<span><i style=\"background:var(--bare)\"></i>a bare sleep</span></p>");
}

fn verdicts(html: &mut String, report: &Report) {
    html.push_str("<h2>Verdicts</h2><div class=\"scroll\"><table><tr><th></th>");
    for backend in &report.backends {
        put(html, format_args!("<th>{}</th>", text(&backend.name)));
    }
    html.push_str("</tr>");
    for scenario in scenarios(report) {
        put(html, format_args!("<tr><th><a href=\"#{scenario}\">{scenario}</a></th>", scenario = text(scenario)));
        for backend in &report.backends {
            let outcome = report.outcome(&backend.name, scenario);
            let class = match outcome.map(|outcome| outcome.verdict) {
                Some(Verdict::Clean) => "good",
                Some(Verdict::Broken | Verdict::Failed) => "bad",
                Some(Verdict::Unsupported) | None => "none",
            };
            put(html, format_args!("<td class=\"{class}\">{}</td>", text(&outcome.map_or_else(String::new, verdict))));
        }
        html.push_str("</tr>");
    }
    html.push_str("</table></div>");
}

fn section(html: &mut String, report: &Report, scenario: &str) -> Result<(), Failure> {
    let what = SCENARIOS.iter().find(|(name, _)| *name == scenario).map_or("", |(_, what)| what);
    put(html, format_args!("<h2 id=\"{name}\">{name}</h2><p>{what}</p>", name = text(scenario)));
    let outcomes: Vec<Option<&Outcome>> =
        report.backends.iter().map(|backend| report.outcome(&backend.name, scenario)).collect();
    for outcome in outcomes.iter().flatten() {
        let said = if outcome.verdict == Verdict::Clean { &outcome.remarks } else { &outcome.problems };
        let class = if matches!(outcome.verdict, Verdict::Broken | Verdict::Failed) { "bad" } else { "none" };
        for line in said.iter().filter(|_| outcome.verdict != Verdict::Unsupported) {
            put(html, format_args!("<p class=\"{class}\">{}: {}</p>", text(&outcome.backend), text(line)));
        }
    }
    figures(html, report, &outcomes);
    let plots = [
        percentiles(&outcomes)?,
        distribution(&outcomes)?,
        lateness_over_time(&outcomes)?,
        memory_over_time(&outcomes)?,
    ];
    html.push_str("<div class=\"plots\">");
    for (title, plot) in plots.into_iter().flatten() {
        put(html, format_args!("<figure><figcaption>{title}</figcaption>{plot}</figure>"));
    }
    html.push_str("</div>");
    Ok(())
}

fn figures(html: &mut String, report: &Report, outcomes: &[Option<&Outcome>]) {
    let of = |name: &str| -> Vec<Option<&Figure>> {
        outcomes.iter().map(|outcome| outcome.and_then(|outcome| outcome.figures.get(name))).collect()
    };
    if outcomes.iter().flatten().all(|outcome| outcome.figures.is_empty()) {
        return;
    }
    html.push_str("<div class=\"scroll\"><table><tr><th></th>");
    for backend in &report.backends {
        put(html, format_args!("<th>{}</th>", text(&backend.name)));
    }
    html.push_str("</tr>");
    for kind in KINDS {
        let cells = of(kind.name);
        if cells.iter().any(Option::is_some) {
            put(html, format_args!("<tr><th>{}</th>", text(kind.title)));
            for figure in cells {
                // On a narrow page it breaks before the spread, and nowhere else.
                let shown = figure.map_or_else(String::new, cell).replace(' ', "\u{a0}").replace("\u{a0}±", " ±");
                put(html, format_args!("<td>{}</td>", text(&shown)));
            }
            html.push_str("</tr>");
        }
    }
    html.push_str("</table></div>");
}

type Plot = Option<(&'static str, String)>;

fn percentiles(outcomes: &[Option<&Outcome>]) -> Result<Plot, Failure> {
    const SHOWN: [(f64, &str); 6] =
        [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %"), (1.0, "max")];
    let points = |percentiles: &[(f64, f64)]| -> Vec<(f64, f64)> {
        let place = |quantile: f64| SHOWN.iter().position(|(shown, _)| *shown == quantile);
        percentiles.iter().filter_map(|(quantile, ms)| Some((place(*quantile)? as f64, *ms))).collect()
    };
    let mut drawn = Vec::new();
    for (number, lateness) in with(outcomes, |outcome| outcome.lateness.as_ref()) {
        drawn.push(Line { colour: Colour::Backend(number), dashed: false, points: points(&lateness.percentiles) });
        if !lateness.bare_percentiles.is_empty() {
            drawn.push(Line { colour: Colour::Bare, dashed: true, points: points(&lateness.bare_percentiles) });
        }
    }
    let x = Axis::named("of all deliveries", &SHOWN.map(|(_, name)| name));
    plot(
        "Lateness by percentile, and of bare sleeps to the same instants",
        x,
        Axis::log("ms", 0.01, values(&drawn)),
        &drawn,
    )
}

fn distribution(outcomes: &[Option<&Outcome>]) -> Result<Plot, Failure> {
    let mut drawn = Vec::new();
    for (number, lateness) in with(outcomes, |outcome| outcome.lateness.as_ref()) {
        let all: u64 = lateness.histogram.iter().map(|(_, count)| count).sum();
        let points = lateness.histogram.iter().map(|(ms, count)| (*ms, *count as f64 / all.max(1) as f64 * 100.0));
        drawn.push(Line { colour: Colour::Backend(number), dashed: false, points: points.collect() });
    }
    let ms: Vec<f64> = drawn.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
    let x = Axis::log("ms late", 0.1, ms.into_iter());
    plot("Distribution of lateness", x, Axis::linear("% of deliveries", values(&drawn)), &drawn)
}

fn lateness_over_time(outcomes: &[Option<&Outcome>]) -> Result<Plot, Failure> {
    let mut drawn = Vec::new();
    for (number, over_time) in with(outcomes, |outcome| Some(&outcome.over_time)) {
        let points: Vec<_> = over_time.iter().filter_map(|row| Some((row.0, row.2?))).collect();
        if points.len() > 1 {
            drawn.push(Line { colour: Colour::Backend(number), dashed: false, points });
        }
    }
    plot(
        "Lateness over time, p99 of each quarter of a second, last run",
        seconds(&drawn),
        Axis::log("ms", 0.01, values(&drawn)),
        &drawn,
    )
}

/// Of the server where it is ours, and of the client where the store is in it; dashed, where it began.
fn memory_over_time(outcomes: &[Option<&Outcome>]) -> Result<Plot, Failure> {
    let mut drawn = Vec::new();
    for (number, over_time) in with(outcomes, |outcome| Some(&outcome.over_time)) {
        let points: Vec<_> = over_time.iter().filter_map(|row| Some((row.0, row.4.or(row.3)? as f64 / 1e6))).collect();
        if let (Some(first), Some(last), true) = (points.first(), points.last(), points.len() > 1) {
            let baseline = vec![*first, (last.0, first.1)];
            drawn.push(Line { colour: Colour::Backend(number), dashed: true, points: baseline });
            drawn.push(Line { colour: Colour::Backend(number), dashed: false, points });
        }
    }
    let title =
        "Memory over time of the server (of the client, where there is none of ours), last run; dashed, where it began";
    plot(title, seconds(&drawn), Axis::log("MB", 1.0, values(&drawn)), &drawn)
}

fn plot(title: &'static str, x: Axis, y: Axis, drawn: &[Line]) -> Result<Plot, Failure> {
    if drawn.is_empty() { Ok(None) } else { Ok(Some((title, lines(&x, &y, drawn)?))) }
}

/// What the outcomes have, each with its backend's number.
fn with<'a, T>(outcomes: &[Option<&'a Outcome>], what: impl Fn(&'a Outcome) -> Option<&'a T>) -> Vec<(usize, &'a T)> {
    outcomes.iter().enumerate().filter_map(|(number, outcome)| Some((number, what((*outcome)?)?))).collect()
}

fn values(drawn: &[Line]) -> impl Iterator<Item = f64> + Clone {
    drawn.iter().flat_map(|line| line.points.iter().map(|point| point.1))
}

fn seconds(drawn: &[Line]) -> Axis {
    Axis::linear("s", drawn.iter().flat_map(|line| line.points.iter().map(|point| point.0)))
}

/// Settings, versions, machine and command.
fn about(html: &mut String, report: &Report) {
    let Report { machine, settings, .. } = report;
    html.push_str("<h2>How it was made</h2><div class=\"scroll\"><table>");
    let mut row = |name: &str, value: &str| {
        put(html, format_args!("<tr><th>{}</th><td class=\"left\">{}</td></tr>", text(name), text(value)));
    };
    row("delayline", &report.delayline);
    row("machine", &format!("{}, {} cores, {}", machine.cpu, machine.cores, machine.kernel));
    if let Some(bytes) = machine.memory_bytes {
        row("memory", &shown(bytes as f64, "bytes"));
    }
    for backend in &report.backends {
        let version = backend.version.as_deref().map(|version| format!("{version}, ")).unwrap_or_default();
        let place = if backend.private { "a private server".to_owned() } else { backend.url.clone() };
        let capabilities: Vec<String> =
            backend.capabilities.iter().map(|(name, value)| format!("{name} {value}")).collect();
        row(&backend.name, &format!("{version}{place}; {}", capabilities.join(", ")));
    }
    let tasks =
        settings.tasks.map_or_else(|| "each scenario's own number".to_owned(), |tasks| format!("at most {tasks}"));
    row("tasks", &tasks);
    row("payload", &format!("{} bytes", settings.payload_bytes));
    row("callers", &format!("{} in batches, {} of single tasks", settings.producers, settings.concurrency));
    row("duration, repeats", &format!("{} s, {}", settings.duration_seconds, settings.repeats));
    row("took", &format!("{:.0} s", report.seconds));
    html.push_str("</table></div>");
    put(
        html,
        format_args!(
            "<pre>{}</pre><p>What each figure means is in <code>docs/bench.md</code>; the same as JSON is in <code>report.json</code> beside this page.</p>",
            text(&report.command)
        ),
    );
}

fn put(html: &mut String, what: fmt::Arguments<'_>) {
    html.write_fmt(what).expect("a String takes text");
}

/// Text as it may stand in HTML.
fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::sample;

    #[test]
    fn the_page_is_complete_and_asks_for_nothing_else() {
        let report = sample([10.0, 30.0, 20.0]);
        let html = page(&report).unwrap();
        for part in
            ["Throughput", "Distribution of lateness", "unsupported: replace", "&lt;quoted&gt;", "20.0/s ±50\u{a0}%"]
        {
            assert!(html.contains(part), "{part}");
        }
        for outside in ["src=", "href=\"http", "url(", "@import", "<script"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(picture(&report).unwrap().unwrap().starts_with("<svg"));
    }

    #[test]
    fn every_scenario_is_described() {
        for scenario in crate::bench::args::Scenario::ALL {
            assert!(SCENARIOS.iter().any(|(name, _)| *name == scenario.name()));
        }
    }
}
