//! The arguments of `push`.

use std::path::PathBuf;

use delayline::{Attempts, QueueName};

use crate::input::format::Format;
use crate::parse::{attempts, queue_name};

const DETAILS: &str = r#"Input: the same as for `run`; `delayline run --help` lists the fields. A task
without an id gets a UUID. If a task with this id is pending or in flight, that
task stays unchanged and the outcome is `existing`: a push that broke off can
be repeated if its tasks have ids. The ids of completed tasks and of dead
letters are free: the outcome is `created`. With --replace, the new task
replaces the one there. RabbitMQ does not check ids.

Output: the id of each task that is now in the queue, one per line, in the
order of the input. With --json, one object per line:
  {"line":1,"id":"party","outcome":"created",
   "due_at":"2030-01-31T12:00:00Z","ref":"2030-01-31T12:00:00Z/0b/party"}
  outcome  created, existing, replaced
  ref      identifies exactly this task, until it is replaced or redriven:
           cancel --ref REF, move --ref REF; or keep all lines in a file for
           cancel --from FILE

If TRACEPARENT is in the environment, it is stored with each task, and the
commands of `work --exec` receive it.

Exit codes:
  0    every task is in the store
  1    could not start (file, store), or broke off; stderr names the line
  2    the command line is wrong
  3    lines of the input were bad; the others are in the store (with --strict,
       none are)
  7    the store is `memory:`, or can't do what an option needs
  130  interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)"#;

/// Schedule tasks in a persistent store and exit. `work` runs them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct PushArgs {
    /// File to read tasks from. `-` or no file: stdin, read as it arrives.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Format of the input. Default: `csv` for a file whose name ends in `.csv`, otherwise `jsonl`.
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// Queue that the tasks go into.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = queue_name)]
    pub(crate) queue: QueueName,

    /// Read and check the whole input first, and push nothing if a line is bad.
    #[arg(long)]
    pub(crate) strict: bool,

    /// Replace a task that has the same id and is pending or in flight. Due time, payload, group and attempts are new;
    /// a command that runs for the old task is killed.
    #[arg(long)]
    pub(crate) replace: bool,

    /// Maximum number of attempts; a task that fails them all is a dead letter.
    #[arg(long = "max-attempts", value_name = "N", default_value = "20", value_parser = attempts)]
    pub(crate) attempts_max: Attempts,

    /// Write one JSON object per task to stdout, instead of its id.
    #[arg(long)]
    pub(crate) json: bool,

    /// Write no ids and no summary: only errors.
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

#[cfg(test)]
mod tests {
    #[test]
    fn help_fits_on_80_columns() {
        assert!(super::DETAILS.lines().all(|line| line.chars().count() < 80));
    }
}
