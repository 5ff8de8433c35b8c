//! Changes pending tasks: by id in batches, or a group in batches that can be resumed.

use std::sync::Arc;
use std::time::Duration;

use delayline_backend_kit::Answers;
use delayline_backend_kit::codec::id_bytes;
use delayline_backend_kit::times::{DELAY_MAX, micros_ceil};
use delayline_core::{
    Action, Change, ChangeOutcome, Changed, Due, Error, ErrorKind, GroupName, QueueName, Result, Select, TaskRef,
};
use futures_util::FutureExt;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use tokio::time::sleep;

use crate::codec::{self, due_number, get};
use crate::limits::PIECE;
use crate::ops::batch::parted;
use crate::ops::caller::Caller;
use crate::ops::locked::{PAUSES_MS, busy};
use crate::ops::operation::{Operation, begin, digest};
use crate::store::Store;
use crate::transport::failure::Effect;
use crate::transport::statement::{Query, as_work, query};

/// The arguments that all statements of a change share.
struct Plan<'c> {
    store: &'c Store,
    queue: &'c QueueName,
    action: Action,
    aim: Aim,
    operation: Option<Operation>,
    caller: &'c Caller,
}

pub(crate) async fn change(
    store: &Store,
    queue: &QueueName,
    select: Select,
    change: Change,
    caller: &Caller,
) -> Result<Changed> {
    store.lifecycle.open()?;
    if let Action::MoveTo(due) = change.action {
        check_due(store, due).await?;
    }
    if let Select::Tasks(tasks) = &select {
        store.caps.check_batch(tasks.len())?;
    }
    let aim = Aim::of(change.action)?;
    let operation = match change.operation {
        Some(id) => Some(begin(store, id, digest(queue, &select, change.action)?).await?),
        None => None,
    };
    let plan = Plan { store, queue, action: change.action, aim, operation, caller };
    match select {
        Select::Tasks(tasks) => plan.change_tasks(tasks).await,
        Select::Group(group) => plan.change_group(&group).await,
        _ => Err(Error::unsupported("this selection of tasks")),
    }
}

/// Checks the target of a move, which is the same for all tasks. An instant is checked on the server's clock.
async fn check_due(store: &Store, due: Due) -> Result<()> {
    store.caps.check_delay(due)?;
    if let Due::At(at) = due {
        let ms = at.unix_millis_ceil();
        let sql = "SELECT $1 > extract(epoch FROM clock_timestamp()) * 1000 + $2".into();
        let limit = micros_ceil(DELAY_MAX) / 1000;
        let rows = store.rows("changing", Effect::Read, &sql, move |query| query.bind(ms).bind(limit)).await?;
        if get(rows.first().ok_or_else(codec::corrupt)?, 0)? {
            return Err(store.caps.out_of_range());
        }
    }
    Ok(())
}

/// The action of a change, in the form that the statements take.
#[derive(Clone, Copy)]
struct Aim {
    letter: u8,
    target: i64,
}

impl Aim {
    fn of(action: Action) -> Result<Self> {
        let (letter, target) = match action {
            Action::Cancel => (b'c', 0),
            Action::MoveTo(due) => (b'm', due_number(due)?),
            // A shift out of range is passed on as it is; the statement refuses it.
            Action::Shift(by) => (b's', by.as_millis()),
            _ => return Err(Error::unsupported("this change")),
        };
        Ok(Self { letter, target: target.min(1 << 52) })
    }

