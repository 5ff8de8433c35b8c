//! Lists, redrives and purges dead letters, and limits their number.

use std::sync::Arc;

use delayline_backend_kit::Pace;
use delayline_backend_kit::codec::id_bytes;
use delayline_core::{
    DeadLetter, DeadLetterOp, DeadLetterSelect, DeadLetters, Error, QueueName, Reason, Result, limits,
};
use sqlx::postgres::PgRow;

use crate::codec::{self, Body, count, get};
use crate::limits::PIECE;
use crate::ops::caller::Caller;
use crate::store::Store;
use crate::transport::failure::Effect;

/// Maximum number of queues whose new dead letters a process counts. The count spares it a query each time.
const QUEUES_MAX: usize = 1_000;

pub(crate) async fn operate(
    store: &Store,
    queue: &QueueName,
    op: DeadLetterOp,
    caller: &Caller,
) -> Result<DeadLetters> {
    store.lifecycle.open()?;
    match op {
        DeadLetterOp::List { after, limit } => list(store, queue, after, limit.min(limits::PAGE_MAX)).await,
        DeadLetterOp::Redrive { select, rate } => {
            let pace = Pace::new(rate)?;
            walk(store, queue, select, Work::Redrive { pace, since_us: 0 }, caller).await
        }
        DeadLetterOp::Purge { select } => walk(store, queue, select, Work::Purge, caller).await,
        _ => Err(Error::unsupported("this operation on dead letters")),
    }
}

async fn list(store: &Store, queue: &QueueName, after: Option<u64>, limit: usize) -> Result<DeadLetters> {
    let mut answer = DeadLetters::default();
    if limit == 0 {
        return Ok(answer);
    }
    let after = after.map_or(0, |after| i64::try_from(after).unwrap_or(i64::MAX));
    let queue = queue.clone();
    let rows = store.rows("listing dead letters", Effect::Read, &store.sql.dead_list, move |query| {
        query.bind(queue.as_str()).bind(after).bind(limit as i64).bind(PIECE.bytes as i64)
    });
    let rows = rows.await?;
    if let Some(last) = rows.last() {
        let page_end = rows.iter().map(|row| get::<i64>(row, 0)).next_back().transpose()?;
        // `more` tells whether there is a letter after this row.
        if get(last, 10)? {
            answer.next = page_end.and_then(|n| u64::try_from(n).ok());
        }
    }
    answer.letters = rows.iter().map(letter).collect::<Result<_>>()?;
    Ok(answer)
}

fn letter(row: &PgRow) -> Result<DeadLetter> {
    let cause = codec::read_cause(get(row, 1)?)?;
    let reason = get::<Option<&[u8]>>(row, 6)?.map(codec::text).transpose()?;
    let body = Body::read(row, 7)?;
    let id = codec::read_id(get(row, 5)?)?;
    let dead_lettered_at = codec::millis(get(row, 3)?);
    let mut letter =
        DeadLetter::new(id, cause, Reason::new(reason.unwrap_or_default()), dead_lettered_at, body.payload);
    letter.attempts = u32::from(get::<i16>(row, 2)? as u16);
    letter.due_at = codec::millis(get(row, 4)?);
    letter.headers = body.headers;
    letter.group = body.group;
    Ok(letter)
}

/// The operation on the selected letters.
enum Work {
    Redrive {
        pace: Pace,
        /// The instant from which all letters are staggered; the first statement sets it.
        since_us: i64,
    },
    Purge,
}

