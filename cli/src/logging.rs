//! Logs of the libraries, written to standard error.

use std::io;
use std::sync::Arc;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use crate::console::Console;
use crate::exit::Failure;

/// The environment variable with log levels by target.
const VARIABLE: &str = "DELAYLINE_LOG";

/// The default levels. The summary and the list of dead letters report what becomes of single tasks, so the worker logs
/// errors only. Outages of a store are logged, because nothing else reports them. RabbitMQ's driver is silent: it logs
/// an error when a queue that is looked for does not exist yet, and when a channel is closed. If such a problem
/// matters, the backend's answer reports it.
const QUIET: &str =
    "warn,lapin=off,delayline_core::outage=info,delayline_core::worker=error,delayline_core::consume::fetch=error";

/// Starts logging, at the levels of the variable or of `-v`.
pub(crate) fn start(verbose: u8, console: Arc<Console>) -> Result<(), Failure> {
    start_with(QUIET, verbose, console)
}

/// As [`start`], for a command that provokes errors on purpose: without `-v`, nothing is logged.
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
        let form = "expected levels by target, such as `info` or `warn,delayline_redis=debug`";
        Failure::new(format!("{VARIABLE} is invalid: {e}; {form}"))
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