    fn bind(self, query: Query<'static>) -> Query<'static> {
        query.bind(self.letter as i8).bind(self.target).bind(micros_ceil(DELAY_MAX))
    }
}

/// The answers of one piece (batch of tasks): a letter for each task.
struct PieceAnswers {
    letters: Vec<u8>,
    least_ms: Option<i64>,
}

const CHANGED: u8 = b'0';
const IN_FLIGHT: u8 = b'1';
const NOT_FOUND: u8 = b'2';
const REFUSED: u8 = b'3';
const LOCKED: u8 = b'5';

/// Pauses before a locked member of a group is tried again, in milliseconds. Together they are longer than a busy
/// server takes to commit a claim or a settlement, so that those do not make a group change fail.
const LONG_PAUSES_MS: [u64; 12] = [2, 5, 10, 20, 40, 80, 160, 320, 640, 640, 640, 640];

/// Maximum number of members that stay locked for which a change waits that long.
const LONG_WAITS_MAX: u32 = 3;

/// One piece of a change of tasks. It is run again while some of its rows are locked.
struct Piece {
    queue: QueueName,
    sql: Arc<str>,
    named: bool,
    aim: Aim,
    ids: Vec<Vec<u8>>,
    seqs: Vec<Option<i64>>,
}

impl Piece {
    /// Changes the tasks that have no answer yet.
    async fn run(&self, connection: &mut PgConnection, answers: &mut PieceAnswers) -> sqlx::Result<()> {
        let left: Vec<usize> = (0..self.ids.len()).filter(|&at| answers.letters[at] == LOCKED).collect();
        if left.is_empty() {
            return Ok(());
        }
        let ids: Vec<&[u8]> = left.iter().map(|&at| self.ids[at].as_slice()).collect();
        let seqs: Vec<_> = left.iter().map(|&at| self.seqs[at]).collect();
        let bind = |query: Query<'static>| {
            self.aim.bind(query.bind(self.queue.as_str()).bind(ids.as_slice()).bind(seqs.as_slice()))
        };
        for row in query(&self.sql, self.named, &bind).fetch_all(connection).await? {
            answers.take(&left, &row)?;
        }
        Ok(())
    }
}

impl PieceAnswers {
    fn take(&mut self, asked: &[usize], row: &PgRow) -> sqlx::Result<()> {
        use sqlx::Row as _;
        let (n, code, place): (i64, i32, Option<i64>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let Some(&at) = usize::try_from(n - 1).ok().and_then(|nth| asked.get(nth)) else {
            return Err(sqlx::Error::Decode("a row names no task of the statement".into()));
        };
        self.letters[at] = b'0' + code as u8;
        if let Some(place) = place {
            self.least_ms = Some(self.least_ms.map_or(place, |least| least.min(place)));
        }
        Ok(())
    }
}

impl Plan<'_> {
    async fn change_tasks(&self, tasks: Vec<TaskRef>) -> Result<Changed> {
        let mut answers = Answers::new(tasks.len());
        let mut number = 0;
        // If a task is in the list twice, the second change applies to the result of the first.
        for part in parted((0..tasks.len()).collect(), |&at: &usize| &tasks[at].id) {
            for piece in part.chunks(PIECE.items) {
                if answers.have_failed() {
                    break;
                }
                match self.caller.waits() {
                    Ok(()) => {
                        let letters = self.change_piece(number, piece, &tasks).await;
                        let outcome = |letter| self.outcome(letter);
                        answers.piece(piece, letters.map(|letters| letters.into_iter().map(outcome).collect()));
                    }
                    Err(e) => answers.fail(&[], e),
                }
                number += 1;
            }
        }
        let mut changed = Changed::default();
        let outcomes = answers.finish()?;
        outcomes.iter().for_each(|outcome| changed.count(outcome));
        changed.outcomes = outcomes;
        Ok(changed)
    }

    fn outcome(&self, letter: u8) -> Result<ChangeOutcome> {
        match letter {
            CHANGED => Ok(ChangeOutcome::Changed),
            IN_FLIGHT => Ok(ChangeOutcome::InFlight),
            NOT_FOUND => Ok(ChangeOutcome::NotFound),
            REFUSED => Err(self.store.caps.out_of_range()),
            _ => Err(busy()),
        }
    }

    async fn change_piece(&self, number: i32, piece: &[usize], tasks: &[TaskRef]) -> Result<Vec<u8>> {
        let store = self.store;
        let piece = Arc::new(Piece {
            queue: self.queue.clone(),
            sql: store.sql.change_tasks.clone(),
            named: store.db.named(),
            aim: self.aim,
            ids: piece.iter().map(|&at| id_bytes(&tasks[at].id)).collect(),
            seqs: piece.iter().map(|&at| codec::seq_of(&tasks[at].receipt)).collect(),
        });
        let mut letters = vec![LOCKED; piece.ids.len()];
        for pause_ms in PAUSES_MS.into_iter().map(Some).chain([None]) {
            let answers = match &self.operation {
                None => self.run_piece(piece.clone(), letters).await,
                Some(operation) => self.run_noted(piece.clone(), operation.clone(), number).await,
            };
            let answers = answers?;
            letters = answers.letters;
            store.vacuum.left_dead(letters.iter().filter(|&&letter| letter == CHANGED).count() as u64);
            store.placed(self.queue, answers.least_ms).await;
            match pause_ms {
                Some(ms) if letters.contains(&LOCKED) => sleep(Duration::from_millis(ms)).await,
                _ => break,
            }
        }
        Ok(letters)
    }

