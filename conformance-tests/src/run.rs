//! Running a test: its runtime, its seed, a watch over its time, and what is looked at when it has ended.

use std::any::Any;
use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::BufWriter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::Instant;

use crate::check::{Violation, check};
use crate::harness::{Harness, Time};
use crate::need::Need;
use crate::suite::{self, Test};
use crate::trial::Trial;

/// How long a test may take, in real time. One that takes longer hangs.
const TEST_MAX: Duration = Duration::from_secs(300);

/// How long closing may take, in the time of the harness.
const CLOSE_MAX: Duration = Duration::from_secs(30);

/// What became of one test.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its name.
    pub test: &'static str,
    /// What its randomness came from; `DELAYLINE_SEED` repeats it.
    pub seed: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// How many answers it checked.
    pub operations: u64,
    /// How long it took, in real time.
    pub took: Duration,
}

/// How a test ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// What it checks holds.
    Passed,
    /// The backend declares that it lacks this, and was seen to say so.
    Unsupported(Vec<Need>),
    /// The harness can't do what the test needs.
    Untested(String),
    /// What it checks does not hold.
    Failed(Failure),
}

/// Why a test failed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Failure {
    /// What the test itself said.
    pub message: Option<String>,
    /// What its history shows.
    pub violations: Vec<Violation>,
    /// Where its history was written to.
    pub history: Option<PathBuf>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 20;
        if let Some(message) = &self.message {
            writeln!(f, "{message}")?;
        }
        for violation in self.violations.iter().take(SHOWN_MAX) {
            writeln!(f, "  {violation}")?;
        }
        if self.violations.len() > SHOWN_MAX {
            writeln!(f, "  ... {} violations in all", self.violations.len())?;
        }
        match &self.history {
            Some(path) => write!(f, "history: {}", path.display()),
            None => write!(f, "no history could be written"),
        }
    }
}

/// Runs one test by its name, and panics if it fails: what the tests that [`suite!`](crate::suite!) makes do.
///
/// # Panics
/// If the test fails, with what it saw, its seed and the file of its history; if there is no such test.
pub fn run(name: &str, make: impl FnOnce() -> Arc<dyn Harness>) {
    let test = suite::find(name).unwrap_or_else(|| panic!("the suite has no test `{name}`"));
    let report = run_test(test, make(), seed());
    match report.outcome {
        Outcome::Passed => {}
        Outcome::Unsupported(needs) => {
            println!("unsupported, and says so: {}", needs.iter().map(|n| n.field()).collect::<Vec<_>>().join(", "));
        }
        Outcome::Untested(why) => println!("not tested: {why}"),
        Outcome::Failed(failure) => {
            panic!("{name} failed; repeat it with DELAYLINE_SEED={:#018x}\n{failure}", report.seed)
        }
    }
}

/// Runs one test and tells what became of it. Takes as long as the test does, and no longer than five minutes.
#[must_use]
pub fn run_test(test: &'static Test, harness: Arc<dyn Harness>, seed: u64) -> Report {
    let began = Instant::now();
    let watched = Arc::new(Watched::default());
    let (done, ended) = sync_channel(1);
    let body = {
        let watched = watched.clone();
        move || {
            // Nobody listens any more when the test took too long.
            let _ = done.send(run_here(test, harness, seed, &watched));
        }
    };
    let thread = thread::Builder::new().name(test.name.into()).spawn(body).expect("a thread for the test");
    let outcome = match ended.recv_timeout(TEST_MAX) {
        Ok(outcome) => {
            // Once it has freed what it holds, which the next test may measure.
            let _ = thread.join();
            outcome
        }
        Err(RecvTimeoutError::Timeout) => {
            watched.failed(test, seed, Some(format!("hangs: not done after {TEST_MAX:?}")), vec![])
        }
        Err(RecvTimeoutError::Disconnected) => {
            watched.failed(test, seed, Some("the test's thread ended without an answer".into()), vec![])
        }
    };
    let operations = watched.0.lock().as_ref().map_or(0, |trial| trial.operations());
    Report { test: test.name, seed, outcome, operations, took: began.elapsed() }
}

/// The seed from `DELAYLINE_SEED`, decimal or `0x` and hexadecimal, or a random one.
///
/// # Panics
/// If the variable is set to anything else.
#[must_use]
pub fn seed() -> u64 {
    match std::env::var("DELAYLINE_SEED") {
        Ok(text) => {
            let parsed = match text.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => text.parse(),
            };
            parsed.unwrap_or_else(|e| panic!("DELAYLINE_SEED is `{text}`, which is no number: {e}"))
        }
        Err(_) => RandomState::new().hash_one("seed"),
    }
}

