//! Runs a test: its runtime, its seed, its time limit, and the checks after its end.

use std::any::Any;
use std::fmt;
use std::fs::{self, File};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io::BufWriter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::task::{Context, Poll, Waker};
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

/// Time limit of a test, in real time. A test that takes longer hangs.
pub const TEST_MAX: Duration = Duration::from_secs(300);

/// The same for virtual time, in which waiting takes no time: such tests take seconds, even on a busy machine.
const VIRTUAL_TEST_MAX: Duration = Duration::from_secs(60);

/// Time limit of closing, in the time of the harness.
const CLOSE_MAX: Duration = Duration::from_secs(30);

/// Interval of checking whether a running test should go on.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Time limit for the tasks that a test has left in its runtime.
const LEFT_MAX: Duration = Duration::from_secs(1);

/// Whether this process runs tests that are meant to fail, so that details need not be printed.
pub(crate) static FAILURES_ARE_WANTED: AtomicBool = AtomicBool::new(false);

/// The result of one test.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its name.
    pub test: &'static str,
    /// The seed of its randomness; set `DELAYLINE_SEED` to repeat it.
    pub seed: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Number of answers that it checked.
    pub operations: u64,
    /// Its duration, in real time.
    pub took: Duration,
}

/// How a test ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The promise holds.
    Passed,
    /// The backend declares that it lacks this, and answered `Unsupported`.
    Unsupported(Vec<Need>),
    /// The harness can't do what the test needs.
    Untested(String),
    /// The promise does not hold.
    Failed(Failure),
}

/// Why a test failed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Failure {
    /// The message of the test itself.
    pub message: Option<String>,
    /// The violations in its history.
    pub violations: Vec<Violation>,
    /// The file with its history.
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

/// Runs one test by its name, and panics if it fails. The tests that [`suite!`](crate::suite!) creates call it.
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

/// Runs one test, and returns the result. It takes as long as the test, but at most five minutes; one minute if time is
/// virtual.
#[must_use]
pub fn run_test(test: &'static Test, harness: Arc<dyn Harness>, seed: u64) -> Report {
    let at_most = match Time::of(&*harness) {
        Time::Virtual => VIRTUAL_TEST_MAX,
        Time::Real => TEST_MAX,
    };
    run_test_within(test, harness, seed, at_most)
}

/// Runs one test, which fails if it takes longer than `at_most` in real time.
#[must_use]
pub fn run_test_within(test: &'static Test, harness: Arc<dyn Harness>, seed: u64, at_most: Duration) -> Report {
    let always = || true;
    run_test_while(test, harness, seed, at_most, always).expect("a test that nobody stops")
}

/// Runs one test while `goes_on` returns `true`, which is checked ten times a second. Returns `None` if the test was
/// stopped: it was then dropped at an await with its clients, and has no result.
#[must_use]
pub fn run_test_while(
    test: &'static Test,
    harness: Arc<dyn Harness>,
    seed: u64,
    at_most: Duration,
    goes_on: impl Fn() -> bool,
) -> Option<Report> {
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
    let answer = loop {
        let left = at_most.saturating_sub(began.elapsed());
        match ended.recv_timeout(left.min(ASK_EVERY)) {
            Err(RecvTimeoutError::Timeout) if !goes_on() => {
                watched.give_up();
                // It ends at its next await; what blocks for longer than that is left alone.
                let _ = ended.recv_timeout(CLOSE_MAX);
                return None;
            }
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            answer => break answer,
        }
    };
    let outcome = match answer {
        Ok(outcome) => {
            // Once it has freed what it holds, which the next test may measure.
            let _ = thread.join();
            outcome
        }
        Err(RecvTimeoutError::Timeout) => {
            watched.give_up();
            watched.failed(Some(format!("hangs: not done after {at_most:?}")), vec![])
        }
        Err(RecvTimeoutError::Disconnected) => {
            watched.failed(Some("the test's thread ended without an answer".into()), vec![])
        }
    };
    let operations = watched.trial.lock().as_ref().map_or(0, |trial| trial.operations());
    Some(Report { test: test.name, seed, outcome, operations, took: began.elapsed() })
}

