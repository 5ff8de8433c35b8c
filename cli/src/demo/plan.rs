//! Who does what, and when. The plan is drawn before the exam begins, and is the same for the same seed.

use std::ops::Range;
use std::time::Duration;

use delayline::{Capabilities, Support};
use fastrand::Rng;

use super::args::DemoArgs;

/// Of the candidates who hand in early, one in this many does so just when the time is up, which may be too late.
const LAST_MOMENT_ONE_IN: usize = 200;
/// The range around the moment at which the time is up.
const LAST_MOMENT: Range<f64> = -0.010..0.050;
/// The part of the exam in which extra time is given. It is before everyone gets more time.
const EXTRA_TIME_GIVEN: Range<f64> = 0.05..0.35;

/// The plan of an exam.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: Steps,
    /// Who gets extra time, by when.
    pub(super) extra: Vec<Visit>,
    /// Who hands in early, by when.
    pub(super) early: Vec<Visit>,
    /// For each candidate: the outcome of the first attempt to hand in.
    pub(super) first_attempt: Vec<FirstAttempt>,
}

/// A candidate's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Visit {
    /// After the exam's beginning.
    pub(super) at: Duration,
    pub(super) candidate: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstAttempt {
    Works,
    Fails,
    Panics,
}

/// The parts that the backend supports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) early: bool,
    pub(super) extra: bool,
    pub(super) groups: bool,
    /// Whether the backend can only request a change, and does not know its outcome.
    pub(super) asks: bool,
    /// Whether the backend can count the tasks in a queue.
    pub(super) counts: bool,
}

impl Steps {
    pub(super) fn of(can: &Capabilities) -> Self {
        let extra = can.reschedule != Support::Unsupported;
        Self {
            early: can.cancel != Support::Unsupported,
            extra,
            groups: extra && can.groups != Support::Unsupported,
            asks: [can.cancel, can.reschedule].contains(&Support::Requested),
            counts: can.stats != Support::Unsupported,
        }
    }
}

impl Plan {
    pub(super) fn new(args: &DemoArgs, steps: Steps) -> Self {
        let mut rng = Rng::with_seed(args.seed);
        let extra = if steps.extra && args.extra_time > Duration::ZERO { args.extra_percent } else { 0.0 };
        let mut has_extra = vec![false; args.candidates as usize];
        let mut extra: Vec<_> = draw(&mut rng, args.candidates, extra)
            .into_iter()
            .map(|candidate| {
                has_extra[candidate as usize] = true;
                Visit { at: args.exam.mul_f64(within(&mut rng, EXTRA_TIME_GIVEN)), candidate }
            })
            .collect();
        extra.sort_unstable();

        let more_time = if steps.groups { args.more_time } else { Duration::ZERO };
        let early = if steps.early { args.early_percent } else { 0.0 };
        let mut early: Vec<_> = draw(&mut rng, args.candidates, early)
            .into_iter()
            .map(|candidate| {
                let extra_time = if has_extra[candidate as usize] { args.extra_time } else { Duration::ZERO };
                Visit { at: hand_in_at(&mut rng, args.exam + more_time + extra_time), candidate }
            })
            .collect();
        early.sort_unstable();

        let mut first_attempt = vec![FirstAttempt::Works; args.candidates as usize];
        for (percent, what) in [(args.fail_percent, FirstAttempt::Fails), (args.panic_percent, FirstAttempt::Panics)] {
            for candidate in draw(&mut rng, args.candidates, percent) {
                first_attempt[candidate as usize] = what;
            }
        }
        Self { steps, extra, early, first_attempt }
    }
}

/// A percentage of the candidates, chosen at random.
fn draw(rng: &mut Rng, candidates: u32, percent: f64) -> Vec<u32> {
    let count = (f64::from(candidates) * percent / 100.0).round() as usize;
    rng.choose_multiple(0..candidates, count)
}

fn within(rng: &mut Rng, range: Range<f64>) -> f64 {
    range.start + rng.f64() * (range.end - range.start)
}

fn hand_in_at(rng: &mut Rng, time_is_up: Duration) -> Duration {
    if rng.usize(..LAST_MOMENT_ONE_IN) > 0 {
        return time_is_up.mul_f64(rng.f64());
    }
    Duration::from_secs_f64((time_is_up.as_secs_f64() + within(rng, LAST_MOMENT)).max(0.0))
}
