//! Delivers the tasks of a shared queue to standard output.

use std::time::Duration;

use delayline::{Consumer, Delivery, Disposition, Lease, Queue, Raw, Support};
use tokio::time::{Instant, sleep};

use super::state::Work;
use crate::exit::Failure;
use crate::output::{Ended, Lines, Output, Written};
use crate::signal::Cause;

/// Number of tasks that are claimed, written and settled together. If this process dies, at most this many come again.
const BATCH: usize = 256;

type Deliveries = Vec<Delivery<bytes::Bytes>>;

/// Writes each task when it is due, until the worker is to end. A task is completed after its line is written. Tasks
/// that were claimed and not written are released.
pub(super) async fn deliver(work: &Work) -> Result<(), Failure> {
    let queue = Queue::with_codec(work.gate.clone(), &work.args.queue, Raw)?;
    let mut consumer = queue.consumer().lease(work.args.lease).name("delayline work").open().await?;
    let output = Output::open(work.console.clone(), work.stop.clone())?;
    let shared = work.gate.shared();
    loop {
        let batch = tokio::select! {
            biased;
            () = work.stop.stopped() => break,
            batch = consumer.next_batch(BATCH) => batch?,
            () = shared.nothing_left() => break,
        };
        let mut lines = Lines::default();
        batch.iter().try_for_each(|delivery| lines.push(delivery))?;
        let written = write(work, &output, lines, &batch).await;
        let tally = &work.tally;
        tally.late(batch.iter().take(written.lines).map(|task| (task.due_at(), task.lateness())));
        settle(work, &consumer, batch, written.lines).await?;
        match written.ended {
            None | Some(Ended::Stopped) => {}
            Some(Ended::Closed) => work.stop.stop(Cause::OutputClosed),
            Some(Ended::Failed(failure)) => return Err(failure),
        }
    }
    Ok(consumer.close().await?)
}

/// Writes lines, and renews the leases of their tasks while the reader is slow.
async fn write(work: &Work, output: &Output, lines: Lines, batch: &Deliveries) -> Written {
    let mut writing = std::pin::pin!(output.write(lines));
    let extends = work.gate_capabilities().extend != Support::Unsupported;
    let every = (work.args.lease / 3).max(Duration::from_millis(1));
    let mut next = Instant::now() + every;
    loop {
        tokio::select! {
            biased;
            written = &mut writing => return written,
            () = sleep(next.saturating_duration_since(Instant::now())), if extends => {
                next += every;
                let leases: Vec<Lease> = batch.iter().map(|delivery| delivery.lease().clone()).collect();
                if let Err(e) = work.extend(leases).await {
                    tracing::warn!(error = %e, "could not extend the leases of tasks that wait to be written");
                }
            }
        }
    }
}

async fn settle(
    work: &Work,
    consumer: &Consumer<bytes::Bytes>,
    batch: Deliveries,
    written: usize,
) -> Result<(), Failure> {
    let disposition = |at| if at < written { Disposition::Complete } else { Disposition::Release };
    let settled = batch.into_iter().enumerate().map(|(at, delivery)| (delivery, disposition(at))).collect();
    let answers = consumer.settle_all(settled).await?;
    for (at, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(()) if at < written => work.tally.completed(1),
            Ok(()) => {}
            // Its line was written, and will be written again.
            Err(e) => tracing::warn!(error = %e, "a task that was delivered could not be completed"),
        }
    }
    Ok(())
}
