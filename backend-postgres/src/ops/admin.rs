//! Pauses, resumes and deletes queues.

use std::time::Duration;

use delayline_core::{AdminOp, DeadLetterOp, DeadLetterSelect, Error, QueueName, Result};
use tokio::time::sleep;

use crate::codec::{corrupt, count, get};
use crate::limits::PIECE;
use crate::ops::caller::Caller;
use crate::ops::dead;
use crate::ops::locked::{PAUSES_MS, busy};
use crate::store::Store;
use crate::transport::failure::Effect;
use crate::transport::statement::Query;

pub(crate) async fn administer(store: &Store, queue: &QueueName, op: AdminOp, caller: &Caller) -> Result<()> {
    let name = queue.clone();
    let bind = move |query: Query<'static>| query.bind(name.as_str());
    match op {
        AdminOp::Pause => store.rows("pausing", Effect::Repeat, &store.sql.pause, bind).await.map(drop),
        AdminOp::Resume => {
            let rows = store.rows("resuming", Effect::Repeat, &store.sql.resume, bind).await?;
            let least_ms = rows.first().map(|row| get(row, 0)).transpose()?;
            store.placed(queue, least_ms).await;
            Ok(())
        }
        AdminOp::Delete => delete(store, queue, caller).await,
        _ => Err(Error::unsupported("this operation on a queue")),
    }
}

/// Deletes the tasks that exist now, in pieces. Tasks that are scheduled in the meantime stay.
async fn delete(store: &Store, queue: &QueueName, caller: &Caller) -> Result<()> {
    let rows = store.rows("deleting", Effect::Repeat, &store.sql.seqs, |query| query.bind(1_i64)).await?;
    let until: i64 = get(rows.first().ok_or_else(corrupt)?, 0)?;
    let mut pauses = PAUSES_MS.into_iter();
    loop {
        caller.waits()?;
        let name = queue.clone();
        let rows = store.rows("deleting", Effect::Repeat, &store.sql.delete_tasks, move |query| {
            query.bind(name.as_str()).bind(until).bind(PIECE.items as i64)
        });
        let rows = rows.await?;
        let row = rows.first().ok_or_else(corrupt)?;
        let (gone, any) = (count(row, 0)?, get::<Option<bool>>(row, 1)?.is_some());
        store.vacuum.left_dead(gone);
        if gone == PIECE.items as u64 {
            continue;
        }
        // The statement does not see its own effect: the rows it finds are the deleted ones and the locked ones.
        match (any, gone, pauses.next()) {
            (false, _, _) => break,
            (true, 1.., Some(_)) => {}
            (true, _, Some(ms)) => sleep(Duration::from_millis(ms)).await,
            (true, _, None) => return Err(busy()),
        }
    }
    let purge = DeadLetterOp::Purge { select: DeadLetterSelect::All };
    dead::operate(store, queue, purge, caller).await?;
    let name = queue.clone();
    let rest = store.rows("deleting", Effect::Repeat, &store.sql.delete_rest, move |query| query.bind(name.as_str()));
    rest.await.map(drop)
}
