//! The arguments of the commands that inspect a store or change something in it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use delayline::{Due, GroupName, QueueName, Shift, TaskId, TaskRef, Timestamp};

use super::refs;
use crate::parse::{duration, queue_name, some_time, whole};

/// The maximum of `--limit`.
const LIST_MAX: u32 = 1_000_000;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    Stats(StatsArgs),
    Queues(QueuesArgs),
    Find(FindArgs),
    List(ListArgs),
    Cancel(CancelArgs),
    Move(MoveArgs),
    Shift(ShiftArgs),
    /// Stop the delivery of a queue's tasks. Tasks in flight run to their end.
    ///
    /// Tasks can still be scheduled, cancelled and moved. Tasks that become due meanwhile are delivered after `resume`.
    Pause(QueueArgs),
    /// Resume the delivery of a paused queue's tasks.
    Resume(QueueArgs),
    /// List, redrive or purge dead letters: tasks that will not run any more.
    #[command(subcommand)]
    Dead(DeadCommand),
    Delete(DeleteArgs),
    #[cfg(feature = "rabbitmq")]
    #[command(alias = "remove-name-space")]
    RemoveNamespace(RemoveArgs),
    Ping(PingArgs),
}

/// The options of commands on one queue.
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    /// Name of the queue.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = queue_name)]
    pub(crate) queue: QueueName,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// Write the answer to stdout as one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show how many tasks of each queue are scheduled, due, in flight and dead.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Queue to show; repeat for more. Default: all.
    #[arg(long = "queue", value_name = "NAME", value_parser = queue_name)]
    pub(crate) queues: Vec<QueueName>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// List the queues that hold tasks or dead letters, or are paused.
#[derive(Debug, Args)]
pub(crate) struct QueuesArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Show one task that is pending or in flight.
///
/// Exit code 6 if there is no such task: it was completed, cancelled or dead-lettered, or never existed.
#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// Id of the task.
    #[arg(value_name = "ID", value_parser = task_id)]
    pub(crate) id: TaskId,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// List pending tasks and tasks in flight, in the order of their due times.
///
/// A task that waits for a retry stands at the time of the retry, a task in flight at the end of its lease. To select
/// the tasks of a group, use `list --json` and jq.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Maximum number of tasks to show.
    #[arg(
        long,
        value_name = "N",
        default_value = "20",
        allow_negative_numbers = true,
        value_parser = whole(1, LIST_MAX)
    )]
    pub(crate) limit: u32,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// The tasks to change.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true))]
pub(crate) struct WhichArgs {
    /// Ids of the tasks.
    #[arg(value_name = "ID", group = "which", value_parser = task_id)]
    pub(crate) ids: Vec<TaskId>,

    /// Reference of a task: its `ref` in --json output. It identifies exactly that task, and is required by backends
    /// that can't find a task by its id. Repeat for more.
    #[arg(long = "ref", value_name = "REF", group = "which", value_parser = refs::parse)]
    pub(crate) refs: Vec<TaskRef>,

    /// File with the output of `push --json`, `list --json` or `find --json` to read tasks from. `-`: stdin.
    #[arg(long, value_name = "FILE", group = "which")]
    pub(crate) from: Option<PathBuf>,
}

/// Cancel pending tasks. A task in flight runs to its end, and is not retried if it fails.
///
/// Exit codes: 6 if a named task is not there, 8 if one is in flight, 3 if FILE is bad and nothing was done, 7 if the
/// store can't cancel.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct CancelArgs {
    /// Ids of the tasks.
    #[arg(value_name = "ID", group = "what", conflicts_with = "group", value_parser = task_id)]
    pub(crate) ids: Vec<TaskId>,

    /// Reference of a task: its `ref` in --json output. It identifies exactly that task, and is required by backends
    /// that can't find a task by its id. Repeat for more.
    #[arg(long = "ref", value_name = "REF", group = "what", conflicts_with = "group", value_parser = refs::parse)]
    pub(crate) refs: Vec<TaskRef>,

    /// File with the output of `push --json`, `list --json` or `find --json` to read tasks from. `-`: stdin.
    #[arg(long, value_name = "FILE", group = "what", conflicts_with = "group")]
    pub(crate) from: Option<PathBuf>,

    /// Group whose tasks are all cancelled, after confirmation.
    #[arg(long, value_name = "GROUP", group = "what", value_parser = group_name)]
    pub(crate) group: Option<GroupName>,

    /// Do not ask for confirmation.
    #[arg(long)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// Give pending tasks another due time. Tasks in flight stay as they are.
