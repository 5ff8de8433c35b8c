//! The trait on Redis: each method checks its arguments, cuts the batch into scripts, and puts the answers together.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    AdminOp, Capabilities, Change, Changed, DeadLetterOp, DeadLetters, DelayBackend, Due, Error, ErrorKind, Intake,
    IntakeOptions, Lease, NewTask, OnConflict, Outcome, Page, QueueName, QueueStats, Receipt, Result, Scheduled,
    Select, TaskId, TaskRef, TaskView, Verdict,
};

use crate::answers::Answers;
use crate::bells::Bells;
use crate::config::SHARDS_MAX;
use crate::connection::Connection;
use crate::intake::RedisIntake;
use crate::reply::{Reply, unreadable};
use crate::shared::{DELAY_MAX, PIECE, Shared, micros_ceil, pieces, text};
use crate::{RedisConfig, change, dead, keys, look, record, scripts, start};

/// A delay queue in Redis, shared by every process that connects to it.
///
/// Sharing it within a process is done in an `Arc`.
#[derive(Debug)]
pub struct RedisBackend {
    shared: Arc<Shared>,
}

impl RedisBackend {
    /// Connects, and checks that the server can keep what this backend promises.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), [`Denied`](ErrorKind::Denied), [`Incompatible`](ErrorKind::Incompatible),
    /// [`Unavailable`](ErrorKind::Unavailable): each says what to do.
    pub async fn connect(config: RedisConfig) -> Result<Self> {
        config.check()?;
        let connection = Connection::new(&config)?;
        start::check(&connection, &config).await?;
        let bells = Bells::new(&config, connection.troubles())?;
        Ok(Self { shared: Arc::new(Shared::new(connection, bells, config)) })
    }
}

/// A task that is being scheduled.
struct Item {
    at: usize,
    id: TaskId,
    args: Vec<Vec<u8>>,
}

/// A due time as `place_of` in `common.lua` reads it.
pub(crate) fn due_text(due: Due) -> Vec<u8> {
    match due {
        Due::After(delay) => text(micros_ceil(delay)),
        // Beyond the largest delay is beyond, however far.
        Due::At(at) => format!("@{}", at.unix_millis_ceil().clamp(0, 1 << 52)).into_bytes(),
    }
}

/// The store's own note on a task: its shard, and its sequence there.
pub(crate) fn receipt(shard: u32, seq: u64) -> Receipt {
    Receipt::from_words([u64::from(shard), seq])
}

/// What a receipt says: the sequence, nothing if there is none, and `Err` if it is not ours.
pub(crate) fn seq_of(receipt: &Receipt) -> Result<Option<u64>, ()> {
    match receipt.words() {
        Some([shard, seq]) if shard < u64::from(SHARDS_MAX) => Ok(Some(seq)),
        None if *receipt == Receipt::NONE => Ok(None),
        _ => Err(()),
    }
}

impl Shared {
    fn item(&self, at: usize, task: NewTask) -> Result<Item> {
        self.caps.check(&task)?;
        if let Some(Due::After(expires)) = task.expires
            && expires > DELAY_MAX
        {
            return Err(self.caps.out_of_range());
        }
        let (flags, record, body) = record::written(&task);
        let mut due = due_text(task.due);
        if let Some(expires) = task.expires {
            due.push(b' ');
            due.extend(due_text(expires));
        }
        let (kind, id) = match task.id {
            None => (b'N', self.fresh_id()),
            Some(id) if task.on_conflict == OnConflict::Replace => (b'R', id),
            Some(id) => (b'K', id),
        };
        let mut head = vec![kind, flags];
        record::push_id(&mut head, &id);
        let mut args = Vec::with_capacity(4);
        args.extend([head, due, record]);
        args.extend(body);
        Ok(Item { at, id, args })
    }

    /// The items by the shard that each belongs to.
    fn split(&self, items: Vec<Item>) -> Vec<(u32, Vec<Item>)> {
        let shards = self.config.shards;
        let mut lists: Vec<(u32, Vec<Item>)> = (0..shards).map(|number| (number, Vec::new())).collect();
        for item in items {
            lists[keys::shard_of(&item.id, shards) as usize].1.push(item);
        }
        lists
    }