/// The trial under way, for whoever watches it.
#[derive(Default)]
struct Watched(Mutex<Option<Arc<Trial>>>);

impl Watched {
    fn failed(&self, test: &Test, seed: u64, message: Option<String>, violations: Vec<Violation>) -> Outcome {
        let history = self.0.lock().as_ref().and_then(|trial| write_history(trial, test, seed));
        Outcome::Failed(Failure { message, violations, history })
    }
}

fn run_here(test: &'static Test, harness: Arc<dyn Harness>, seed: u64, watched: &Watched) -> Outcome {
    let runtime = runtime(Time::of(&*harness));
    let body = async {
        let trial =
            Trial::begin(test.name, seed, harness).await.map_err(|e| format!("the backend can't be opened: {e}"))?;
        let trial = Arc::new(trial);
        *watched.0.lock() = Some(trial.clone());
        let missing: Vec<Need> = test.needs.iter().copied().filter(|need| !need.is_met(trial.caps())).collect();
        if missing.is_empty() {
            (test.body)(&trial).await;
        }
        for need in &missing {
            need.assert_as_declared(&trial).await;
        }
        Ok::<_, String>((trial, missing))
    };
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(body)));
    let failed = |message, violations| watched.failed(test, seed, message, violations);
    let (trial, missing) = match ended {
        Ok(Ok(ended)) => ended,
        Ok(Err(message)) => return failed(Some(message), vec![]),
        Err(panic) => {
            // What the history shows may be the better explanation.
            let violations = watched.0.lock().as_ref().map(|trial| violations_of(trial)).unwrap_or_default();
            let outcome = failed(Some(text_of(&*panic)), violations);
            runtime.shutdown_background();
            return outcome;
        }
    };
    let violations = violations_of(&trial);
    if !violations.is_empty() {
        runtime.shutdown_background();
        return failed(None, violations);
    }
    if let Err(message) = runtime.block_on(closed(&trial)) {
        runtime.shutdown_background();
        return failed(Some(message), vec![]);
    }
    runtime.shutdown_background();
    match trial.why_untested() {
        Some(why) => Outcome::Untested(why),
        None if trial.operations() == 0 => failed(Some("it checked nothing".into()), vec![]),
        None if missing.is_empty() => Outcome::Passed,
        None => Outcome::Unsupported(missing),
    }
}

/// Closes every client, and checks that nothing of them is left in the runtime (LEAK-8).
async fn closed(trial: &Trial) -> Result<(), String> {
    match tokio::time::timeout(CLOSE_MAX, trial.close()).await {
        Err(_) => return Err(format!("CLOSE-1: `close` has not ended after {CLOSE_MAX:?}")),
        Ok(Err(e)) => return Err(format!("CLOSE-1: `close` failed: {e}")),
        Ok(Ok(())) => {}
    }
    trial.tidy().await.map_err(|e| format!("the test's queues can't be deleted: {e}"))?;
    let alive = || Handle::current().metrics().num_alive_tasks();
    let mut patience = 100;
    while alive() > 0 {
        if patience == 0 {
            return Err(format!("LEAK-8: {} tasks of the runtime are left after `close`", alive()));
        }
        patience -= 1;
        // Time for a task that has been told to end; the loop ends with the count, not with the time.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn violations_of(trial: &Trial) -> Vec<Violation> {
    check(&trial.history().recording(trial.name(), trial.seed(), trial.caps())).violations
}

fn runtime(time: Time) -> Runtime {
    let built = match time {
        Time::Real => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
        Time::Virtual => {
            let mut builder = Builder::new_current_thread();
            #[cfg(feature = "virtual-time")]
            builder.start_paused(true);
            builder.enable_all().build()
        }
    };
    built.expect("a runtime for the test")
}

/// Where what a failed test leaves is written to.
pub(crate) fn history_directory() -> PathBuf {
    std::env::var_os("DELAYLINE_HISTORY_DIR")
        .map_or_else(|| std::env::temp_dir().join("delayline-conformance"), PathBuf::from)
}

fn write_history(trial: &Trial, test: &Test, seed: u64) -> Option<PathBuf> {
    let directory = history_directory();
    fs::create_dir_all(&directory).ok()?;
    let path = directory.join(format!("{}.{seed:016x}.jsonl", test.name));
    let file = BufWriter::new(File::create(&path).ok()?);
    trial.history().recording(test.name, seed, trial.caps()).write(file).ok()?;
    Some(path)
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_string(),
        (None, None) => "the test panicked without a text".into(),
    }
}
