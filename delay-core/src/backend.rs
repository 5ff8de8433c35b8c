//! The trait that every store implements. `docs/semantics.md` defines the promises that are cited here (TIME, LOSS,
//! ...).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    AdminOp, Capabilities, Change, Changed, Claim, Claimed, DeadLetterOp, DeadLetters, Disposition, Error, Lease,
    NewTask, Page, QueueName, QueueStats, Result, Scheduled, Select, TaskId, TaskView,
};

/// A store of delayed tasks.
///
/// The trait is object-safe and batch-first: one call is one round trip, if the store has round trips. Optional methods
/// return [`Unsupported`](crate::ErrorKind::Unsupported) by default, and [`Capabilities`] lists in advance which of
/// them a backend supports.
///
/// # Behavior
/// - A queue exists as soon as it is named. A call for a queue that holds nothing is valid.
/// - In a batch, an outer `Err` means that no item can have taken effect. Otherwise there is one inner result for each
///   item, in the same order.
/// - A batch over [`Capabilities::batch_max`] is rejected as a whole with [`TooLarge`](crate::ErrorKind::TooLarge). An
///   empty batch does nothing and returns `Ok`.
/// - After [`close`](Self::close), every call returns [`Closed`](crate::ErrorKind::Closed).
///
/// # Cancel safety
/// Every future may be dropped at any await point without loss, duplicate or leak (DROP). What a dropped call had
/// already sent may have taken effect, as with [`Ambiguous`](crate::ErrorKind::Ambiguous); each method documents what
/// repeating it then means.
#[async_trait]
pub trait DelayBackend: fmt::Debug + Send + Sync + 'static {
    /// What this backend supports, and its limits. They do not change during its lifetime.
    fn capabilities(&self) -> &Capabilities;

    /// Accepts tasks; each is delivered once it is due (TIME, LOSS).
    ///
    /// # Behavior
    /// - Once the result of an item is `Ok`, the backend delivers its task until it is completed, cancelled or
    ///   dead-lettered, as far as [`Capabilities::durability`] reaches.
    /// - Tasks get their sequence in batch order. The sequence decides between tasks that become visible at the same
    ///   millisecond.
    /// - For an id that is pending or in flight, the task's `on_conflict` decides: the outcome is
    ///   [`Existing`](crate::ScheduleOutcome::Existing) or [`Replaced`](crate::ScheduleOutcome::Replaced). The same
    ///   applies to an id that occurs twice in the batch. The id of a completed, cancelled or dead-lettered task is
    ///   free again.
    /// - **Repeated** with the same ids: `Existing` while the task exists, and for [`Capabilities::retry_window`] after
    ///   its completion. After that, or without ids, the repeated call schedules a second task.
    ///
    /// # Errors
    /// Per item: [`TooLarge`](crate::ErrorKind::TooLarge); [`OutOfRange`](crate::ErrorKind::OutOfRange) for a due time
    /// beyond [`Capabilities::delay_max`]; [`Invalid`](crate::ErrorKind::Invalid) for an expiry before the due time;
    /// [`Full`](crate::ErrorKind::Full); [`Unsupported`](crate::ErrorKind::Unsupported) for a group or a replacement,
    /// if the backend does not support it; [`Ambiguous`](crate::ErrorKind::Ambiguous). A due time in the past is valid.
    ///
    /// # Cancel safety
    /// A dropped call has either accepted a task or not, never a part of it.
    async fn schedule(&self, queue: &QueueName, tasks: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>>;

    /// Opens a subscription to a queue, which claims tasks and waits for them.
    ///
    /// # Behavior
    /// - A process may open several subscriptions to one queue. Each task goes to one of them. A subscription that is
    ///   not used keeps no task from the others.
    /// - Dropping the subscription releases everything it holds. Leases that it gave out stay valid.
    ///
    /// # Errors
    /// [`Denied`](crate::ErrorKind::Denied) and [`Unavailable`](crate::ErrorKind::Unavailable), from backends that call
    /// a server here.
    async fn subscribe(&self, queue: &QueueName, options: SubscriptionOptions) -> Result<Box<dyn Subscription>>;

    /// Settles leases: ends each with its disposition (DUP).
    ///
    /// # Behavior
    /// - After `Ok` for [`Complete`](Disposition::Complete), this task is never delivered again.
    /// - An expired lease still settles, as long as nobody else has claimed the task.
    /// - A task that was cancelled while in flight ends here, whatever the disposition.
    /// - A [`Retry`](Disposition::Retry) of the last allowed attempt dead-letters the task in this call, not in a later
    ///   claim.
    /// - **Repeated** after a lost answer, a `Complete` that has taken effect returns `Ok` or
    ///   [`Ambiguous`](crate::ErrorKind::Ambiguous), never a false `LeaseLost`. Repeated after an `Ok`, it returns
    ///   `LeaseLost`.
    ///
    /// # Errors
    /// Per item: [`LeaseLost`](crate::ErrorKind::LeaseLost), which changed nothing;
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) for a delay beyond the range, which leaves the lease as it was;
    /// [`Busy`](crate::ErrorKind::Busy); [`Ambiguous`](crate::ErrorKind::Ambiguous).
    ///
    /// # Cancel safety
    /// After a dropped call, each disposition has either taken effect or not. A task whose disposition did not take
    /// effect comes back when its lease ends.
    async fn settle(&self, queue: &QueueName, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>>;

    /// Extends leases: each then ends `by` from now on the backend's clock, unless it already ends later.
    ///
    /// # Behavior
    /// - The returned lease has the same fence. The old lease still settles, too.
    /// - An expired lease is extended, as long as nobody else has claimed the task.
    /// - [`Lease::cancelled`] reports whether the task was cancelled in the meantime.
    /// - **Repeated**, the call extends again, counted from the new now.
    ///
    /// # Errors
    /// Per item: [`LeaseLost`](crate::ErrorKind::LeaseLost), [`Busy`](crate::ErrorKind::Busy),
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous). For the whole call: [`OutOfRange`](crate::ErrorKind::OutOfRange) for
    /// `by` below 1 ms or beyond [`Capabilities::lease_max`].
    ///
    /// # Cancel safety
    /// After a dropped call, each lease was either extended or not.
    async fn extend(&self, queue: &QueueName, leases: Vec<Lease>, by: Duration) -> Result<Vec<Result<Lease>>> {
        let _ = (queue, leases, by);
        Err(Error::unsupported("extend"))
    }

    /// Cancels, moves or shifts waiting tasks (CANCEL).
    ///
    /// # Behavior
    /// - Each task gets a definite [`ChangeOutcome`](crate::ChangeOutcome), or `Requested` where [`Capabilities`] says
    ///   so.
    /// - A moved or shifted task keeps its sequence, attempts and payload. If the task has an expired lease that nobody
    ///   else took over, that lease is lost.
    /// - A group change covers the tasks that were scheduled before it began. It runs in bounded chunks, between which
    ///   other calls get their turn, unless [`Capabilities::groups_atomic`].
    /// - **Repeated** with the same [`OperationId`](crate::OperationId) within [`Capabilities::operation_window`], the
    ///   change continues where it stopped, and its answer covers the whole change: each task changes once.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported). [`OutOfRange`](crate::ErrorKind::OutOfRange) for a due time
    /// beyond the range; for a shifted task this is an inner error, or counted in `refused` for a group.
    /// [`Busy`](crate::ErrorKind::Busy) while the same operation is running. [`Full`](crate::ErrorKind::Full) while the
    /// backend remembers too many operations to take another one.
    ///
    /// # Cancel safety
    /// After a dropped call, some of the tasks may have been changed. With an operation id, repeat the call to finish.
    async fn change(&self, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        let _ = (queue, select, change);
        Err(Error::unsupported("change"))
    }

    /// Returns a task that is pending or in flight; `None` if it was completed, cancelled or dead-lettered, or never
    /// existed.
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

    /// Returns a page of the tasks that are pending or in flight, in the order in which they become visible. Ties are
    /// ordered by sequence, as far as [`Capabilities::order`] declares an order.
    ///
    /// # Behavior
    /// - The queue keeps working between two pages. A task that moves between them may be returned twice or not at all;
    ///   a task that stays is returned once.
    /// - A page may contain fewer tasks than requested. The listing has ended when a page is empty.
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
    /// - **Repeated**, redrive and purge act on the dead letters that are still there.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported). [`Invalid`](crate::ErrorKind::Invalid) for a rate that is not a
    /// positive number. [`OutOfRange`](crate::ErrorKind::OutOfRange) for a rate so low that the last task would be due
    /// beyond the range.
    ///
    /// # Cancel safety
    /// After a dropped call, some of the dead letters may have been redriven or purged.
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

    /// Lists, by name, the queues that hold tasks or dead letters, are paused, or have a subscription of this backend.
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
    /// - **Repeated**, the call changes nothing more.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`Unavailable`](crate::ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// After a dropped call, the operation was either done or not; a `Delete` may have been done in part.
    async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        let _ = (queue, op);
        Err(Error::unsupported("administer"))
    }

    /// Checks that the store answers.
    ///
    /// # Errors
    /// The reason why it does not answer.
    async fn ping(&self) -> Result<()>;

    /// Closes the backend and releases everything it holds: connections, runtime tasks, subscriptions (CLOSE, LEAK).
    ///
    /// # Behavior
    /// - Waiting subscriptions return, and their next claim returns [`Closed`](crate::ErrorKind::Closed).
    /// - The store keeps its tasks; a store in this process is emptied.
    /// - **Repeated**, the call does nothing.
    ///
    /// # Cancel safety
    /// After a dropped call, the backend counts as closed. The rest is released when the backend is dropped.
    async fn close(&self) -> Result<()>;
}

