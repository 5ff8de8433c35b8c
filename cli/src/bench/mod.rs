//! `delayline bench`: measures backends side by side in typical scenarios, and checks each run while it measures.
//!
//! | module | what is in it |
//! |---|---|
//! | [`store`] | a store under measurement, and a private server if one is requested |
//! | [`scenario`] | the scenarios |
//! | [`drive`] | callers that schedule, claim and settle |
//! | [`books`] | what was lost, came twice or came early, in sentences |
//! | [`late`], [`measure`], [`figures`] | lateness, processor time and memory, and how runs become a result |
//! | [`report`], [`against`] | JSON, table and page; comparing with an earlier report |

mod against;
pub(crate) mod args;
mod books;
mod drive;
mod figures;
mod kinds;
mod late;
mod measure;
mod report;
mod scenario;
mod show;
mod store;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use delayline::{Clock, SystemClock};
use tokio::time::Instant;

use self::against::{Change, Compared};
use self::args::{BenchArgs, Scenario};
use self::figures::{Run, gather, lateness};
use self::measure::Meter;
use self::report::{Machine, Outcome, Report, Settings, Verdict, page, table};
use self::scenario::{Scene, lacks};
use self::show::Show;
use self::store::{Store, Wanted};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::signal::{Cause, Stop};
use crate::start::{self, Logs, Started, Threads};

/// Runs the command.
pub(crate) fn main(global: &Global, args: BenchArgs) -> Result<Exit, Failure> {
    let console = start::console(global, args.quiet, Logs::Usual)?;
    let before = args.against.as_deref().map(against::read).transpose()?;
    if let Some(directory) = &args.report {
        // An error here is reported at the beginning, not after a quarter of an hour.
        fs::create_dir_all(directory)
            .map_err(|e| Failure::io(format_args!("cannot create the directory {}", directory.display()), &e))?;
    }
    let leave = console.leaving();
    let Started { console, stop, runtime } = Started::new(console, Threads::Cores, leave)?;
    let played = runtime.block_on(bench(global, &args, &console, &stop));
    // Servers that are still running end here, when their owner is dropped.
    drop(runtime);
    let Some(report) = played? else {
        console.say("interrupted, so there is no result");
        let Some(Cause::Signal(signal)) = stop.cause() else { return Ok(Exit::Failed) };
        return Ok(Exit::Interrupted(*signal));
    };
    finish(&args, &console, &report, before.as_ref())
}

/// Runs everything. `None` if it is stopped.
async fn bench(
    global: &Global,
    args: &BenchArgs,
    console: &Arc<Console>,
    stop: &Stop,
) -> Result<Option<Report>, Failure> {
    let (wanted, scenarios) = (wanted(global, args), args.scenarios());
    let runs = (wanted.len() * scenarios.len()) as u64 * u64::from(args.repeats);
    let show = Show::new(console.clone(), !args.no_progress && !args.quiet, runs);
    if cfg!(debug_assertions) {
        show.note("this is a debug build: its figures are meaningless");
    }
    let begun = Instant::now();
    let mut report = Report {
        format: report::FORMAT,
        delayline: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: SystemClock::new().wall().to_string(),
        seconds: 0.0,
        command: crate::redact::command_line(std::env::args()),
        machine: Machine::here(),
        settings: Settings::of(args),
        backends: Vec::new(),
        results: Vec::new(),
    };
    let ended = tokio::select! {
        ended = play_all(args, &wanted, &scenarios, &show, stop, &mut report) => ended,
        () = show.draw() => unreachable!("it goes on for ever"),
    };
    show.end();
    ended?;
    report.seconds = begun.elapsed().as_secs_f64().round();
    Ok((!stop.is_stopped()).then_some(report))
}

/// The requested stores: URLs first, then private servers.
fn wanted(global: &Global, args: &BenchArgs) -> Vec<Wanted> {
    if args.backends.is_empty() && args.spawn.is_empty() {
        return vec![Wanted::Url(global.backend.clone())];
    }
    let urls = args.backends.iter().cloned().map(Wanted::Url);
    urls.chain(args.spawn.iter().copied().map(Wanted::Spawned)).collect()
}

