//! The arguments of `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::parse::{some_time, whole};

const EXAMPLES: &str = r#"Examples:
  Compare backends; servers are private ones, from the installed programs:
    delayline bench --backends memory: --spawn redis,postgres,rabbitmq \
      --report bench

  Run one scenario on your own server, and write JSON:
    delayline bench --backends redis://localhost --scenario herd --json

  In CI, compare with an earlier run:
    delayline bench --scenario herd --against bench/report.json

What happens:
  Each backend runs each scenario --repeats times, after a warm-up. The result
  shows medians, ± half the spread. A ledger checks each run: if a task was
  lost, delivered twice or delivered early, the result shows that instead of
  figures. On your own server, it works in a namespace of its own
  (`bench-XXXXXXXX`, added to the key prefix, schema or namespace of the URL),
  and removes it at the end, also after Ctrl-C. To remove what a killed run has
  left, use `delayline conform --remove-left`.

Scenarios:
  herd            30,000 tasks due at one instant; throughput of each operation
  steady          200 per second; idling; the highest rate at which the p99
                  lateness stays below 50 ms
  order-timeout   1,000 per second; 90 % are cancelled before they are due
  session-expiry  100,000 sessions, touched again and again: a leak test
  retry-storm     10,000 tasks that fail three times each
  far-future      1,000,000 tasks pending for later, while near tasks run

Exit codes:
  0    every run was clean
  1    it could not start, or a scenario broke off
  2    the command line is wrong
  5    a run lost a task, delivered one twice, or delivered one early
  9    with --against: a figure is worse, beyond noise and --tolerance
  130  interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)"#;

/// Measure backends side by side on this machine: throughput, lateness, memory.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// URLs of the backends, separated by commas. Default: that of --backend, if --spawn is not given either.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(super) backends: Vec<String>,

    /// Private servers to start from the programs installed on this machine, separated by commas; each is stopped and
    /// removed afterwards.
    #[arg(long, value_name = "SERVER", value_delimiter = ',')]
    pub(super) spawn: Vec<Spawn>,

    /// Scenarios to run, separated by commas. Default: all.
    #[arg(long, value_name = "SCENARIO", value_delimiter = ',')]
    pub(super) scenario: Vec<Scenario>,

    /// Maximum number of tasks in a scenario. Default: each scenario's own number.
    #[arg(long, value_name = "N", value_parser = whole(100_u32, 10_000_000))]
    pub(super) tasks: Option<u32>,

    /// Size of each payload, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = whole(8_u32, 1_048_576))]
    pub(super) payload: u32,

    /// Number of concurrent callers for batched calls: this many schedule, and as many claim and complete.
    #[arg(long, value_name = "P", default_value = "4", value_parser = whole(1_u32, 1_000))]
    pub(super) producers: u32,

    /// Number of concurrent callers for calls on a single task.
    #[arg(long, value_name = "C", default_value = "64", value_parser = whole(1_u32, 10_000))]
    pub(super) concurrency: u32,

    /// Duration of the scenarios that have a rate and no end: steady, order-timeout, session-expiry.
    #[arg(long, value_name = "DURATION", default_value = "5s", allow_hyphen_values = true, value_parser = some_time)]
    pub(super) duration: Duration,

    /// Number of runs of each scenario.
    #[arg(long, value_name = "N", default_value = "3", value_parser = whole(1_u32, 100))]
    pub(super) repeats: u32,

    /// Report of an earlier run to compare with: the report.json of --report, or the output of --json.
    #[arg(long, value_name = "FILE")]
    pub(super) against: Option<PathBuf>,

    /// Percentage by which a figure may be worse, beyond the spread of the runs.
    #[arg(long, value_name = "PERCENT", default_value = "25", requires = "against", value_parser = whole(0_u32, 1_000))]
    pub(super) tolerance: u32,

    /// Directory for the report: index.html with plots, report.json and, if `herd` ran, throughput.svg.
    #[arg(long, value_name = "DIR")]
    pub(super) report: Option<PathBuf>,

    /// Write the result as one JSON object.
    #[arg(long)]
    pub(super) json: bool,

    /// Show no progress bar. Without this, there is a bar only if stderr is a terminal.
    #[arg(long)]
    pub(super) no_progress: bool,

    /// Write only errors to stderr.
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

/// What is measured.
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
    /// All of them. `far-future` is last, because a server may be busy for long after it, freeing what the tasks
    /// occupied.
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

    /// The number of tasks without `--tasks`.
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
    /// The chosen scenarios, each once, in the order of [`Scenario::ALL`].
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        let wanted = |scenario: &Scenario| self.scenario.is_empty() || self.scenario.contains(scenario);
        Scenario::ALL.into_iter().filter(wanted).collect()
    }

    /// The maximum number of tasks in a scenario.
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
