//! The trait by itself, for a scheduler of one's own: batches of bytes, claims, leases, verdicts.
//! `cargo run --example raw_backend`

use std::time::Duration;

use delayline::{Claim, IntakeOptions, NewTask, QueueName, Result, Verdict, connect};

#[tokio::main]
async fn main() -> Result<()> {
    let backend = connect("memory:").await?;
    let queue = QueueName::new("raw")?;
    let batch = (0..100u64).map(|i| NewTask::new(Duration::from_millis(i % 5 * 40), format!("task {i}"))).collect();
    // One answer for each: one task that is too large does not keep the others out.
    let accepted = backend.schedule(&queue, batch).await?.iter().filter(|result| result.is_ok()).count();

    let lease = Duration::from_secs(30);
    let mut intake = backend.intake(&queue, IntakeOptions::default()).await?;
    let mut done = 0;
    while done < accepted {
        // A claim never waits; it says how long nothing will be due.
        let claimed = intake.claim(Claim::new(16, lease)).await?;
        if claimed.deliveries.is_empty() {
            let sweep = backend.capabilities().sweep;
            intake.wait(claimed.next_due_in.unwrap_or(sweep).min(sweep)).await;
            continue;
        }
        let leases: Vec<_> = claimed.deliveries.into_iter().map(|task| task.lease).collect();
        // A batch takes longer than a lease? Then it is extended, and tells which tasks were cancelled meanwhile.
        let leases = backend.extend(&queue, leases, lease).await?.into_iter().collect::<Result<Vec<_>>>()?;
        let verdicts = leases.into_iter().map(|lease| (lease, Verdict::Complete)).collect();
        done += backend.settle(&queue, verdicts).await?.into_iter().filter(Result::is_ok).count();
    }
    println!("{done} done");
    intake.close().await?;
    backend.close().await
}
