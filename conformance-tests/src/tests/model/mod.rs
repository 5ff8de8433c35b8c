//! The backend against a model that is too simple to be wrong: any sequence of calls does what the model does.
//!
//! A trace is made from the trial's seed, and is the same for every backend; a step that needs what the backend lacks must
//! answer `Unsupported` and change nothing. What fails is made shorter until nothing more can be left out, and written to a
//! file, which `DELAYLINE_TRACE` runs again. What each trace did is also looked at by the checkers of histories.

mod changes;
mod leases;
mod look;
mod ops;
mod reference;
mod schedule;
mod world;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use delayline_core::{DeadLetterOp, DelayBackend};
use futures_util::FutureExt;
use futures_util::future::join_all;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::check::check;
use crate::history::{History, Recorded};
use crate::run::FAILURES_ARE_WANTED;
use crate::trial::Trial;
use ops::{Mix, Step, trace};
use world::{Checked, Stop, World, wrong};

pub async fn loss_1_any_sequence_of_calls_does_what_the_model_does(t: &Trial) {
    agree(t, Mix::Everything).await;
}

pub async fn time_1_any_sequence_of_delays_does_what_the_model_does(t: &Trial) {
    agree(t, Mix::Time).await;
}

pub async fn cancel_6_any_sequence_of_group_changes_does_what_the_model_does(t: &Trial) {
    agree(t, Mix::Groups).await;
}

pub async fn dup_1_any_sequence_of_leases_does_what_the_model_does(t: &Trial) {
    agree(t, Mix::Leases).await;
}

/// The file of a trace to run instead of new ones.
const TRACE: &str = "DELAYLINE_TRACE";

/// By how much a tick may become longer for want of a disposition.
const SLOWER_MAX: u32 = 8;

type Tree = Box<dyn ValueTree<Value = Vec<Step>>>;

async fn agree(t: &Trial, mix: Mix) {
    let mut bench = Bench::new(t).await;
    if let Some(path) = std::env::var_os(TRACE) {
        let steps = read(Path::new(&path));
        match bench.run_noted(&steps).await {
            Ok(checks) => t.checked(checks),
            Err(stop) => panic!("{}: {stop:?}\n{}", path.display(), shown(&steps)),
        }
        return bench.close().await;
    }
    let mut runner = runner(&mut t.rng());
    let strategy = trace(mix, t.size(60, 15));
    let traces = t.size(300, 8);
    // Steps of the wall clock are seen by all, so such traces run one after the other.
    let at_once = if t.is_virtual() || mix == Mix::Time { 1 } else { traces };
    let mut unclear = Vec::new();
    let traces = if mix == Mix::Time { t.size(traces, 2) } else { traces };
    let mut left = traces;
    while left > 0 {
        let trees: Vec<Tree> =
            (0..at_once.min(left)).map(|_| strategy.new_tree(&mut runner).expect("a trace")).collect();
        let first = bench.runs;
        left -= trees.len();
        let all: Vec<Vec<Step>> = trees.iter().map(|tree| tree.current()).collect();
        let ended = bench.run_all(&all).await;
        for (number, ((tree, steps), ended)) in (first..).zip(trees.into_iter().zip(all).zip(ended)) {
            match ended {
                Ok(checks) => t.checked(checks),
                Err(Stop::Wrong(what)) => bench.fail(number + 1, tree, steps, what).await,
                // Those beside it may be what made the machine too slow.
                Err(Stop::Unclear(_)) if at_once > 1 => {
                    match bench.run_all(std::slice::from_ref(&steps)).await.remove(0) {
                        Ok(checks) => t.checked(checks),
                        Err(Stop::Wrong(what)) => bench.fail(number + 1, tree, steps, what).await,
                        Err(Stop::Unclear(why)) => unclear.push(why),
                    }
                }
                Err(Stop::Unclear(why)) => unclear.push(why),
            }
        }
    }
    // A machine may stand still for longer than any tick; then a trace says nothing, and the others have to.
    let at_most = if t.is_virtual() { traces / 10 } else { traces / 2 };
    assert!(unclear.len() <= at_most, "{} of {traces} traces said nothing: {unclear:?}", unclear.len());
    bench.close().await;
}

fn runner(rng: &mut fastrand::Rng) -> TestRunner {
    let mut bytes = [0; 32];
    rng.fill(&mut bytes);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng)
}

/// Two clients of the store, and a queue for each run of a trace.
struct Bench<'t> {
    t: &'t Trial,
    clients: [Arc<dyn DelayBackend>; 2],
    runs: u32,
}

impl<'t> Bench<'t> {
    async fn new(t: &'t Trial) -> Self {
        let first = t.bare();
        let second = if t.is_shared() { t.harness().open().await.expect("another client") } else { first.clone() };
        Self { t, clients: [first, second], runs: 0 }
    }

    async fn close(self) {
        let [_, second] = self.clients;
        if self.t.is_shared() {
            second.close().await.expect("the second client closes");
        }
    }

