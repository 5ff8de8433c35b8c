//! Schedules tasks, split into pieces in which each id occurs once; in the backend's own transactions or in the
//! caller's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use delayline_backend_kit::Answers;
use delayline_backend_kit::codec::id_bytes;
use delayline_backend_kit::times::{DELAY_MAX, micros_ceil};
use delayline_core::{
    Due, Error, ErrorKind, NewTask, OnConflict, QueueName, Result, ScheduleOutcome, Scheduled, TaskId, TaskRef, limits,
};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use tokio::time::Instant;

use crate::codec::{self, due_number, get};
use crate::limits::PIECE;
use crate::notify::channels::message;
use crate::ops::batch::{nth, parted};
use crate::ops::caller::Caller;
use crate::ops::locked::busy;
use crate::store::Store;
use crate::transport::failure::Effect;
use crate::transport::statement::{Query, inside};

/// Maximum number of rounds in which the task that uses an id has ended by the time of the lookup.
const ROUNDS_MAX: usize = 8;

/// Number of tasks that are tried together after a larger batch met a locked row. Then each task is tried alone.
const FEW: usize = 32;

/// Time limit of these tries in one call.
const ALONE_MAX: Duration = Duration::from_secs(5);

/// A task that is being scheduled.
#[derive(Clone)]
struct Item {
    at: usize,
    id: TaskId,
    stored: Vec<u8>,
    due: i64,
    expires: Option<i64>,
    attempts: Option<i16>,
    replaces: bool,
    group: Option<Vec<u8>>,
    headers: Option<Vec<u8>>,
    payload: Bytes,
    seq: Option<i64>,
}

impl Item {
    fn of(store: &Store, at: usize, task: NewTask) -> Result<Self> {
        store.caps.check(&task)?;
        if let Some(Due::After(expires)) = task.expires
            && expires > DELAY_MAX
        {
            return Err(store.caps.out_of_range());
        }
        let replaces = match task.on_conflict {
            OnConflict::Keep => false,
            OnConflict::Replace => task.id.is_some(),
            _ => return Err(Error::unsupported("this conflict policy for ids")),
        };
        let id = task.id.unwrap_or_else(|| store.ids.task_id());
        let attempts = task.attempts_max.get();
        Ok(Self {
            at,
            stored: id_bytes(&id),
            id,
            due: due_number(task.due)?,
            expires: task.expires.map(due_number).transpose()?,
            // At most 10,000.
            attempts: (attempts != limits::ATTEMPTS_DEFAULT).then_some(attempts as i16),
            replaces,
            group: task.group.map(|group| group.as_str().into()),
            headers: codec::headers_bytes(&task.headers),
            payload: task.payload,
            seq: None,
        })
    }

    fn size(&self) -> usize {
        let of = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        64 + self.stored.len() + self.payload.len() + of(&self.group) + of(&self.headers)
    }
}

/// A column of `schedule.sql`; an empty list if no item has a value.
fn column<'i, T>(items: &'i [Item], value: impl Fn(&'i Item) -> Option<T>) -> Vec<Option<T>> {
    let column: Vec<_> = items.iter().map(value).collect();
    if column.iter().all(Option::is_none) { Vec::new() } else { column }
}

