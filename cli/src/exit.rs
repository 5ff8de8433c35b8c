//! The exit codes, which `--help` and `docs/cli.md` list, and the errors that end a command.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::process::ExitCode;

use nix::sys::signal::Signal;

// Hand-wrapped, so that they look right on 80 columns: no line is longer than 79.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    everything was delivered or completed
  1    could not start (file, store), or broke off (output closed, I/O)
  2    the command line is wrong
  3    lines of the input were bad; the others ran (with --strict, none ran)
  4    some tasks ended as dead letters, listed on stderr (overrides 3)
  5    `conform`, `bench`: a promise does not hold
  6    a named task is not there (overrides 8)
  7    the backend can't do that; `memory:` keeps nothing beyond one command
  8    a named task is in flight: `cancel` marked it, `move` did nothing
  9    `bench --against`: a figure is worse, beyond noise
  130  interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)

Environment:
  DELAYLINE_BACKEND  URL of the store, if --backend is not given
  DELAYLINE_LOG      log levels, such as info or delayline_core=debug;
                     takes precedence over -v
  NO_COLOR           no colours in help and logs";

/// What the help of the commands takes for granted.
pub(crate) const STORES_AND_TERMS: &str = "\
Stores (--backend URL; docs/backends.md in the repository lists all options):
  memory:                                       in this process; ends with it
  redis://[USER:PASSWORD@]HOST[:PORT]           rediss:// with TLS
  postgres://[USER:PASSWORD@]HOST[:PORT]/DATABASE
  amqp://[USER:PASSWORD@]HOST[:PORT][/VHOST]    RabbitMQ; amqps:// with TLS
  Options follow the URL: memory:?max_tasks=1000. The namespace of a URL is its
  option key_prefix (Redis), schema (Postgres) or namespace (RabbitMQ), as in
  redis://HOST/?key_prefix=exams. Clients with different namespaces share no
  data.

Terms:
  pending    scheduled or due, and not yet claimed by a worker; waiting for a
             retry, too
  in flight  claimed by a worker, and not yet completed
  durations  such as 500ms, 10s, 1h 30m. Units: ms, s, m, h, d, w. Case counts:
             `m` is a minute, `M` a month";

/// The way a command ended. Usage errors end with 2 inside the argument parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: everything was delivered or completed.
    Done,
    /// 1: the command could not start, or it broke off.
    Failed,
    /// 2: the command line is wrong in a way that the argument parser can't detect.
    Usage,
    /// 3: lines of the input were bad; the others ran, or none with `--strict`.
    BadLines,
    /// 4: some tasks ended as dead letters.
    DeadLetters,
    /// 5: a promise does not hold.
    PromiseBroken,
    /// 6: a named task is not there.
    NotFound,
    /// 7: the backend can't do that.
    Unsupported,
    /// 8: a named task is in flight.
    InFlight,
    /// 9: a figure is worse than in the earlier report.
    Slower,
    /// 128 + n: interrupted by signal n, so 130 for Ctrl-C and 143 for SIGTERM.
    Interrupted(Signal),
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::BadLines => 3,
            Self::DeadLetters => 4,
            Self::PromiseBroken => 5,
            Self::NotFound => 6,
            Self::Unsupported => 7,
            Self::InFlight => 8,
            Self::Slower => 9,
            Self::Interrupted(signal) => 128 + signal as u8,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command could not start, or broke off: one line for people, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    text: String,
    exit: Exit,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { text: what.into(), exit: Exit::Failed }
    }

    /// Sets an exit code other than 1.
    pub(crate) fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// The way in which the program ends.
    pub(crate) fn exits(&self) -> Exit {
        self.exit
    }

    /// An I/O error: what was being done, and the system's message.
    pub(crate) fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(format!("{doing}: {}", io_text(error)))
    }
}

impl From<delayline::Error> for Failure {
    fn from(e: delayline::Error) -> Self {
        let mut text = match e.kind() {
            // Their messages need no kind in front of them.
            delayline::ErrorKind::Config | delayline::ErrorKind::Invalid => e.message().to_owned(),
            _ => e.to_string(),
        };
        let mut cause = e.source();
        while let Some(inner) = cause {
            let why = inner.to_string();
            // Some errors repeat the text of their cause.
            if !text.ends_with(&why) {
                text.push_str(": ");
                text.push_str(&why);
            }
            cause = inner.source();
        }
        let unsupported = e.kind() == delayline::ErrorKind::Unsupported;
        Self { text, exit: if unsupported { Exit::Unsupported } else { Exit::Failed } }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The system's message, without the error number.
pub(crate) fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
