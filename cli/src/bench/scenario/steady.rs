//! Steady: first idle with a thousand pending tasks, then 200 tasks per second, then the highest rate that is in time.

use std::sync::Arc;
use std::time::Duration;

use indicatif::HumanCount;
use tokio::time::{Instant, sleep};

use super::scene::{Scene, take_lateness};
use crate::bench::drive::{Crew, Drive, LEAD, Pace, When};
use crate::bench::figures::Run;
use crate::bench::late::{Bare, quantile_ms};
use crate::bench::measure::server_cpu;
use crate::exit::Failure;

const RATE: u32 = 200;
const IDLE_TASKS: u32 = 1_000;
const IDLE_DELAY: Duration = Duration::from_secs(3_600);
/// Time after which background work of the server after scheduling has ended.
const SETTLED: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(2);

/// A rate is in time if its p99 lateness is below this.
const IN_TIME_MS: f64 = 50.0;
/// Duration of the trial of a rate.
const TRIAL: Duration = Duration::from_secs(1);
/// The rates that are tried.
const RATES: (u32, u32) = (250, 512_000);
/// The search ends when it knows the rate to this factor.
const PRECISION: f64 = 1.15;

pub(super) async fn play(scene: &Scene<'_>) -> Result<Run, Failure> {
    let mut run = Run::new();
    idle(scene, &mut run).await?;
    let at_rest = steady(scene, &mut run).await?;
    search(scene, &mut run, &at_rest).await?;
    scene.store.clear(at_rest.queue.name()).await?;
    Ok(run)
}

/// Measures what the server does while idle.
async fn idle(scene: &Scene<'_>, run: &mut Run) -> Result<(), Failure> {
    let Some(pid) = scene.store.pid() else { return Ok(()) };
    scene.show.step("idle");
    let drive = Arc::new(scene.drive(IDLE_TASKS).await?);
    let _crew = Crew::begin(&drive, 1).await?;
    drive.schedule(0..IDLE_TASKS, 1, When::In(IDLE_DELAY)).await?;
    sleep(SETTLED).await;
    // Reading the counters costs commands, too: as many between the second and third reading as between the first and
    // second.
    let before = [scene.store.commands().await, scene.store.commands().await];
    let (cpu, begun) = (server_cpu(pid), Instant::now());
    sleep(IDLE).await;
    let (cpu, took) = (server_cpu(pid) - cpu, begun.elapsed().as_secs_f64());
    let after = scene.store.commands().await;
    run.figure("idle_server_cpu", cpu * 1000.0 / took);
    if let ([Some(first), Some(second)], Some(third)) = (before, after) {
        run.figure("idle_commands", ((third - second) - (second - first)).max(0.0) / took);
    }
    scene.store.clear(drive.queue.name()).await
}

/// 200 tasks per second.
async fn steady(scene: &Scene<'_>, run: &mut Run) -> Result<Arc<Drive>, Failure> {
    let tasks = (f64::from(RATE) * scene.args.duration.as_secs_f64()) as u32;
    let drive = Arc::new(scene.drive(tasks.clamp(1, scene.tasks())).await?);
    let crew = Crew::begin(&drive, scene.args.producers).await?;
    let pace = Pace { begins: Instant::now() + SETTLED, rate: RATE, ahead: LEAD };
    let mut bare = Bare::default();
    bare.sleep(pace.instants(drive.ledger().len()));
    scene.show.watch("200 per second", &drive, u64::from(drive.ledger().len()));
    drive.stream(0..drive.ledger().len(), pace, scene.args.producers, |_, _| {}).await?;
    crew.finish(&drive).await?;
    take_lateness(run, &drive, bare).await;
    scene.judge(&drive, run);
    Ok(drive)
}

/// Doubles the rate until it is too high, and then halves the gap. A later run begins where the previous one has ended.
async fn search(scene: &Scene<'_>, run: &mut Run, drive: &Drive) -> Result<(), Failure> {
    let highest = RATES.1.min((f64::from(scene.tasks()) / TRIAL.as_secs_f64()) as u32).max(RATES.0);
    let (mut good, mut bad) = (0, None);
    let mut rate = scene.found.map_or(RATES.0 * 4, |found| (found * 0.8) as u32).clamp(RATES.0, highest);
    loop {
        if is_in_time(scene, run, drive, rate).await? {
            good = rate;
            if rate == highest {
                run.remarks.push(format!(
                    "{} tasks per second is the highest rate that is tried",
                    HumanCount(u64::from(highest))
                ));
            }
        } else {
            bad = Some(rate);
        }
        rate = match bad {
            None if good < highest => good.saturating_mul(2).min(highest),
            Some(bad) if good == 0 && bad > RATES.0 => (bad / 2).max(RATES.0),
            Some(bad) if good > 0 && f64::from(bad) / f64::from(good) > PRECISION => good.midpoint(bad),
            None | Some(_) => break,
        };
        if !run.problems.is_empty() {
            break;
        }
    }
    run.figure("rate_in_time", f64::from(good));
    Ok(())
}

/// Tries a rate for a short time.
async fn is_in_time(scene: &Scene<'_>, run: &mut Run, drive: &Drive, rate: u32) -> Result<bool, Failure> {
    let tasks = (f64::from(rate) * TRIAL.as_secs_f64()) as u32;
    let drive = Arc::new(scene.again(drive, tasks));
    let crew = Crew::begin(&drive, scene.args.producers).await?;
    scene.show.watch(&format!("{rate} per second"), &drive, u64::from(tasks));
    let pace = Pace { begins: Instant::now(), rate, ahead: LEAD };
    let behind = drive.stream(0..tasks, pace, scene.args.producers, |_, _| {}).await?;
    crew.finish(&drive).await?;
    scene.judge(&drive, run);
    // If scheduling could not keep this rate, the store was not tested at it, so the rate is not in time.
    Ok(behind < LEAD && quantile_ms(&drive.late.measured().0, 0.99) < IN_TIME_MS)
}
