//! What every command starts with: console, logs, signals and a runtime.
//!
//! [`Started`] sets them up in this order. A command that has to do something in between calls [`console()`],
//! [`signals`] and [`runtime()`] itself, as [`Started::new`] does.

use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::logging;
use crate::signal::{Stop, listen};

/// What is logged without `-v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logs {
    /// What users have to know.
    Usual,
    /// Nothing, because the command provokes errors on purpose.
    Silent,
    /// As usual; but nothing if stderr is a terminal, because logs would disturb what is shown there.
    BesideScreen,
}

/// The threads of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The command's own thread.
    None,
    /// This many.
    Few(usize),
    /// One per core.
    Cores,
}

/// A command that has started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) console: Arc<Console>,
    pub(crate) stop: Stop,
    pub(crate) runtime: Runtime,
}

impl Started {
    /// Handles signals from now on: the first stops the command, the second calls `at_once` and ends the program.
    pub(crate) fn new(
        console: Arc<Console>,
        threads: Threads,
        at_once: impl Fn() + Send + 'static,
    ) -> Result<Self, Failure> {
        Ok(Self { console, stop: signals(at_once)?, runtime: runtime(threads)? })
    }

    /// Runs the command to its end. It does not wait for tasks that still hang in a pipe.
    pub(crate) fn run(self, command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
        let exit = self.runtime.block_on(command);
        self.runtime.shutdown_background();
        exit
    }
}

/// The console, to which the libraries log from now on.
pub(crate) fn console(global: &Global, quiet: bool, logs: Logs) -> Result<Arc<Console>, Failure> {
    let console = Arc::new(Console::new(quiet));
    match logs {
        Logs::Usual => logging::start(global.verbose, console.clone())?,
        Logs::Silent => logging::start_silent(global.verbose, console.clone())?,
        Logs::BesideScreen if console.is_terminal() => {}
        Logs::BesideScreen => logging::start(global.verbose, console.clone())?,
    }
    Ok(console)
}

/// What the first signal stops; the second calls `at_once` and ends the program.
pub(crate) fn signals(at_once: impl Fn() + Send + 'static) -> Result<Stop, Failure> {
    let stop = Stop::new()?;
    listen(stop.clone(), at_once)?;
    Ok(stop)
}

/// A runtime with these threads.
pub(crate) fn runtime(threads: Threads) -> Result<Runtime, Failure> {
    let mut builder = match threads {
        Threads::None => Builder::new_current_thread(),
        Threads::Few(_) | Threads::Cores => Builder::new_multi_thread(),
    };
    if let Threads::Few(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().map_err(|e| Failure::io("cannot start the runtime", &e))
}
