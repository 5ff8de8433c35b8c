//! Running a command for each task of a shared queue.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use delayline::{CancellationToken, Context, HandlerOutcome, Queue, Raw, RetryPolicy, Worker};

use super::state::Work;
use crate::console::printable;
use crate::exec::{Groups, RETRY_DELAY_MAX, Runner, concurrency};
use crate::exit::Failure;
use crate::signal::Cause;
use crate::words::{many, span};

/// Runs a command for each task when it is due, until the worker is to end. Running commands then have the grace time
/// to finish; after it they are killed, and their tasks are released.
pub(super) async fn deliver(work: &Work, command: &str, groups: Arc<Groups>) -> Result<(), Failure> {
    let args = &work.args.exec;
    let queue = Queue::with_codec(work.gate.clone(), &work.args.queue, Raw)?;
    let runner = Arc::new(Runner::new(command.to_owned(), args.timeout, work.console.clone(), groups));
    let slots = args.concurrency.map_or_else(concurrency, |n| n as usize);
    let (tally, console, shared) = (work.tally.clone(), work.console.clone(), work.gate.shared());
    shared.claims.slots(slots);
    let handler = move |payload: Bytes, context: Context| {
        let (runner, tally, console, shared) = (runner.clone(), tally.clone(), console.clone(), shared.clone());
        async move {
            let _running = shared.claims.running();
            tally.late([(context.due_at(), context.lateness())]);
            let handled = runner.run(&payload, &context).await;
            if let HandlerOutcome::Retry { reason, .. } = &handled
                && context.attempt() >= context.attempts_max()
            {
                let attempts = many(u64::from(context.attempt()), "attempt", "attempts");
                let (id, why) = (printable(&context.id().to_text()), printable(reason.as_str()));
                console.say(format_args!("dead letter: {id} after {attempts}: {why}"));
            }
            handled
        }
    };
    let shutdown = CancellationToken::new();
    let worker = Worker::builder()
        .queue(&queue, handler)
        .name("delayline work")
        .concurrency(slots)
        .lease(work.args.lease)
        .retry(RetryPolicy::exponential(args.retry_delay, RETRY_DELAY_MAX.max(args.retry_delay)))
        // The gate determines when nothing is left.
        .until_empty(work.args.ends())
        .shutdown(shutdown.clone())
        .shutdown_deadline(args.grace)
        .build()?;
    let mut working = pin!(worker.run());
    let report = tokio::select! {
        biased;
        ended = &mut working => ended?,
        () = work.stop.stopped() => {
            announce_grace(work);
            shutdown.cancel();
            working.await?
        }
    };
    work.tally.completed(report.completed);
    work.tally.retried(report.retried);
    work.tally.dead(report.dead_lettered);
    work.given_back(report.released);
    if report.lease_lost + report.unsettled > 0 {
        let lost = many(report.lease_lost + report.unsettled, "task", "tasks");
        work.console.say(format_args!("{lost} could not be settled, and may run again"));
    }
    Ok(())
}

fn announce_grace(work: &Work) {
    let running = work.gate.shared().claims.running_now();
    if running > 0 && matches!(work.stop.cause(), Some(Cause::Signal(_))) {
        let (commands, grace) = (many(running, "command", "commands"), span(work.args.exec.grace));
        work.console.say(format_args!(
            "waiting up to {grace} for {commands} to end; the next signal kills the running commands"
        ));
    }
}
