//! Running commands, as `run` and `work` are told.

use std::time::Duration;

use crate::parse::{duration, some_time};

/// Running a command for each task.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = ExecArgs::HEADING)]
pub(crate) struct ExecArgs {
    /// Run `sh -c CMD` for each due task, with the payload on its stdin.
    #[arg(long, value_name = "CMD", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) exec: Option<String>,

    /// How many commands run at once; by default two for each core.
    #[arg(long, value_name = "N", requires = "exec", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) concurrency: Option<u32>,

    /// How long a command may take; then it is killed, with all that it started, and counts as failed.
    #[arg(long, value_name = "DURATION", requires = "exec", value_parser = some_time)]
    pub(crate) timeout: Option<Duration>,

    /// The wait after the first failure; it doubles with each further one, with up to as much again at random.
    #[arg(long, value_name = "DURATION", requires = "exec", default_value = "1s", value_parser = duration)]
    pub(crate) retry_delay: Duration,

    /// How long running commands may go on after Ctrl-C; the second Ctrl-C kills them at once.
    #[arg(long, value_name = "DURATION", requires = "exec", default_value = "10s", value_parser = duration)]
    pub(crate) grace: Duration,
}

impl ExecArgs {
    pub(crate) const HEADING: &str = "Running a command for each task";
}
