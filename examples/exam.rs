//! The exam for which delayline was written, in short: `cargo run --example exam`.
//!
//! Each candidate's exam is submitted by a task that is due at its end. Most candidates submit earlier by themselves,
//! one has extra time, and in the middle the whole room gets more time. The tasks submit the exams that are left at the
//! end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use delayline::{ChangeOutcome, Context, HandlerOutcome, Queue, RetryPolicy, Shift, Task, TaskId, Worker, connect};

const CANDIDATES: u32 = 1_000;
const EXAM: Duration = Duration::from_millis(800);

#[tokio::main]
async fn main() -> delayline::Result<()> {
    let hand_ins = Queue::<u32>::new(connect("memory:").await?, "exam.hand-in")?;
    let room = "exam-1".parse()?;
    let id = |candidate: u32| TaskId::new(format!("exam-1/{candidate}"));

    let tasks = (0..CANDIDATES).map(|c| Task::new(c).after(EXAM).id(format!("exam-1/{c}")).group("exam-1"));
    for scheduled in hand_ins.schedule_all(tasks).await? {
        scheduled?;
    }

    // Candidate 7 has extra time. Three of four candidates submit early, and their tasks must never run.
    hand_ins.shift(id(7)?, Shift::Later(Duration::from_millis(400))).await?;
    for candidate in (0..CANDIDATES).filter(|c| c % 4 != 3) {
        assert_eq!(hand_ins.cancel(id(candidate)?).await?, ChangeOutcome::Changed);
    }
    // A fire alarm: everybody who is still there gets more time, in one call.
    let shifted = hand_ins.shift_group(&room, Shift::Later(Duration::from_millis(200))).await?;
    println!("{} of {CANDIDATES} are still writing", shifted.changed);

    let submitted = Arc::new(AtomicU32::new(0));
    let count = submitted.clone();
    let report = Worker::builder()
        .queue(&hand_ins, move |candidate: u32, context: Context| {
            let count = count.clone();
            async move {
                // The archive does not answer at the first attempt for candidate 11: the worker retries it.
                if candidate == 11 && context.attempt() == 1 {
                    return HandlerOutcome::retry("the archive does not answer");
                }
                count.fetch_add(1, Ordering::Relaxed);
                HandlerOutcome::Complete
            }
        })
        .concurrency(64)
        .retry(RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(5)))
        .until_empty(true)
        .build()?
        .run()
        .await?;
    println!("{} submitted by the worker, {} of them at the second attempt", report.completed, report.retried);
    assert_eq!(submitted.load(Ordering::Relaxed), CANDIDATES / 4);
    Ok(())
}
