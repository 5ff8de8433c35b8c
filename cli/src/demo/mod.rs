//! `delayline demo`: a simulation, in seconds, of the exam for which this project was made.
//!
//! [`plan`] determines who does what and when. [`exam`] runs the plan on the library, as an application would.
//! [`books`] independently records what was lost, came twice or came early, and [`heap`](crate::heap) counts bytes.
//! [`show`] displays the progress, [`report`] the result.

pub(crate) mod args;
mod books;
mod exam;
mod panics;
mod plan;
mod report;
mod show;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use delayline::{Durability, Queue, QueueName, Support};
use tokio::time::{Instant, sleep};

use self::args::DemoArgs;
use self::books::Books;
use self::exam::Exam;
use self::plan::{Plan, Steps};
use self::report::{Heap, Report};
use self::show::Show;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::heap;
use crate::scratch::{For, Scratch};
use crate::signal::{Cause, Stop};
use crate::start::{self, Logs, Started, Threads};

/// Time after which ended tasks are freed.
const SETTLED: Duration = Duration::from_millis(50);

/// Runs the command.
pub(crate) fn main(global: &Global, args: DemoArgs) -> Result<Exit, Failure> {
    heap::start();
    let console = start::console(global, args.quiet, Logs::Usual)?;
    let started = Started::new(console.clone(), Threads::Cores, console.leaving())?;
    let _silence = panics::Silence::new();
    let stop = started.stop.clone();
    started.run(demo(global, args, console, stop))
}

/// Runs the demo in a namespace of its own, or in the given queue.
async fn demo(global: &Global, args: DemoArgs, console: Arc<Console>, stop: Stop) -> Result<Exit, Failure> {
    if args.queue.is_some() {
        return play_in(global, None, args, console, stop).await;
    }
    let scratch = Scratch::make(&global.backend, For::Demo).await.map_err(|failure| global.explain(failure))?;
    if let Some(place) = scratch.shown() {
        console.note(format_args!("working in {place}"));
    }
    let exit = play_in(global, Some(&scratch), args, console, stop).await;
    let removed = scratch.end().await;
    exit.and_then(|exit| removed.map(|()| exit))
}

async fn play_in(
    global: &Global,
    scratch: Option<&Scratch>,
    args: DemoArgs,
    console: Arc<Console>,
    stop: Stop,
) -> Result<Exit, Failure> {
    let exam = Arc::new(prepare(global, scratch, args, &console).await?);
    let exit = watched(&exam, scratch, &console, &stop).await;
    if scratch.is_some() {
        // All work in a namespace must end before it is removed.
        let _ = exam.queue.backend().close().await;
    }
    exit
}

async fn watched(exam: &Arc<Exam>, scratch: Option<&Scratch>, console: &Console, stop: &Stop) -> Result<Exit, Failure> {
    let played = tokio::select! {
        played = play(exam) => Some(played),
        () = exam.show.draw(&exam.books, exam.args.candidates) => unreachable!("it goes on for ever"),
        () = stop.stopped() => None,
    };
    exam.show.end();
    match played {
        Some(Ok(played)) => finish(exam, console, &played),
        cut_short => {
            if scratch.is_none() && exam.queue.backend().capabilities().durability > Durability::Process {
                exam.clear_away().await?;
            }
            match cut_short {
                Some(failed) => failed.map(|_| Exit::Failed),
                None => Ok(stopped(stop, console)),
            }
        }
    }
}

async fn prepare(
    global: &Global,
    scratch: Option<&Scratch>,
    args: DemoArgs,
    console: &Arc<Console>,
) -> Result<Exam, Failure> {
    let (backend, prefix) = match scratch {
        Some(scratch) => (scratch.connect().await?, scratch.queue_prefix()),
        None => {
            let connected = delayline::connect(&global.backend).await;
            (connected.map_err(|e| global.explain(e.into()))?, String::new())
        }
    };
    let name = match &args.queue {
        Some(name) => name.clone(),
        None => QueueName::new(format!("{prefix}demo"))?,
    };
    let queue = Queue::new(backend, name)?;
    expect_empty(&queue).await?;
    let plan = Plan::new(&args, Steps::of(queue.backend().capabilities()));
    let books = Books::new(args.candidates, Instant::now());
    // A program that reads the result does not need the messages.
    let speaks = !args.quiet && (!args.json || io::stderr().is_terminal());
    let show = Show::new(console.clone(), speaks, speaks && !args.no_progress);
    let run = uuid::Uuid::new_v4().simple().to_string();
    Ok(Exam { args, plan, queue, books, show, run })
}

async fn expect_empty(queue: &Queue<u32>) -> Result<(), Failure> {
    if queue.backend().capabilities().stats == Support::Unsupported {
        return Ok(());
    }
    let stats = queue.stats().await?;
    match stats.scheduled + stats.due + stats.in_flight {
        0 => Ok(()),
        tasks => Err(Failure::new(format!(
            "queue `{}` contains {tasks} tasks, but the demo needs an empty queue; choose another with --queue",
            queue.name()
        ))),
    }
}

struct Played {
    heap: Heap,
    took: Duration,
}

/// The exam, between two measurements of the heap. Plan and books are allocated before the first, and kept beyond the
/// second.
async fn play(exam: &Arc<Exam>) -> Result<Played, Failure> {
    exam.warm_up().await?;
    sleep(SETTLED).await;
    heap::reset_peak();
    let before = heap::live();
    let took = exam.play().await?;
    sleep(SETTLED).await;
    let (peak, after) = (heap::peak(), heap::live());
    Ok(Played { heap: Heap { before, peak, after }, took })
}

fn finish(exam: &Exam, console: &Console, played: &Played) -> Result<Exit, Failure> {
    let verdict = exam.books.verdict();
    let report = Report::new(exam.args.candidates, &verdict, played.heap, played.took);
    report.write(exam.args.json)?;
    if verdict.is_clean() {
        return Ok(Exit::Done);
    }
    report::accuse(console, &verdict);
    Ok(Exit::Failed)
}

fn stopped(stop: &Stop, console: &Console) -> Exit {
    console.say("the demo was stopped, so there is no result");
    match stop.cause() {
        Some(Cause::Signal(signal)) => Exit::Interrupted(*signal),
        Some(Cause::OutputClosed | Cause::Failed(_)) | None => Exit::Failed,
    }
}
