//! What can be said to the commands that look at a store or change something in it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use delayline::{Due, GroupName, QueueName, Shift, TaskId, TaskRef, Timestamp};

use super::refs;
use crate::parse::{duration, queue_name, some_time};

/// The most tasks that `list` shows.
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
    /// Stops the delivery of a queue's tasks; everything else goes on, and tasks in flight can end.
    Pause(QueueArgs),
    /// Delivers the tasks of a paused queue again.
    Resume(QueueArgs),
    /// Lists, redrives or purges dead letters: tasks that will not run any more.
    #[command(subcommand)]
    Dead(DeadCommand),
    Delete(DeleteArgs),
    #[cfg(feature = "rabbitmq")]
    #[command(alias = "remove-name-space")]
    RemoveNamespace(RemoveArgs),
    Ping(PingArgs),
}

/// What the commands on one queue understand.
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    /// The queue.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = queue_name)]
    pub(crate) queue: QueueName,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// The answer as one JSON document on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Shows how queues stand: how many tasks wait, are due, in flight and dead.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Only this queue; several times for more. All of them unless told.
    #[arg(long = "queue", value_name = "NAME", value_parser = queue_name)]
    pub(crate) queues: Vec<QueueName>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Names the queues that hold tasks or dead letters, or are paused.
#[derive(Debug, Args)]
pub(crate) struct QueuesArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Shows one task that waits or is in flight.
#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// The task's id.
    #[arg(value_name = "ID", value_parser = task_id)]
    pub(crate) id: TaskId,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// Lists the tasks that wait or are in flight, by the time they are due.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How many are shown.
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=LIST_MAX as i64))]
    pub(crate) limit: u32,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// Which tasks.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true))]
pub(crate) struct WhichArgs {
    /// The tasks' ids.
    #[arg(value_name = "ID", group = "which", value_parser = task_id)]
    pub(crate) ids: Vec<TaskId>,

    /// A task's `ref`, as --json shows it: that very task, and what a backend needs that can't find one by its id.
    #[arg(long = "ref", value_name = "REF", group = "which", value_parser = refs::parse)]
    pub(crate) refs: Vec<TaskRef>,

    /// Reads tasks from a file (`-` is stdin) of what `push --json`, `list --json` or `find --json` wrote.
    #[arg(long, value_name = "FILE", group = "which")]
    pub(crate) from: Option<PathBuf>,
}

/// Cancels waiting tasks; one in flight is marked, and not delivered again.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct CancelArgs {
    /// The tasks' ids.
    #[arg(value_name = "ID", group = "what", conflicts_with = "group", value_parser = task_id)]
    pub(crate) ids: Vec<TaskId>,

    /// A task's `ref`, as --json shows it: that very task, and what a backend needs that can't find one by its id.
    #[arg(long = "ref", value_name = "REF", group = "what", conflicts_with = "group", value_parser = refs::parse)]
    pub(crate) refs: Vec<TaskRef>,

    /// Reads tasks from a file (`-` is stdin) of what `push --json`, `list --json` or `find --json` wrote.
    #[arg(long, value_name = "FILE", group = "what", conflicts_with = "group")]
    pub(crate) from: Option<PathBuf>,

    /// All tasks of this group. Asks first.
    #[arg(long, value_name = "GROUP", group = "what", value_parser = group_name)]
    pub(crate) group: Option<GroupName>,

    /// Does not ask.
    #[arg(long)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// Makes waiting tasks due at another time; one in flight is left alone.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("when").required(true))]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    pub(crate) which: WhichArgs,

    /// Due then, in RFC 3339: 2030-01-31T12:00:00Z. A time that has passed is at once.
    #[arg(long, value_name = "TIME", group = "when", value_parser = timestamp)]
    at: Option<Timestamp>,

    /// Due so long from now: 1500ms, 2h, 1h 30m, 0s.
    #[arg(long, value_name = "DURATION", group = "when", value_parser = duration)]
    after: Option<Duration>,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

impl MoveArgs {
    pub(crate) fn due(&self) -> Due {
        self.at.map(Due::At).or(self.after.map(Due::After)).unwrap_or(Due::NOW)
    }
}

/// Makes all waiting tasks of a group due later or sooner; those in flight are left alone.
#[derive(Debug, Args)]
pub(crate) struct ShiftArgs {
    /// The group.
    #[arg(long, value_name = "GROUP", value_parser = group_name)]
    pub(crate) group: GroupName,

    /// How much later, such as 10m; sooner with a minus: -10m.
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

/// Lists dead letters, the oldest first.
#[derive(Debug, Args)]
pub(crate) struct DeadListArgs {
    /// How many are shown.
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=LIST_MAX as i64))]
    pub(crate) limit: u32,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// Schedules dead letters again, due now, with all their attempts; the oldest first.
#[derive(Debug, Args)]
pub(crate) struct RedriveArgs {
    /// Only those with these ids; all of them unless told.
    #[arg(value_name = "ID", value_parser = task_id)]
    pub(crate) ids: Vec<TaskId>,

    /// At most so many a second; all at once unless told.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: Option<f64>,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// Deletes dead letters for good. Asks first.
#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    /// Only those with these ids; all of them unless told.
    #[arg(value_name = "ID", value_parser = task_id)]
    pub(crate) ids: Vec<TaskId>,

    /// Does not ask.
    #[arg(long)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) on: QueueArgs,
}

/// Deletes a queue with all its tasks and dead letters. Asks first.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The queue. It has to be named: there is no default for what can't be undone.
    #[arg(long, value_name = "NAME", value_parser = queue_name)]
    pub(crate) queue: QueueName,

    /// Does not ask.
    #[arg(long)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Removes everything that delayline has made in a RabbitMQ namespace, with all tasks and dead letters. Asks first.
#[cfg(feature = "rabbitmq")]
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  delayline remove-namespace --backend 'amqp://user@host/school?namespace=exams'

Nobody should be using it: whoever does may make a part of it again.")]
pub(crate) struct RemoveArgs {
    /// Does not ask.
    #[arg(long)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Asks the store whether it answers.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// How long to wait for the answer.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = some_time)]
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
    let by = some_time(rest)?;
    Ok(if sooner { Shift::Sooner(by) } else { Shift::Later(by) })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err("not a positive number".to_owned()),
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
