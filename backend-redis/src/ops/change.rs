//! Changes pending tasks: by id in batches, or a group in batches that can be resumed.

use delayline_backend_kit::Answers;
use delayline_backend_kit::codec::id_bytes;
use delayline_backend_kit::times::DELAY_MAX;
use delayline_core::{
    Action, Change, ChangeOutcome, Changed, Error, ErrorKind, GroupName, OperationId, QueueName, Result, Select,
    TaskRef,
};
use redis::Value;

use crate::codec::{corrupt, due_text, number_bytes, seq_of, text};
use crate::keys::{self, Digest, Shard};
use crate::limits::PIECE;
use crate::scripts;
use crate::store::Store;
use crate::transport::{Reply, answered, unreadable};

/// Maximum number of group members changed by one script call.
const GROUP_PIECE: usize = 500;

/// The arguments that all script calls of a change share.
struct Plan<'c> {
    store: &'c Store,
    queue: &'c QueueName,
    aim: Aim,
    /// The operation id and the digest of the whole change.
    operation: Option<(OperationId, Vec<u8>)>,
}

/// The action of a change, in the form that the scripts read.
struct Aim {
    letter: &'static str,
    target: Vec<u8>,
}

impl Aim {
    fn of(action: Action) -> Result<Self> {
        let (letter, target) = match action {
            Action::Cancel => ("c", Vec::new()),
            Action::MoveTo(due) => ("m", due_text(due)?),
            // A shift out of range is passed on as it is; the script refuses it.
            Action::Shift(by) => ("s", text(by.as_millis())),
            _ => return Err(Error::unsupported("this change")),
        };
        Ok(Self { letter, target })
    }
}

pub(crate) async fn change(store: &Store, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
    store.lifecycle.open()?;
    if let Action::MoveTo(due) = change.action {
        store.caps.check_delay(due)?;
    }
    if let Select::Tasks(tasks) = &select {
        store.caps.check_batch(tasks.len())?;
    }
    let aim = Aim::of(change.action)?;
    let operation = match change.operation {
        Some(id) => Some((id, begin(store, id, digest(queue, &select, change.action)?).await?)),
        None => None,
    };
    let plan = Plan { store, queue, aim, operation };
    match select {
        Select::Tasks(tasks) => plan.change_tasks(&tasks).await,
        Select::Group(group) => plan.change_group(&group).await,
        _ => Err(unknown_selection()),
    }
}

/// Records which change an operation id stands for.
async fn begin(store: &Store, id: OperationId, digest: Vec<u8>) -> Result<Vec<u8>> {
    let key = keys::operation_key(&store.config.key_prefix, id);
    let args = vec![digest.clone(), text(store.config.operation_window.as_millis())];
    match store.connection.eval(&scripts::OPERATION, &[&key], args).await? {
        Value::Int(1) => Ok(digest),
        Value::Int(0) => Err(Error::new(
            ErrorKind::Invalid,
            format!("operation id {id} was used for a different change: use a new id"),
        )),
        _ => Err(corrupt()),
    }
}

fn unknown_selection() -> Error {
    Error::unsupported("this selection of tasks")
}

fn digest(queue: &QueueName, select: &Select, action: Action) -> Result<Vec<u8>> {
    let mut digest = Digest::default();
    digest.add(queue.as_str().as_bytes());
    digest.add(format!("{action:?}").as_bytes());
    match select {
        Select::Group(group) => {
            digest.add(b"group");
            digest.add(group.as_str().as_bytes());
        }
        Select::Tasks(tasks) => {
            digest.add(b"tasks");
            for task in tasks {
                digest.add(&id_bytes(&task.id));
                digest.add(&task.receipt.to_vec());
            }
        }
        _ => return Err(unknown_selection()),
    }
    Ok(digest.value().to_be_bytes().to_vec())
}