fn bind(query: Query<'static>, queue: &QueueName, since_us: i64, items: &[Item]) -> Query<'static> {
    let ids: Vec<&[u8]> = items.iter().map(|item| item.stored.as_slice()).collect();
    let payloads: Vec<&[u8]> = items.iter().map(|item| item.payload.as_ref()).collect();
    query
        .bind(queue.as_str())
        .bind(since_us)
        .bind(micros_ceil(DELAY_MAX))
        .bind(ids)
        .bind(items.iter().map(|item| item.due).collect::<Vec<_>>())
        .bind(column(items, |item| item.expires))
        .bind(column(items, |item| item.attempts))
        .bind(column(items, |item| item.replaces.then_some(true)))
        .bind(column(items, |item| item.group.as_deref()))
        .bind(column(items, |item| item.headers.as_deref()))
        .bind(payloads)
        .bind(column(items, |item| item.seq))
}

/// The progress of a call.
struct Progress {
    answers: Answers<Scheduled>,
    /// The instant of acceptance of the whole call; the first statement sets it.
    since_us: i64,
    /// The earliest time at which a task was placed since the last notification.
    least_ms: Option<i64>,
}

impl Progress {
    /// Takes the answers, and returns the items whose id is in use. The task that uses it must still be looked up.
    fn take(&mut self, store: &Store, items: &[Item], rows: &[PgRow]) -> Result<Vec<Item>> {
        let mut in_use = Vec::new();
        for row in rows {
            let item = nth(items, row)?;
            let (code, seq, place) = (get::<i32>(row, 1)?, get(row, 2)?, get(row, 3)?);
            self.since_us = get(row, 4)?;
            let outcome = match code {
                0 => ScheduleOutcome::Created,
                2 => ScheduleOutcome::Replaced,
                1 => {
                    in_use.push(item.clone());
                    continue;
                }
                3 => {
                    self.answers.set(item.at, Err(store.caps.out_of_range()));
                    continue;
                }
                _ => {
                    let error = Error::new(ErrorKind::Invalid, "the task expires before it is due");
                    self.answers.set(item.at, Err(error));
                    continue;
                }
            };
            self.least_ms = Some(self.least_ms.map_or(place, |least| least.min(place)));
            let task = TaskRef::new(item.id.clone(), codec::millis(place), codec::receipt(seq));
            self.answers.set(item.at, Ok(Scheduled::new(task, outcome)));
        }
        Ok(in_use)
    }

    /// Takes the tasks found under ids in use, and returns the items for which the task has ended in the meantime.
    fn take_existing(&mut self, items: &[Item], rows: &[PgRow]) -> Result<Vec<Item>> {
        for row in rows {
            let item = nth(items, row)?;
            let task = TaskRef::new(item.id.clone(), codec::millis(get(row, 2)?), codec::receipt(get(row, 1)?));
            self.answers.set(item.at, Ok(Scheduled::new(task, ScheduleOutcome::Existing)));
        }
        Ok(items.iter().filter(|item| !self.answers.has(item.at)).cloned().collect())
    }

    /// Answers `Busy` for items that were tried too often.
    fn give_up(&mut self, items: &[Item]) {
        items.iter().for_each(|item| self.answers.set(item.at, Err(busy())));
    }

    fn fail(&mut self, items: &[Item], e: Error) {
        let places: Vec<_> = items.iter().map(|item| item.at).collect();
        self.answers.fail(&places, e);
    }
}

/// The items of a call, and the answers to tasks that can't be sent.
fn items(store: &Store, tasks: Vec<NewTask>) -> Result<(Vec<Item>, Progress)> {
    store.caps.check_batch(tasks.len())?;
    let mut answers = Answers::new(tasks.len());
    let mut items = Vec::with_capacity(tasks.len());
    for (at, task) in tasks.into_iter().enumerate() {
        match Item::of(store, at, task) {
            Ok(item) => items.push(item),
            Err(e) => answers.set(at, Err(e)),
        }
    }
    Ok((items, Progress { answers, since_us: 0, least_ms: None }))
}

fn take_seqs(items: &mut [Item], rows: &[PgRow]) -> Result<()> {
    for (item, row) in items.iter_mut().zip(rows) {
        item.seq = Some(get(row, 0)?);
    }
    Ok(())
}

/// Schedules tasks. Each statement is a transaction.
pub(crate) async fn schedule(
    store: &Store,
    queue: &QueueName,
    tasks: Vec<NewTask>,
    caller: &Caller,
) -> Result<Vec<Result<Scheduled>>> {
    store.lifecycle.open()?;
    let (mut list, mut progress) = items(store, tasks)?;
    // If an id occurs twice in the batch, the second task goes into a later statement, where it finds the first.
    let twice = parted(list.iter().collect(), |item| &item.stored).len() > 1;
    if twice {
        let n = list.len() as i64;
        let seqs = store.rows("scheduling", Effect::Repeat, &store.sql.seqs, move |query| query.bind(n)).await;
        let taken = seqs.and_then(|rows| take_seqs(&mut list, &rows));
        if let Err(e) = taken {
            progress.fail(&[], e);
            return progress.answers.finish();
        }
    }
    let parts = if twice { parted(list, |item| item.stored.clone()) } else { vec![list] };
    for part in parts {
        for piece in PIECE.cut(part, Item::size) {
            if progress.answers.have_failed() {
                break;
            }
            match caller.waits() {
                Ok(()) => schedule_piece(store, queue, piece, &mut progress).await,
                Err(e) => progress.fail(&[], e),
            }
        }
    }
    progress.answers.finish()
}

async fn schedule_piece(store: &Store, queue: &QueueName, piece: Vec<Item>, progress: &mut Progress) {
    match accept(store, queue, &store.sql.schedule, piece, progress).await {
        Err((left, e)) if e.kind() == ErrorKind::Busy => accept_alone(store, queue, &left, progress).await,
        Err((left, e)) => progress.fail(&left, e),
        Ok(()) => {}
    }
    // Also after a partial success, and before returning, because the caller may end the process.
    store.placed(queue, progress.least_ms.take()).await;
}

/// Schedules tasks until each has an answer. An error comes with the tasks that have none.
async fn accept(
    store: &Store,
    queue: &QueueName,
    sql: &Arc<str>,
    list: Vec<Item>,
    progress: &mut Progress,
) -> Result<(), (Arc<Vec<Item>>, Error)> {
    let mut left = Arc::new(list);
    for _ in 0..ROUNDS_MAX {
        let (bound, queue_of, since) = (left.clone(), queue.clone(), progress.since_us);
        let rows = store.rows("scheduling", Effect::Write, sql, move |query| bind(query, &queue_of, since, &bound));
        let in_use = rows.await.and_then(|rows| progress.take(store, &left, &rows)).map_err(|e| (left, e))?;
        if in_use.is_empty() {
            return Ok(());
        }
        let (queue_of, ids) = (queue.clone(), ids(&in_use));
        let rows = store
            .rows("scheduling", Effect::Read, &store.sql.lookup, move |query| query.bind(queue_of.as_str()).bind(&ids));
        // A task that the lookup does not find has ended in the meantime.
        let gone = rows.await.and_then(|rows| progress.take_existing(&in_use, &rows));
        left = Arc::new(gone.map_err(|e| (Arc::new(in_use), e))?);
        if left.is_empty() {
            return Ok(());
        }
    }
    progress.give_up(&left);
    Ok(())
}

fn ids(items: &[Item]) -> Vec<Vec<u8>> {
    items.iter().map(|item| item.stored.clone()).collect()
}

/// Schedules tasks of which at least one waits for another transaction: a few at a time, then one by one, so that only
/// the tasks that conflict with it return `Busy`.
async fn accept_alone(store: &Store, queue: &QueueName, items: &[Item], progress: &mut Progress) {
    let until = Instant::now() + ALONE_MAX;
    let mut lists: Vec<Vec<Item>> = items.chunks(FEW).map(<[Item]>::to_vec).rev().collect();
    if lists.len() == 1 {
        lists = single(lists.remove(0));
    }
    while let Some(list) = lists.pop() {
        if Instant::now() > until {
            progress.give_up(&list);
            continue;
        }
        match accept(store, queue, &store.sql_alone.schedule, list, progress).await {
            Ok(()) => {}
            Err((left, e)) if e.kind() == ErrorKind::Busy && left.len() == 1 => progress.give_up(&left),
            Err((left, e)) if e.kind() == ErrorKind::Busy => lists.extend(single(left.to_vec())),
            Err((left, e)) => return progress.fail(&left, e),
        }
    }
}

fn single(items: Vec<Item>) -> Vec<Vec<Item>> {
    items.into_iter().rev().map(|item| vec![item]).collect()
}

/// Schedules tasks in the caller's transaction, which sends the notification when it commits.
#[cfg_attr(not(any(test, feature = "sqlx-0_9")), allow(dead_code, reason = "only with sqlx's types in public"))]
pub(crate) async fn schedule_inside(
    store: &Store,
    connection: &mut PgConnection,
    queue: &QueueName,
    tasks: Vec<NewTask>,
) -> Result<Vec<Result<Scheduled>>> {
    store.lifecycle.open()?;
    let (mut list, mut progress) = items(store, tasks)?;
    let sql = &store.sql_inside;
    if parted(list.iter().collect(), |item| &item.stored).len() > 1 {
        let n = list.len() as i64;
        take_seqs(&mut list, &inside(connection, &sql.seqs, &move |query| query.bind(n)).await?)?;
    }
    for part in parted(list, |item| item.stored.clone()) {
        for mut left in PIECE.cut(part, Item::size) {
            for round in 0.. {
                let since = progress.since_us;
                let rows = inside(connection, &sql.schedule, &|query| bind(query, queue, since, &left)).await?;
                left = progress.take(store, &left, &rows)?;
                if left.is_empty() {
                    break;
                }
                let ids = ids(&left);
                let rows = inside(connection, &sql.lookup, &|query| query.bind(queue.as_str()).bind(&ids)).await?;
                left = progress.take_existing(&left, &rows)?;
                if left.is_empty() || round == ROUNDS_MAX {
                    progress.give_up(&left);
                    break;
                }
            }
        }
    }
    if let Some(least_ms) = progress.least_ms {
        let (channel, text) = (store.db.schema().channel(queue), message(queue, least_ms));
        let notify = Arc::from("SELECT pg_notify($1, $2)");
        inside(connection, &notify, &|query| query.bind(&channel).bind(&text)).await?;
    }
    progress.answers.finish()
}
