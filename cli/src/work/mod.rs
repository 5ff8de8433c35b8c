//! `delayline work`: runs the tasks of a queue in a store that outlives the process. Several processes may share a
//! queue.
//!
//! | module | what is in it |
//! |---|---|
//! | [`gate`] | a wrapper of the backend that limits claims by `--max` and observes the claim loop |
//! | [`stdout`], [`exec`] | delivery of due tasks, to stdout or to commands |
//! | [`http`], [`health`] | `--metrics` |

pub(crate) mod args;
mod exec;
mod gate;
mod health;
#[cfg_attr(not(feature = "metrics-server"), path = "no_http.rs")]
mod http;
mod state;
mod stdout;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use delayline::{DelayBackend, ErrorKind, Queue, Raw};
use tokio::time::{Instant, sleep};

use self::args::WorkArgs;
use self::gate::{Gate, Shared};
use self::state::Work;
use crate::console::Console;
use crate::exec::Groups;
use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::signal::{Cause, Stop};
use crate::start::{self, Logs, Started, Threads};
use crate::store::session::{Session, hinted};
use crate::tally::Tally;
use crate::words::{many, span};

/// Pauses between attempts to connect at the start.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Target of the logs of an outage, as in the library.
const OUTAGE: &str = "delayline_core::outage";

/// Runs the command.
pub(crate) fn main(global: &Global, args: WorkArgs) -> Result<Exit, Failure> {
    let console = start::console(global, args.quiet, Logs::Usual)?;
    let groups = Arc::new(Groups::new());
    let at_once = {
        let groups = groups.clone();
        move || groups.kill_all()
    };
    let started = Started::new(console.clone(), Threads::Cores, at_once)?;
    let stop = started.stop.clone();
    started.run(run(global, args, console, stop, groups))
}

async fn run(
    global: &Global,
    args: WorkArgs,
    console: Arc<Console>,
    stop: Stop,
    groups: Arc<Groups>,
) -> Result<Exit, Failure> {
    // Before anything is counted.
    let recorder = args.metrics.map(|address| Ok::<_, Failure>((address, http::record()?))).transpose()?;
    let shared = Arc::new(Shared::new(args.max, args.until_empty));
    let counted = Arc::new(OnceLock::new());
    // Until it ends.
    let _served = match recorder {
        Some((address, handle)) => {
            delayline::meter::begin(&args.queue);
            let (served, bound) = http::serve(address, handle, counted.clone(), shared.clone()).await?;
            console.note(format_args!("metrics on http://{bound}/metrics, with /healthz and /readyz"));
            Some(served)
        }
        None => None,
    };
    let backend = tokio::select! {
        connected = connect(global, &shared) => connected?,
        () = stop.stopped() => {
            console.note("terminated before the store was available");
            return Ok(match stop.cause() {
                Some(Cause::Signal(signal)) if args.ends() => Exit::Interrupted(*signal),
                _ => Exit::Done,
            });
        }
    };
    let session = Session::over(backend, "work", console.clone())?;
    session
        .backend
        .capabilities()
        .check_lease(args.lease)
        .map_err(|e| Failure::new(format!("--lease: {}", e.message())).exit(Exit::Usage))?;
    if args.until_empty {
        // On some backends, a claim does not see tasks that are due in the far future.
        let stats = session.backend.capabilities().stats;
        session.needs_for("--until-empty", stats, "count tasks")?;
    }
    let gate = Arc::new(Gate::new(session.backend.clone(), shared));
    // Without the gate, which does not support statistics.
    let _ = counted.set(Queue::with_codec(session.backend.clone(), &args.queue, Raw)?);
    let command = args.exec.exec.clone();
    let tally = Arc::new(Tally::new());
    let work = Arc::new(Work { args, gate, tally, console, stop, given_back: AtomicU64::new(0) });
    tokio::spawn({
        let work = work.clone();
        async move {
            work.stop.stopped().await;
            work.gate.shared().claims.stopping();
        }
    });
    let delivered = match &command {
        Some(command) => exec::deliver(&work, command, groups).await,
        None => stdout::deliver(&work).await,
    };
    session.close().await;
    finish(&work, delivered)
}

/// Connects, and waits for a store that is unavailable, such as one that is still starting: where everything starts at once,
/// nobody should have to start workers again. What will not pass is an error at once.
async fn connect(global: &Global, shared: &Shared) -> Result<Arc<dyn DelayBackend>, Failure> {
    let mut pause = PAUSE_MIN;
    let mut waiting = None;
    loop {
        match delayline::connect(&global.backend).await {
            Ok(backend) => {
                if let Some(since) = waiting.map(|since: Instant| since.elapsed()) {
                    tracing::info!(target: OUTAGE, outage = ?since, "the store is available");
                }
                return Ok(backend);
            }
            Err(e) if e.kind() == ErrorKind::Unavailable => {
                shared.claims.not_connected(&e);
                waiting.get_or_insert_with(|| {
                    tracing::warn!(target: OUTAGE, error = %e, "the store is unavailable; waiting for it");
                    Instant::now()
                });
            }
            Err(e) => return Err(hinted(e)),
        }
        sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

/// Reports the result, and determines the exit code.
fn finish(work: &Work, delivered: Result<(), Failure>) -> Result<Exit, Failure> {
    let counts = work.tally.counts();
    let done = if work.args.exec.exec.is_some() { "completed" } else { "delivered" };
    let mut text = format!("{} {done} in {}", counts.completed, span(work.tally.elapsed()));
    for (number, one, more) in [
        (counts.retried, "retry", "retries"),
        (counts.dead, "dead letter", "dead letters"),
        (work.given_back.load(Ordering::Relaxed), "task released", "tasks released"),
    ] {
        if number > 0 {
            text.push_str(&format!(", {}", many(number, one, more)));
        }
    }
    if let Some([median, high, max]) = work.tally.lateness() {
        text.push_str(&format!("; lateness p50 {}, p99 {}, max {}", span(median), span(high), span(max)));
    }
    let cause = work.stop.cause();
    let why = match cause {
        Some(Cause::Signal(_)) => "terminated; ",
        Some(Cause::OutputClosed) => "stdout was closed; ",
        Some(Cause::Failed(_)) | None => "",
    };
    work.console.note(format_args!("{why}{text}"));
    delivered?;
    Ok(match cause {
        // Without `--max` and `--until-empty`, a signal is the normal end.
        Some(Cause::Signal(_)) if !work.args.ends() => Exit::Done,
        Some(Cause::Signal(signal)) => Exit::Interrupted(*signal),
        Some(Cause::OutputClosed | Cause::Failed(_)) => Exit::Failed,
        None if counts.dead > 0 => Exit::DeadLetters,
        None => Exit::Done,
    })
}
