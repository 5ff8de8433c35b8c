//! Schedule a task now, and run it later: `cargo run --example quickstart`.

use std::time::Duration;

use delayline::{CancellationToken, Context, Queue, Worker, connect};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct HandIn {
    candidate: u32,
}

#[tokio::main]
async fn main() -> delayline::Result<()> {
    let backend = connect("memory:").await?;
    let hand_ins = Queue::<HandIn>::new(backend, "exam.hand-in")?;

    // Because of the id there is only one task, however often this line runs.
    hand_ins.schedule(&HandIn { candidate: 17 }).after(Duration::from_millis(300)).id("exam-1/17").await?;

    let done = CancellationToken::new();
    let stop = done.clone();
    let worker = Worker::builder()
        .queue(&hand_ins, move |task: HandIn, context: Context| {
            let stop = stop.clone();
            async move {
                println!("candidate {} submitted, {:?} after the end", task.candidate, context.lateness());
                stop.cancel();
            }
        })
        .shutdown(done)
        .build()?;
    let report = worker.run().await?;
    assert_eq!(report.completed, 1);
    Ok(())
}
