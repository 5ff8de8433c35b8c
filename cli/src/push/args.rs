//! What can be said to `push`.

use std::path::PathBuf;

use delayline::{Attempts, QueueName};

use crate::input::format::Format;
use crate::parse::{attempts, queue_name};

const DETAILS: &str = r#"Input: what `run` reads; `delayline run --help` lists the fields. Tasks without
an id are given one, a UUID. An id that is in the queue already stays as it is
and is answered as `existing`, so a push that broke off can be repeated where
tasks have ids; --replace puts the new task in its place.

Output: the id of each task that is in the queue now, one a line, in the order
of the input. With --json one object a line:
  {"line":1,"id":"party","outcome":"created",
   "due_at":"2030-01-31T12:00:00Z","ref":"2030-01-31T12:00:00Z/0b/party"}
  outcome  created, existing, replaced
  ref      names this very task: cancel --ref REF, move --ref REF; or keep all
           lines in a file for cancel --from FILE

A TRACEPARENT in the environment is carried to the handlers of all tasks."#;

/// Hands tasks in to a store that outlives this process, and ends. `work` runs them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct PushArgs {
    /// Where the tasks are read from; `-` or nothing is stdin, which is read as it comes.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// How the tasks are written: by default as the file's ending says, and JSON lines on stdin.
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// The queue that the tasks go into.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = queue_name)]
    pub(crate) queue: QueueName,

    /// Read and check everything first, and push nothing if a line is bad.
    #[arg(long)]
    pub(crate) strict: bool,

    /// A task takes the place of one with the same id, with everything new.
    #[arg(long)]
    pub(crate) replace: bool,

    /// How often a task is tried before it is a dead letter.
    #[arg(long, value_name = "N", default_value = "20", value_parser = attempts)]
    pub(crate) attempts_max: Attempts,

    /// One JSON object a line on stdout for each task, instead of its id.
    #[arg(long)]
    pub(crate) json: bool,

    /// No ids and no summary: only what went wrong.
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
