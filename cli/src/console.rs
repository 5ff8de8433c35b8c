//! Standard error: messages for people, written around a progress bar that may be there.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::exit::Failure;

/// Lines of one kind that are shown on a terminal; more would push everything else out of sight.
const LINES_ON_TERMINAL_MAX: u64 = 100;

/// Bytes of the message about one bad line, which may be of any length itself.
const BAD_LINE_BYTES_MAX: usize = 500;

const LEAVE_PATIENCE: Duration = Duration::from_millis(100);

/// All writing to standard error goes through here. Errors of writing are ignored.
#[derive(Debug)]
pub(crate) struct Console {
    quiet: bool,
    terminal: bool,
    bar: OnceLock<ProgressBar>,
    bad_lines: AtomicU64,
}

impl Console {
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { quiet, terminal, bar: OnceLock::new(), bad_lines: AtomicU64::new(0) }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows everything around this bar from now on.
    pub(crate) fn show(&self, bar: ProgressBar) {
        let _ = self.bar.set(bar);
    }

    /// Whether a bar is on the terminal now.
    pub(crate) fn has_bar(&self) -> bool {
        self.bar.get().is_some_and(|bar| !bar.is_finished())
    }

    /// Writes a message, also with `--quiet`.
    pub(crate) fn say(&self, what: impl fmt::Display) {
        self.write(format!("delayline: {what}\n").as_bytes());
    }

    /// Writes a message, but not with `--quiet`.
    pub(crate) fn note(&self, what: impl fmt::Display) {
        if !self.quiet {
            self.say(what);
        }
    }

    /// Reports a bad line of the input, in the form that editors can jump to.
    pub(crate) fn bad_line(&self, file: &str, line: u64, what: &str) {
        let before = self.bad_lines.fetch_add(1, Ordering::Relaxed);
        if !self.terminal || before < LINES_ON_TERMINAL_MAX {
            let what = &what[..what.floor_char_boundary(BAD_LINE_BYTES_MAX)];
            self.write(format!("{file}:{line}: {}\n", printable(what)).as_bytes());
        } else if before == LINES_ON_TERMINAL_MAX {
            self.say("further bad lines are counted but not shown; redirect stderr to a file to see all");
        }
    }

    /// How many bad lines were reported.
    pub(crate) fn bad_lines(&self) -> u64 {
        self.bad_lines.load(Ordering::Relaxed)
    }

    /// The maximum number of lines of a list.
    pub(crate) fn list_max(&self) -> usize {
        if self.terminal { LINES_ON_TERMINAL_MAX as usize } else { usize::MAX }
    }

    /// Writes bytes as they are, such as the output of a command. May wait for the reader.
    pub(crate) fn write(&self, bytes: &[u8]) {
        self.without_bar(|| {
            let mut stderr = io::stderr().lock();
            let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
        });
    }

    /// Does something while the bar is hidden.
    pub(crate) fn without_bar<R>(&self, work: impl FnOnce() -> R) -> R {
        match self.bar.get() {
            Some(bar) if !bar.is_finished() => bar.suspend(work),
            Some(_) | None => work(),
        }
    }
}

impl Console {
    /// [`leave`](Self::leave), for later.
    pub(crate) fn leaving(self: &Arc<Self>) -> impl Fn() + Send + use<> {
        let console = self.clone();
        move || console.leave()
    }

    /// Removes the bar when the program is about to end. It does not wait for a terminal that hangs.
    pub(crate) fn leave(self: &Arc<Self>) {
        let (done, wait) = sync_channel(1);
        let console = self.clone();
        let clear = move || {
            if let Some(bar) = console.bar.get() {
                bar.finish_and_clear();
            }
            let _ = done.send(());
        };
        if thread::Builder::new().spawn(clear).is_ok() {
            let _ = wait.recv_timeout(LEAVE_PATIENCE);
        }
    }
}

/// Writes the error of a command that could not start.
pub(crate) fn last_words(failure: &Failure) {
    Console::new(false).say(failure);
}

/// Text from outside, without control characters that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
