//! Settles and extends leases: in one statement, which is repeated for rows that another transaction has locked.

use std::sync::Arc;
use std::time::Duration;

use delayline_backend_kit::Answers;
use delayline_backend_kit::codec::id_bytes;
use delayline_backend_kit::times::{DELAY_MAX, micros_ceil};
use delayline_core::{Disposition, Error, ErrorKind, Lease, QueueName, Result};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use tokio::time::sleep;

use crate::codec::{self, get};
use crate::limits::PIECE;
use crate::ops::batch::{nth, parted};
use crate::ops::dead;
use crate::ops::locked::{PAUSES_MS, busy};
use crate::store::Store;
use crate::transport::failure::Effect;
use crate::transport::statement::{Query, inside};

/// A lease and its disposition, in the form that `settle.sql` takes.
#[derive(Clone, Debug)]
struct Item {
    at: usize,
    id: Vec<u8>,
    fence: i64,
    disposition: u8,
    delay_us: Option<i64>,
    reason: Option<Vec<u8>>,
}

impl Item {
    fn of(at: usize, lease: &Lease, disposition: &Disposition) -> Result<Self> {
        // A lost lease takes precedence over a delay out of range, and only the statement knows whether the lease is
        // lost.
        let delay = |after: &Duration| Some(if *after > DELAY_MAX { -1 } else { micros_ceil(*after) });
        let (disposition, delay_us, reason) = match disposition {
            Disposition::Complete => (b'c', None, None),
            Disposition::Retry { after, reason } => (b'r', delay(after), Some(reason)),
            Disposition::Snooze { after } => (b's', delay(after), None),
            Disposition::DeadLetter { reason } => (b'b', None, Some(reason)),
            Disposition::Release => (b'l', None, None),
            _ => return Err(Error::unsupported("this disposition")),
        };
        Ok(Self {
            at,
            id: id_bytes(&lease.id),
            fence: fence_number(lease),
            disposition,
            delay_us,
            reason: reason.map(|reason| reason.as_str().into()),
        })
    }
}

fn fence_number(lease: &Lease) -> i64 {
    i64::try_from(lease.fence).unwrap_or(-1)
}

/// The results for the items of a call.
struct Progress {
    answers: Answers<()>,
    least_ms: Option<i64>,
    dead_lettered: u64,
}

impl Progress {
    fn new(items: usize) -> Self {
        Self { answers: Answers::new(items), least_ms: None, dead_lettered: 0 }
    }

    fn all(&mut self, items: &[Item], e: &Error) {
        items.iter().for_each(|item| self.answers.set(item.at, Err(e.clone())));
    }

    fn fail(&mut self, items: &[Item], e: Error) {
        let places: Vec<_> = items.iter().map(|item| item.at).collect();
        self.answers.fail(&places, e);
    }

    /// Takes the answers of `complete.sql`, and returns the items that were changed in the meantime.
    fn take_completed(&mut self, items: &[Item], rows: &[PgRow]) -> Result<Vec<Item>> {
        self.all(items, &Error::lease_lost());
        let mut again = Vec::new();
        for row in rows {
            let item = nth(items, row)?;
            if get(row, 1)? {
                self.answers.set(item.at, Ok(()));
            } else {
                again.push(item.clone());
            }
        }
        Ok(again)
    }

    /// Takes the answers of `settle.sql`, and returns the items whose rows are locked.
    fn take(&mut self, store: &Store, items: &[Item], rows: &[PgRow]) -> Result<Vec<Item>> {
        self.all(items, &Error::lease_lost());
        let mut locked = Vec::new();
        for row in rows {
            let item = nth(items, row)?;
            let answer = match get::<i32>(row, 1)? {
                0 => Ok(()),
                2 => Err(store.caps.out_of_range()),
                _ => {
                    locked.push(item.clone());
                    Err(busy())
                }
            };
            self.answers.set(item.at, answer);
            if let Some(place) = get::<Option<i64>>(row, 2)? {
                self.least_ms = Some(self.least_ms.map_or(place, |least| least.min(place)));
            }
            self.dead_lettered += u64::from(get::<bool>(row, 3)?);
        }
        Ok(locked)
    }
}

