//! Order time-out: orders come in at 1,000 a second, each with a task for its time-out; nine of ten are paid before,
//! which cancels it. The 30 minutes of a real time-out are compressed to half of `--duration`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use delayline::{ChangeOutcome, TaskRef};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::scene::{Scene, take_lateness};
use crate::bench::drive::{Crew, Drive, Pace};
use crate::bench::figures::Run;
use crate::bench::late::{Bare, Micros, histogram, quantile_ms};
use crate::exit::Failure;

const RATE: u32 = 1_000;
const PAID: f64 = 0.9;
/// An order is paid within this part of its time-out.
const PAID_WITHIN: (f64, f64) = (0.1, 0.8);
const SEED: u64 = 30;

type Refs = Arc<Mutex<Vec<Option<TaskRef>>>>;

pub(super) async fn play(scene: &Scene<'_>) -> Result<Run, Failure> {
    let mut run = Run::new();
    let tasks = ((f64::from(RATE) * scene.args.duration.as_secs_f64()) as u32).clamp(1, scene.tasks());
    let time_out = scene.args.duration / 2;
    let drive = Arc::new(scene.drive(tasks).await?.named());
    let crew = Crew::begin(&drive, scene.args.producers).await?;
    let pace = Pace { begins: Instant::now() + Duration::from_millis(100), rate: RATE, ahead: time_out };
    let mut bare = Bare::default();
    bare.sleep(pace.instants(tasks));
    let refs: Refs = Arc::new(Mutex::new(vec![None; tasks as usize]));
    let paying = pay(scene, &drive, &refs, pace, time_out);
    scene.show.watch("timed out", &drive, u64::from(tasks / 10));
    let told = refs.clone();
    let stream = drive.stream(0..tasks, pace, scene.args.producers, move |first, answers| {
        let mut refs = told.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, answer) in refs[first as usize..].iter_mut().zip(answers) {
            *place = Some(answer);
        }
    });
    stream.await?;
    let took = paid(paying).await?;
    // A task whose cancellation was only requested may still come.
    sleep_until(pace.begins + scene.args.duration + time_out).await;
    crew.finish(&drive).await?;
    if !took.is_empty() {
        run.figure("cancel_p50", quantile_ms(&took, 0.5));
        run.figure("cancel_p99", quantile_ms(&took, 0.99));
    }
    run.figure("cancelled", drive.ledger().verdict().cancelled.count as f64);
    take_lateness(&mut run, &drive, bare).await;
    scene.end(&drive, &mut run).await?;
    Ok(run)
}

/// Pays nine of ten orders, each at its own time, by a number of callers at a time.
fn pay(
    scene: &Scene<'_>,
    drive: &Arc<Drive>,
    refs: &Refs,
    pace: Pace,
    time_out: Duration,
) -> JoinSet<Result<Micros, Failure>> {
    let mut rng = fastrand::Rng::with_seed(SEED);
    let mut payments = Vec::new();
    for order in 0..drive.ledger().len() {
        if rng.f64() < PAID {
            let after = time_out.mul_f64(PAID_WITHIN.0 + (PAID_WITHIN.1 - PAID_WITHIN.0) * rng.f64());
            payments.push((pace.begins + Duration::from_secs_f64(f64::from(order) / f64::from(RATE)) + after, order));
        }
    }
    payments.sort_unstable();
    let payments = Arc::new(payments);
    let callers = scene.args.concurrency as usize;
    let mut paying = JoinSet::new();
    for caller in 0..callers {
        let (drive, refs, payments) = (drive.clone(), refs.clone(), payments.clone());
        paying.spawn(async move {
            let mut took = histogram();
            for &(at, order) in payments.iter().skip(caller).step_by(callers) {
                sleep_until(at).await;
                let known = refs.lock().unwrap_or_else(PoisonError::into_inner)[order as usize].take();
                // An order whose task was not accepted yet is not paid.
                let Some(task) = known else { continue };
                let begun = Instant::now();
                let answer: ChangeOutcome = drive.queue.cancel(task).await?;
                took.saturating_record(begun.elapsed().as_micros() as u64);
                drive.books.cancelled(order, answer);
            }
            Ok(took)
        });
    }
    paying
}

/// The durations of the cancels.
async fn paid(mut paying: JoinSet<Result<Micros, Failure>>) -> Result<Micros, Failure> {
    let mut all = histogram();
    while let Some(took) = paying.join_next().await {
        let took = took.map_err(|e| Failure::new(format!("a caller failed: {e}")))??;
        // Both have the same bounds.
        all.add(took).expect("they are of one kind");
    }
    Ok(all)
}