    async fn run_piece(&self, piece: Arc<Piece>, letters: Vec<u8>) -> Result<PieceAnswers> {
        let work = as_work(move |connection| {
            let (piece, mut answers) = (piece.clone(), PieceAnswers { letters: letters.clone(), least_ms: None });
            async move { piece.run(connection, &mut answers).await.map(|()| answers) }.boxed()
        });
        self.store.db.run("changing", Effect::Write, work).await
    }

    /// The same, and stores the answers in the same transaction. A repeated change returns the stored answers.
    async fn run_noted(&self, piece: Arc<Piece>, operation: Operation, number: i32) -> Result<PieceAnswers> {
        let store = self.store;
        let (find, note) = (store.sql.operation_begin.clone(), store.sql.operation_note.clone());
        let work = as_work(move |connection| {
            let (piece, operation, find, note) = (piece.clone(), operation.clone(), find.clone(), note.clone());
            let work = async move { run_noted(connection, &piece, &operation, number, &find, &note).await };
            work.boxed()
        });
        let answers = store.db.transact("changing", Effect::Write, work).await?;
        answers.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "this operation id was used for a different change: use a new id")
        })
    }

    async fn change_group(&self, group: &GroupName) -> Result<Changed> {
        let mut tally = Tally::default();
        if self.operation.is_none() {
            tally.until = Some(self.last_seq().await?);
        }
        let until = match tally.until {
            Some(until) => until,
            None => self.last_seq().await?,
        };
        let mut any = false;
        // A row that stays locked is counted as refused and skipped in the end.
        let mut tries = 0;
        let (mut pass, mut passed) = (None, 0);
        loop {
            self.caller.waits()?;
            let step = match self.step(group, tally, until, pass).await {
                Ok(step) => step,
                Err(e) if any => return Err(in_part(&e)),
                Err(e) => return Err(e),
            };
            any = true;
            tally = step.tally;
            self.store.vacuum.left_dead(step.looked);
            self.store.placed(self.queue, step.least_ms).await;
            pass = None;
            match step.blocker {
                None if step.looked < PIECE.items as u64 => break,
                None => tries = 0,
                Some(seq) => {
                    tries = if step.moved_on { 0 } else { tries + 1 };
                    // If other transactions keep many rows locked, only the first few get the long wait.
                    let patience = if passed < LONG_WAITS_MAX { &LONG_PAUSES_MS } else { &PAUSES_MS[..] };
                    match patience.get(tries) {
                        Some(ms) => sleep(Duration::from_millis(*ms)).await,
                        None => (pass, passed, tries) = (Some(seq), passed + 1, 0),
                    }
                }
            }
        }
        let mut changed = Changed::default();
        changed.changed = tally.counts[0] as u64;
        changed.in_flight = tally.counts[1] as u64;
        changed.not_found = tally.counts[2] as u64;
        changed.refused = tally.counts[3] as u64;
        if changed.refused > 0 {
            changed.first_refusal = Some(match self.action {
                Action::Shift(_) if passed == 0 => self.store.caps.out_of_range(),
                _ => busy(),
            });
        }
        Ok(changed)
    }

    /// The last assigned seq: tasks that are scheduled from now on have a higher one.
    async fn last_seq(&self) -> Result<i64> {
        let rows = self.store.rows("changing", Effect::Repeat, &self.store.sql.seqs, |query| query.bind(1_i64));
        get(rows.await?.first().ok_or_else(codec::corrupt)?, 0)
    }

    /// Changes the next members of a group.
    async fn step(&self, group: &GroupName, tally: Tally, until: i64, pass: Option<i64>) -> Result<Step> {
        let store = self.store;
        let chunk = Arc::new(Chunk {
            queue: self.queue.clone(),
            group: group.as_str().into(),
            aim: self.aim,
            sql: store.sql.change_group.clone(),
            find: store.sql.operation_begin.clone(),
            note: store.sql.operation_note.clone(),
            named: store.db.named(),
            operation: self.operation.clone(),
            until,
            pass,
        });
        let noted = self.operation.is_some();
        let work = as_work(move |connection| {
            let chunk = chunk.clone();
            async move { chunk.run(connection, tally).await }.boxed()
        });
        let step = if noted {
            store.db.transact("changing a group", Effect::Write, work).await?
        } else {
            store.db.run("changing a group", Effect::Write, work).await?
        };
        step.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "this operation id was used for a different change: use a new id")
        })
    }
}

