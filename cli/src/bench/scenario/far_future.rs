//! Far future: near tasks alone, and then again while a million tasks are pending for later. Nothing should slow down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use delayline::ScheduleOutcome;
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep_until};

use super::scene::{Scene, per_second, take_lateness};
use crate::bench::drive::{BATCH, Crew, Drive, LEAD, PATIENCE, Pace, When};
use crate::bench::figures::Run;
use crate::bench::late::{Bare, quantile_ms};
use crate::exit::Failure;
use crate::heap;

/// The tasks for later are due within these hours.
const LATER: Duration = Duration::from_secs(3_600);
/// Time limit for scheduling them; after it, there are fewer tasks.
const FILL_MAX: Duration = Duration::from_secs(30);
const NEAR_RATE: u32 = 200;
const NEAR_HERD: u32 = 5_000;

pub(super) async fn play(scene: &Scene<'_>) -> Result<Run, Failure> {
    let mut run = Run::new();
    // One queue for both, because a backend may keep queues apart.
    let queue = scene.drive(0).await?;
    let (p99, rate, _, _) = near(scene, &mut run, &queue).await?;
    run.figure("near_p99_alone", p99);
    run.figure("near_rate_alone", rate);
    fill(scene, &mut run, &queue).await?;
    let (p99, rate, drive, bare) = near(scene, &mut run, &queue).await?;
    run.figure("near_p99_beside", p99);
    run.figure("near_rate_beside", rate);
    take_lateness(&mut run, &drive, bare).await;
    scene.show.step("clearing away");
    scene.store.clear(queue.queue.name()).await?;
    Ok(run)
}

/// Schedules the tasks for later, and measures the bytes per task.
async fn fill(scene: &Scene<'_>, run: &mut Run, queue: &Drive) -> Result<(), Failure> {
    if scene.store.is_here() {
        heap::start();
    }
    let drive = scene.again(queue, scene.tasks());
    let before = scene.store.bytes().await;
    let begun = Instant::now();
    let filled = until_full(scene, &drive, begun + FILL_MAX).await;
    let took = begun.elapsed();
    let after = scene.store.bytes().await;
    heap::stop();
    let pending = filled?;
    run.figure("pending", f64::from(pending));
    run.figure("schedule_batched", per_second(pending, took));
    if let (Some(before), Some(after)) = (before, after)
        // If the store has shrunk meanwhile, by removing old data, the difference says nothing.
        && after > before
    {
        run.figure("bytes_per_task", (after - before) / f64::from(pending.max(1)));
    }
    Ok(())
}

async fn until_full(scene: &Scene<'_>, drive: &Drive, until: Instant) -> Result<u32, Failure> {
    let tasks = drive.ledger().len();
    let (next, done) = (AtomicU32::new(0), AtomicU32::new(0));
    let caller = || async {
        loop {
            let from = next.fetch_add(BATCH as u32, Ordering::Relaxed);
            if from >= tasks || Instant::now() >= until {
                return Ok::<_, Failure>(());
            }
            let numbers: Vec<u32> = (from..tasks.min(from + BATCH as u32)).collect();
            // Spread over an hour, as a whole batch at a time.
            let after = LATER + LATER.mul_f64(f64::from(from) / f64::from(tasks));
            drive.send(&numbers, When::In(after), ScheduleOutcome::Created).await?;
            let there = done.fetch_add(numbers.len() as u32, Ordering::Relaxed);
            scene.show.count("pending for later", u64::from(there), u64::from(tasks));
        }
    };
    try_join_all((0..scene.args.producers).map(|_| caller())).await?;
    Ok(done.into_inner())
}

/// Near tasks: first at a steady rate, whose lateness counts, then a herd, whose throughput counts.
async fn near(scene: &Scene<'_>, run: &mut Run, queue: &Drive) -> Result<(f64, f64, Arc<Drive>, Bare), Failure> {
    let steady = (f64::from(NEAR_RATE) * scene.args.duration.as_secs_f64() / 2.0) as u32;
    let steady = steady.clamp(1, scene.tasks());
    let drive = Arc::new(scene.again(queue, steady));
    let crew = Crew::begin(&drive, scene.args.producers).await?;
    let pace = Pace { begins: Instant::now() + LEAD, rate: NEAR_RATE, ahead: LEAD };
    let mut bare = Bare::default();
    bare.sleep(pace.instants(steady));
    scene.show.watch("near tasks", &drive, u64::from(steady));
    drive.stream(0..steady, pace, scene.args.producers, |_, _| {}).await?;
    crew.finish(&drive).await?;
    scene.judge(&drive, run);

    let many = NEAR_HERD.min(scene.tasks());
    let herd = Arc::new(scene.again(queue, many));
    let crew = Crew::begin(&herd, scene.args.producers).await?;
    let instant = scene.instant_for(many);
    herd.schedule(0..many, scene.args.producers, When::At(instant)).await?;
    sleep_until(instant).await;
    herd.ledger().drained(PATIENCE).await;
    let rate = per_second(many, instant.elapsed());
    crew.finish(&herd).await?;
    scene.judge(&herd, run);
    Ok((quantile_ms(&drive.late.measured().0, 0.99), rate, drive, bare))
}