/// Measures one store after the other, so that they do not disturb each other.
async fn play_all(
    args: &BenchArgs,
    wanted: &[Wanted],
    scenarios: &[Scenario],
    show: &Show,
    stop: &Stop,
    report: &mut Report,
) -> Result<(), Failure> {
    for wanted in wanted {
        show.begin(match wanted {
            Wanted::Url(url) => crate::redact::redacted(url),
            Wanted::Spawned(spawn) => format!("a private {}", format!("{spawn:?}").to_lowercase()),
        });
        let mut opening = pin!(Store::open(wanted));
        let mut store = tokio::select! {
            store = &mut opening => store?,
            // Dropped half-way, opening would leave its namespace on the server.
            () = stop.stopped() => return opening.await?.close().await,
        };
        name_apart(&mut store, report);
        if let Some(place) = store.place() {
            show.note(format_args!("working in {place}"));
        }
        report.backends.push(store.shown.clone());
        for &scenario in scenarios {
            let played = tokio::select! {
                outcome = play(args, &store, scenario, show) => Some(outcome),
                () = stop.stopped() => None,
            };
            let Some(outcome) = played else { break };
            show.note(format_args!(
                "{} {scenario}: {}",
                store.shown.name,
                table::verdict(&outcome),
                scenario = scenario.name()
            ));
            report.results.push(outcome);
        }
        show.step("closing");
        store.close().await?;
        if stop.is_stopped() {
            return Ok(());
        }
    }
    Ok(())
}

/// Gives different names to stores of one kind.
fn name_apart(store: &mut Store, report: &Report) {
    let kind = store.shown.name.clone();
    let same = report.backends.iter().filter(|other| other.name == kind || other.name.starts_with(&format!("{kind}-")));
    let before = same.count();
    if before > 0 {
        store.shown.name = format!("{kind}-{}", before + 1);
    }
}

/// Runs one scenario on one store, with all repeats.
async fn play(args: &BenchArgs, store: &Store, scenario: Scenario, show: &Show) -> Outcome {
    let (name, backend) = (scenario.name(), store.shown.name.as_str());
    if let Some(what) = lacks(scenario, store.backend.capabilities()) {
        show.ended(u64::from(args.repeats));
        return Outcome::without(backend, name, Verdict::Unsupported, vec![what.to_owned()]);
    }
    show.begin(format_args!("{backend} {name}"));
    match repeat(args, store, scenario, show).await {
        Ok(outcome) => outcome,
        Err(failure) => Outcome::without(backend, name, Verdict::Failed, vec![failure.to_string()]),
    }
}

async fn repeat(args: &BenchArgs, store: &Store, scenario: Scenario, show: &Show) -> Result<Outcome, Failure> {
    let (backend, name) = (store.shown.name.as_str(), scenario.name());
    let mut scene = Scene {
        store,
        args,
        show,
        scenario,
        name: format!("{}bench-{name}-{:08x}", store.queue_prefix(), fastrand::u32(..)),
        queues: AtomicU32::new(0),
        rate: 0.0,
        found: None,
    };
    scene.rate = scene.warm_up().await?;
    let (mut runs, mut over_time) = (Vec::new(), Vec::new());
    for number in 1..=args.repeats {
        show.begin(format_args!("{backend} {name}, run {number} of {}", args.repeats));
        let meter = Meter::start(store.pid());
        let played = scenario::play(&scene).await;
        let measured = meter.map(Meter::end).unwrap_or_default();
        let mut run: Run = played?;
        run.add_measured(&measured);
        over_time = run.over_time(&measured.samples);
        let found = run.figures.iter().find(|(name, _)| *name == "rate_in_time");
        scene.found = found.map(|(_, rate)| *rate).filter(|rate| *rate > 0.0);
        runs.push(run);
        show.ended(1);
    }
    Ok(judged(backend, name, &runs, over_time))
}

/// Combines the runs to one result. If a promise is broken, there are no figures.
fn judged(backend: &str, scenario: &str, runs: &[Run], over_time: Vec<report::OverTime>) -> Outcome {
    let unlike = |texts: fn(&Run) -> &Vec<String>| {
        let mut all: Vec<String> = runs.iter().flat_map(|run| texts(run).iter().cloned()).collect();
        all.dedup();
        all
    };
    let (problems, remarks) = (unlike(|run| &run.problems), unlike(|run| &run.remarks));
    if !problems.is_empty() {
        return Outcome { repeats: runs.len(), ..Outcome::without(backend, scenario, Verdict::Broken, problems) };
    }
    Outcome {
        repeats: runs.len(),
        figures: gather(runs),
        lateness: lateness(runs),
        over_time,
        remarks,
        ..Outcome::without(backend, scenario, Verdict::Clean, problems)
    }
}

