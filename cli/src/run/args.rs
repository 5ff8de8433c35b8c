//! What can be said to `run`.

use std::path::PathBuf;

use delayline::{Attempts, QueueName};

use crate::exec::args::ExecArgs;
use crate::exit::EXIT_CODES;
use crate::input::format::Format;
use crate::parse::{attempts, queue_name};

// Hand-wrapped, so that they look right on 80 columns: no line is longer than 79.
pub(crate) const RUN_EXAMPLES: &str = r#"Examples:
  Three tasks, one to a line; each comes out on stdout when it is due:
    printf '%s\n' '{"after": "2s", "payload": "tea is ready"}' \
                  '{"after": "0s", "payload": {"start": true}}' \
                  '{"at": "2030-01-31T12:00:00Z", "id": "party"}' |
      delayline run -

  Run a command for each, with the payload on its stdin; at most 3 tries:
    delayline run tasks.jsonl --max-attempts 3 \
      --exec './hand-in.sh "$DELAYLINE_ID"'

  Check everything first, and run nothing if a line is bad:
    delayline run --strict exam.csv

  Keep what is left on Ctrl-C, and go on with it later:
    delayline run tasks.jsonl --save-rest rest.jsonl
    delayline run rest.jsonl"#;

pub(crate) const RUN_DETAILS: &str = r#"Input: one task a line; in CSV a header row names the same fields.
  after    how long from now: 1500ms, 2h, 1h 30m, 0    (either this
  at       when, in RFC 3339: 2030-01-31T12:00:00Z      or this)
  payload  any JSON value; text in CSV
  id       your own key, once in the input; made up where there is none
  group    a name that tasks share
  expires  not run later than that: counted like `after`, or in RFC 3339

  The `after`s of a file count from one instant, those of a stream from when
  their lines came. A time in the past is due at once. Unknown fields, ids that
  come again and the like are reported on stderr as FILE:LINE: what is wrong;
  the other lines run.

Output: one JSON object a line, in the order of due times.
  {"id":"party","queue":"default","payload":null,
   "due_at":"2030-01-31T12:00:00.000Z",
   "delivered_at":"2030-01-31T12:00:00.001Z","lateness_ms":1.0,"attempt":1}
  The object is on one line; `group` follows where there is one. Nothing else
  is ever written to stdout.

Commands: `sh -c CMD` gets the payload on stdin, a string as its bare text,
anything else as compact JSON, nothing for null. DELAYLINE_ID, DELAYLINE_QUEUE,
DELAYLINE_ATTEMPT, DELAYLINE_DUE_AT and DELAYLINE_GROUP are in its environment.
Exit 0 completes the task; anything else is tried again, until it is a dead
letter."#;

/// Reads tasks, and hands each out when it is due: to stdout, or to a command.
///
/// It ends when the input has ended and every task in it is done.
#[derive(Debug, clap::Args)]
#[command(after_help = RUN_EXAMPLES, after_long_help = long_help())]
pub(crate) struct RunArgs {
    /// Where the tasks are read from; `-` or nothing is stdin, which is read as it comes.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// How the tasks are written: by default as the file's ending says, and JSON lines on stdin.
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// The queue that the tasks go through.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = queue_name)]
    pub(crate) queue: QueueName,

    /// Read and check everything first, and run nothing if a line is bad.
    #[arg(long)]
    pub(crate) strict: bool,

    /// When cut short (Ctrl-C, closed output), write the tasks that are left to this file, for `run` to go on with.
    #[arg(long, value_name = "FILE")]
    pub(crate) save_rest: Option<PathBuf>,

    /// No progress bar. There is one only where stderr is a terminal.
    #[arg(long)]
    pub(crate) no_progress: bool,

    /// No progress bar and no summary: only what went wrong, and what is left.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) exec: ExecArgs,

    /// How often a task is tried before it is a dead letter.
    #[arg(
        long,
        value_name = "N",
        requires = "exec",
        default_value = "5",
        value_parser = attempts,
        help_heading = ExecArgs::HEADING
    )]
    pub(crate) attempts_max: Attempts,
}

fn long_help() -> String {
    format!("{RUN_EXAMPLES}\n\n{RUN_DETAILS}\n\n{EXIT_CODES}")
}
