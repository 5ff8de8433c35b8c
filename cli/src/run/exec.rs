//! Delivers tasks to commands: a worker of the library, whose handler runs one command per task.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use delayline::{CancellationToken, Context, Queue, Raw, RetryPolicy, Worker};

use super::state::Run;
use crate::exec::args::ExecArgs;
use crate::exec::{Groups, RETRY_DELAY_MAX, Runner, concurrency};
use crate::exit::Failure;
use crate::signal::Cause;
use crate::words::{many, span};

/// Runs a command for each task when it is due, until all are done or the run is stopped. Running commands then have
/// the grace time to finish; after it they are killed, and their tasks are released.
pub(crate) async fn deliver(run: &Run, command: &str, args: &ExecArgs, groups: Arc<Groups>) -> Result<(), Failure> {
    let queue = Queue::with_codec(run.backend.clone(), &run.queue, Raw)?;
    let runner = Arc::new(Runner::new(command.to_owned(), args.timeout, run.console.clone(), groups));
    let tally = run.tally.clone();
    let handler = move |payload: Bytes, context: Context| {
        let (runner, tally) = (runner.clone(), tally.clone());
        async move {
            let _running = tally.running();
            tally.late([(context.due_at(), context.lateness())]);
            runner.run(&payload, &context).await
        }
    };
    let shutdown = CancellationToken::new();
    let worker = Worker::builder()
        .queue(&queue, handler)
        .concurrency(args.concurrency.map_or_else(concurrency, |n| n as usize))
        .retry(RetryPolicy::exponential(args.retry_delay, RETRY_DELAY_MAX.max(args.retry_delay)))
        .shutdown(shutdown.clone())
        .shutdown_deadline(args.grace)
        .build()?;
    let mut working = pin!(worker.run());
    tokio::select! {
        biased;
        () = run.stop.stopped() => announce_grace(run, args.grace),
        () = run.tally.all_done() => {}
        ended = &mut working => return Ok(ended.map(|_| ())?),
    }
    shutdown.cancel();
    Ok(working.await.map(|_| ())?)
}

fn announce_grace(run: &Run, grace: Duration) {
    let running = run.tally.counts().running;
    if running > 0 && matches!(run.stop.cause(), Some(Cause::Signal(_))) {
        let commands = many(running, "command", "commands");
        let grace = span(grace);
        run.console
            .say(format_args!("waiting up to {grace} for {commands} to end; Ctrl-C again kills the running commands"));
    }
}
