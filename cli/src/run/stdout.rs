//! Delivers tasks to standard output.

use std::time::Duration;

use delayline::{Disposition, Queue, Raw};

use super::state::Run;
use crate::exit::Failure;
use crate::output::{Ended, Lines, Output};
use crate::signal::Cause;

/// Number of tasks that are claimed, written and settled together.
const BATCH: usize = 1024;
/// Long enough for a reader that pauses.
const LEASE: Duration = Duration::from_secs(600);

/// Writes each task when it is due, until all are done or the run is stopped. A task is completed after its line is
/// written. Tasks that were claimed and not written are released.
pub(crate) async fn deliver(run: &Run) -> Result<(), Failure> {
    let queue = Queue::with_codec(run.backend.clone(), &run.queue, Raw)?;
    let lease = LEASE.min(run.backend.capabilities().lease_max);
    let mut consumer = queue.consumer().lease(lease).open().await?;
    let output = Output::open(run.console.clone(), run.stop.clone())?;
    loop {
        let batch = tokio::select! {
            biased;
            () = run.stop.stopped() => break,
            () = run.tally.all_done() => break,
            batch = consumer.next_batch(BATCH) => batch?,
        };
        let mut lines = Lines::default();
        batch.iter().try_for_each(|delivery| lines.push(delivery))?;
        let written = output.write(lines).await;
        run.tally.late(batch.iter().take(written.lines).map(|task| (task.due_at(), task.lateness())));
        let disposition = |at| if at < written.lines { Disposition::Complete } else { Disposition::Release };
        let settled = batch.into_iter().enumerate().map(|(at, delivery)| (delivery, disposition(at))).collect();
        for unsettled in consumer.settle_all(settled).await?.into_iter().filter_map(Result::err) {
            // Its line was written, and will be written again.
            tracing::warn!(queue = %run.queue, error = %unsettled, "a task that was delivered could not be completed");
        }
        match written.ended {
            None | Some(Ended::Stopped) => {}
            Some(Ended::Closed) => run.stop.stop(Cause::OutputClosed),
            Some(Ended::Failed(failure)) => return Err(failure),
        }
    }
    Ok(consumer.close().await?)
}