    /// Schedules a piece; `since` is the instant of acceptance of the whole call, once there is one.
    async fn schedule_piece(
        &self,
        queue: &QueueName,
        number: u32,
        piece: Vec<Item>,
        since: &mut u64,
        answers: &mut Answers<Scheduled>,
    ) {
        let shard = self.shard(queue, number);
        let mut args = self.args(&shard, 3 + 4 * piece.len());
        args.push(text(*since));
        args.push(text(DELAY_MAX.as_millis()));
        let mut named = HashSet::new();
        let twice = piece.iter().any(|item| item.args[0][0] != b'N' && !named.insert(&item.id));
        args.push(text(u8::from(twice)));
        let (mut places, mut ids) = (Vec::with_capacity(piece.len()), Vec::with_capacity(piece.len()));
        for item in piece {
            args.extend(item.args);
            places.push(item.at);
            ids.push(item.id);
        }
        let reply = self.run(&scripts::SCHEDULE, &shard, None, args).await;
        if let (0, Ok(reply)) = (*since, &reply) {
            *since = reply.now_us;
        }
        answers.piece(&places, reply, |mut reply| {
            ids.into_iter().map(|id| self.scheduled(&mut reply, number, id)).collect()
        });
    }

    /// Reads what became of one task.
    fn scheduled(&self, reply: &mut Reply, shard: u32, id: TaskId) -> Result<Result<Scheduled>> {
        let (outcome, seq, place) = (reply.number()?, reply.number()?, reply.number()?);
        let outcome = match outcome {
            0 => Outcome::Created,
            1 => Outcome::Existing,
            2 => Outcome::Replaced,
            3 => return Ok(Err(self.caps.out_of_range())),
            4 => return Ok(Err(Error::new(ErrorKind::Invalid, "the task expires before it is due"))),
            5 => return Ok(Err(Error::new(ErrorKind::Full, "Redis is out of memory (`maxmemory`)"))),
            _ => return Err(unreadable()),
        };
        Ok(Ok(Scheduled::new(TaskRef::new(id, record::millis(place), receipt(shard, seq)), outcome)))
    }

    /// Ends leases, each with its verdict.
    pub(crate) async fn settle(&self, queue: &QueueName, verdicts: &[(Lease, Verdict)]) -> Result<Vec<Result<()>>> {
        let mut answers = Answers::new(verdicts.len());
        for (shard, list) in self.by_shard(verdicts.iter().map(|(lease, _)| &lease.id)) {
            let shard = self.shard(queue, shard);
            for piece in list.chunks(PIECE) {
                if answers.have_failed() {
                    break;
                }
                let mut args = self.args(&shard, 2 * piece.len());
                piece.iter().for_each(|&at| push_verdict(&mut args, &verdicts[at].0, &verdicts[at].1));
                let reply = self.run(&scripts::SETTLE, &shard, None, args).await;
                answers.piece(piece, reply, |mut reply| {
                    let answer = |code| match code {
                        b'0' => Ok(Ok(())),
                        b'1' => Ok(Err(Error::lease_lost())),
                        b'2' => Ok(Err(self.caps.out_of_range())),
                        _ => Err(unreadable()),
                    };
                    reply.bytes()?.into_iter().map(answer).collect()
                });
            }
        }
        answers.finish()
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        let mut answers = Answers::new(leases.len());
        for (shard, list) in self.by_shard(leases.iter().map(|lease| &lease.id)) {
            let shard = self.shard(queue, shard);
            for piece in list.chunks(PIECE) {
                if answers.have_failed() {
                    break;
                }
                let mut args = self.args(&shard, 1 + 2 * piece.len());
                args.push(text(micros_ceil(by)));
                for &at in piece {
                    args.push(record::number_bytes(leases[at].fence).to_vec());
                    args.push(record::id_bytes(&leases[at].id));
                }
                let reply = self.run(&scripts::EXTEND, &shard, None, args).await;
                answers.piece(piece, reply, |mut reply| {
                    piece.iter().map(|&at| extended(&mut reply, &leases[at])).collect()
                });
            }
        }
        answers.finish()
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        for shard in self.shards(queue) {
            let mut args = self.args(&shard, 1);
            let script = match op {
                AdminOp::Pause | AdminOp::Resume => {
                    args.push(text(u8::from(op == AdminOp::Pause)));
                    &scripts::PAUSE
                }
                AdminOp::Delete => &scripts::DELETE,
                _ => return Err(Error::unsupported("this operation on a queue")),
            };
            self.run(script, &shard, None, args).await?;
        }
        Ok(())
    }
}

