//! Lists, redrives and purges dead letters.

use delayline_core::{DeadLetterOp, DeadLetterSelect, DeadLetters, Error, ErrorKind, QueueName, Result, limits};

use crate::queues::Queues;
use crate::store::{DELAY_MAX, DeadFilter, DeadWalk, Store};

/// [`DelayBackend::dead_letters`](delayline_core::DelayBackend::dead_letters).
pub(crate) async fn dead_letters(queues: &Queues, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
    match op {
        DeadLetterOp::List { after, limit } => {
            let mut answer = DeadLetters::default();
            let limit = limit.min(limits::PAGE_MAX);
            if let Some(page) = queues.on_existing(queue, |store| store.dead_page(after, limit))? {
                (answer.letters, answer.next) = page;
            }
            Ok(answer)
        }
        DeadLetterOp::Redrive { select, rate } => redrive(queues, queue, select, rate).await,
        DeadLetterOp::Purge { select } => {
            let filter = filter(queues, select)?;
            walk_dead(queues, queue, |store, walk| store.purge(&filter, walk)).await
        }
        _ => Err(Error::unsupported("this operation on dead letters")),
    }
}

/// Walks over the dead letters in bounded steps. Each step returns whether it was the last.
async fn walk_dead(
    queues: &Queues,
    queue: &QueueName,
    mut step: impl FnMut(&mut Store, &mut DeadWalk) -> bool + Send,
) -> Result<DeadLetters> {
    let mut answer = DeadLetters::default();
    let Some(mut walk) = queues.on_existing(queue, |store| store.dead_walk())? else { return Ok(answer) };
    while !queues.on_existing(queue, |store| step(store, &mut walk))?.unwrap_or(true) {
        tokio::task::yield_now().await;
    }
    answer.affected = walk.affected;
    answer.kept = walk.kept;
    Ok(answer)
}

async fn redrive(
    queues: &Queues,
    queue: &QueueName,
    select: DeadLetterSelect,
    rate: Option<f64>,
) -> Result<DeadLetters> {
    let gap_us = match rate {
        None => 0.0,
        Some(rate) if rate.is_finite() && rate > 0.0 => 1e6 / rate,
        Some(rate) => {
            let what = format!("invalid redrive rate {rate}: use a positive number of tasks a second");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
    };
    let letters = queues.on_existing(queue, |store| store.dead_len())?.unwrap_or(0);
    let longest_us = DELAY_MAX.as_micros() as f64;
    if gap_us > longest_us || letters as f64 * gap_us > longest_us {
        return Err(queues.caps.out_of_range());
    }
    // All letters are staggered from one instant.
    let now = queues.now();
    let filter = filter(queues, select)?;
    walk_dead(queues, queue, |store, walk| store.redrive(now, &filter, gap_us, walk)).await
}

fn filter(queues: &Queues, select: DeadLetterSelect) -> Result<DeadFilter> {
    match select {
        DeadLetterSelect::All => Ok(DeadFilter::All),
        DeadLetterSelect::Ids(ids) => {
            queues.caps.check_batch(ids.len())?;
            Ok(DeadFilter::Ids(ids.into_iter().collect()))
        }
        _ => Err(Error::unsupported("this selection of dead letters")),
    }
}
