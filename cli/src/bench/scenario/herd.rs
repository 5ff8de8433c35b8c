//! Herd: everything is due at one instant. Then the rate of each kind of call, in batches and by single callers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::scene::{Scene, bare_at, per_second, take_lateness};
use crate::bench::drive::{BATCH, Crew, When, claim_then_complete};
use crate::bench::figures::Run;
use crate::exit::Failure;

/// Calls are measured one kind at a time with a part of the herd.
const PART: u32 = 3;

pub(super) async fn play(scene: &Scene<'_>) -> Result<Run, Failure> {
    let mut run = Run::new();
    stampede(scene, &mut run).await?;
    calls(scene, &mut run, Batches::Whole).await?;
    calls(scene, &mut run, Batches::Single).await?;
    Ok(run)
}

/// From the instant at which all is due until the last one is complete.
async fn stampede(scene: &Scene<'_>, run: &mut Run) -> Result<(), Failure> {
    let tasks = scene.tasks();
    let drive = Arc::new(scene.drive(tasks).await?);
    let crew = Crew::begin(&drive, scene.args.producers).await?;
    let instant = scene.instant_for(tasks);
    scene.show.step("scheduling a herd");
    let took = drive.schedule(0..tasks, scene.args.producers, When::At(instant)).await?;
    run.figure("schedule_batched", per_second(tasks, took));
    if Instant::now() > instant {
        run.remarks.push("scheduling took longer than planned: some tasks were due before all were scheduled".into());
    }
    let bare = bare_at(instant);
    scene.show.step("waiting for the instant");
    sleep_until(instant).await;
    scene.show.watch("completing", &drive, u64::from(tasks));
    drive.ledger().drained(crate::bench::drive::PATIENCE).await;
    let took = instant.elapsed();
    crew.finish(&drive).await?;
    run.figure("to_last", took.as_secs_f64());
    run.figure("handled", per_second(tasks, took));
    take_lateness(run, &drive, bare).await;
    scene.end(&drive, run).await
}

enum Batches {
    Whole,
    Single,
}

/// Schedules tasks that are due at once, then claims them, then completes them.
async fn calls(scene: &Scene<'_>, run: &mut Run, batches: Batches) -> Result<(), Failure> {
    let tasks = (scene.tasks() / PART).max(1);
    let drive = Arc::new(scene.drive(tasks).await?);
    let now = When::In(Duration::ZERO);
    match batches {
        Batches::Whole => {
            scene.show.step("calls in batches");
            drive.schedule(0..tasks, scene.args.producers, now).await?;
            let [claimed, completed] = claim_then_complete(&drive, tasks, scene.args.producers, BATCH).await?;
            run.figure("claim_batched", per_second(tasks, claimed));
            run.figure("complete_batched", per_second(tasks, completed));
        }
        Batches::Single => {
            scene.show.step("calls of single tasks");
            let took = drive.schedule_singly(0..tasks, scene.args.concurrency, now).await?;
            run.figure("schedule_single", per_second(tasks, took));
            let [claimed, completed] = claim_then_complete(&drive, tasks, scene.args.concurrency, 1).await?;
            run.figure("claim_single", per_second(tasks, claimed));
            run.figure("complete_single", per_second(tasks, completed));
        }
    }
    scene.end(&drive, run).await
}
