//! The trait on RabbitMQ: each method checks its arguments and hands the work on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    Capabilities, Change, Changed, DeadLetterOp, DeadLetters, DelayBackend, Due, Error, ErrorKind, Intake,
    IntakeOptions, Lease, NewTask, Outcome, QueueName, Result, Scheduled, Select, TaskRef, Timestamp, Verdict, owned,
};
use tokio::time::timeout;

use crate::intake::{RabbitIntake, unclear};
use crate::line::Looked;
use crate::message::{self, Message};
use crate::publisher::NotPublished;
use crate::shared::Shared;
use crate::{RabbitConfig, dead, settle, start, tombstone, topology};

/// How long closing waits for what is being given back.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Delay queues in RabbitMQ, shared by every process that connects to the same name space.
///
/// Sharing it within a process is done in an `Arc`.
#[derive(Debug)]
pub struct RabbitBackend {
    shared: Arc<Shared>,
}

impl RabbitBackend {
    /// Connects, checks that the broker can keep what this backend promises, and makes the queues that all of a name space
    /// share.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), [`Denied`](ErrorKind::Denied), [`Incompatible`](ErrorKind::Incompatible),
    /// [`Unavailable`](ErrorKind::Unavailable): each says what to do.
    pub async fn connect(config: RabbitConfig) -> Result<Self> {
        config.check()?;
        let shared = Arc::new(Shared::new(config));
        start::check(&shared).await?;
        Ok(Self { shared })
    }

    /// Removes every queue and exchange of a name space, with all tasks and dead letters that are in them.
    ///
    /// Nobody should be using the name space: whoever does may make a part of it again.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), [`Denied`](ErrorKind::Denied), [`Unavailable`](ErrorKind::Unavailable). Repeated, it
    /// goes on with what is left.
    ///
    /// # Cancel safety
    /// Dropped, a part of it may have been removed; repeat it.
    pub async fn remove_namespace(config: RabbitConfig) -> Result<()> {
        config.check()?;
        topology::remove(&Arc::new(config)).await
    }
}

impl Shared {
    /// The message of a task that is accepted at this instant.
    fn accept(&self, task: NewTask, now: Timestamp, seq: u64) -> Result<Message> {
        self.caps.check(&task)?;
        let ms = |due: Due| match due {
            Due::After(delay) => now.saturating_add(delay).unix_millis_ceil(),
            Due::At(at) => at.unix_millis_ceil(),
        };
        let due_ms = ms(task.due);
        let delay_max = i64::try_from(self.caps.delay_max.as_millis()).unwrap_or(i64::MAX);
        // An instant is measured from the millisecond that has begun.
        if matches!(task.due, Due::At(_)) && due_ms > now.unix_millis_floor().saturating_add(delay_max) {
            return Err(self.caps.out_of_range());
        }
        if let Some(Due::After(expires)) = task.expires
            && expires > self.caps.delay_max
        {
            return Err(self.caps.out_of_range());
        }
        let expires_ms = task.expires.map(ms);
        if expires_ms.is_some_and(|expires| expires < due_ms) {
            return Err(Error::new(ErrorKind::Invalid, "the task expires before it is due"));
        }
        let id = task.id.clone().unwrap_or_else(|| self.fresh_id());
        Ok(Message::new(task, id, self.fresh_number(), due_ms, seq, expires_ms))
    }

    async fn schedule(self: Arc<Self>, queue: QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.ensure(&queue).await?;
        all_answered(self.send(&queue, tasks).await)
    }