fn bind_completed(query: Query<'static>, queue: &QueueName, items: &[Item]) -> Query<'static> {
    let ids: Vec<&[u8]> = items.iter().map(|item| item.id.as_slice()).collect();
    query.bind(queue.as_str()).bind(ids).bind(items.iter().map(|item| item.fence).collect::<Vec<_>>())
}

fn bind(query: Query<'static>, queue: &QueueName, items: &[Item]) -> Query<'static> {
    bind_completed(query, queue, items)
        .bind(items.iter().map(|item| item.disposition as i8).collect::<Vec<_>>())
        .bind(items.iter().map(|item| item.delay_us).collect::<Vec<_>>())
        .bind(items.iter().map(|item| item.reason.as_deref()).collect::<Vec<_>>())
}

/// Settles leases, each with its disposition.
pub(crate) async fn settle(
    store: &Store,
    queue: &QueueName,
    dispositions: &[(Lease, Disposition)],
) -> Result<Vec<Result<()>>> {
    store.lifecycle.open()?;
    store.caps.check_batch(dispositions.len())?;
    let items = dispositions.iter().enumerate().map(|(at, (lease, how))| Item::of(at, lease, how));
    let items = items.collect::<Result<_>>()?;
    settle_items(store, queue, items, dispositions.len()).await
}

/// Quarantines claimed tasks that can't be decoded, given by their stored ids and their fences.
pub(crate) async fn quarantine(store: &Store, queue: &QueueName, unreadable: Vec<(Vec<u8>, i64)>) -> Result<()> {
    let n = unreadable.len();
    let item = |(at, (id, fence))| Item { at, id, fence, disposition: b'x', delay_us: None, reason: None };
    settle_items(store, queue, unreadable.into_iter().enumerate().map(item).collect(), n).await?;
    let name = queue.clone();
    let trimmed = store.rows("quarantining", Effect::Repeat, &store.sql.aside_trim, move |query| {
        query.bind(name.as_str()).bind(1_000_i64)
    });
    trimmed.await.map(drop)
}

async fn settle_items(store: &Store, queue: &QueueName, items: Vec<Item>, n: usize) -> Result<Vec<Result<()>>> {
    let mut progress = Progress::new(n);
    // If a lease is in the batch twice, the first disposition has ended it before the second, unless the first was
    // refused.
    for part in parted(items, |item| (item.id.clone(), item.fence)) {
        let (mut completed, other): (Vec<_>, Vec<_>) = part.into_iter().partition(|item| item.disposition == b'c');
        // All calls lock rows in the order of their ids.
        completed.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let completed = completed.chunks(PIECE.items).map(|piece| (true, piece.to_vec()));
        for (done, piece) in completed.chain(other.chunks(PIECE.items).map(|piece| (false, piece.to_vec()))) {
            if progress.answers.have_failed() {
                break;
            }
            if done {
                complete_piece(store, queue, piece, &mut progress).await;
            } else {
                settle_piece(store, queue, piece, &mut progress).await;
            }
        }
    }
    store.vacuum.left_dead(n as u64);
    store.placed(queue, progress.least_ms).await;
    dead::dead_lettered(store, queue, progress.dead_lettered).await;
    progress.answers.finish()
}

async fn complete_piece(store: &Store, queue: &QueueName, piece: Vec<Item>, progress: &mut Progress) {
    let items = Arc::new(piece);
    let (bound, queue_of) = (items.clone(), queue.clone());
    let rows = store
        .rows("settling", Effect::Write, &store.sql.complete, move |query| bind_completed(query, &queue_of, &bound));
    match rows.await.and_then(|rows| progress.take_completed(&items, &rows)) {
        Ok(again) if again.is_empty() => {}
        Ok(again) => settle_piece(store, queue, again, progress).await,
        // Another transaction has locked one of the rows: settle the others without it.
        Err(e) if e.kind() == ErrorKind::Busy => settle_piece(store, queue, items.to_vec(), progress).await,
        Err(e) => progress.fail(&items, e),
    }
}

async fn settle_piece(store: &Store, queue: &QueueName, piece: Vec<Item>, progress: &mut Progress) {
    let mut left = Arc::new(piece);
    for pause_ms in PAUSES_MS.into_iter().map(Some).chain([None]) {
        let (bound, queue_of) = (left.clone(), queue.clone());
        let rows =
            store.rows("settling", Effect::Write, &store.sql.settle, move |query| bind(query, &queue_of, &bound));
        left = match rows.await.and_then(|rows| progress.take(store, &left, &rows)) {
            Ok(locked) => Arc::new(locked),
            Err(e) => return progress.fail(&left, e),
        };
        match pause_ms {
            Some(ms) if !left.is_empty() => sleep(Duration::from_millis(ms)).await,
            _ => return,
        }
    }
}

/// Completes tasks in the caller's transaction.
#[cfg_attr(not(any(test, feature = "sqlx-0_9")), allow(dead_code, reason = "only with sqlx's types in public"))]
pub(crate) async fn complete_inside(
    store: &Store,
    connection: &mut PgConnection,
    queue: &QueueName,
    leases: &[Lease],
) -> Result<Vec<Result<()>>> {
    store.lifecycle.open()?;
    store.caps.check_batch(leases.len())?;
    let item = |(at, lease)| Item::of(at, lease, &Disposition::Complete);
    let items = leases.iter().enumerate().map(item).collect::<Result<_>>()?;
    let mut progress = Progress::new(leases.len());
    for mut part in parted(items, |item: &Item| (item.id.clone(), item.fence)) {
        part.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        for piece in part.chunks(PIECE.items) {
            let mut left = piece.to_vec();
            // A row that was changed during the wait is visible to the next statement.
            for _ in 0..PAUSES_MS.len() {
                let sql = &store.sql_inside.complete;
                let rows = inside(connection, sql, &|query| bind_completed(query, queue, &left)).await?;
                left = progress.take_completed(&left, &rows)?;
                if left.is_empty() {
                    break;
                }
            }
            progress.all(&left, &busy());
        }
    }
    progress.answers.finish()
}

/// Extends leases.
pub(crate) async fn extend(
    store: &Store,
    queue: &QueueName,
    leases: Vec<Lease>,
    by: Duration,
) -> Result<Vec<Result<Lease>>> {
    store.lifecycle.open()?;
    store.caps.check_lease(by)?;
    store.caps.check_batch(leases.len())?;
    let mut answers = Answers::new(leases.len());
    let indexes = parted((0..leases.len()).collect(), |&at: &usize| (&leases[at].id, leases[at].fence));
    for part in &indexes {
        for piece in part.chunks(PIECE.items) {
            if !answers.have_failed() {
                extend_piece(store, queue, &leases, piece.to_vec(), by, &mut answers).await;
            }
        }
    }
    store.vacuum.left_dead(leases.len() as u64);
    answers.finish()
}

async fn extend_piece(
    store: &Store,
    queue: &QueueName,
    leases: &[Lease],
    mut left: Vec<usize>,
    by: Duration,
    answers: &mut Answers<Lease>,
) {
    let by_us = micros_ceil(by);
    for pause_ms in PAUSES_MS.into_iter().map(Some).chain([None]) {
        let ids: Vec<_> = left.iter().map(|&at| id_bytes(&leases[at].id)).collect();
        let fences: Vec<_> = left.iter().map(|&at| fence_number(&leases[at])).collect();
        let queue_of = queue.clone();
        let rows = store.rows("extending", Effect::Write, &store.sql.extend, move |query| {
            query.bind(queue_of.as_str()).bind(&ids).bind(&fences).bind(by_us)
        });
        left = match rows.await.and_then(|rows| take_extended(leases, &left, &rows, answers)) {
            Ok(locked) => locked,
            Err(e) => return answers.fail(&left, e),
        };
        match pause_ms {
            Some(ms) if !left.is_empty() => sleep(Duration::from_millis(ms)).await,
            _ => return,
        }
    }
}

/// Takes the answers of `extend.sql`, and returns the leases whose rows are locked.
fn take_extended(
    leases: &[Lease],
    asked: &[usize],
    rows: &[PgRow],
    answers: &mut Answers<Lease>,
) -> Result<Vec<usize>> {
    asked.iter().for_each(|&at| answers.set(at, Err(Error::lease_lost())));
    let mut locked = Vec::new();
    for row in rows {
        let at = *nth(asked, row)?;
        let answer = match get::<Option<i64>>(row, 1)? {
            Some(ends) => {
                let mut lease = leases[at].clone();
                lease.expires_at = codec::millis(ends);
                lease.cancelled = get(row, 2)?;
                Ok(lease)
            }
            None => {
                locked.push(at);
                Err(busy())
            }
        };
        answers.set(at, answer);
    }
    Ok(locked)
}
