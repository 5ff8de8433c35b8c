//! Reads: one task, pages of tasks, counts, queue names.

use std::collections::BTreeSet;
use std::time::Duration;

use delayline_backend_kit::codec::id_bytes;
use delayline_core::{DueWithin, Page, QueueName, QueueStats, Result, TaskId, TaskRef, TaskState, TaskView, limits};
use sqlx::postgres::PgRow;

use crate::codec::{self, Body, count, get};
use crate::limits::{LEASE_MAX, PIECE};
use crate::store::Store;
use crate::transport::failure::Effect;
use crate::transport::statement::Query;

pub(crate) async fn find(store: &Store, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
    let (queue, id) = (queue.clone(), id_bytes(id));
    let bind = move |query: Query<'static>| query.bind(queue.as_str()).bind(&id);
    let rows = store.rows("finding", Effect::Read, &store.sql.find, bind).await?;
    rows.first().map(view).transpose()
}

pub(crate) async fn list(store: &Store, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
    store.lifecycle.open()?;
    let limit = page.limit.min(limits::PAGE_MAX);
    if limit == 0 {
        return Ok(Vec::new());
    }
    let (ms, seq) = match &page.after {
        Some(cursor) => {
            let seq = codec::seq_of(&cursor.receipt).unwrap_or(i64::MAX);
            (cursor.visible_at.unix_millis_floor(), seq)
        }
        None => (-1, 0),
    };
    let queue = queue.clone();
    let rows = store.rows("listing", Effect::Read, &store.sql.list, move |query| {
        query.bind(queue.as_str()).bind(ms).bind(seq).bind(limit as i64).bind(PIECE.bytes as i64)
    });
    rows.await?.iter().map(view).collect()
}

/// Decodes one task from a row of `find.sql` or `list.sql`.
fn view(row: &PgRow) -> Result<TaskView> {
    let us = get::<i64>(row, 0)?;
    let (visible_at, old) = (get::<i64>(row, 3)?, get::<Option<i64>>(row, 4)?);
    let live = old.is_some() && visible_at > us / 1000;
    let state = match get::<bool>(row, 5)? {
        true if live => TaskState::Cancelling,
        _ if live => TaskState::InFlight,
        _ => TaskState::Pending,
    };
    let body = Body::read(row, 9)?;
    let id = codec::read_id(get(row, 1)?)?;
    let task = TaskRef::new(id, codec::millis(old.unwrap_or(visible_at)), codec::receipt(get(row, 2)?));
    let mut view = TaskView::new(task, state, codec::millis(visible_at), body.payload);
    // The table's constraints ensure that the columns are positive.
    view.attempt = u32::from(get::<i16>(row, 6)? as u16);
    view.attempts_max = u32::from(get::<i16>(row, 7)? as u16);
    view.expires_at = get::<Option<i64>>(row, 8)?.map(codec::millis);
    view.group = body.group;
    view.headers = body.headers;
    view.last_failure = get::<Option<&[u8]>>(row, 12)?.map(codec::text).transpose()?;
    Ok(view)
}

pub(crate) async fn stats(store: &Store, queue: &QueueName) -> Result<QueueStats> {
    let queue = queue.clone();
    let windows_ms = DueWithin::WINDOWS.map(|window| window.as_millis() as i64);
    let near_ms = windows_ms.into_iter().fold(LEASE_MAX.as_millis() as i64, i64::max);
    let rows = store.rows("counting", Effect::Read, &store.sql.stats, move |query| {
        query.bind(queue.as_str()).bind(near_ms).bind(windows_ms)
    });
    let rows = rows.await?;
    let row = rows.first().ok_or_else(codec::corrupt)?;
    let us = get::<i64>(row, 0)?;
    let between = |from_us: i64, to_us: i64| Duration::from_micros(u64::try_from(to_us - from_us).unwrap_or(0));
    let mut stats = QueueStats::default();
    stats.scheduled = count(row, 1)?;
    stats.due = count(row, 2)?;
    stats.in_flight = count(row, 3)?;
    stats.dead = count(row, 4)?;
    stats.oldest_due = get::<Option<i64>>(row, 5)?.map(|ms| between(ms * 1000, us));
    stats.next_due_in = get::<Option<i64>>(row, 6)?.map(|ms| between(us, ms * 1000));
    stats.paused = get(row, 7)?;
    stats.dead_dropped = count(row, 8)?;
    stats.quarantined = count(row, 9)?;
    let within = get::<Vec<i64>>(row, 10)?.into_iter().map(|n| u64::try_from(n).ok()).collect::<Option<Vec<_>>>();
    let within = within.and_then(|within| within.try_into().ok()).ok_or_else(codec::corrupt)?;
    stats.due_within = Some(DueWithin::new(within));
    Ok(stats)
}

/// Queues that hold anything or are paused, and queues with a subscription of this backend.
pub(crate) async fn queues(store: &Store) -> Result<Vec<QueueName>> {
    let mut queues: BTreeSet<QueueName> = store.lifecycle.entered().into_iter().collect();
    for row in store.rows("listing queues", Effect::Read, &store.sql.queues, |query| query).await? {
        // An invalid name is in a row that another program wrote.
        queues.extend(QueueName::new(get::<&str>(&row, 0)?).ok());
    }
    Ok(queues.into_iter().collect())
}