    /// Runs traces beside each other, each on a queue and with a history of its own.
    async fn run_all(&mut self, all: &[Vec<Step>]) -> Vec<Checked<u64>> {
        let (t, clients, first) = (self.t, &self.clients, self.runs);
        self.runs += all.len() as u32;
        let mut runs = Vec::new();
        for (number, steps) in (first..).zip(all) {
            runs.push(attempts(t, clients, || History::new(t.harness().clone()), number, steps));
        }
        join_all(runs).await
    }

    /// Runs a trace so that the trial's own history shows it.
    async fn run_noted(&mut self, steps: &[Step]) -> Checked<u64> {
        self.runs += 1;
        attempts(self.t, &self.clients, || self.t.history().clone(), self.runs - 1, steps).await
    }

    /// Makes a failing trace shorter for as long as it fails, writes it down and panics.
    async fn fail(&mut self, number: u32, mut tree: Tree, mut steps: Vec<Step>, mut what: String) {
        let mut runs_left = if FAILURES_ARE_WANTED.load(Relaxed) { 0 } else { self.t.size(2_000, 8) };
        let mut shorter = tree.simplify();
        while shorter && runs_left > 0 {
            runs_left -= 1;
            let current = tree.current();
            shorter = match self.run_all(std::slice::from_ref(&current)).await.pop() {
                Some(Err(Stop::Wrong(now))) => {
                    (steps, what) = (current, now);
                    tree.simplify()
                }
                _ => tree.complicate(),
            };
        }
        // Once more, for the history.
        match self.run_noted(&steps).await {
            Err(Stop::Wrong(now)) => what = now,
            Err(Stop::Unclear(_)) | Ok(_) => {
                what += "\nRun once more, it did not fail: it hangs on more than the trace."
            }
        }
        let kept = match write(self.t, &steps) {
            Ok(path) => format!("{TRACE}={} repeats it", path.display()),
            Err(e) => format!("the trace could not be written: {e}"),
        };
        panic!("{what}\ntrace {number}, down to {} steps; {kept}\n{}", steps.len(), shown(&steps));
    }
}

/// Runs a trace, with longer ticks if the machine was too slow for a disposition.
async fn attempts(
    t: &Trial,
    clients: &[Arc<dyn DelayBackend>; 2],
    history: impl Fn() -> History,
    number: u32,
    steps: &[Step],
) -> Checked<u64> {
    let mut slower = 1;
    loop {
        let run = number * 2 * SLOWER_MAX + slower;
        let queue = t.queue(&format!("trace-{run}"));
        let history = history();
        let recorded = [0, 1].map(|client| -> Arc<dyn DelayBackend> {
            let number = if t.is_shared() { client as u32 } else { 0 };
            Arc::new(Recorded::new(clients[client].clone(), history.clone(), number))
        });
        if !t.is_virtual() {
            // A store that makes something for each queue takes its time, for which no tick is made. What fails here fails
            // in the trace. Nothing is claimed: a consumer that lingers would get what the trace waits for.
            for client in clients {
                let _ = client.dead_letters(&queue, DeadLetterOp::List { after: None, limit: 1 }).await;
            }
        }
        let mut world = World::new(t, queue, recorded, history.clone(), slower);
        let ended = match AssertUnwindSafe(through(&mut world, steps)).catch_unwind().await {
            Ok(ended) => ended,
            Err(_) => wrong("the backend panicked"),
        };
        match ended {
            Err(Stop::Unclear(_)) if slower < SLOWER_MAX && !t.is_virtual() => slower *= 2,
            Err(stop) => return Err(stop),
            Ok(()) => {
                let found = check(&t.recording_of(&history));
                let violations: Vec<String> = found.violations.iter().map(ToString::to_string).collect();
                return if violations.is_empty() { Ok(world.checks) } else { wrong(violations.join("\n")) };
            }
        }
    }
}

async fn through(world: &mut World<'_>, steps: &[Step]) -> Checked {
    for (at, step) in steps.iter().enumerate() {
        let ended = world.run(step).await;
        ended.map_err(|stop| told(stop, &format!("at step {} of {}", at + 1, steps.len())))?;
    }
    world.drain().await.map_err(|stop| told(stop, "when everything was taken out"))
}

fn told(stop: Stop, place: &str) -> Stop {
    match stop {
        Stop::Wrong(what) => Stop::Wrong(format!("{what} ({place})")),
        unclear => unclear,
    }
}

/// One step a line, as in the file.
fn shown(steps: &[Step]) -> String {
    steps.iter().map(|step| serde_json::to_string(step).expect("a step is plain data") + "\n").collect()
}

fn write(t: &Trial, steps: &[Step]) -> std::io::Result<PathBuf> {
    let directory = crate::run::history_directory();
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{}.trace.jsonl", t.file_stem()));
    let mut file = BufWriter::new(File::create(&path)?);
    file.write_all(shown(steps).as_bytes())?;
    file.flush()?;
    Ok(path)
}

fn read(path: &Path) -> Vec<Step> {
    let file = File::open(path).unwrap_or_else(|e| panic!("{TRACE}={}: {e}", path.display()));
    let step = |(n, line): (usize, std::io::Result<String>)| {
        let line = line.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}, line {}: no step: {e}", path.display(), n + 1))
    };
    BufReader::new(file).lines().enumerate().map(step).collect()
}
