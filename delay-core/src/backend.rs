//! The trait every store implements. `docs/semantics.md` numbers the promises that are cited here.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    AdminOp, Capabilities, Change, Changed, Claim, Claimed, DeadLetterOp, DeadLetters, Disposition, Error, Lease,
    NewTask, Page, QueueName, QueueStats, Result, Scheduled, Select, TaskId, TaskView,
};

/// A store of delayed tasks.
///
/// It is object-safe and batch-first: one call is one round trip where the store has any. A method that a store may lack
/// answers [`Unsupported`](crate::ErrorKind::Unsupported) by default, and [`Capabilities`] says so beforehand.
///
/// # Behavior
/// - A queue exists as soon as it is named; a call for a queue that holds nothing is no error.
/// - In a batch, an outer `Err` means that no item can have taken effect; otherwise there is one inner result for each
///   item, in the same order.
/// - A batch over [`Capabilities::batch_max`] is refused whole with [`TooLarge`](crate::ErrorKind::TooLarge); an empty
///   one does nothing and is `Ok`.
/// - After [`close`](Self::close) every call answers [`Closed`](crate::ErrorKind::Closed).
///
/// # Cancel safety
/// Every future may be dropped at any await point without loss, duplicate or leak (DROP). What a dropped call had sent
/// may have taken effect, just as with [`Ambiguous`](crate::ErrorKind::Ambiguous): each method says what repeating it
/// then means.
#[async_trait]
pub trait DelayBackend: fmt::Debug + Send + Sync + 'static {
    /// What this backend can do, and its limits. They do not change during its life.
    fn capabilities(&self) -> &Capabilities;

    /// Accepts tasks, each to be delivered once it is due (TIME, LOSS).
    ///
    /// # Behavior
    /// - Once an item is `Ok`, its task is delivered until it is completed, cancelled or dead-lettered, as far as
    ///   [`Capabilities::durability`] reaches.
    /// - Tasks get their sequence in batch order; it decides among tasks that are visible at the same millisecond.
    /// - An id that is pending or in flight answers [`Existing`](crate::ScheduleOutcome::Existing), or is
    ///   [`Replaced`](crate::ScheduleOutcome::Replaced), as the task's `on_conflict` says; so does one that stands in the batch
    ///   twice. A completed, cancelled or dead-lettered task's id is free again.
    /// - **Repeated** with the same ids: `Existing` while the task is there, and for [`Capabilities::retry_window`]
    ///   after its completion; later, or without ids, it is a second task.
    ///
    /// # Errors
    /// Of an item: [`TooLarge`](crate::ErrorKind::TooLarge), [`OutOfRange`](crate::ErrorKind::OutOfRange) for a due time
    /// beyond [`Capabilities::delay_max`], [`Invalid`](crate::ErrorKind::Invalid) for an expiry before the due time,
    /// [`Full`](crate::ErrorKind::Full), [`Unsupported`](crate::ErrorKind::Unsupported) for a group or a replacement
    /// where there is none, [`Ambiguous`](crate::ErrorKind::Ambiguous). A due time in the past is no error.
    ///
    /// # Cancel safety
    /// Dropped, it has accepted each task or not, never in part.
    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>>;

    /// Opens one consumption of a queue: what claims and waits.
    ///
    /// # Behavior
    /// - A process may open several on one queue; each task goes to one of them, and one that is not used keeps nothing
    ///   from the others.
    /// - Dropping the subscription releases everything it holds; leases that it gave out stay valid.
    ///
    /// # Errors
    /// [`Denied`](crate::ErrorKind::Denied) and [`Unavailable`](crate::ErrorKind::Unavailable) where a server is asked.
    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>>;

    /// Ends leases, each with its disposition (DUP).
    ///
    /// # Behavior
    /// - `Ok` for [`Complete`](Disposition::Complete): this task is never delivered again.
    /// - A lease that has expired but whose task nobody else has claimed still settles.
    /// - A task that was cancelled while in flight ends here, whatever the disposition.
    /// - [`Retry`](Disposition::Retry) of the last allowed attempt dead-letters the task, here and not by a later claim.
    /// - **Repeated** after a lost answer, a `Complete` that has taken effect answers `Ok` or
    ///   [`Ambiguous`](crate::ErrorKind::Ambiguous), never a false `LeaseLost`. Repeated after an `Ok`, it answers `LeaseLost`.
    ///
    /// # Errors
    /// Of an item: [`LeaseLost`](crate::ErrorKind::LeaseLost), which changed nothing;
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) for a delay beyond the range, which leaves the lease as it was;
    /// [`Busy`](crate::ErrorKind::Busy), [`Ambiguous`](crate::ErrorKind::Ambiguous).
    ///
    /// # Cancel safety
    /// Dropped, each disposition has taken effect or not; a task without one comes back when its lease ends.
    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>>;

    /// Makes leases end `by` from now on the backend's clock, if that is later than they end already.
    ///
    /// # Behavior
    /// - The lease that comes back has the same fence; the old one settles as well.
    /// - A lease that has expired but whose task nobody else has claimed is extended.
    /// - [`Lease::cancelled`] tells that the task was cancelled meanwhile.
    /// - **Repeated**, it extends again from the new now.
    ///
    /// # Errors
    /// Of an item: [`LeaseLost`](crate::ErrorKind::LeaseLost), [`Busy`](crate::ErrorKind::Busy),
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous). Of all: [`OutOfRange`](crate::ErrorKind::OutOfRange) for `by` below
    /// 1 ms or beyond [`Capabilities::lease_max`].
    ///
    /// # Cancel safety
    /// Dropped, each lease was extended or not.
    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        let _ = (queue, leases, by);
        Err(Error::unsupported("extend"))
    }

    /// Cancels, moves or shifts waiting tasks (CANCEL).
    ///
    /// # Behavior
    /// - Each task gets a definite answer: [`ChangeOutcome`](crate::ChangeOutcome), or `Requested` where
    ///   [`Capabilities`] says so.
    /// - A moved or shifted task keeps its sequence, attempts and payload. An expired lease on it that nobody else
    ///   took over is lost.
    /// - A group change covers the tasks that were scheduled before it began; it runs in bounded chunks, between which
    ///   other calls get their turn, unless [`Capabilities::groups_atomic`].
    /// - **Repeated** with the same [`OperationId`](crate::OperationId) within [`Capabilities::operation_window`], it goes
    ///   on where it stopped and answers for the whole: each task changes once.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported); [`OutOfRange`](crate::ErrorKind::OutOfRange) for a due time beyond
    /// the range (of a shifted task: an inner error, or `refused` in a group); [`Busy`](crate::ErrorKind::Busy) while the
    /// same operation is running, [`Full`](crate::ErrorKind::Full) while more operations are remembered than there is room
    /// for.
    ///
    /// # Cancel safety
    /// Dropped, some of the tasks may have been changed; with an operation id, repeat it to finish.
    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        let _ = (queue, select, change);
        Err(Error::unsupported("change"))
    }

    /// Shows a task that is pending or in flight; `None` if it was completed, cancelled or dead-lettered, or never there.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`Unavailable`](crate::ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// Reads only.
    async fn find(&self, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
        let _ = (queue, id);
        Err(Error::unsupported("find"))
    }

    /// Shows tasks that are pending or in flight, by the time they are next visible; ties by sequence, as far as
    /// [`Capabilities::order`] declares one.
    ///
    /// # Behavior
    /// - Pages are read while the queue works: a task that moves between two pages may be seen twice or not at all; one
    ///   that stays is seen once.
    /// - A page may hold fewer than asked for; the listing has ended when one is empty.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`Unavailable`](crate::ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// Reads only.
    async fn list(&self, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
        let _ = (queue, page);
        Err(Error::unsupported("list"))
    }

    /// Lists, redrives or purges dead letters.
    ///
    /// # Behavior
    /// - **Repeated**, redrive and purge act on what is still there.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`Invalid`](crate::ErrorKind::Invalid) for a rate that is not a
    /// positive number, [`OutOfRange`](crate::ErrorKind::OutOfRange) for one so low that the last task would be due
    /// beyond the range.
    ///
    /// # Cancel safety
    /// Dropped, some of the letters may have been redriven or purged.
    async fn dead_letters(&self, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
        let _ = (queue, op);
        Err(Error::unsupported("dead_letters"))
    }

    /// Counts a queue's tasks.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`Unavailable`](crate::ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// Reads only.
    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let _ = queue;
        Err(Error::unsupported("stats"))
    }

    /// The queues that hold tasks or dead letters, are paused or have a subscription here, by name.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`Unavailable`](crate::ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// Reads only.
    async fn queues(&self) -> Result<Vec<QueueName>> {
        Err(Error::unsupported("queues"))
    }

    /// Pauses, resumes or deletes a queue.
    ///
    /// # Behavior
    /// - **Repeated**, it changes nothing more.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`Unavailable`](crate::ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// Dropped, it was done or not; `Delete` may have been done in part.
    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        let _ = (queue, op);
        Err(Error::unsupported("administer"))
    }

    /// Asks whether the store answers.
    ///
    /// # Errors
    /// What stands in the way.
    async fn ping(&self) -> Result<()>;

    /// Releases everything this backend holds: connections, tasks of the runtime, subscriptions (CLOSE, LEAK).
    ///
    /// # Behavior
    /// - Subscriptions that wait return, and their next claim answers [`Closed`](crate::ErrorKind::Closed).
    /// - What the store holds stays there; a store in this process is emptied.
    /// - **Repeated**, it does nothing.
    ///
    /// # Cancel safety
    /// Dropped, the backend counts as closed, and the rest is released when it is dropped.
    async fn close(&self) -> Result<()>;
}