async fn run_noted(
    connection: &mut PgConnection,
    piece: &Piece,
    operation: &Operation,
    number: i32,
    find: &Arc<str>,
    note: &Arc<str>,
) -> sqlx::Result<Option<PieceAnswers>> {
    use sqlx::Row as _;
    let found = query(find, piece.named, &|query| operation.bind(query, number));
    let Some(found) = found.fetch_optional(&mut *connection).await? else { return Ok(None) };
    let known: Option<Vec<u8>> = found.try_get(6)?;
    let letters = known.filter(|known| known.len() == piece.ids.len()).unwrap_or_else(|| vec![LOCKED; piece.ids.len()]);
    let mut answers = PieceAnswers { letters, least_ms: None };
    piece.run(connection, &mut answers).await?;
    let bind = |query: Query<'static>| {
        let query = query.bind(operation.id).bind(number).bind(None::<i64>).bind(None::<i64>);
        query.bind(0_i64).bind(0_i64).bind(0_i64).bind(0_i64).bind(answers.letters.as_slice())
    };
    query(note, piece.named, &bind).execute(connection).await?;
    Ok(Some(answers))
}

/// The progress of a group change.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// The last seq that belongs to the change.
    until: Option<i64>,
    after: i64,
    /// Numbers of changed, in flight, not found and refused members.
    counts: [i64; 4],
}

/// The result of one statement on a group.
struct Step {
    tally: Tally,
    looked: u64,
    blocker: Option<i64>,
    moved_on: bool,
    least_ms: Option<i64>,
}

struct Chunk {
    queue: QueueName,
    group: Vec<u8>,
    aim: Aim,
    sql: Arc<str>,
    find: Arc<str>,
    note: Arc<str>,
    named: bool,
    operation: Option<Operation>,
    until: i64,
    /// A member to refuse, because it stays locked.
    pass: Option<i64>,
}

impl Chunk {
    /// Changes the next members. With an operation id, the stored progress replaces `tally`. Returns `None` if the
    /// operation id was used for a different change.
    async fn run(&self, connection: &mut PgConnection, mut tally: Tally) -> sqlx::Result<Option<Step>> {
        use sqlx::Row as _;
        if let Some(operation) = &self.operation {
            let found = query(&self.find, self.named, &|query| operation.bind(query, 0));
            let Some(row) = found.fetch_optional(&mut *connection).await? else { return Ok(None) };
            let after = row.try_get::<Option<i64>, _>(1)?.unwrap_or(0);
            let counts = [row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?];
            tally = Tally { until: row.try_get(0)?, after, counts };
        }
        let until = *tally.until.get_or_insert(self.until);
        let before = tally.after;
        // Another caller of the same operation may have skipped it in the meantime.
        if let Some(pass) = self.pass.filter(|pass| *pass > tally.after) {
            tally.after = pass;
            tally.counts[3] += 1;
        }
        let after = tally.after;
        let bind = |query: Query<'static>| {
            let query = query.bind(self.queue.as_str()).bind(self.group.as_slice()).bind(PIECE.items as i64);
            self.aim.bind(query).bind(until).bind(after)
        };
        let row = query(&self.sql, self.named, &bind).fetch_one(&mut *connection).await?;
        tally.after = row.try_get::<Option<i64>, _>(1)?.unwrap_or(after);
        for (nth, total) in tally.counts.iter_mut().enumerate() {
            *total += row.try_get::<i64, _>(3 + nth)?;
        }
        if let Some(operation) = &self.operation {
            let bind = |query: Query<'static>| {
                let query = query.bind(operation.id).bind(0_i32).bind(until).bind(tally.after);
                tally.counts.iter().fold(query, |query, n| query.bind(*n)).bind(None::<Vec<u8>>)
            };
            query(&self.note, self.named, &bind).execute(connection).await?;
        }
        Ok(Some(Step {
            tally,
            looked: row.try_get::<i64, _>(0)? as u64,
            blocker: row.try_get(2)?,
            moved_on: tally.after > before,
            least_ms: row.try_get(7)?,
        }))
    }
}

/// The error of a change that failed after it had changed a part of the group.
fn in_part(e: &Error) -> Error {
    Error::new(ErrorKind::Ambiguous, format!("the change failed after it had changed a part of the group: {e}"))
}
