//! What can be said to `delayline demo`.

use std::time::Duration;

use delayline::QueueName;

use crate::parse::{duration, queue_name};

/// Longer makes no demo.
const TIME_MAX: Duration = Duration::from_secs(86_400);

const EXAMPLES: &str = r#"Examples:
  The exam, compressed to about 15 seconds:
    delayline demo

  A large one in a short time; for programs, one JSON object on stdout:
    delayline demo --candidates 200000 --exam 3s --json

  Everybody stays to the end, and half of the hand-ins fail at first:
    delayline demo --early-percent 0 --fail-percent 50

What happens:
  Everybody's hand-in is scheduled for the end of the exam. Some candidates get
  extra time: theirs is moved. Most hand in early: theirs is cancelled. In the
  middle everyone gets more time: all are shifted at once. A worker hands in
  whoever is left, and tries again where that fails or panics.

  Beside the library the demo keeps its own books, of what it asked for, when,
  and what came of it. They say what was lost, came twice or came early.

Exit codes:
  0    nothing was lost, came twice or came early
  1    something was, or the demo could not start or broke off
  2    the command line is wrong
  130  interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)"#;

/// Plays an exam of 30,000 candidates, and checks that no hand-in is lost, comes twice or comes early.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// How many sit the exam.
    #[arg(long, value_name = "N", default_value = "30000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) candidates: u32,

    /// How long the exam takes.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = exam)]
    pub(super) exam: Duration,

    /// How much longer those have who get extra time.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = time)]
    pub(super) extra_time: Duration,

    /// How many get extra time, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "20", value_parser = percent)]
    pub(super) extra_percent: f64,

    /// How much longer everyone has, which is announced in the middle of the exam.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = time)]
    pub(super) more_time: Duration,

    /// How many hand in by themselves before their time is up, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "60", value_parser = percent)]
    pub(super) early_percent: f64,

    /// How many hand-ins fail at their first attempt, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    pub(super) fail_percent: f64,

    /// How many hand-ins panic at their first attempt, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "0.2", value_parser = percent)]
    pub(super) panic_percent: f64,

    /// How many hand-ins the worker runs at once.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) concurrency: u32,

    /// Who does what, and when, depends on this number alone.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    pub(super) seed: u64,

    /// Use this queue, which must be empty, in the URL's own namespace. By default the demo works in a namespace of its own and
    /// removes it at the end.
    #[arg(long, value_name = "NAME", value_parser = queue_name)]
    pub(super) queue: Option<QueueName>,

    /// Write the result as one JSON object.
    #[arg(long)]
    pub(super) json: bool,

    /// No progress bar. There is one only where stderr is a terminal.
    #[arg(long)]
    pub(super) no_progress: bool,

    /// Nothing on stderr but what went wrong; the result is still written.
    #[arg(short, long)]
    pub(super) quiet: bool,
}

fn exam(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("it has to be longer than nothing".to_owned()),
        time => Ok(time),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time > TIME_MAX { Err("it has to be a day at most".to_owned()) } else { Ok(time) }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=100.0).contains(&percent) { Ok(percent) } else { Err("it has to be 0 to 100".to_owned()) }
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
