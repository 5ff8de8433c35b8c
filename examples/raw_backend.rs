//! The backend trait without `Queue` and `Worker`, for a custom scheduler: batches of bytes, claims, leases,
//! dispositions.
//! `cargo run --example raw_backend`

use std::time::Duration;

use delayline::backend::{Claim, SubscriptionOptions};
use delayline::{Disposition, NewTask, QueueName, Result, connect};

#[tokio::main]
async fn main() -> Result<()> {
    let backend = connect("memory:").await?;
    let queue = QueueName::new("raw")?;
    let batch = (0..100u64).map(|i| NewTask::new(Duration::from_millis(i % 5 * 40), format!("task {i}"))).collect();
    // One result for each task: a task that is too large does not affect the others.
    let accepted = backend.schedule(&queue, batch).await?.iter().filter(|result| result.is_ok()).count();

    let lease = Duration::from_secs(30);
    let mut subscription = backend.subscribe(&queue, SubscriptionOptions::default()).await?;
    let mut done = 0;
    while done < accepted {
        // A claim never waits. It returns how long nothing will be due.
        let claimed = subscription.claim(Claim::new(16, lease)).await?;
        if claimed.deliveries.is_empty() {
            let fallback_poll_interval = backend.capabilities().fallback_poll_interval;
            subscription.wait(claimed.next_due_in.unwrap_or(fallback_poll_interval).min(fallback_poll_interval)).await;
            continue;
        }
        let leases: Vec<_> = claimed.deliveries.into_iter().map(|task| task.lease).collect();
        // If a batch may take longer than its lease, extend it. The new leases show which tasks were cancelled
        // meanwhile.
        let leases = backend.extend(&queue, leases, lease).await?.into_iter().collect::<Result<Vec<_>>>()?;
        let dispositions = leases.into_iter().map(|lease| (lease, Disposition::Complete)).collect();
        done += backend.settle(&queue, dispositions).await?.into_iter().filter(Result::is_ok).count();
    }
    println!("{done} done");
    subscription.close().await?;
    backend.close().await
}
