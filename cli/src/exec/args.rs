//! The arguments of `run` and `work` that are about running commands.

use std::time::Duration;

use crate::parse::{duration, some_time, whole};

/// The options of running a command for each task.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = ExecArgs::HEADING)]
pub(crate) struct ExecArgs {
    /// Run `sh -c CMD` for each due task, with the payload on its stdin.
    #[arg(long, value_name = "CMD", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) exec: Option<String>,

    /// Number of commands that run at once. Default: two per core.
    #[arg(
        long,
        value_name = "N",
        requires = "exec",
        allow_negative_numbers = true,
        value_parser = whole(1_u32, 10_000)
    )]
    pub(crate) concurrency: Option<u32>,

    /// Time limit for a command, such as 1m; beyond it, the command and the processes that it started are killed, and
    /// the attempt has failed. Default: none.
    #[arg(long, value_name = "DURATION", requires = "exec", allow_hyphen_values = true, value_parser = some_time)]
    pub(crate) timeout: Option<Duration>,

    /// Delay before the first retry. It doubles after each further failure; up to as much again is added at random. A
    /// single delay is at most 1h, or this value if it is longer than 1h.
    #[arg(
        long,
        value_name = "DURATION",
        requires = "exec",
        default_value = "1s",
        allow_hyphen_values = true,
        value_parser = duration
    )]
    pub(crate) retry_delay: Duration,

    /// Time that running commands have to finish after Ctrl-C or SIGTERM; a second signal kills them at once.
    #[arg(
        long,
        value_name = "DURATION",
        requires = "exec",
        default_value = "10s",
        allow_hyphen_values = true,
        value_parser = duration
    )]
    pub(crate) grace: Duration,
}

impl ExecArgs {
    pub(crate) const HEADING: &str = "Running a command for each task (the other options require --exec)";
}
