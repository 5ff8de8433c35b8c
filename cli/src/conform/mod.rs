//! `delayline conform`: the conformance suite against a live backend.
//!
//! [`report`] is what is written at the end. The tests themselves are the library's, `delayline-conformance`.

pub(crate) mod args;
mod report;

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::panic;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use delayline::{Capabilities, DelayBackend, async_trait};
use delayline_conformance::check::check;
use delayline_conformance::history::Recording;
use delayline_conformance::{Harness, Report as Tested, TESTS, Test, run_test, seed};
use indicatif::ProgressBar;

use self::args::ConformArgs;
use self::report::Report;
use crate::args::Global;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::progress::bar;
use crate::signal::{Cause, Stop, listen};
use crate::{logging, signal};

/// How often the bar is drawn and a signal is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) fn main(global: &Global, args: &ConformArgs) -> Result<Exit, Failure> {
    let console = Arc::new(Console::new(false));
    logging::start(global.verbose, console.clone())?;
    if let Some(file) = &args.check {
        return check_again(file, args.json);
    }
    let stop = Stop::new()?;
    listen(stop.clone(), {
        let console = console.clone();
        move || console.leave()
    })?;
    let tests = chosen(&args.only)?;
    let caps = reach(&global.backend)?;
    // A test fails by panicking, and its report tells what it said.
    panic::set_hook(Box::new(|_| {}));
    let seed = args.seed.unwrap_or_else(seed);
    let shown = if args.no_progress { None } else { bar(&console) };
    let tested = run_all(&global.backend, &tests, args.jobs, seed, shown.as_ref(), &stop);
    if let Some(bar) = shown {
        bar.finish_and_clear();
    }
    if let Some(Cause::Signal(signal)) = stop.cause() {
        console.say(format_args!("interrupted; {} of {} tests had been run", tested.len(), tests.len()));
        return Ok(Exit::Interrupted(*signal));
    }
    let report = Report::new(caps.name, seed, tested);
    report.write(args.json)?;
    report.accuse(&console);
    Ok(if report.holds() { Exit::Done } else { Exit::PromiseBroken })
}

/// The tests that are wanted, in the suite's order.
fn chosen(only: &[String]) -> Result<Vec<&'static Test>, Failure> {
    let wanted = |test: &&Test| only.is_empty() || only.iter().any(|prefix| begins(test.name, prefix));
    if let Some(nobody) = only.iter().find(|prefix| !TESTS.iter().any(|test| begins(test.name, prefix))) {
        return Err(Failure::new(format!("no test's name begins with `{nobody}`")));
    }
    Ok(TESTS.iter().filter(wanted).collect())
}

/// Whether a name begins with whole words: `dup_1` is not `dup_12`.
fn begins(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('_') || prefix.ends_with('_'))
}

/// Connects once, so that a store that can't be reached is one clear error rather than a failure of every test.
fn reach(url: &str) -> Result<Capabilities, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::io("cannot start the runtime", &e))?;
    runtime.block_on(async {
        let backend = delayline::connect(url).await?;
        backend.ping().await?;
        let caps = backend.capabilities().clone();
        backend.close().await?;
        Ok(caps)
    })
}

/// Runs the tests on a few threads, until all are done or it is stopped; their reports in the order of the tests.
fn run_all(
    url: &str,
    tests: &[&'static Test],
    jobs: u16,
    seed: u64,
    bar: Option<&ProgressBar>,
    stop: &signal::Stop,
) -> Vec<Tested> {
    let waiting = Arc::new(Mutex::new(tests.iter().copied().enumerate().collect::<VecDeque<_>>()));
    let (done, reports) = sync_channel(tests.len().max(1));
    for _ in 0..jobs {
        let (waiting, done, stop, url) = (waiting.clone(), done.clone(), stop.clone(), url.to_owned());
        thread::spawn(move || work(&url, seed, &waiting, &done, &stop));
    }
    drop(done);
    let mut ended: Vec<(usize, Tested)> = Vec::new();
    loop {
        if let Some(bar) = bar {
            bar.set_length(tests.len() as u64);
            bar.set_position(ended.len() as u64);
            let failed = ended.iter().filter(|(_, tested)| report::has_failed(tested)).count();
            let failures = if failed == 0 { String::new() } else { format!(", {failed} failed") };
            bar.set_message(format!("{}/{} tests{failures}", ended.len(), tests.len()));
            bar.tick();
        }
        match reports.recv_timeout(LOOK_EVERY) {
            Ok(report) => ended.push(report),
            Err(RecvTimeoutError::Timeout) if stop.is_stopped() => break,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    ended.sort_by_key(|(place, _)| *place);
    ended.into_iter().map(|(_, tested)| tested).collect()
}

type Waiting = Mutex<VecDeque<(usize, &'static Test)>>;

fn work(url: &str, seed: u64, waiting: &Waiting, done: &SyncSender<(usize, Tested)>, stop: &signal::Stop) {
    while !stop.is_stopped() {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((place, test)) = next else { return };
        let tested = run_test(test, Arc::new(AtUrl { url: url.to_owned() }), seed);
        if done.send((place, tested)).is_err() {
            return;
        }
    }
}

/// A live store, of which only the URL is known.
struct AtUrl {
    url: String,
}

impl std::fmt::Debug for AtUrl {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a live store")
    }
}

#[async_trait]
impl Harness for AtUrl {
    async fn open(&self) -> delayline::Result<Arc<dyn DelayBackend>> {
        delayline::connect(&self.url).await
    }
}

/// Checks a history that a test has left.
fn check_again(path: &Path, as_json: bool) -> Result<Exit, Failure> {
    let file = File::open(path).map_err(|e| Failure::io(format_args!("cannot read {}", path.display()), &e))?;
    let recording =
        Recording::read(BufReader::new(file)).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let findings = check(&recording);
    report::write_findings(&recording, &findings, as_json)?;
    Ok(if findings.violations.is_empty() { Exit::Done } else { Exit::PromiseBroken })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_whole_words() {
        assert!(begins("dup_12_attempts", "dup"));
        assert!(begins("dup_12_attempts", "dup_12"));
        assert!(begins("dup_12_attempts", "dup_12_attempts"));
        assert!(!begins("dup_12_attempts", "dup_1"));
        assert!(chosen(&["nothing".into()]).is_err());
        assert_eq!(chosen(&[]).unwrap().len(), TESTS.len());
    }
}