    /// Accepts tasks, and publishes them.
    async fn send(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Vec<Result<Scheduled>> {
        let (now, first) = (self.wall_in(Duration::ZERO), self.sequences(tasks.len().max(1)));
        let accepted: Vec<Result<Message>> =
            (first..).zip(tasks).map(|(seq, task)| self.accept(task, now, seq)).collect();
        let messages = accepted.iter().filter_map(|accepted| accepted.as_ref().ok());
        let outgoing = messages.map(|message| self.route(queue, message)).collect();
        let mut answers = self.publish(queue, outgoing).await.into_iter();
        let scheduled = accepted.into_iter().map(|accepted| {
            let message = accepted?;
            let answer = answers.next().unwrap_or(Err(NotPublished::Refused));
            answer.map_err(|e| e.into_error("scheduling"))?;
            let receipt = message::receipt(message.due_ms, message.number);
            let task = TaskRef::new(message.id, Timestamp::from_unix_millis(message.due_ms), receipt);
            Ok(Scheduled::new(task, Outcome::Created))
        });
        scheduled.collect()
    }
}

/// One answer for each item; if all failed alike and none can have taken effect, that of the whole call.
fn all_answered<T>(answers: Vec<Result<T>>) -> Result<Vec<Result<T>>> {
    let whole = |e: &Error| matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::Closed);
    match answers.first() {
        Some(Err(first)) if whole(first) => {
            let alike = |answer: &Result<T>| answer.as_ref().is_err_and(|e| e.kind() == first.kind());
            if answers.iter().all(alike) { Err(first.clone()) } else { Ok(answers) }
        }
        _ => Ok(answers),
    }
}

#[async_trait]
impl DelayBackend for RabbitBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.caps
    }

    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        self.shared.open()?;
        self.shared.caps.check_batch(tasks.len())?;
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        owned(self.shared.clone().schedule(queue.clone(), tasks), |_| async {}).await
    }

    async fn intake(&self, queue: &QueueName, options: IntakeOptions) -> Result<Box<dyn Intake>> {
        self.shared.open()?;
        self.shared.ensure(queue).await?;
        Ok(Box::new(RabbitIntake::open(self.shared.clone(), queue, options.consumer)))
    }

    async fn settle(&self, queue: &QueueName, verdicts: Vec<(Lease, Verdict)>) -> Result<Vec<Result<()>>> {
        self.shared.open()?;
        self.shared.caps.check_batch(verdicts.len())?;
        if verdicts.is_empty() {
            return Ok(Vec::new());
        }
        let (shared, queue) = (self.shared.clone(), queue.clone());
        let settling = async move { Ok(settle::settle(&shared, &queue, verdicts).await) };
        owned(settling, |_| async {}).await
    }

    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        self.shared.open()?;
        self.shared.caps.check_batch(leases.len())?;
        self.shared.caps.check_lease(by)?;
        let line = self.shared.lines.get(queue);
        let extended = |mut lease: Lease| {
            let looked = line.as_ref().map_or(Looked::Lost, |line| line.extend(&self.shared, &lease, by));
            match looked {
                Looked::Live(Some(expires_at)) => {
                    lease.expires_at = expires_at;
                    Ok(lease)
                }
                Looked::Live(None) => Err(Error::new(
                    ErrorKind::OutOfRange,
                    format!("a lease lasts {:?} at the most, extensions included", self.shared.hold_max()),
                )),
                Looked::Lost => Err(Error::lease_lost()),
                Looked::Unclear => Err(unclear()),
            }
        };
        Ok(leases.into_iter().map(extended).collect())
    }

    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        self.shared.open()?;
        let Select::Tasks(tasks) = select else { return Err(Error::unsupported("group")) };
        self.shared.caps.check_batch(tasks.len())?;
        let (shared, queue) = (self.shared.clone(), queue.clone());
        let changing = async move { tombstone::change(&shared, &queue, tasks, change.action).await };
        owned(changing, |_| async {}).await
    }

    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        self.shared.open()?;
        let (shared, queue) = (self.shared.clone(), queue.clone());
        owned(async move { dead::run(&shared, &queue, op).await }, |_| async {}).await
    }

    async fn ping(&self) -> Result<()> {
        self.shared.open()?;
        start::ping(&self.shared).await
    }

    async fn close(&self) -> Result<()> {
        self.shared.set_closed();
        let shared = self.shared.clone();
        let closing = async move {
            let _ = timeout(CLOSE_MAX, shared.lines.ended()).await;
            shared.publisher.close();
            tokio::join!(shared.consuming.close(), shared.publishing.close());
            Ok(())
        };
        owned(closing, |()| async {}).await
    }
}

impl Drop for RabbitBackend {
    fn drop(&mut self) {
        // The pumps hold what they need to give back; this lets them end.
        self.shared.set_closed();
    }
}
