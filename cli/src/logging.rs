//! Logs of the libraries, on standard error.

use std::io;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::console::Console;
use crate::exit::Failure;

/// The variable that says in detail what is logged.
const VARIABLE: &str = "DELAYLINE_LOG";

/// The driver of RabbitMQ calls it an error when a queue that is looked for is not there yet, and when a channel is closed.
/// What becomes of single tasks, the summary and the list of dead letters say; that a store is away, and back, nobody else does.
/// What a driver complains of, such as a queue that is not there yet, the backend's answers tell where it matters.
const QUIET: &str =
    "warn,lapin=off,delayline_core::outage=info,delayline_core::worker=error,delayline_core::consume::fetch=error";

/// Begins to log: as the variable says, or as much as `-v` was given.
pub(crate) fn start(verbose: u8, console: Arc<Console>) -> Result<(), Failure> {
    start_with(QUIET, verbose, console)
}

/// As [`start`], for a command that provokes troubles itself: without `-v` nothing is logged.
pub(crate) fn start_silent(verbose: u8, console: Arc<Console>) -> Result<(), Failure> {
    start_with("off", verbose, console)
}

fn start_with(quiet: &str, verbose: u8, console: Arc<Console>) -> Result<(), Failure> {
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::builder()
            .parse(&text)
            .map_err(|e| Failure::new(format!("{VARIABLE} can't be understood: {e}")))?,
        Ok(_) | Err(_) => EnvFilter::new(match verbose {
            0 => quiet,
            1 => "info",
            2 => "debug",
            _ => "trace",
        }),
    };
    let terminal = console.is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()))
        .with_writer(Log(console))
        .try_init()
        .map_err(|e| Failure::new(format!("cannot log: {e}")))
}

/// Writes whole records around the progress bar.
struct Log(Arc<Console>);

impl<'a> MakeWriter<'a> for Log {
    type Writer = Record<'a>;
    fn make_writer(&'a self) -> Record<'a> {
        Record(&self.0)
    }
}

struct Record<'a>(&'a Console);

impl io::Write for Record<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