async fn walk(
    store: &Store,
    queue: &QueueName,
    select: DeadLetterSelect,
    mut work: Work,
    caller: &Caller,
) -> Result<DeadLetters> {
    let ids = match select {
        DeadLetterSelect::All => None,
        DeadLetterSelect::Ids(ids) => {
            store.caps.check_batch(ids.len())?;
            Some(Arc::new(ids.iter().map(id_bytes).collect::<Vec<_>>()))
        }
        _ => return Err(Error::unsupported("this selection of dead letters")),
    };
    let name = queue.clone();
    let span =
        store.rows("counting dead letters", Effect::Read, &store.sql.dead_span, move |query| query.bind(name.as_str()));
    // Includes every letter that exists now, and none that is dead-lettered later.
    let span = span.await?;
    let span = span.first().ok_or_else(codec::corrupt)?;
    let (letters, until) = (count(span, 0)?, get::<Option<i64>>(span, 1)?);
    if let Work::Redrive { pace, .. } = work {
        pace.check(letters, &store.caps)?;
    }
    let Some(until) = until else { return Ok(DeadLetters::default()) };
    let mut answer = DeadLetters::default();
    let mut after = 0;
    loop {
        caller.waits()?;
        let (came_to, looked) = work.on(store, queue, (after, until), ids.clone(), &mut answer).await?;
        match came_to {
            Some(n) if looked == PIECE.items as u64 => after = n,
            _ => return Ok(answer),
        }
    }
}

impl Work {
    /// Processes the next letters. Returns the last one's number and how many letters were examined.
    async fn on(
        &mut self,
        store: &Store,
        queue: &QueueName,
        (after, until): (i64, i64),
        ids: Option<Arc<Vec<Vec<u8>>>>,
        answer: &mut DeadLetters,
    ) -> Result<(Option<i64>, u64)> {
        let name = queue.clone();
        match self {
            Self::Redrive { pace, since_us } => {
                let (gap, since, before) = (pace.gap_us(), *since_us, answer.affected as i64);
                let rows = store.rows("redriving", Effect::Write, &store.sql.dead_redrive, move |query| {
                    let query = query.bind(name.as_str()).bind(after).bind(until).bind(PIECE.items as i64);
                    query.bind(ids.as_deref()).bind(since).bind(gap).bind(before)
                });
                let rows = rows.await?;
                let row = rows.first().ok_or_else(codec::corrupt)?;
                let (redriven, looked) = (count(row, 1)?, count(row, 2)?);
                *since_us = get(row, 0)?;
                answer.affected += redriven;
                answer.kept += looked.saturating_sub(redriven);
                store.placed(queue, get(row, 4)?).await;
                Ok((get(row, 3)?, looked))
            }
            Self::Purge => {
                let rows = store.rows("purging", Effect::Write, &store.sql.dead_purge, move |query| {
                    let query = query.bind(name.as_str()).bind(after).bind(until).bind(PIECE.items as i64);
                    query.bind(ids.as_deref())
                });
                let rows = rows.await?;
                let row = rows.first().ok_or_else(codec::corrupt)?;
                answer.affected += count(row, 0)?;
                Ok((get(row, 1)?, count(row, 2)?))
            }
        }
    }
}

/// Counts tasks that were dead-lettered, and drops dead letters beyond the limit. A small limit is exact. A large one
/// may be exceeded by what each process dead-letters between two checks, a hundredth of the limit.
pub(super) async fn dead_lettered(store: &Store, queue: &QueueName, letters: u64) {
    if letters == 0 {
        return;
    }
    let max = store.config.dead_letters_max as u64;
    {
        let mut dead_lettered = store.dead_lettered.lock();
        if dead_lettered.len() == QUEUES_MAX && !dead_lettered.contains_key(queue) {
            dead_lettered.clear();
        }
        // The first check is immediate, because other processes may have dead-lettered tasks, too.
        let since = dead_lettered.entry(queue.clone()).or_insert(max);
        *since += letters;
        if *since < max / 100 {
            return;
        }
        *since = 0;
    }
    if let Err(e) = trim(store, queue, max).await {
        tracing::debug!(%queue, error = %e, "could not drop dead letters beyond the limit, a later check tries again");
    }
}

async fn trim(store: &Store, queue: &QueueName, max: u64) -> Result<()> {
    loop {
        let name = queue.clone();
        let rows = store.rows("dropping dead letters", Effect::Write, &store.sql.dead_trim, move |query| {
            query.bind(name.as_str()).bind(max as i64).bind(PIECE.items as i64)
        });
        let rows = rows.await?;
        if count(rows.first().ok_or_else(codec::corrupt)?, 0)? < PIECE.items as u64 {
            return Ok(());
        }
    }
}
