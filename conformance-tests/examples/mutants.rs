//! Holds the whole suite against every mutant of the memory backend, in virtual time, and writes `docs/mutants.md`:
//!
//! ```sh
//! cargo run -p delayline-conformance --example mutants -- --leak
//! ```
//!
//! `--leak` runs the LEAK tests too, which takes several minutes more because they run alone; `--only NAME` looks at one
//! mutant, and prints what it finds instead of writing it.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use comfy_table::Table;
use delayline_conformance::heap::Counting;
use delayline_conformance::mutants::{MUTANTS, Mutant, Seen, quiet, see};
use delayline_conformance::{LEAK_TESTS, TESTS, Test, seed, suite};
use indicatif::{ProgressBar, ProgressStyle};
use support::Memory;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let asked = match Asked::read(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(wrong) => {
            eprintln!("{wrong}; there are `--leak` and `--only NAME`");
            return ExitCode::FAILURE;
        }
    };
    quiet();
    let findings = run(&asked);
    let missed: Vec<_> = asked.mutants.iter().filter(|m| !asked.is_in_doubt(m) && !findings.is_caught(m)).collect();
    if asked.one {
        println!("{}", findings.printed(&asked));
    } else {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mutants.md");
        std::fs::write(&path, findings.document(&asked)).expect("docs/ can be written to");
        eprintln!("written: docs/mutants.md");
    }
    for mutant in &missed {
        eprintln!("{} is not caught by {}", mutant.name, mutant.caught_by);
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the command line asks for.
struct Asked {
    leak: bool,
    one: bool,
    mutants: Vec<&'static Mutant>,
}

impl Asked {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut asked = Self { leak: false, one: false, mutants: MUTANTS.iter().collect() };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--leak" => asked.leak = true,
                "--only" => {
                    let name = arguments.next().ok_or("`--only` takes the name of a mutant")?;
                    asked.one = true;
                    asked.mutants.retain(|mutant| mutant.name == name);
                    if asked.mutants.is_empty() {
                        return Err(format!("there is no mutant `{name}`"));
                    }
                }
                other => return Err(format!("`{other}` is not known")),
            }
        }
        Ok(asked)
    }

    /// Whether the mutant's test is not run.
    fn is_in_doubt(&self, mutant: &Mutant) -> bool {
        !self.leak && LEAK_TESTS.iter().any(|test| test.name == mutant.caught_by)
    }

    fn command(&self) -> &'static str {
        if self.leak {
            "cargo run -p delayline-conformance --example mutants -- --leak"
        } else {
            "cargo run -p delayline-conformance --example mutants"
        }
    }
}

/// A mutant and a test to be held against it.
type Pair = (&'static Mutant, &'static Test);

fn run(asked: &Asked) -> Findings {
    let pairs = |tests: &'static [Test]| -> Vec<Pair> {
        asked.mutants.iter().flat_map(|mutant| tests.iter().map(|test| (*mutant, test))).collect()
    };
    let (beside, alone) = (pairs(TESTS), if asked.leak { pairs(LEAK_TESTS) } else { Vec::new() });
    let progress = ProgressBar::new((beside.len() + alone.len()) as u64);
    progress.set_style(ProgressStyle::with_template("{elapsed} {wide_bar} {pos}/{len} {msg}").expect("a template"));
    progress.enable_steady_tick(Duration::from_secs(1));
    let findings = Findings::default();
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    look_at(&beside, cores, &progress, &findings);
    look_at(&alone, 1, &progress, &findings);
    progress.finish_and_clear();
    findings
}

/// Runs the tests in so many threads; each test has one more of its own.
fn look_at(pairs: &[Pair], threads: usize, progress: &ProgressBar, findings: &Findings) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((mutant, test)) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    progress.set_message(mutant.name);
                    let seen = see(mutant, test, Arc::new(Memory::virtual_time()), seed());
                    if let Seen::Caught(said) = seen {
                        findings.0.lock().expect("no panic").entry(mutant.name).or_default().push((test.name, said));
                    }
                    progress.inc(1);
                }
            });
        }
    });
}

/// Which tests caught each mutant, and what they said.
#[derive(Default)]
struct Findings(Mutex<BTreeMap<&'static str, Vec<(&'static str, String)>>>);

impl Findings {
    fn of(&self, mutant: &Mutant) -> Vec<(&'static str, String)> {
        let mut caught = self.0.lock().expect("no panic").get(mutant.name).cloned().unwrap_or_default();
        caught.sort();
        caught
    }

    fn is_caught(&self, mutant: &Mutant) -> bool {
        self.of(mutant).iter().any(|(test, _)| *test == mutant.caught_by)
    }

    fn printed(&self, asked: &Asked) -> Table {
        let mut table = Table::new();
        table.set_header(["mutant", "caught by", "which said"]);
        for mutant in &asked.mutants {
            for (test, said) in self.of(mutant) {
                table.add_row([mutant.name, test, &said.chars().take(120).collect::<String>()]);
            }
        }
        table
    }

    fn document(&self, asked: &Asked) -> String {
        let mut text = format!(
            "# Mutants: the proof that each test can fail\n\n\
             Made by `{}`.\n\n\
             A mutant is the memory backend with one thing done wrong (`conformance-tests/src/mutants/`). Each has to be \
             caught by the test\n\
             named for the promise that it breaks, in bold; CI holds those two against each other \
             (`conformance-tests/tests/mutants.rs`). What\n\
             else noticed it is listed as it was seen: of {} tests{}.\n\n\
             | mutant | what it does wrong | seen in | promise | caught by |\n|---|---|---|---|---|\n",
            asked.command(),
            TESTS.len() + if asked.leak { LEAK_TESTS.len() } else { 0 },
            if asked.leak { "" } else { ", without the LEAK tests" },
        );
        for mutant in &asked.mutants {
            let Mutant { name, what, breaks, .. } = mutant;
            let like = mutant.like.unwrap_or_default();
            // Writing to a string can't fail.
            let _ = writeln!(text, "| `{name}` | {what} | {like} | {breaks} | {} |", self.cell(asked, mutant));
        }
        text
    }

    fn cell(&self, asked: &Asked, mutant: &Mutant) -> String {
        const SHOWN_MAX: usize = 4;
        let named = mutant.caught_by;
        let verdict = match (self.is_caught(mutant), asked.is_in_doubt(mutant), suite::find(named)) {
            (true, ..) => "",
            (false, true, _) => " (not run)",
            (false, false, Some(_)) => " (**missed**)",
            (false, false, None) => " (**no such test**)",
        };
        let mut cell = format!("**`{named}`**{verdict}");
        let others: Vec<_> = self.of(mutant).into_iter().map(|(test, _)| test).filter(|test| *test != named).collect();
        for other in others.iter().take(SHOWN_MAX) {
            let _ = write!(cell, ", `{other}`");
        }
        if others.len() > SHOWN_MAX {
            let _ = write!(cell, " and {} more", others.len() - SHOWN_MAX);
        }
        cell
    }
}
