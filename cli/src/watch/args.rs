//! The arguments of `watch`.

use std::time::Duration;

use delayline::QueueName;

use crate::parse::{queue_name, some_time};

const DETAILS: &str = r#"Keys: up and down select a queue, p pauses or resumes it, q quits.

SCHEDULED  tasks that are not due yet, retries included
<=1s, <=1m, <=1h, <=1d
           scheduled tasks that become due within this time; each number
           includes those before it
DUE        tasks that are due and not yet claimed
OLDEST     age of the oldest due task: the lateness of the next delivery
FLIGHT     tasks in flight
DEAD       dead letters
NET/s      change of the number of tasks in the queue, per second, over the
           last ten seconds
OUT/s      deliveries per second, the sum of all workers that --workers names
LATE       p50/p99: median and 99th percentile of the lateness of these
           deliveries, from the due time. OUT/s and LATE cover the last ten
           seconds; only the workers know them, not the store
-          unknown: the backend can't count it, or no worker reports it"#;

/// Show queues live: tasks scheduled, due, in flight and dead, and how these numbers change.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct WatchArgs {
    /// Queue to show; repeat for more. Default: all.
    #[arg(long = "queue", value_name = "NAME", value_parser = queue_name)]
    pub(crate) queues: Vec<QueueName>,

    /// Interval between two requests to the store. Minimum: 100ms.
    #[arg(long, value_name = "DURATION", default_value = "1s", allow_hyphen_values = true, value_parser = some_time)]
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
