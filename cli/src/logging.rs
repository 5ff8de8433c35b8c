//! Logs of the libraries, on standard error.

use std::io;
use std::sync::Arc;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use crate::console::Console;
use crate::exit::Failure;

/// The variable that says in detail what is logged.
const VARIABLE: &str = "DELAYLINE_LOG";

/// The driver of RabbitMQ calls it an error when a queue that is looked for is not there yet, and when a channel is closed.
/// What becomes of single tasks, the summary and the list of dead letters say; that a store is away, and back, nobody else
/// does. What a driver complains of, such as a queue that is not there yet, the backend's answers tell where it matters.
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
    // Levels by target, without filters on spans and fields, which would bring two regex crates.
    let directives = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => text,
        Ok(_) | Err(_) => match verbose {
            0 => quiet.to_owned(),
            1 => "info".to_owned(),
            2 => "debug".to_owned(),
            _ => "trace".to_owned(),
        },
    };
    let filter: Targets = directives.parse().map_err(|e| {
        let form = "levels by target are expected, such as `info` or `warn,delayline_redis=debug`";
        Failure::new(format!("{VARIABLE} can't be understood: {e}; {form}"))
    })?;
    let terminal = console.is_terminal();
    let records = tracing_subscriber::fmt::layer()
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()))
        .with_writer(Log(console));
    tracing_subscriber::registry()
        .with(records.with_filter(filter))
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