/// One process's consumption of one queue.
///
/// All waiting is done by its caller, in one loop for every backend: claim, and when nothing came, wait.
#[async_trait]
pub trait Subscription: fmt::Debug + Send {
    /// Takes what is due now, under leases; never waits for tasks.
    ///
    /// # Behavior
    /// - At most [`Claim::max`] tasks in delivery order: by (visible at, sequence) among what is visible (ORDER).
    /// - None before its due time by the backend's clock (TIME), none that is under another lease (DUP).
    /// - A task whose attempts are used up or that has expired is dead-lettered and counted, not delivered.
    /// - [`Claimed::next_due_in`] tells how long the caller may wait unless notified.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) for the lease, [`Closed`](crate::ErrorKind::Closed),
    /// [`Unavailable`](crate::ErrorKind::Unavailable), [`Denied`](crate::ErrorKind::Denied). A claim whose answer was lost
    /// is found again by the next one, or given back.
    ///
    /// # Cancel safety
    /// Dropped, what it had taken is given back at once, at its old place, and costs no attempt.
    async fn claim(&mut self, claim: Claim) -> Result<Claimed>;

    /// Returns when a task that the last claim did not know of may be visible, after a reconnect, when the backend is
    /// closed, or after `at_most`. May return early for no reason.
    ///
    /// # Behavior
    /// - Level-triggered: a notification that came since the last claim returns at once (LIVE).
    ///
    /// # Cancel safety
    /// Dropped, no notification is lost and nothing stays registered (LEAK).
    async fn wait(&mut self, at_most: Duration);

    /// Ends it in good order; dropping it does the same without waiting.
    ///
    /// # Errors
    /// What stands in the way of giving back what it holds.
    async fn close(self: Box<Self>) -> Result<()>;
}

/// How a queue is to be consumed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionOptions {
    /// A name for this consumer, shown where the store can show one (client lists, application names).
    pub consumer: Option<String>,
}
