//! Retry storm: everything is due at one instant, and fails three times with short retry delays.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep_until;

use super::scene::{Scene, bare_at, per_second, take_lateness};
use crate::bench::drive::{Crew, PATIENCE, When};
use crate::bench::figures::Run;
use crate::exit::Failure;

const FAILURES: u32 = 3;
const RETRY_AFTER: Duration = Duration::from_millis(200);

pub(super) async fn play(scene: &Scene<'_>) -> Result<Run, Failure> {
    let mut run = Run::new();
    let tasks = scene.tasks();
    let drive = Arc::new(scene.drive(tasks).await?.failing(FAILURES, RETRY_AFTER));
    let crew = Crew::begin(&drive, scene.args.producers).await?;
    let instant = scene.instant_for(tasks);
    scene.show.step("scheduling");
    drive.schedule(0..tasks, scene.args.producers, When::At(instant)).await?;
    let bare = bare_at(instant);
    sleep_until(instant).await;
    scene.show.watch("completed", &drive, u64::from(tasks));
    drive.ledger().drained(PATIENCE).await;
    let took = instant.elapsed();
    crew.finish(&drive).await?;
    run.figure("to_last", took.as_secs_f64());
    run.figure("handled", per_second(tasks.saturating_mul(FAILURES + 1), took));
    take_lateness(&mut run, &drive, bare).await;
    scene.end(&drive, &mut run).await?;
    Ok(run)
}
