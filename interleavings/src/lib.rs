//! Tries the library's own sources, not copies of them, in thousands of interleavings.
//!
//! `core` and `memory` compile the sources of `delay-core` and `backend-memory` against other dependencies: tasks, locks,
//! channels and atomics are [shuttle]'s, whose scheduler decides at each of their steps who goes on, and time is
//! [`tokio::time`] of this workspace, which stands still until nobody can go on and then jumps to the next timer.
//!
//! So nothing is late by accident: a consumer that misses a wake-up is found by the time at which it gets its task, and
//! where no timer would ever wake it, by [`explore`], which then says that everyone waits.
//!
//! What this can't find: reorderings by the processor (every atomic is sequentially consistent here), and races inside
//! tokio and parking_lot.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use delayline_core::faults::{self, Fault};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

pub mod store;

/// Schedules of each test and scheduler, unless `INTERLEAVINGS` says another number.
const SCHEDULES: usize = 2_000;
/// Within so many schedules a planted fault has to be found.
const FOUND_WITHIN: usize = 2_000;
/// Random numbers begin here, so that every run is the same, unless `SHUTTLE_RANDOM_SEED` says another.
const SEED: u64 = 20_261_123;
/// Steps of one execution, beyond which somebody goes round in circles.
const STEPS_MAX: usize = 20_000;
/// Changes of priority in a PCT schedule.
const PCT_DEPTH: usize = 3;

/// Runs `scenario` under many schedules: random ones, and those of PCT, which find what needs few, rare preemptions.
///
/// # Panics
/// If one of them fails. What it prints replays it: a random one's seed as `SHUTTLE_RANDOM_SEED`, any one's schedule in a
/// file that `INTERLEAVINGS_REPLAY` names.
pub fn explore<F>(scenario: fn() -> F)
where
    F: Future<Output = ()> + 'static,
{
    faults::plant(None);
    if let Ok(file) = std::env::var("INTERLEAVINGS_REPLAY") {
        let schedule = ReplayScheduler::new_from_file(file).expect("a file with a schedule");
        run(schedule, FailurePersistence::None, scenario, || {});
        return;
    }
    let schedules = std::env::var("INTERLEAVINGS").ok().and_then(|n| n.parse().ok()).unwrap_or(SCHEDULES);
    let pct = PctScheduler::new_from_seed(SEED, PCT_DEPTH, schedules);
    let ran = run(ClockLast(Bursts::new(schedules)), FailurePersistence::Print, scenario, || {})
        + run(ClockLast(pct), FailurePersistence::Print, scenario, || {});
    println!("schedules: {ran}");
}

/// Checks that `scenario` fails with this fault, and tells after how many schedules.
///
/// # Panics
/// If it does not.
pub fn finds<F>(fault: Option<Fault>, scenario: fn() -> F)
where
    F: Future<Output = ()> + 'static,
{
    let name = fault.map_or("the mutant".to_owned(), |fault| format!("{fault:?}"));
    faults::plant(fault);
    let random = tried_until_found(Bursts::new(FOUND_WITHIN), scenario);
    let pct = tried_until_found(PctScheduler::new_from_seed(SEED, PCT_DEPTH, FOUND_WITHIN), scenario);
    faults::plant(None);
    println!("found: {name} by {} random schedules, and by {} of PCT", shown(random), shown(pct));
    assert!(random.or(pct).is_some(), "{name} was not found in {FOUND_WITHIN} schedules of either kind");
}

/// How many schedules it took for `scenario` to fail; `None` if it did not.
fn tried_until_found<F>(scheduler: impl Scheduler + 'static, scenario: fn() -> F) -> Option<usize>
where
    F: Future<Output = ()> + 'static,
{
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = tried.clone();
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    let ran = || run(ClockLast(scheduler), FailurePersistence::None, scenario, count);
    let panic = catch_unwind(AssertUnwindSafe(ran)).err()?;
    let says = panic.downcast_ref::<String>().map_or("", String::as_str);
    assert!(!says.contains("max_steps"), "the scenario itself goes round in circles: {says}");
    Some(tried.load(Ordering::Relaxed))
}

fn shown(tried: Option<usize>) -> String {
    tried.map_or_else(|| format!("none of {FOUND_WITHIN}"), |tried| tried.to_string())
}

/// Runs `scenario` once for each schedule, and tells how many there were.
fn run<F>(
    scheduler: impl Scheduler + 'static,
    failures: FailurePersistence,
    scenario: fn() -> F,
    count: impl Fn() + Send + Sync + 'static,
) -> usize
where
    F: Future<Output = ()> + 'static,
{
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    config.failure_persistence = failures;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    let runner = Runner::new(scheduler, config);
    runner.run(move || {
        count();
        tokio::time::reset();
        let ended = Arc::new(AtomicBool::new(false));
        let clock = shuttle::thread::spawn({
            let ended = ended.clone();
            move || run_clock(&ended)
        });
        shuttle::future::block_on(scenario());
        ended.store(true, Ordering::Relaxed);
        clock.join().expect("a clock that ended");
    })
}

/// Moves time whenever it is let, which is when nobody else can go on.
fn run_clock(ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        assert!(tokio::time::advance(), "everyone waits, and there is no timer that would wake anybody");
        shuttle::thread::yield_now();
    }
}

/// A scheduler that lets the clock run only if nobody else can.
struct ClockLast<S>(S);

impl<S: Scheduler> Scheduler for ClockLast<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.0.new_execution()
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        // The test's own task is the first, and the clock is what it spawns first.
        let clock = TaskId::from(1);
        let others: Vec<&Task> = runnable.iter().copied().filter(|task| task.id() != clock).collect();
        if others.is_empty() {
            return Some(clock);
        }
        self.0.next_task(&others, current, is_yielding && current != Some(clock))
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// Random schedules in which a task goes on for some steps before another has its turn: none, or 4, 16 or 64 on
/// average. What needs one to stand still while another runs far is rare in those that are random at each step.
struct Bursts {
    random: RandomScheduler,
    dice: u64,
    /// The chance to stop at a step is one in so many.
    one_in: u64,
}

impl Bursts {
    fn new(schedules: usize) -> Self {
        Self { random: RandomScheduler::new_from_seed(SEED, schedules), dice: 0, one_in: 1 }
    }

    fn roll(&mut self) -> u64 {
        // SplitMix64.
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.dice ^ (self.dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Scheduler for Bursts {
    fn new_execution(&mut self) -> Option<Schedule> {
        let schedule = self.random.new_execution()?;
        self.dice = schedule.seed;
        self.one_in = 1 << (2 * (self.roll() % 4));
        Some(schedule)
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        let goes_on = !self.roll().is_multiple_of(self.one_in);
        match current.filter(|current| goes_on && runnable.iter().any(|task| task.id() == *current)) {
            Some(current) => Some(current),
            None => self.random.next_task(runnable, current, is_yielding),
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.random.next_u64()
    }
}
