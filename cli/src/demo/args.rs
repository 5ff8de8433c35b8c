//! The arguments of `demo`.

use std::time::Duration;

use delayline::QueueName;

use crate::parse::{duration, queue_name, whole};

/// The maximum of each duration.
const TIME_MAX: Duration = Duration::from_secs(86_400);

const EXAMPLES: &str = r#"Examples:
  The exam, compressed to about 15 seconds:
    delayline demo

  A large exam in a short time; write one JSON object to stdout:
    delayline demo --candidates 200000 --exam 3s --json

  Everyone stays to the end, and half of the hand-ins fail at first:
    delayline demo --early-percent 0 --fail-percent 50

What happens:
  The hand-in of each candidate is a task that is due at the end of the exam.
  Some candidates get extra time: the demo moves their tasks. Most hand in
  early: it cancels their tasks. In the middle, everyone gets more time: it
  shifts all tasks at once. A worker hands in for those who are left, and
  retries if a hand-in fails or panics.

  The demo keeps a ledger that is independent of the library: what it asked
  for, when, and what came of it. The ledger shows which hand-ins were lost,
  delivered twice or delivered early.

Exit codes:
  0    nothing was lost, delivered twice or delivered early
  1    something was, or the demo could not start, or it broke off
  2    the command line is wrong
  130  interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)"#;

/// Simulate an exam of 30,000 candidates, and check that no task is lost, delivered twice or delivered early.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// Number of candidates.
    #[arg(long, value_name = "N", default_value = "30000", value_parser = whole(1_u32, 1_000_000))]
    pub(super) candidates: u32,

    /// Duration of the exam.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = exam)]
    pub(super) exam: Duration,

    /// Extra time of the candidates who get it.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = time)]
    pub(super) extra_time: Duration,

    /// Percentage of candidates who get extra time.
    #[arg(long, value_name = "PERCENT", default_value = "20", value_parser = percent)]
    pub(super) extra_percent: f64,

    /// Additional time for everyone, given in the middle of the exam; 0s leaves it out.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = time)]
    pub(super) more_time: Duration,

    /// Percentage of candidates who hand in by themselves before their time is up.
    #[arg(long, value_name = "PERCENT", default_value = "60", value_parser = percent)]
    pub(super) early_percent: f64,

    /// Percentage of hand-ins that fail at their first attempt.
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    pub(super) fail_percent: f64,

    /// Percentage of hand-ins that panic at their first attempt.
    #[arg(long, value_name = "PERCENT", default_value = "0.2", value_parser = percent)]
    pub(super) panic_percent: f64,

    /// Number of hand-ins that the worker runs at once.
    #[arg(long, value_name = "N", default_value = "64", value_parser = whole(1_u32, 10_000))]
    pub(super) concurrency: u32,

    /// Seed that determines who does what, and when.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    pub(super) seed: u64,

    /// Queue to use, which must be empty. Default: a queue in a separate namespace, which the demo creates and removes
    /// (namespace: the key prefix, schema or namespace of the URL).
    #[arg(long, value_name = "NAME", value_parser = queue_name)]
    pub(super) queue: Option<QueueName>,

    /// Write the result as one JSON object.
    #[arg(long)]
    pub(super) json: bool,

    /// Show no progress bar. Without this, there is a bar only if stderr is a terminal.
    #[arg(long)]
    pub(super) no_progress: bool,

    /// Write only errors to stderr; the result is still written.
    #[arg(short, long)]
    pub(super) quiet: bool,
}

fn exam(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("expected a duration longer than zero".to_owned()),
        time => Ok(time),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time > TIME_MAX { Err("expected at most one day".to_owned()) } else { Ok(time) }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.0..=100.0).contains(&percent) { Ok(percent) } else { Err("expected 0 to 100".to_owned()) }
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
}
