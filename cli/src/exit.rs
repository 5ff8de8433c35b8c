//! How the program ends: one code for each way, which `--help` and `docs/cli.md` list.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::process::ExitCode;

use nix::sys::signal::Signal;

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

/// The way a command ended. Usage errors end with 2 inside the argument parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: everything was delivered or completed.
    Done,
    /// 1: it could not start, or broke off.
    Failed,
    /// 2: the command line is wrong, as the argument parser can't tell.
    Usage,
    /// 3: lines of the input were bad; the others ran, or none with `--strict`.
    BadLines,
    /// 4: some tasks ended as dead letters.
    DeadLetters,
    /// 5: a promise does not hold.
    PromiseBroken,
    /// 6: a task that was named is not there.
    NotFound,
    /// 7: the backend can't do that.
    Unsupported,
    /// 8: a task that was named is in flight.
    InFlight,
    /// 9: a figure is worse than in the report that it is compared with.
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

/// Why a command could not start, or broke off: one line for people, and the code that the program ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    text: String,
    exit: Exit,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { text: what.into(), exit: Exit::Failed }
    }

    /// With another code than 1.
    pub(crate) fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// How the program ends for it.
    pub(crate) fn exits(&self) -> Exit {
        self.exit
    }

    /// What was being done, and what the system said to it.
    pub(crate) fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(format!("{doing}: {}", io_text(error)))
    }
}

impl From<delayline::Error> for Failure {
    fn from(e: delayline::Error) -> Self {
        let mut text = match e.kind() {
            // Their sentences say it all.
            delayline::ErrorKind::Config | delayline::ErrorKind::Invalid => e.message().to_owned(),
            _ => e.to_string(),
        };
        let mut cause = e.source();
        while let Some(inner) = cause {
            let why = inner.to_string();
            // Some say what their causes say.
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

/// What the system said, without the number that only programs want.
pub(crate) fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
