//! What can be said to `watch`.

use std::time::Duration;

use delayline::QueueName;

use crate::parse::{queue_name, some_time};

const DETAILS: &str = r#"Keys: up and down select a queue, p pauses or resumes it, q ends.

SCHEDULED  tasks that are not due yet, retries included
<=1s ...   of these, how many are due within that time, those before included
DUE        tasks that are due and wait
OLDEST     how long the oldest of these has been waiting: the lateness of what
           is delivered next
FLIGHT     tasks that are being worked on
DEAD       dead letters
NET/s      by how many a second the tasks in the queue became more or fewer,
           over the last ten seconds
OUT/s      deliveries a second, LATE p50/p99 their lateness from the due time:
           summed up over the workers that --workers names, over the last ten
           seconds; the store does not know them
-          is not known: the backend can't count it, or nobody told"#;

/// Shows queues live: what waits, what is due how soon, what is overdue, in flight and dead, and how it changes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct WatchArgs {
    /// Only this queue; several times for more. All of them unless told.
    #[arg(long = "queue", value_name = "NAME", value_parser = queue_name)]
    pub(crate) queues: Vec<QueueName>,

    /// How often the store is asked: from 100ms.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = some_time)]
    pub(crate) every: Duration,

    /// A worker's --metrics address, such as 127.0.0.1:9464; several times for more.
    #[arg(long = "workers", value_name = "ADDRESS:PORT")]
    pub(crate) workers: Vec<String>,
}

#[cfg(test)]
mod tests {
    #[test]
    fn help_fits_on_80_columns() {
        assert!(super::DETAILS.lines().all(|line| line.chars().count() < 80));
    }
}