/// Adds a lease and its verdict as `settle.lua` reads them.
fn push_verdict(args: &mut Vec<Vec<u8>>, lease: &Lease, verdict: &Verdict) {
    let letter = match verdict {
        Verdict::Complete => b'c',
        Verdict::Retry { .. } => b'r',
        Verdict::Snooze { .. } => b's',
        Verdict::Bury { .. } => b'b',
        Verdict::Release => b'l',
    };
    let mut head = Vec::with_capacity(8);
    head.push(letter);
    head.extend(record::number_bytes(lease.fence));
    args.push(head);
    args.push(record::id_bytes(&lease.id));
    // Whether the lease is lost comes before whether the delay is possible, and only the script knows.
    let delay = |after: &Duration| if *after > DELAY_MAX { text("-1") } else { text(micros_ceil(*after)) };
    match verdict {
        Verdict::Complete | Verdict::Release => {}
        Verdict::Retry { after, reason } => args.extend([delay(after), reason.as_str().into()]),
        Verdict::Snooze { after } => args.push(delay(after)),
        Verdict::Bury { reason } => args.push(reason.as_str().into()),
    }
}

/// Reads what became of one lease.
fn extended(reply: &mut Reply, lease: &Lease) -> Result<Result<Lease>> {
    let (ends, cancelled) = (reply.int()?, reply.int()? == 1);
    let Ok(ends) = u64::try_from(ends) else { return Ok(Err(Error::lease_lost())) };
    let mut lease = lease.clone();
    lease.expires_at = record::millis(ends);
    lease.cancelled = cancelled;
    Ok(Ok(lease))
}

#[async_trait]
impl DelayBackend for RedisBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.shared.open()?;
        self.shared.caps.check_batch(tasks.len())?;
        let mut answers = Answers::new(tasks.len());
        let mut items = Vec::with_capacity(tasks.len());
        for (at, task) in tasks.into_iter().enumerate() {
            match self.shared.item(at, task) {
                Ok(item) => items.push(item),
                Err(e) => answers.refuse(at, e),
            }
        }
        let mut since = 0;
        for (shard, list) in self.shared.split(items) {
            for piece in pieces(list, |item: &Item| item.args.iter().map(Vec::len).sum()) {
                if !answers.have_failed() {
                    self.shared.schedule_piece(queue, shard, piece, &mut since, &mut answers).await;
                }
            }
        }
        answers.finish()
    }

    async fn intake(&self, queue: &QueueName, options: IntakeOptions) -> Result<Box<dyn Intake>> {
        self.shared.open()?;
        Ok(Box::new(RedisIntake::open(self.shared.clone(), queue, options)))
    }

    async fn settle(&self, queue: &QueueName, verdicts: Vec<(Lease, Verdict)>) -> Result<Vec<Result<()>>> {
        self.shared.open()?;
        self.shared.caps.check_batch(verdicts.len())?;
        self.shared.settle(queue, &verdicts).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.shared.open()?;
        self.shared.caps.check_lease(by)?;
        self.shared.caps.check_batch(leases.len())?;
        self.shared.extend(queue, leases, by).await
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        self.shared.open()?;
        change::change(&self.shared, queue, select, change).await
    }

    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        look::find(&self.shared, queue, id).await
    }

    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        look::list(&self.shared, queue, page).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.shared.open()?;
        dead::operate(&self.shared, queue, op).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        look::stats(&self.shared, queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.shared.open()?;
        look::queues(&self.shared).await
    }

    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.shared.open()?;
        self.shared.administer(queue, op).await
    }

    async fn ping(&self) -> Result<()> {
        self.shared.open()?;
        self.shared.connection.read("PING", &redis::cmd("PING")).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        self.shared.set_closed();
        // The sleepers first: what they then ask is refused.
        self.shared.bells.close().await;
        self.shared.connection.close().await;
        Ok(())
    }
}
