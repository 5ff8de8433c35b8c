//! Settles and extends leases.

use std::time::Duration;

use delayline_core::{Disposition, Error, Lease, QueueName, Result};

use super::CHUNK;
use crate::now::Now;
use crate::queues::Queues;
use crate::store::Store;

/// Number of items that are looked up together.
const BLOCK: usize = 64;

/// [`DelayBackend::settle`](delayline_core::DelayBackend::settle).
pub(crate) async fn settle(
    queues: &Queues,
    queue: &QueueName,
    dispositions: Vec<(Lease, Disposition)>,
) -> Result<Vec<Result<()>>> {
    queues.open()?;
    queues.caps.check_batch(dispositions.len())?;
    let caps = &queues.caps;
    let settle_one = |store: &mut Store, now, (lease, disposition): &(Lease, Disposition)| {
        store.settle(now, caps, lease, disposition.clone())
    };
    on_leases(queues, queue, &dispositions, |(lease, _)| lease, settle_one).await
}

/// [`DelayBackend::extend`](delayline_core::DelayBackend::extend).
pub(crate) async fn extend(
    queues: &Queues,
    queue: &QueueName,
    leases: Vec<Lease>,
    by: Duration,
) -> Result<Vec<Result<Lease>>> {
    queues.open()?;
    queues.caps.check_lease(by)?;
    queues.caps.check_batch(leases.len())?;
    on_leases(queues, queue, &leases, |lease| lease, |store, now, lease: &Lease| store.extend(now, lease, by)).await
}

/// Runs an operation on each lease of a batch, in bounded pieces. A forgotten queue has no leases.
async fn on_leases<L, R>(
    queues: &Queues,
    queue: &QueueName,
    items: &[L],
    lease_of: impl Fn(&L) -> &Lease + Clone,
    each: impl Fn(&mut Store, Now, &L) -> Result<R>,
) -> Result<Vec<Result<R>>> {
    let mut results = Vec::with_capacity(items.len());
    for chunk in items.chunks(CHUNK) {
        if !results.is_empty() {
            tokio::task::yield_now().await;
        }
        let now = queues.now();
        let done = queues.on_existing(queue, |store| {
            for block in chunk.chunks(BLOCK) {
                store.touch_leased(block.iter().map(&lease_of));
                results.extend(block.iter().map(|item| each(store, now, item)));
            }
            store.sweep_after(chunk.len());
        });
        match done {
            Ok(Some(())) => {}
            Ok(None) => results.extend(chunk.iter().map(|_| Err(Error::lease_lost()))),
            Err(e) => results.extend(chunk.iter().map(|_| Err(e.clone()))),
        }
    }
    Ok(results)
}
