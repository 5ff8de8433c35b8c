//! `delayline run`: reads tasks, schedules them in a backend, and delivers each when it is due.
//!
//! Three parts run at the same time: a thread reads the input ([`crate::input`]), a task schedules what was read
//! ([`accept`]), and another task delivers what is due ([`stdout`] or [`exec`]). The [`tally`](crate::tally) counts,
//! and determines when all is done. A [`Stop`] ends the parts earlier; then [`rest`] gathers what is left.

pub(crate) mod accept;
pub(crate) mod args;
mod exec;
mod ids;
mod next_due;
mod report;
mod rest;
mod state;
mod stdout;
mod watched;

use std::sync::Arc;

use delayline::{Attempts, DelayBackend, Durability};

use self::accept::{Rest, Strict};
use self::args::RunArgs;
use self::ids::Ids;
use self::rest::{Left, Target};
use self::state::Run;
use self::watched::Watched;
use crate::console::Console;
use crate::exec::Groups;
use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::input::{self, Input, Rules, Source};
use crate::progress::Progress;
use crate::signal::{Cause, Stop};
use crate::start::{self, Logs, Started, Threads};
use crate::tally::Tally;
use crate::words::many;

/// Runs the command.
pub(crate) fn main(global: &Global, args: RunArgs) -> Result<Exit, Failure> {
    let console = start::console(global, args.quiet, Logs::Usual)?;
    let groups = Arc::new(Groups::new());
    let at_once = {
        let (groups, leave) = (groups.clone(), console.leaving());
        move || {
            groups.kill_all();
            leave();
        }
    };
    let started = Started::new(console.clone(), Threads::Cores, at_once)?;
    let stop = started.stop.clone();
    started.run(run(global, args, console, stop, groups))
}

async fn run(
    global: &Global,
    args: RunArgs,
    console: Arc<Console>,
    stop: Stop,
    groups: Arc<Groups>,
) -> Result<Exit, Failure> {
    let attempts_max = if args.exec.exec.is_some() { args.attempts_max } else { Attempts::default() };
    let tally = Arc::new(Tally::new());
    let inner = delayline::connect(&global.backend).await.map_err(|e| global.explain(e.into()))?;
    let backend = Arc::new(Watched::new(inner, tally.clone(), attempts_max));
    let target = args.save_rest.clone().map(Target::new).transpose()?;
    let is_lost = backend.capabilities().durability == Durability::Process;
    let to_be_saved = (target.is_some() && is_lost).then(Ids::default);
    let run = Arc::new(Run { backend, queue: args.queue.clone(), tally, console, stop, to_be_saved });
    let source = Source::named(args.file.clone());
    // No progress bar while the user types the input.
    let is_typed = source == Source::Stdin && std::io::IsTerminal::is_terminal(&std::io::stdin());
    if is_typed {
        run.console.note("reading tasks from the terminal, one JSON object per line; Ctrl-D ends the input");
    }
    let input = open(&run, &args, &source, attempts_max)?;
    let name = input.name.clone();

    let progress = match args.quiet || args.no_progress || is_typed {
        true => None,
        false => Progress::start(&run.console, run.tally.clone(), done(&args)),
    };
    let rest = tokio::select! {
        rest = work(&run, input, &args, groups) => rest,
        () = next_due::follow(&run), if progress.is_some() => unreachable!("it goes on for ever"),
    };
    drop(progress);

    let rest = match rest {
        Worked::Refused => {
            let bad = many(run.console.bad_lines(), "bad line", "bad lines");
            run.console.say(format_args!("{name}: {bad}, so nothing was run (--strict)"));
            return Ok(Exit::BadLines);
        }
        Worked::Through(rest) => rest,
    };
    finish(&run, &args, &name, rest, target.as_ref()).await
}

fn open(run: &Run, args: &RunArgs, source: &Source, attempts_max: Attempts) -> Result<Input, Failure> {
    let options = input::Options {
        format: args.format.unwrap_or_else(|| source.format()),
        rules: Rules::new(run.backend.capabilities().clone(), attempts_max),
        to_the_end: args.save_rest.is_some(),
    };
    input::open(source, options, run.console.clone(), run.stop.clone())
}

/// How reading and delivering ended.
enum Worked {
    /// At the end of the input, or because the run was stopped; then this was read and not accepted.
    Through(Option<Rest>),
    /// Lines were bad, and with `--strict` nothing runs.
    Refused,
}

async fn work(run: &Arc<Run>, mut input: Input, args: &RunArgs, groups: Arc<Groups>) -> Worked {
    if args.strict {
        match accept::strictly(run, &mut input).await {
            Ok(Strict::Accepted) => {
                deliver(run, args, groups).await;
                return Worked::Through(None);
            }
            Ok(Strict::Refused) => return Worked::Refused,
            Ok(Strict::Stopped(tasks)) => return Worked::Through(Some(Rest { tasks, input })),
            Err(failure) => {
                run.stop.stop(Cause::Failed(failure));
                return Worked::Through(None);
            }
        }
    }
    let accepting = tokio::spawn({
        let run = run.clone();
        async move {
            let rest = accept::as_it_comes(&run, input).await;
            rest.map_err(|failure| run.stop.stop(Cause::Failed(failure))).ok()
        }
    });
    deliver(run, args, groups).await;
    Worked::Through(accepting.await.unwrap_or_else(|e| {
        run.stop.stop(Cause::Failed(Failure::new(format!("accepting tasks ended in a panic: {e}"))));
        None
    }))
}

/// Delivers tasks until all are done, or the run is stopped. An error stops the run.
async fn deliver(run: &Arc<Run>, args: &RunArgs, groups: Arc<Groups>) {
    tokio::select! {
        () = run.stop.stopped() => return,
        () = run.tally.begun() => {}
    }
    let delivered = match &args.exec.exec {
        Some(command) => exec::deliver(run, command, &args.exec, groups).await,
        None => stdout::deliver(run).await,
    };
    if let Err(failure) = delivered {
        run.stop.stop(Cause::Failed(failure));
    }
}

/// Reports the result, saves what is left, and determines the exit code.
async fn finish(
    run: &Run,
    args: &RunArgs,
    name: &str,
    rest: Option<Rest>,
    target: Option<&Target>,
) -> Result<Exit, Failure> {
    let mut exit = report::exit(run);
    if let Some(cause) = run.stop.cause() {
        if let Cause::Failed(failure) = cause {
            run.console.say(failure);
        }
        let input_ended = run.tally.has_input_ended();
        let left = match rest::gather(run, rest, target).await {
            Ok(left) => left,
            Err(failure) => {
                run.console.say(failure);
                return Ok(Exit::Failed);
            }
        };
        // The reader of the output may leave once all of it is written.
        let was_read = *cause == Cause::OutputClosed && input_ended && left == Left::default();
        if !was_read {
            report::left(run, cause, left, target);
            exit = match cause {
                Cause::Signal(signal) => Exit::Interrupted(*signal),
                Cause::OutputClosed | Cause::Failed(_) => Exit::Failed,
            };
        }
    } else if run.tally.counts().accepted == 0 && run.console.bad_lines() == 0 {
        run.console.note(format_args!("{name} holds no tasks, so there is nothing to do"));
        return Ok(exit);
    }
    report::dead_letters(run).await?;
    if run.tally.counts().accepted > 0 || run.console.bad_lines() > 0 {
        report::summary(run, done(args));
    }
    Ok(exit)
}

fn done(args: &RunArgs) -> &'static str {
    if args.exec.exec.is_some() { "completed" } else { "delivered" }
}
