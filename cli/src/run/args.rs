//! The arguments of `run`.

use std::path::PathBuf;

use delayline::{Attempts, QueueName};

use crate::exec::args::ExecArgs;
use crate::input::format::Format;
use crate::parse::{attempts, queue_name};

// Hand-wrapped, so that they look right on 80 columns: no line is longer than 79.
pub(crate) const RUN_EXAMPLES: &str = r#"Examples:
  Three tasks, one per line; each is written to stdout when it is due:
    printf '%s\n' '{"after": "2s", "payload": "tea is ready"}' \
                  '{"after": "0s", "payload": {"start": true}}' \
                  '{"at": "2030-01-31T12:00:00Z", "id": "party"}' |
      delayline run -

  Run a command for each, with the payload on its stdin; at most 3 attempts:
    delayline run tasks.jsonl --max-attempts 3 \
      --exec './hand-in.sh "$DELAYLINE_ID"'

  Check the whole input first, and run nothing if a line is bad:
    delayline run --strict exam.csv

  Save the remaining tasks on Ctrl-C, and continue with them later:
    delayline run tasks.jsonl --save-rest rest.jsonl
    delayline run rest.jsonl"#;

pub(crate) const RUN_DETAILS: &str = r#"Input: one task per line; in CSV, a header row names the same fields.
  after    delay from now: 1500ms, 2h, 1h 30m, 0
  at       due time, in RFC 3339: 2030-01-31T12:00:00Z
  payload  any JSON value; text in CSV
  id       your key, unique in the input. Default: a generated UUIDv7
  group    a name that several tasks share
  expires  latest time to start: a duration from now, or RFC 3339. A task that
           has not started by then is a dead letter

  Each task has exactly one of `after` and `at`. Units of durations: ms, s, m,
  h, d, w (`M` is a month). For a file, `after` and `expires` count from the
  moment when its first tasks are scheduled; for a stream, from the arrival of
  the line. A time in the past is due at once. A bad line, such as one with an
  unknown field or a repeated id, is reported on stderr as FILE:LINE: what is
  wrong; the other lines run.

Output: one JSON object per line, in the order of due times.
  {"id":"party","queue":"default","payload":null,
   "due_at":"2030-01-31T12:00:00.000Z",
   "delivered_at":"2030-01-31T12:00:00.001Z","lateness_ms":1.0,"attempt":1}
  The object is on one line, and ends with `group` if the task has one. Stdout
  carries nothing else.

Commands: `sh -c CMD` reads the payload from stdin: a string as bare text,
anything else as compact JSON, nothing for null. Its environment contains
DELAYLINE_ID, DELAYLINE_QUEUE, DELAYLINE_ATTEMPT, DELAYLINE_DUE_AT and, if the
task has a group, DELAYLINE_GROUP. Exit code 0 completes the task. After any
other, `run` retries the task until its attempts are used up; it is then a dead
letter."#;

pub(crate) const RUN_EXIT_CODES: &str = "\
Exit codes:
  0    every task was delivered or completed
  1    could not start (file, store), or broke off (output closed, I/O)
  2    the command line is wrong
  3    lines of the input were bad; the others ran (with --strict, none ran)
  4    some tasks ended as dead letters, listed on stderr (overrides 3)
  130  interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)";

/// Read tasks, and deliver each when it is due: to stdout, or to a command.
///
/// It ends when the input has ended and every task in it is done.
#[derive(Debug, clap::Args)]
#[command(after_help = RUN_EXAMPLES, after_long_help = long_help())]
pub(crate) struct RunArgs {
    /// File to read tasks from. `-` or no file: stdin, read as it arrives.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Format of the input. Default: `csv` for a file whose name ends in `.csv`, otherwise `jsonl`.
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// Queue that the tasks go through. In a persistent store, use an empty queue, because `run` also delivers other
    /// tasks in it; tasks that are left when `run` is interrupted stay there.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = queue_name)]
    pub(crate) queue: QueueName,

    /// Read and check the whole input first, and run nothing if a line is bad.
    #[arg(long)]
    pub(crate) strict: bool,

    /// File for the remaining tasks if the run is cut short (Ctrl-C, closed output); `run` can continue from it.
    #[arg(long, value_name = "FILE")]
    pub(crate) save_rest: Option<PathBuf>,

    /// Show no progress bar. Without this, there is a bar only if stderr is a terminal.
    #[arg(long)]
    pub(crate) no_progress: bool,

    /// Show no progress bar and no summary: only errors, and what is left.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) exec: ExecArgs,

    /// Maximum number of attempts; a task that fails them all is a dead letter.
    #[arg(
        long = "max-attempts",
        value_name = "N",
        requires = "exec",
        default_value = "5",
        value_parser = attempts,
        help_heading = ExecArgs::HEADING
    )]
    pub(crate) attempts_max: Attempts,
}

fn long_help() -> String {
    format!("{RUN_EXAMPLES}\n\n{RUN_DETAILS}\n\n{RUN_EXIT_CODES}")
}
