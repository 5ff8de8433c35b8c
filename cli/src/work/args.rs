//! The arguments of `work`.

use std::net::SocketAddr;
use std::time::Duration;

use delayline::QueueName;

use crate::exec::args::ExecArgs;
use crate::parse::{address, positive, queue_name, some_time};

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
no attempt. A second signal ends it at once; other workers get its tasks when
the leases end. Dead letters are reported on stderr as they occur.

Exit codes:
  0    a signal ended it, which is the normal end of a worker; or it reached
       --until-empty or --max, without dead letters
  1    could not start (store refused it, address of --metrics), or broke off
       (output closed, a permanent error of the store)
  2    the command line is wrong
  4    it reached --until-empty or --max, and tasks became dead letters
  7    the store is `memory:`, or can't count tasks for --until-empty
  130  Ctrl-C before it reached --until-empty or --max, or a second signal
       (143 for SIGTERM, 129 for SIGHUP)"#;

/// Take due tasks from a queue in a persistent store, and write each to stdout or run a command for it.
///
/// It runs until a signal stops it, or until --until-empty or --max end it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct WorkArgs {
    /// Queue to take tasks from.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = queue_name)]
    pub(crate) queue: QueueName,

    /// Lease duration: the time for which no other worker gets a claimed task. The process renews the lease while it
    /// works on the task; if the process dies, another worker gets the task when the lease ends.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "30s",
        allow_hyphen_values = true,
        value_parser = some_time
    )]
    pub(crate) lease: Duration,

    /// End after this many deliveries; each attempt counts.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) max: Option<u64>,

    /// End when no task is left: none is scheduled or due, and none is in flight anywhere. A paused queue counts as
    /// empty.
    #[arg(long)]
    pub(crate) until_empty: bool,

    /// Address to serve Prometheus metrics, /healthz and /readyz on, such as 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
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