impl Plan<'_> {
    fn args(&self, shard: &Shard, capacity: usize) -> Vec<Vec<u8>> {
        let mut args = self.store.args(shard, 5 + capacity);
        args.extend([text(self.aim.letter), self.aim.target.clone(), text(DELAY_MAX.as_millis())]);
        args.push(self.operation.as_ref().map(|(_, digest)| digest.clone()).unwrap_or_default());
        args.push(text(self.store.config.operation_window.as_millis()));
        args
    }

    fn own_key(&self, shard: &Shard) -> Option<Vec<u8>> {
        self.operation.as_ref().map(|(id, _)| shard.operation_key(*id))
    }

    async fn change_tasks(&self, tasks: &[TaskRef]) -> Result<Changed> {
        let mut answers = Answers::new(tasks.len());
        for (number, list) in self.store.by_shard(tasks.iter().map(|task| &task.id)) {
            let shard = self.store.shard(self.queue, number);
            for (n, piece) in list.chunks(PIECE.items).enumerate() {
                if answers.have_failed() {
                    break;
                }
                let mut args = self.args(&shard, 1 + 2 * piece.len());
                args.push(format!("p{n}").into_bytes());
                for &at in piece {
                    args.push(id_bytes(&tasks[at].id));
                    args.push(match seq_of(&tasks[at].receipt) {
                        Ok(None) => Vec::new(),
                        Ok(Some(seq)) => number_bytes(seq).to_vec(),
                        // No task has this receipt.
                        Err(()) => vec![0xff; 7],
                    });
                }
                let key = self.own_key(&shard);
                let reply = self.store.run(&scripts::CHANGE_TASKS, &shard, key.as_deref(), args).await;
                let answer = |code| match code {
                    b'0' => Ok(Ok(ChangeOutcome::Changed)),
                    b'1' => Ok(Ok(ChangeOutcome::InFlight)),
                    b'2' => Ok(Ok(ChangeOutcome::NotFound)),
                    b'3' => Ok(Err(self.store.caps.out_of_range())),
                    _ => Err(unreadable()),
                };
                let read = |mut reply: Reply| reply.bytes()?.into_iter().map(answer).collect();
                answers.piece(piece, answered(reply, read));
            }
        }
        let mut changed = Changed::default();
        changed.outcomes = answers.finish()?;
        let outcomes = std::mem::take(&mut changed.outcomes);
        outcomes.iter().for_each(|outcome| changed.count(outcome));
        changed.outcomes = outcomes;
        Ok(changed)
    }

    async fn change_group(&self, group: &GroupName) -> Result<Changed> {
        let mut changed = Changed::default();
        let mut any = false;
        for shard in self.store.shards(self.queue) {
            let key = self.own_key(&shard);
            let mut state = [text(0), Vec::new(), text(0), text(0), text(0), text(0)];
            loop {
                let mut args = self.args(&shard, 8);
                args.push(group.as_str().into());
                args.push(text(GROUP_PIECE));
                args.extend(state.iter().cloned());
                let mut reply = match self.store.run(&scripts::CHANGE_GROUP, &shard, key.as_deref(), args).await {
                    Ok(reply) => reply,
                    Err(e) if any => return Err(in_part(&e)),
                    Err(e) => return Err(e),
                };
                any = true;
                let through = reply.int()? == 1;
                let (until, after) = (reply.number()?, reply.bytes()?);
                let counts = [reply.number()?, reply.number()?, reply.number()?, reply.number()?];
                let [done, in_flight, not_found, refused] = counts;
                if through {
                    changed.changed += done;
                    changed.in_flight += in_flight;
                    changed.not_found += not_found;
                    changed.refused += refused;
                    break;
                }
                state = [text(until), after, text(done), text(in_flight), text(not_found), text(refused)];
            }
        }
        if changed.refused > 0 {
            changed.first_refusal = Some(self.store.caps.out_of_range());
        }
        Ok(changed)
    }
}

/// The error of a change that failed after it had changed a part of the group.
fn in_part(e: &Error) -> Error {
    Error::new(ErrorKind::Ambiguous, format!("the change failed after it had changed a part of the group: {e}"))
}
