//! Stopping a run: by a signal, by a closed output, or by an error.
//!
//! A dedicated thread handles signals, so that the second Ctrl-C ends the program even if other threads hang.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};

/// Tells every part of a run to stop. The first cause counts.
#[derive(Clone)]
pub(crate) struct Stop(Arc<Inner>);

struct Inner {
    token: CancellationToken,
    cause: OnceLock<Cause>,
    /// Wakes threads that wait in `poll`, by closing this end of the pipe.
    wake: PipeReader,
    asleep: Mutex<Option<PipeWriter>>,
}

/// Why a run stops before all is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A signal, such as Ctrl-C.
    Signal(Signal),
    /// The reader of standard output is gone.
    OutputClosed,
    /// An error.
    Failed(Failure),
}

impl Stop {
    pub(crate) fn new() -> Result<Self, Failure> {
        let (wake, asleep) = io::pipe().map_err(|e| Failure::io("cannot make a pipe", &e))?;
        let inner =
            Inner { token: CancellationToken::new(), cause: OnceLock::new(), wake, asleep: Mutex::new(Some(asleep)) };
        Ok(Self(Arc::new(inner)))
    }

    /// Stops the run, if it is not stopped already.
    pub(crate) fn stop(&self, cause: Cause) {
        let _ = self.0.cause.set(cause);
        self.0.token.cancel();
        drop(self.0.asleep.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.token.is_cancelled()
    }

    /// Returns when the run is stopped.
    pub(crate) async fn stopped(&self) {
        self.0.token.cancelled().await;
    }

    pub(crate) fn cause(&self) -> Option<&Cause> {
        self.0.cause.get()
    }

    /// A descriptor for `poll`, which hangs up when the run is stopped.
    pub(crate) fn wake(&self) -> &PipeReader {
        &self.0.wake
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("cause", &self.0.cause).finish_non_exhaustive()
    }
}

/// Starts handling signals: the first stops the run, the second calls `at_once` and ends the program at once.
pub(crate) fn listen(stop: Stop, at_once: impl Fn() + Send + 'static) -> Result<(), Failure> {
    start(stop, at_once).map_err(|e| Failure::io("cannot listen for signals", &e))
}

fn start(stop: Stop, at_once: impl Fn() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut heard = {
        let _here = runtime.enter();
        Heard {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if ignored(Signal::SIGHUP) { None } else { Some(signal(SignalKind::hangup())?) },
        }
    };
    let hear = move || {
        runtime.block_on(async {
            stop.stop(Cause::Signal(heard.next().await));
            let second = heard.next().await;
            at_once();
            std::process::exit(Exit::Interrupted(second).code().into());
        });
    };
    thread::Builder::new().name("signals".into()).spawn(hear)?;
    Ok(())
}

struct Heard {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: Option<tokio::signal::unix::Signal>,
}

impl Heard {
    async fn next(&mut self) -> Signal {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = hang_up => Signal::SIGHUP,
        }
    }
}

/// Whether the program was started with this signal ignored, as `nohup` does. If that can't be read, the signal counts
/// as ignored and is not handled.
fn ignored(signal: Signal) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & (1 << (signal as u32 - 1)) != 0)
}