/// Writes the result, and determines the exit code.
fn finish(args: &BenchArgs, console: &Console, report: &Report, before: Option<&Report>) -> Result<Exit, Failure> {
    let compared = before.map(|before| against::compare(before, report, args.tolerance));
    if let Some(directory) = &args.report {
        write_page(directory, report)?;
        console.note(format_args!("the report is {}", directory.join("index.html").display()));
    }
    out(&if args.json { json(report, compared.as_deref())? } else { table::table(report) })?;
    if let (Some(compared), Some(before)) = (&compared, before) {
        let text = against::table(compared, before, report);
        if args.json { console.note(text) } else { out(&format!("\n{text}"))? }
    }
    for outcome in &report.results {
        let said = match outcome.verdict {
            Verdict::Clean => &outcome.remarks,
            Verdict::Broken | Verdict::Failed => &outcome.problems,
            Verdict::Unsupported => continue,
        };
        for problem in said {
            console.say(format_args!("{} {}: {problem}", outcome.backend, outcome.scenario));
        }
    }
    Ok(exit(report, compared.as_deref()))
}

fn exit(report: &Report, compared: Option<&[Compared]>) -> Exit {
    let any = |verdict| report.results.iter().any(|outcome| outcome.verdict == verdict);
    let worse = compared.is_some_and(|compared| compared.iter().any(|one| one.change == Change::Worse));
    match (any(Verdict::Broken), any(Verdict::Failed), worse) {
        (true, _, _) => Exit::PromiseBroken,
        (_, true, _) => Exit::Failed,
        (_, _, true) => Exit::Slower,
        (false, false, false) => Exit::Done,
    }
}

fn json(report: &Report, compared: Option<&[Compared]>) -> Result<String, Failure> {
    #[derive(serde::Serialize)]
    struct WithComparison<'a> {
        #[serde(flatten)]
        report: &'a Report,
        #[serde(skip_serializing_if = "Option::is_none")]
        against: Option<&'a [Compared]>,
    }
    let all = WithComparison { report, against: compared };
    serde_json::to_string(&all).map_err(|e| Failure::new(format!("cannot write the result: {e}")))
}

fn write_page(directory: &Path, report: &Report) -> Result<(), Failure> {
    let mut files = vec![("index.html", page::page(report)?), ("report.json", json(report, None)?)];
    files.extend(page::picture(report)?.map(|picture| ("throughput.svg", picture)));
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|e| Failure::io(format_args!("cannot write {}", path.display()), &e))?;
    }
    Ok(())
}

fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|e| Failure::io("cannot write to stdout", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(problem: Option<&str>) -> Run {
        let mut run = Run::new();
        run.figure("handled", 1.0);
        run.problems.extend(problem.map(str::to_owned));
        run
    }

    #[test]
    fn one_broken_run_leaves_no_figure_and_is_exit_code_5() {
        let broken =
            judged("memory", "herd", &[run(None), run(Some("LOSS-1: 1 of 2 tasks lost")), run(None)], Vec::new());
        assert_eq!((broken.verdict, broken.repeats, broken.figures.len()), (Verdict::Broken, 3, 0));
        assert_eq!(broken.problems, ["LOSS-1: 1 of 2 tasks lost"]);
        let mut report = report::tests::sample([1.0; 3]);
        assert_eq!(exit(&report, None), Exit::Done);
        report.results.push(Outcome::without("redis", "steady", Verdict::Failed, vec!["no".into()]));
        assert_eq!(exit(&report, None), Exit::Failed);
        report.results.push(broken);
        assert_eq!(exit(&report, None), Exit::PromiseBroken);
    }

    #[test]
    fn what_became_worse_is_exit_code_9() {
        let (before, now) = (report::tests::sample([100.0; 3]), report::tests::sample([50.0; 3]));
        assert_eq!(exit(&now, Some(&against::compare(&before, &now, 25))), Exit::Slower);
        assert_eq!(exit(&before, Some(&against::compare(&now, &before, 25))), Exit::Done);
        assert_eq!(exit(&now, Some(&against::compare(&before, &now, 200))), Exit::Done);
    }
}
