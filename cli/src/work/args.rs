//! The arguments of `work`.

use std::net::SocketAddr;
use std::time::Duration;

use delayline::QueueName;

use crate::exec::args::ExecArgs;
use crate::parse::{queue_name, some_time};

const DETAILS: &str = r#"Any number of `work` processes may share a queue: each task goes to one of
them. If one dies, the others get its tasks when the leases end.

Without --exec, each due task is written to stdout as one JSON object, as `run`
does, and is completed after its line is written. With --exec, `sh -c CMD`
reads the payload from stdin. Its environment contains DELAYLINE_ID,
DELAYLINE_QUEUE, DELAYLINE_ATTEMPT, DELAYLINE_DUE_AT, DELAYLINE_GROUP and, for
a task that carries a trace, TRACEPARENT and TRACESTATE. Exit code 0 completes
the task. After any other, the task is retried until its attempts are used up;
it is then a dead letter. `push` sets the number of attempts.

On SIGTERM and Ctrl-C, it claims no more tasks, and running commands have the
--grace time to finish. Unfinished tasks are then released at once, which costs
no attempt. The exit code is 0, because a signal is the normal end of a worker;
with --until-empty or --max it is the signal's."#;

/// Run the tasks of a queue in a store that outlives this process: to stdout, or by a command.
///
/// It runs until a signal stops it, or until --until-empty or --max end it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct WorkArgs {
    /// Queue to take tasks from.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = queue_name)]
    pub(crate) queue: QueueName,

    /// Lease duration. The process renews the lease while it works on the task, so this is how long the task waits if
    /// the process dies.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = some_time)]
    pub(crate) lease: Duration,

    /// End after this many deliveries; each attempt counts.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,

    /// End when no task is left: none is scheduled or due, and none is in flight anywhere. A paused queue counts as
    /// empty.
    #[arg(long)]
    pub(crate) until_empty: bool,

    /// Address to serve Prometheus metrics, /healthz and /readyz on, such as 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    /// Write no summary: only errors.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) exec: ExecArgs,
}

impl WorkArgs {
    /// Whether the command ends by itself, without a signal.
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
