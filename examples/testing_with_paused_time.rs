//! How an application tests what happens in 30 days within a millisecond: `cargo run --example
//! testing_with_paused_time`.
//!
//! In a test, `#[tokio::test(start_paused = true)]` pauses the clock. Tokio advances it whenever everything sleeps.

use std::time::Duration;

use delayline::memory::MemoryBackend;
use delayline::{Queue, Result, TestClock, memory::MemoryConfig, testing};
use std::sync::Arc;

const TRIAL: Duration = Duration::from_secs(30 * 86_400);

/// The code under test: schedules a reminder at the end of a trial.
async fn start_trial(reminders: &Queue<String>, user: &str) -> Result<()> {
    reminders.schedule(&format!("{user}, your trial has ended")).after(TRIAL).id(format!("trial/{user}")).await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<()> {
    // The test controls wall-clock time, too.
    let clock = Arc::new(TestClock::at("2030-01-31T12:00:00Z".parse()?));
    let backend = MemoryBackend::with_config(MemoryConfig::default().clock(clock));
    let reminders = Queue::<String>::new(Arc::new(backend), "reminders")?;

    start_trial(&reminders, "ada").await?;
    testing::assert_scheduled(&reminders, |task, text| {
        text.starts_with("ada") && task.visible_at.to_string().starts_with("2030-03-02T12:00:00")
    })
    .await;

    let mut consumer = reminders.consumer().open().await?;
    let began = tokio::time::Instant::now();
    let task = consumer.next().await?;
    assert_eq!(task.payload(), "ada, your trial has ended");
    assert!(began.elapsed() >= TRIAL, "thirty days have passed, on the clock that everything runs on");
    println!("{} (after {:?} of paused time)", task.payload(), began.elapsed());
    task.complete().await
}
