//! The arguments of `watch`.

use std::time::Duration;

use delayline::QueueName;

use crate::parse::{queue_name, some_time};

const DETAILS: &str = r#"Keys: up and down select a queue, p pauses or resumes it, q ends.

SCHEDULED  tasks that are not due yet, retries included
<=1s ...   scheduled tasks that are due within this time, cumulative
DUE        tasks that are due and not yet claimed
OLDEST     age of the oldest due task: the lateness of the next delivery
FLIGHT     tasks in flight
DEAD       dead letters
NET/s      change of the number of tasks in the queue, per second, over the
           last ten seconds
OUT/s      deliveries per second; LATE p50/p99: their lateness from the due
           time. Both are sums over the workers that --workers names, over the
           last ten seconds; the store does not know them
-          unknown: the backend can't count it, or no worker reports it"#;

/// Show queues live: tasks scheduled, due, in flight and dead, and how these numbers change.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct WatchArgs {
    /// Queue to show; repeat for more. Default: all.
    #[arg(long = "queue", value_name = "NAME", value_parser = queue_name)]
    pub(crate) queues: Vec<QueueName>,

    /// Interval between two requests to the store. Minimum: 100ms.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = some_time)]
    pub(crate) every: Duration,

    /// Address that a worker serves --metrics on, such as 127.0.0.1:9464; repeat for more.
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
