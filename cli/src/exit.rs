//! How the program ends: one code for each way, which `--help` and `docs/cli.md` list.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::process::ExitCode;

use nix::sys::signal::Signal;

/// The way a command ended. Usage errors end with 2 inside the argument parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: everything was delivered or completed.
    Done,
    /// 1: it could not start, or broke off.
    Failed,
    /// 3: lines of the input were bad; the others ran, or none with `--strict`.
    BadLines,
    /// 4: some tasks ended as dead letters.
    DeadLetters,
    /// 5: a promise does not hold.
    PromiseBroken,
    /// 128 + n: interrupted by signal n, so 130 for Ctrl-C and 143 for SIGTERM.
    Interrupted(Signal),
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::BadLines => 3,
            Self::DeadLetters => 4,
            Self::PromiseBroken => 5,
            Self::Interrupted(signal) => 128 + signal as u8,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command could not start, or broke off: one line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// What was being done, and what the system said to it.
    pub(crate) fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        Self(format!("{doing}: {}", io_text(error)))
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
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        Self(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