/// The seed from `DELAYLINE_SEED`, decimal or hexadecimal after `0x`; default: a random one.
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
            parsed.unwrap_or_else(|e| {
                panic!("DELAYLINE_SEED is `{text}`; expected a number, decimal or hexadecimal after `0x`: {e}")
            })
        }
        Err(_) => RandomState::new().hash_one("seed"),
    }
}

/// The trial in progress, for the thread that watches it.
#[derive(Default)]
struct Watched {
    trial: Mutex<Option<Arc<Trial>>>,
    /// Set when no thread waits for the test any more.
    given_up: AtomicBool,
    /// The waker of the test's future: it may be idle while other tasks of its runtime run.
    waker: Mutex<Option<Waker>>,
}

impl Watched {
    /// Ends the test at its next await, and all its tasks with it.
    fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }

    /// Whether the test should go on. Checked at each of its polls.
    fn goes_on(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.lock();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        !self.given_up.load(Ordering::SeqCst)
    }

    fn failed(&self, message: Option<String>, violations: Vec<Violation>) -> Outcome {
        let wanted = FAILURES_ARE_WANTED.load(Ordering::Relaxed);
        let history = self.trial.lock().as_ref().filter(|_| !wanted).and_then(|trial| write_history(trial));
        Outcome::Failed(Failure { message, violations, history })
    }
}

fn run_here(test: &'static Test, harness: Arc<dyn Harness>, seed: u64, watched: &Watched) -> Outcome {
    let runtime = runtime(Time::of(&*harness));
    let body = async {
        let trial =
            Trial::begin(test.name, seed, harness).await.map_err(|e| format!("the backend can't be opened: {e}"))?;
        let trial = Arc::new(trial);
        *watched.trial.lock() = Some(trial.clone());
        let missing: Vec<Need> = test.needs.iter().copied().filter(|need| !need.is_met(trial.caps())).collect();
        if missing.is_empty() {
            (test.body)(&trial).await;
        }
        for need in &missing {
            need.assert_as_declared(&trial).await;
        }
        Ok::<_, String>((trial, missing))
    };
    let mut body = pin!(body);
    // One that goes round for ever, rather than sleeps, would take a core for the rest of the process.
    let body = poll_fn(|cx| match watched.goes_on(cx) {
        true => body.as_mut().poll(cx),
        false => Poll::Ready(Err("given up".into())),
    });
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(body)));
    let failed = |message, violations| watched.failed(message, violations);
    let (trial, missing) = match ended {
        Ok(Ok(ended)) => ended,
        Ok(Err(message)) => {
            runtime.shutdown_timeout(LEFT_MAX);
            return failed(Some(message), vec![]);
        }
        Err(panic) => {
            // What the history shows may be the better explanation.
            let violations = watched.trial.lock().as_ref().map(|trial| violations_of(trial)).unwrap_or_default();
            let outcome = failed(Some(text_of(&*panic)), violations);
            runtime.shutdown_timeout(LEFT_MAX);
            return outcome;
        }
    };
    let violations = violations_of(&trial);
    if !violations.is_empty() {
        runtime.shutdown_timeout(LEFT_MAX);
        return failed(None, violations);
    }
    if let Err(message) = runtime.block_on(closed(&trial)) {
        runtime.shutdown_timeout(LEFT_MAX);
        return failed(Some(message), vec![]);
    }
    runtime.shutdown_timeout(LEFT_MAX);
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
    check(&trial.recording()).violations
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

/// The directory for the histories of failed tests.
pub(crate) fn history_directory() -> PathBuf {
    std::env::var_os("DELAYLINE_HISTORY_DIR")
        .map_or_else(|| std::env::temp_dir().join("delayline-conformance"), PathBuf::from)
}

fn write_history(trial: &Trial) -> Option<PathBuf> {
    let directory = history_directory();
    fs::create_dir_all(&directory).ok()?;
    let path = directory.join(format!("{}.jsonl", trial.file_stem()));
    let file = BufWriter::new(File::create(&path).ok()?);
    trial.recording().write(file).ok()?;
    Some(path)
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_string(),
        (None, None) => "the test panicked without a text".into(),
    }
}
