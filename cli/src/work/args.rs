//! What can be said to `work`.

use std::net::SocketAddr;
use std::time::Duration;

use delayline::QueueName;

use crate::exec::args::ExecArgs;
use crate::parse::{queue_name, some_time};

const DETAILS: &str = r#"Any number of `work` processes may share a queue: each task goes to one of
them. One that dies leaves its tasks to the others when their leases end.

Without --exec each due task is written to stdout as one JSON object, as `run`
does; it is completed after its line is out. With --exec, `sh -c CMD` gets the
payload on stdin and DELAYLINE_ID, DELAYLINE_QUEUE, DELAYLINE_ATTEMPT,
DELAYLINE_DUE_AT, DELAYLINE_GROUP and, of a task that carries a trace,
TRACEPARENT and TRACESTATE in its environment. Exit 0 completes the task;
anything else is tried again, until its attempts are used up: then it is a dead
letter. How many attempts a task has was said when it was pushed.

SIGTERM and Ctrl-C: nothing more is taken; running commands have the --grace
time; what is unfinished then is given back at once and costs no attempt. The
exit code is 0 then, because that is how a worker ends; with --until-empty or
--max it is that of the signal."#;

/// Runs the tasks of a queue in a store that outlives this process: to stdout, or by a command.
///
/// It goes on until it is told to stop, unless --until-empty or --max say otherwise.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct WorkArgs {
    /// The queue that the tasks are taken from.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = queue_name)]
    pub(crate) queue: QueueName,

    /// How long a task is this process's. It is extended for as long as the task is worked on, so this is how long one
    /// waits when its process dies.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = some_time)]
    pub(crate) lease: Duration,

    /// End after so many tasks were delivered, each attempt counted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,

    /// End when no task is left: none is due or will be, and none is in flight anywhere. A paused queue counts as empty.
    #[arg(long)]
    pub(crate) until_empty: bool,

    /// Serve Prometheus metrics, /healthz and /readyz here, such as 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    /// No summary: only what went wrong.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) exec: ExecArgs,
}

impl WorkArgs {
    /// Whether it has an end of its own.
    pub(crate) fn ends(&self) -> bool {
        self.max.is_some() || self.until_empty
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn help_fits_on_80_columns() {
        assert!(super::DETAILS.lines().all(|line| line.chars().count() < 80));
    }
}
