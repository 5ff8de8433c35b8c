//! What can be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use delayline::{Attempts, QueueName};

use crate::bench::args::BenchArgs;
use crate::conform::args::ConformArgs;
use crate::demo::args::DemoArgs;
use crate::push::args::PushArgs;
use crate::shell::{CompletionsArgs, ManArgs};
use crate::store::args::StoreCommand;
use crate::watch::args::WatchArgs;
use crate::work::args::WorkArgs;

// Hand-wrapped, so that they look right on 80 columns: no line is longer than 79.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    everything was delivered or completed
  1    it could not start (file, backend), or broke off (output closed, I/O)
  2    the command line is wrong
  3    lines of the input were bad; the others ran (with --strict, none ran)
  4    some tasks ended as dead letters, which are listed (comes before 3)
  5    `conform`, `bench`: a promise does not hold
  6    a task that was named is not there (comes before 8)
  7    the backend can't do that; `memory:` keeps nothing beyond one command
  8    a task was in flight: `cancel` marked it, `move` left it alone
  9    `bench --against`: a figure is worse, beyond noise
  130  interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)

Environment:
  DELAYLINE_BACKEND  the backend's URL, where --backend does not say it
  DELAYLINE_LOG      what is logged, such as info or delayline_core=debug;
                     comes before -v
  NO_COLOR           no colours in help and logs";

const RUN_EXAMPLES: &str = r#"Examples:
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

const RUN_DETAILS: &str = r#"Input: one task a line; in CSV a header row names the same fields.
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

/// Delayed tasks: hand them in now, have each run at its due time.
#[derive(Debug, Parser)]
#[command(
    name = "delayline",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = EXIT_CODES,
    subcommand_help_heading = "Commands",
    disable_help_subcommand = true
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Where the tasks are kept: `memory:` is this process, and ends with it; others outlive it, such as
    /// `redis://127.0.0.1`.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "DELAYLINE_BACKEND",
        default_value = "memory:",
        // It may hold a password.
        hide_env_values = true
    )]
    pub(crate) backend: String,

    /// Log more to stderr: -v what happens, -vv in detail, -vvv everything.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<RunArgs>),
    Push(Box<PushArgs>),
    Work(Box<WorkArgs>),
    Watch(WatchArgs),
    #[command(flatten)]
    Store(StoreCommand),
    Demo(Box<DemoArgs>),
    Conform(Box<ConformArgs>),
    Bench(Box<BenchArgs>),
    #[cfg(feature = "postgres")]
    Schema(crate::schema::SchemaArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

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
    pub(crate) max_attempts: Attempts,
}

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
    const HEADING: &str = "Running a command for each task";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated, with a header row.
    Csv,
}

fn long_help() -> String {
    format!("{RUN_EXAMPLES}\n\n{RUN_DETAILS}\n\n{EXIT_CODES}")
}

pub(crate) fn queue_name(text: &str) -> Result<QueueName, String> {
    QueueName::new(text).map_err(|e| e.message().to_owned())
}

pub(crate) fn attempts(text: &str) -> Result<Attempts, String> {
    let number = text.parse().map_err(|_| "not a whole number".to_owned())?;
    Attempts::new(number).map_err(|e| e.message().to_owned())
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write it like 500ms, 10s or 1h 30m"))
}

pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it has to be longer than nothing".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_for_commands_want_a_command() {
        for option in ["--concurrency=2", "--timeout=1s", "--max-attempts=2", "--retry-delay=1s", "--grace=1s"] {
            assert!(Args::try_parse_from(["delayline", "run", option]).is_err(), "{option}");
            assert!(Args::try_parse_from(["delayline", "run", "--exec", "true", option]).is_ok(), "{option}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        for args in [
            ["--exec=x", "--timeout=0s"],
            ["--exec=x", "--concurrency=0"],
            ["--exec=x", "--max-attempts=0"],
            ["--exec=x", "--retry-delay=soon"],
            ["--exec=", "-"],
            ["--queue=a b", "-"],
            ["--format=xml", "-"],
        ] {
            assert!(Args::try_parse_from(["delayline", "run"].into_iter().chain(args)).is_err(), "{args:?}");
        }
    }

    #[test]
    fn help_fits_on_80_columns() {
        for line in [EXIT_CODES, RUN_EXAMPLES, RUN_DETAILS].iter().flat_map(|text| text.lines()) {
            assert!(line.chars().count() < 80, "{line}");
        }
    }
}