///
/// Exit codes: 6 if a named task is not there, 8 if one is in flight, 3 if FILE is bad and nothing was done, 7 if the
/// store can't move tasks.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("when").required(true))]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    pub(crate) which: WhichArgs,

    /// New due time in RFC 3339: 2030-01-31T12:00:00Z. A time in the past is due at once.
    #[arg(long, value_name = "TIME", group = "when", value_parser = timestamp)]
    at: Option<Timestamp>,

    /// New delay, from now: 1500ms, 2h, 1h 30m, 0s.
    #[arg(long, value_name = "DURATION", group = "when", allow_hyphen_values = true, value_parser = duration)]
    after: Option<Duration>,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

impl MoveArgs {
    pub(crate) fn due(&self) -> Due {
        self.at.map(Due::At).or(self.after.map(Due::After)).unwrap_or(Due::NOW)
    }
}

/// Make all pending tasks of a group due later or sooner. Tasks in flight stay as they are.
#[derive(Debug, Args)]
pub(crate) struct ShiftArgs {
    /// Name of the group.
    #[arg(long, value_name = "GROUP", value_parser = group_name)]
    pub(crate) group: GroupName,

    /// Duration to add to each due time, such as 10m; with a minus sign, to subtract: -10m.
    #[arg(long, value_name = "[-]DURATION", value_parser = distance, allow_hyphen_values = true)]
    pub(crate) by: Shift,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    List(DeadListArgs),
    Redrive(RedriveArgs),
    Purge(PurgeArgs),
}

/// List dead letters, the oldest first.
#[derive(Debug, Args)]
pub(crate) struct DeadListArgs {
    /// Maximum number of dead letters to show.
    #[arg(
        long,
        value_name = "N",
        default_value = "20",
        allow_negative_numbers = true,
        value_parser = whole(1, LIST_MAX)
    )]
    pub(crate) limit: u32,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// Schedule dead letters again, due now, the oldest first. The number of attempts starts at 0 again.
#[derive(Debug, Args)]
pub(crate) struct RedriveArgs {
    /// Ids of the dead letters. Default: all.
    #[arg(value_name = "ID", value_parser = task_id)]
    pub(crate) ids: Vec<TaskId>,

    /// Maximum number of tasks per second. Default: no limit, all at once.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: Option<f64>,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// Delete dead letters for good, after confirmation.
#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    /// Ids of the dead letters. Default: all.
    #[arg(value_name = "ID", value_parser = task_id)]
    pub(crate) ids: Vec<TaskId>,

    /// Do not ask for confirmation.
    #[arg(long)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// Delete a queue with all its tasks and dead letters, after confirmation.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Name of the queue. Required, because the deletion can't be undone.
    #[arg(long, value_name = "NAME", value_parser = queue_name)]
    pub(crate) queue: QueueName,

    /// Do not ask for confirmation.
    #[arg(long)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Remove everything that delayline has created in a RabbitMQ namespace, with all tasks and dead letters, after
/// confirmation.
#[cfg(feature = "rabbitmq")]
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  delayline remove-namespace --backend 'amqp://user@host/school?namespace=exams'

Stop the programs that use the namespace first: one that is still running may
create a part of it again.")]
pub(crate) struct RemoveArgs {
    /// Do not ask for confirmation.
    #[arg(long)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Check that the store answers.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Time to wait for the answer.
    #[arg(long, value_name = "DURATION", default_value = "10s", allow_hyphen_values = true, value_parser = some_time)]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

fn task_id(text: &str) -> Result<TaskId, String> {
    TaskId::new(text).map_err(|e| e.message().to_owned())
}

fn group_name(text: &str) -> Result<GroupName, String> {
    GroupName::new(text).map_err(|e| e.message().to_owned())
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|e: delayline::Error| e.message().to_owned())
}

fn distance(text: &str) -> Result<Shift, String> {
    let (sooner, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let by = duration(rest)?;
    if by.is_zero() {
        return Err("expected a duration other than zero, such as 10m or -10m".to_owned());
    }
    Ok(if sooner { Shift::Sooner(by) } else { Shift::Later(by) })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err("expected a positive number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_has_a_direction() {
        assert_eq!(distance("10m"), Ok(Shift::Later(Duration::from_secs(600))));
        assert_eq!(distance("+10m"), Ok(Shift::Later(Duration::from_secs(600))));
        assert_eq!(distance("-90s"), Ok(Shift::Sooner(Duration::from_secs(90))));
        for text in ["", "-", "10", "--10m", "0s", "soon"] {
            assert!(distance(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_positive_number() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for text in ["0", "-1", "nan", "inf", "many"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
