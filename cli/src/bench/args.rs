//! What can be said to `delayline bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::parse::some_time;

const EXAMPLES: &str = r#"Examples:
  Backends side by side, each server a private one from the programs found:
    delayline bench --backends memory: --spawn redis,postgres,rabbitmq \
      --report bench

  One scenario on a server of yours, as JSON:
    delayline bench --backends redis://localhost --scenario herd --json

  In CI: slower than last time, beyond what the runs differ by anyway?
    delayline bench --scenario herd --against bench/report.json

What happens:
  Each backend plays each scenario --repeats times, after a warm-up; shown are
  medians, ± half the spread. Books are kept beside it: a scenario in which a
  task was lost, came twice or came early shows that instead of figures.
  On a server of yours it works in a namespace of its own below the URL's,
  named `bench-XXXXXXXX`, and removes it at the end, after Ctrl-C too. What a
  killed run has left, `delayline conform --remove-left` removes.

Scenarios:
  herd            30,000 tasks due at one instant; throughput of every call
  steady          200 a second, idling, and the highest rate that is in time
  order-timeout   1,000 a second, 90 % of them cancelled before they are due
  session-expiry  100,000 sessions touched again and again: the leak test
  retry-storm     10,000 tasks that fail three times each
  far-future      1,000,000 pending for later, while near tasks run

Exit codes:
  0    every run was clean
  1    it could not start, or a scenario broke off
  2    the command line is wrong
  5    a run lost, doubled or delivered early
  9    with --against: a figure is worse, beyond noise and --tolerance
  130  interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)"#;

/// Measures backends side by side: throughput, lateness, memory, on this machine.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// The backends, by their URLs; the one of --backend, if neither these nor --spawn are said.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(super) backends: Vec<String>,

    /// Servers that are started for it, each private and gone afterwards, from the programs found on this machine.
    #[arg(long, value_name = "SERVER", value_delimiter = ',')]
    pub(super) spawn: Vec<Spawn>,

    /// Only these scenarios.
    #[arg(long, value_name = "SCENARIO", value_delimiter = ',')]
    pub(super) scenario: Vec<Scenario>,

    /// How many tasks a scenario works on, at the most; otherwise each has its own number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub(super) tasks: Option<u32>,

    /// How large each payload is.
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = clap::value_parser!(u32).range(8..=1_048_576))]
    pub(super) payload: u32,

    /// How many schedule in batches at a time, and how many claim and complete in batches.
    #[arg(long, value_name = "P", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) producers: u32,

    /// How many callers there are at a time where each handles single tasks.
    #[arg(long, value_name = "C", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) concurrency: u32,

    /// How long the scenarios go on that have a rate and no end: steady, order-timeout, session-expiry.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = some_time)]
    pub(super) duration: Duration,

    /// How often each is run.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) repeats: u32,

    /// Compare with the report of an earlier run.
    #[arg(long, value_name = "FILE")]
    pub(super) against: Option<PathBuf>,

    /// How much worse a figure may be, beyond the spread of the runs.
    #[arg(long, value_name = "PERCENT", default_value = "25", requires = "against", value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(super) tolerance: u32,

    /// Write a page with plots to this directory: index.html, beside it report.json, and throughput.svg if there is a herd.
    #[arg(long, value_name = "DIR")]
    pub(super) report: Option<PathBuf>,

    /// Write the result as one JSON object.
    #[arg(long)]
    pub(super) json: bool,

    /// No progress bar. There is one only where stderr is a terminal.
    #[arg(long)]
    pub(super) no_progress: bool,

    /// Nothing on stderr but what went wrong.
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// A kind of server that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Spawn {
    Redis,
    Postgres,
    Rabbitmq,
}

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(super) enum Scenario {
    Herd,
    Steady,
    OrderTimeout,
    SessionExpiry,
    RetryStorm,
    FarFuture,
}

impl Scenario {
    /// All of them. The last one may leave a server with a lot to forget.
    pub(super) const ALL: [Self; 6] =
        [Self::Herd, Self::Steady, Self::OrderTimeout, Self::RetryStorm, Self::SessionExpiry, Self::FarFuture];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Herd => "herd",
            Self::Steady => "steady",
            Self::OrderTimeout => "order-timeout",
            Self::SessionExpiry => "session-expiry",
            Self::RetryStorm => "retry-storm",
            Self::FarFuture => "far-future",
        }
    }

    /// How many tasks it works on unless told.
    pub(super) fn tasks(self) -> u32 {
        match self {
            Self::Herd => 30_000,
            Self::Steady | Self::OrderTimeout => u32::MAX,
            Self::SessionExpiry => 100_000,
            Self::RetryStorm => 10_000,
            Self::FarFuture => 1_000_000,
        }
    }
}

impl BenchArgs {
    /// The scenarios that are wanted, each once, in their own order.
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        let wanted = |scenario: &Scenario| self.scenario.is_empty() || self.scenario.contains(scenario);
        Scenario::ALL.into_iter().filter(wanted).collect()
    }

    /// How many tasks a scenario works on, at the most.
    pub(super) fn tasks_of(&self, scenario: Scenario) -> u32 {
        scenario.tasks().min(self.tasks.unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_on_80_columns() {
        for line in EXAMPLES.lines() {
            assert!(line.chars().count() < 80, "{line}");
        }
    }

    #[test]
    fn scenarios_are_spelled_as_they_are_named() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::from_str(scenario.name(), false), Ok(scenario));
            assert!(EXAMPLES.contains(scenario.name()));
        }
    }
}
