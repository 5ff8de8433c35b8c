//! Stopping: by a signal, by an output that was closed, by what can't go on.
//!
//! Signals are heard on a thread of their own, so that the second Ctrl-C ends the program whatever hangs.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};

/// Tells every part of a run to come to its end. The first cause counts.
#[derive(Clone)]
pub(crate) struct Stop(Arc<Inner>);

struct Inner {
    token: CancellationToken,
    cause: OnceLock<Cause>,
    /// For threads that wait in `poll`: the pipe's other end is closed to wake them.
    wake: PipeReader,
    asleep: Mutex<Option<PipeWriter>>,
}

/// Why a run stops before all is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Ctrl-C and the like.
    Signal(Signal),
    /// Whoever read standard output has gone.
    OutputClosed,
    /// It can't go on.
    Failed(Failure),
}

impl Stop {
    pub(crate) fn new() -> Result<Self, Failure> {
        let (wake, asleep) = io::pipe().map_err(|e| Failure::io("cannot make a pipe", &e))?;
        let inner =
            Inner { token: CancellationToken::new(), cause: OnceLock::new(), wake, asleep: Mutex::new(Some(asleep)) };
        Ok(Self(Arc::new(inner)))
    }

    /// Stops, if nothing has stopped it before.
    pub(crate) fn stop(&self, cause: Cause) {
        let _ = self.0.cause.set(cause);
        self.0.token.cancel();
        drop(self.0.asleep.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.token.is_cancelled()
    }

    /// Returns when it is stopped.
    pub(crate) async fn stopped(&self) {
        self.0.token.cancelled().await;
    }

    pub(crate) fn cause(&self) -> Option<&Cause> {
        self.0.cause.get()
    }

    /// Hung up when it is stopped: for `poll`.
    pub(crate) fn wake(&self) -> &PipeReader {
        &self.0.wake
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("cause", &self.0.cause).finish_non_exhaustive()
    }
}

/// Begins to hear signals: the first one stops, the second calls `at_once` and ends the program there and then.
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

/// Whether the program was started with this signal ignored, as `nohup` does. Where that can't be read, it counts as
/// ignored, and is left as it was.
fn ignored(signal: Signal) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & (1 << (signal as u32 - 1)) != 0)
}
