//! Session expiry: each session has a task for its end. Active sessions are touched again and again, which postpones
//! the end, so almost no task is delivered. What a touch leaves behind shows in the bytes of the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use delayline::{Change, ChangeOutcome, ScheduleOutcome, Select, TaskId, TaskRef};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::scene::{Scene, per_second};
use crate::bench::drive::{BATCH, Crew, Drive, When};
use crate::bench::figures::Run;
use crate::exit::Failure;
use crate::heap;

/// A session's life, longer than the run.
const LIFE: Duration = Duration::from_secs(600);
/// One session in this many ends: its last touch sets its end.
const ENDING: u32 = 1_000;
const ENDS_AFTER: Duration = Duration::from_millis(500);

pub(super) async fn play(scene: &Scene<'_>) -> Result<Run, Failure> {
    if scene.store.is_here() {
        heap::start();
    }
    let run = measured(scene).await;
    heap::stop();
    run
}

async fn measured(scene: &Scene<'_>) -> Result<Run, Failure> {
    let (mut run, tasks) = (Run::new(), scene.tasks());
    let drive = Arc::new(scene.drive(tasks).await?.named());
    let crew = Crew::begin(&drive, scene.args.producers).await?;
    let bytes = async |run: &mut Run, name| {
        if let Some(bytes) = scene.store.bytes().await {
            run.figure(name, bytes);
        }
    };
    bytes(&mut run, "store_empty").await;
    scene.show.step("opening sessions");
    let took = drive.schedule(0..tasks, scene.args.producers, When::In(LIFE)).await?;
    run.figure("schedule_batched", per_second(tasks, took));
    bytes(&mut run, "store_full").await;
    for (touch, name) in [(Touch::Replace, "touch_replace"), (Touch::Move, "touch_move")] {
        scene.show.step(name);
        let begun = Instant::now();
        let touches = touch_all(scene, &drive, touch, begun + scene.args.duration / 2).await?;
        run.figure(name, touches as f64 / begun.elapsed().as_secs_f64());
    }
    bytes(&mut run, "store_touched").await;
    scene.show.step("closing sessions");
    let took = close(scene, &drive).await?;
    run.figure("cancel_batched", per_second(tasks, took));
    crew.finish(&drive).await?;
    bytes(&mut run, "store_drained").await;
    run.take_lateness(&drive.late);
    scene.end(&drive, &mut run).await?;
    Ok(run)
}

#[derive(Clone, Copy)]
enum Touch {
    Replace,
    Move,
}

/// Touches all sessions, in rounds, until a time; each at least once. Returns the number of touches.
async fn touch_all(scene: &Scene<'_>, drive: &Drive, touch: Touch, until: Instant) -> Result<u64, Failure> {
    let (next, touches, tasks) = (AtomicU64::new(0), AtomicU64::new(0), drive.ledger().len());
    let batches = u64::from(tasks.div_ceil(BATCH as u32));
    let caller = || async {
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= batches && Instant::now() >= until {
                return Ok::<_, Failure>(());
            }
            let from = (turn % batches) as u32 * BATCH as u32;
            let sessions: Vec<u32> = (from..tasks.min(from + BATCH as u32)).collect();
            match touch {
                Touch::Replace => drop(drive.send(&sessions, When::In(LIFE), ScheduleOutcome::Replaced).await?),
                Touch::Move => move_to(drive, &sessions, LIFE).await?,
            }
            touches.fetch_add(sessions.len() as u64, Ordering::Relaxed);
        }
    };
    // No more callers than batches: two callers that touch one session at a time would each see only some of the
    // answers.
    let callers = u64::from(scene.args.producers).min(batches);
    try_join_all((0..callers).map(|_| caller())).await?;
    Ok(touches.into_inner())
}

/// Sets the end of sessions.
async fn move_to(drive: &Drive, sessions: &[u32], after: Duration) -> Result<(), Failure> {
    let not_before = Instant::now() + after;
    if after < LIFE {
        sessions.iter().for_each(|&session| drive.ledger().due(session, not_before));
    }
    let changed = drive.queue.change(Select::Tasks(refs(sessions)?), Change::move_to(after)).await?;
    for (&session, outcome) in sessions.iter().zip(changed.outcomes) {
        match outcome? {
            ChangeOutcome::Changed => drive.ledger().due(session, not_before),
            other => return Err(Failure::new(format!("a move of session {session} answered {other:?}"))),
        }
    }
    Ok(())
}

/// Lets a few sessions end by themselves, and closes all others.
async fn close(scene: &Scene<'_>, drive: &Drive) -> Result<Duration, Failure> {
    let tasks = drive.ledger().len();
    let ending: Vec<u32> = (0..tasks).step_by(ENDING as usize).collect();
    for some in ending.chunks(BATCH) {
        move_to(drive, some, ENDS_AFTER).await?;
    }
    let begun = Instant::now();
    let next = AtomicU32::new(0);
    let caller = || async {
        loop {
            let from = next.fetch_add(BATCH as u32, Ordering::Relaxed);
            if from >= tasks {
                return Ok::<_, Failure>(());
            }
            let closed: Vec<u32> = (from..tasks.min(from + BATCH as u32)).filter(|n| n % ENDING != 0).collect();
            let changed = drive.queue.change(Select::Tasks(refs(&closed)?), Change::cancel()).await?;
            for (&session, outcome) in closed.iter().zip(changed.outcomes) {
                drive.books.cancelled(session, outcome?);
            }
        }
    };
    try_join_all((0..scene.args.producers).map(|_| caller())).await?;
    Ok(begun.elapsed())
}

fn refs(sessions: &[u32]) -> Result<Vec<TaskRef>, Failure> {
    sessions.iter().map(|session| Ok(TaskId::new(format!("task-{session}"))?.into())).collect()
}