/// A subscription of one process to one queue.
///
/// The caller does all the waiting, in one loop that is the same for every backend: claim; if the claim returned
/// nothing, wait.
#[async_trait]
pub trait Subscription: fmt::Debug + Send {
    /// Claims tasks that are due now, under leases. Never waits for tasks.
    ///
    /// # Behavior
    /// - Returns at most [`Claim::max`] tasks, in delivery order: by (visible at, sequence) among the visible tasks
    ///   (ORDER).
    /// - Returns no task before its due time by the backend's clock (TIME), and none that is under another lease (DUP).
    /// - A task that has expired or has no attempts left is dead-lettered and counted, not delivered.
    /// - [`Claimed::next_due_in`] limits how long the caller may wait if no notification arrives.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) for the lease duration, [`Closed`](crate::ErrorKind::Closed),
    /// [`Unavailable`](crate::ErrorKind::Unavailable), [`Denied`](crate::ErrorKind::Denied). If the answer of a claim
    /// was lost, the next claim returns its tasks, or the backend gives them back.
    ///
    /// # Cancel safety
    /// If a call is dropped, the backend gives the claimed tasks back at once, at their old places and without counting
    /// an attempt.
    async fn claim(&mut self, claim: Claim) -> Result<Claimed>;

    /// Waits until a task may be visible that the last claim did not know of, until a reconnect, until the backend is
    /// closed, or for `at_most`. May also return early without a reason.
    ///
    /// # Behavior
    /// - Level-triggered: if a notification arrived since the last claim, the call returns at once (LIVE).
    ///
    /// # Cancel safety
    /// A dropped call loses no notification and leaves nothing registered (LEAK).
    async fn wait(&mut self, at_most: Duration);

    /// Closes the subscription and waits until that is done. Dropping the subscription does the same without waiting.
    ///
    /// # Errors
    /// The error that kept it from giving back what it holds.
    async fn close(self: Box<Self>) -> Result<()>;
}

/// How to consume a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionOptions {
    /// Name of this consumer, shown where the store has a place for it (client lists, application names). Default:
    /// none.
    pub consumer: Option<String>,
}
