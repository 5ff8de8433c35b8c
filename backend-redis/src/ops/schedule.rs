//! Schedules tasks: splits a batch into script calls by shard and size.

use std::collections::HashSet;

use delayline_backend_kit::Answers;
use delayline_backend_kit::codec::push_id;
use delayline_backend_kit::times::{DELAY_MAX, millis};
use delayline_core::{
    Due, Error, ErrorKind, NewTask, OnConflict, QueueName, Result, ScheduleOutcome, Scheduled, TaskId, TaskRef,
};

use crate::codec::{self, due_text, receipt, text};
use crate::limits::PIECE;
use crate::store::Store;
use crate::transport::{Reply, answered, unreadable};
use crate::{keys, scripts};

/// A task that is being scheduled.
struct Item {
    at: usize,
    id: TaskId,
    args: Vec<Vec<u8>>,
}

impl Store {
    pub(crate) async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.lifecycle.open()?;
        self.caps.check_batch(tasks.len())?;
        let mut answers = Answers::new(tasks.len());
        let mut items = Vec::with_capacity(tasks.len());
        for (at, task) in tasks.into_iter().enumerate() {
            match self.item(at, task) {
                Ok(item) => items.push(item),
                Err(e) => answers.set(at, Err(e)),
            }
        }
        let mut since = 0;
        for (shard, list) in self.split(items) {
            for piece in PIECE.cut(list, |item: &Item| item.args.iter().map(Vec::len).sum()) {
                if !answers.have_failed() {
                    self.schedule_piece(queue, shard, piece, &mut since, &mut answers).await;
                }
            }
        }
        answers.finish()
    }

    fn item(&self, at: usize, task: NewTask) -> Result<Item> {
        self.caps.check(&task)?;
        if let Some(Due::After(expires)) = task.expires
            && expires > DELAY_MAX
        {
            return Err(self.caps.out_of_range());
        }
        let (flags, record, body) = codec::written(&task);
        let mut due = due_text(task.due)?;
        if let Some(expires) = task.expires {
            due.push(b' ');
            due.extend(due_text(expires)?);
        }
        let (kind, id) = match (task.id, task.on_conflict) {
            (None, _) => (b'N', self.ids.task_id()),
            (Some(id), OnConflict::Keep) => (b'K', id),
            (Some(id), OnConflict::Replace) => (b'R', id),
            _ => return Err(Error::unsupported("this conflict policy for ids")),
        };
        let mut head = vec![kind, flags];
        push_id(&mut head, &id);
        let mut args = Vec::with_capacity(4);
        args.extend([head, due, record]);
        args.extend(body);
        Ok(Item { at, id, args })
    }

    /// Groups the items by shard.
    fn split(&self, items: Vec<Item>) -> Vec<(u32, Vec<Item>)> {
        let shards = self.config.shards;
        let mut lists: Vec<(u32, Vec<Item>)> = (0..shards).map(|number| (number, Vec::new())).collect();
        for item in items {
            lists[keys::shard_of(&item.id, shards) as usize].1.push(item);
        }
        lists
    }

    /// Schedules a part of the batch. `since` is the instant of acceptance of the whole call; the first part sets it.
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
        let read = |mut reply: Reply| ids.into_iter().map(|id| self.scheduled(&mut reply, number, id)).collect();
        answers.piece(&places, answered(reply, read));
    }

    /// Reads the result for one task.
    fn scheduled(&self, reply: &mut Reply, shard: u32, id: TaskId) -> Result<Result<Scheduled>> {
        let (outcome, seq, place) = (reply.number()?, reply.number()?, reply.number()?);
        let outcome = match outcome {
            0 => ScheduleOutcome::Created,
            1 => ScheduleOutcome::Existing,
            2 => ScheduleOutcome::Replaced,
            3 => return Ok(Err(self.caps.out_of_range())),
            4 => return Ok(Err(Error::new(ErrorKind::Invalid, "the task expires before it is due"))),
            5 => return Ok(Err(Error::new(ErrorKind::Full, "Redis is out of memory (`maxmemory`)"))),
            _ => return Err(unreadable()),
        };
        Ok(Ok(Scheduled::new(TaskRef::new(id, millis(place), receipt(shard, seq)), outcome)))
    }
}
