//! `delayline conform`: the conformance suite against a live backend.
//!
//! [`report`] is the result. The tests are in the library `delayline-conformance`.

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

use delayline::backend::async_trait;
use delayline::{Capabilities, DelayBackend};
use delayline_conformance::check::check;
use delayline_conformance::history::Recording;
use delayline_conformance::{Harness, Report as Tested, TEST_MAX, TESTS, Test, run_test_while, seed};
use indicatif::ProgressBar;
use tokio::runtime::Runtime;

use self::args::ConformArgs;
use self::report::Report;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::progress::bar;
use crate::scratch::{For, Opener, Scratch, left};
use crate::signal::{Cause, Stop};
use crate::start::{self, Logs, Started, Threads};

/// Interval of drawing the bar and looking for a signal.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) fn main(global: &Global, args: &ConformArgs) -> Result<Exit, Failure> {
    let console = start::console(global, false, Logs::Silent)?;
    if let Some(file) = &args.check {
        return check_again(file, args.json);
    }
    let leave = console.leaving();
    let Started { console, stop, runtime } = Started::new(console, Threads::Few(1), leave)?;
    if args.remove_left {
        return remove_left(&runtime, &global.backend, args.json, &stop);
    }
    let tests = chosen(&args.only)?;
    // If the store can't be reached, one clear error is better than a failure of every test.
    let (scratch, caps) = runtime.block_on(open(&global.backend)).map_err(|failure| global.explain(failure))?;
    if let Some(place) = scratch.shown() {
        console.say(format_args!("working in {place}"));
    }
    let tested = run(args, tests, &scratch, caps.name, &console, &stop);
    if args.keep {
        if scratch.shown().is_some() {
            console.say("the namespace is kept; `delayline conform --remove-left` removes it");
        }
        runtime.block_on(scratch.keep());
        return tested;
    }
    let removed = runtime.block_on(scratch.end());
    tested.and_then(|exit| removed.map(|()| exit))
}

/// Creates the namespace of this run, and connects once.
async fn open(url: &str) -> Result<(Scratch, Capabilities), Failure> {
    let scratch = Scratch::make(url, For::Conform).await?;
    let looked = async {
        let backend = scratch.connect().await?;
        backend.ping().await?;
        let caps = backend.capabilities().clone();
        backend.close().await?;
        Ok::<_, delayline::Error>(caps)
    };
    match looked.await {
        Ok(caps) => Ok((scratch, caps)),
        Err(e) => {
            // An error here has the same cause as the first one.
            let _ = scratch.end().await;
            Err(e.into())
        }
    }
}

fn run(
    args: &ConformArgs,
    tests: Vec<&'static Test>,
    scratch: &Scratch,
    backend: &'static str,
    console: &Arc<Console>,
    stop: &Stop,
) -> Result<Exit, Failure> {
    // A failed test panics, and its report contains the message.
    panic::set_hook(Box::new(|_| {}));
    let seed = args.seed.unwrap_or_else(seed);
    let shown = if args.no_progress { None } else { bar(console) };
    let tested = run_all(scratch, &tests, args.jobs, seed, shown.as_ref(), stop);
    if let Some(bar) = shown {
        bar.finish_and_clear();
    }
    if let Some(Cause::Signal(signal)) = stop.cause() {
        console.say(format_args!("interrupted after {} of {} tests", tested.len(), tests.len()));
        return Ok(Exit::Interrupted(*signal));
    }
    let report = Report::new(backend, seed, tested);
    report.write(args.json)?;
    report.accuse(console);
    Ok(if report.holds() { Exit::Done } else { Exit::PromiseBroken })
}

/// Removes what killed runs have left behind.
fn remove_left(runtime: &Runtime, url: &str, as_json: bool, stop: &Stop) -> Result<Exit, Failure> {
    let removing = async {
        tokio::select! {
            left = left::remove_left(url) => left.map(Some),
            () = stop.stopped() => Ok(None),
        }
    };
    match (runtime.block_on(removing)?, stop.cause()) {
        (Some(left), _) => {
            report::write_left(&left, as_json)?;
            Ok(if left.failed.is_empty() { Exit::Done } else { Exit::Failed })
        }
        (None, Some(Cause::Signal(signal))) => Ok(Exit::Interrupted(*signal)),
        (None, _) => Ok(Exit::Failed),
    }
}

/// The chosen tests, in the suite's order.
fn chosen(only: &[String]) -> Result<Vec<&'static Test>, Failure> {
    let wanted = |test: &&Test| only.is_empty() || only.iter().any(|prefix| begins(test.name, prefix));
    if let Some(nobody) = only.iter().find(|prefix| !TESTS.iter().any(|test| begins(test.name, prefix))) {
        let mut first_words: Vec<&str> = TESTS.iter().filter_map(|test| test.name.split('_').next()).collect();
        first_words.sort_unstable();
        first_words.dedup();
        let all = first_words.join(", ");
        return Err(Failure::new(format!("no test's name begins with `{nobody}`; the names begin with {all}")));
    }
    Ok(TESTS.iter().filter(wanted).collect())
}

/// Whether a name begins with whole words: `dup_1` is not `dup_12`.
fn begins(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('_') || prefix.ends_with('_'))
}

/// Runs the tests on a few threads, until all are done or the run is stopped. Returns the reports in the order of the
/// tests.
fn run_all(
    scratch: &Scratch,
    tests: &[&'static Test],
    jobs: u16,
    seed: u64,
    bar: Option<&ProgressBar>,
    stop: &Stop,
) -> Vec<Tested> {
    let waiting = Arc::new(Mutex::new(tests.iter().copied().enumerate().collect::<VecDeque<_>>()));
    let (done, reports) = sync_channel(tests.len().max(1));
    let harness = Arc::new(InScratch { opener: scratch.opener(), prefix: scratch.queue_prefix() });
    for _ in 0..jobs {
        let (waiting, done, stop, harness) = (waiting.clone(), done.clone(), stop.clone(), harness.clone());
        thread::spawn(move || work(&harness, seed, &waiting, &done, &stop));
    }
    // The channel ends with the last thread: from then on, nothing works in the namespace.
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
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    ended.sort_by_key(|(place, _)| *place);
    ended.into_iter().map(|(_, tested)| tested).collect()
}

type Waiting = Mutex<VecDeque<(usize, &'static Test)>>;

fn work(harness: &Arc<InScratch>, seed: u64, waiting: &Waiting, done: &SyncSender<(usize, Tested)>, stop: &Stop) {
    while !stop.is_stopped() {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((place, test)) = next else { return };
        let Some(tested) = run_test_while(test, harness.clone(), seed, TEST_MAX, || !stop.is_stopped()) else { return };
        if done.send((place, tested)).is_err() {
            return;
        }
    }
}

/// A live store, known only by its URL.
struct InScratch {
    opener: Opener,
    prefix: String,
}

impl std::fmt::Debug for InScratch {
    /// Without the URL, which may contain a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a live store")
    }
}

#[async_trait]
impl Harness for InScratch {
    async fn open(&self) -> delayline::Result<Arc<dyn DelayBackend>> {
        self.opener.connect().await
    }

    fn queue_prefix(&self) -> &str {
        &self.prefix
    }
}

/// Checks the history of a failed test.
fn check_again(path: &Path, as_json: bool) -> Result<Exit, Failure> {
    let file = File::open(path).map_err(|e| Failure::io(format_args!("cannot read {}", path.display()), &e))?;
    let recording = Recording::read(BufReader::new(file))
        .map_err(|e| Failure::new(format!("{} is not the history of a failed test: {e}", path.display())))?;
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
