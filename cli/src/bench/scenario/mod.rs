//! The scenarios: each plays one run on a store, and answers with its figures and what its books show.

mod far_future;
mod herd;
mod order_timeout;
mod retry_storm;
mod session_expiry;
mod steady;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use delayline::{Bytes, Capabilities, Queue, QueueName, Support};
use tokio::time::{Instant, timeout};

use super::args::{BenchArgs, Scenario};
use super::drive::{Crew, Drive, PATIENCE, When, queue};
use super::figures::Run;
use super::late::Bare;
use super::show::Show;
use super::store::Store;
use crate::exit::Failure;

const WARM_UP_TASKS: u32 = 3_000;
/// Between the end of scheduling and the instant at which all is due, on top of what scheduling should take.
const MARGIN: Duration = Duration::from_millis(500);
/// Sleeps to one instant, beside the many tasks that are due then.
const BARE_SLEEPS: u32 = 100;

/// What a run works with.
pub(super) struct Scene<'a> {
    pub(super) store: &'a Store,
    pub(super) args: &'a BenchArgs,
    pub(super) show: &'a Show,
    pub(super) scenario: Scenario,
    /// Makes queue names that nobody else has.
    pub(super) name: String,
    pub(super) queues: AtomicU32,
    /// Tasks a second that were scheduled in the warm-up.
    pub(super) rate: f64,
    /// What an earlier run of this scenario on this store has found, for the next to begin with.
    pub(super) found: Option<f64>,
}

/// Why a store can't play a scenario; `None` if it can.
pub(super) fn lacks(scenario: Scenario, caps: &Capabilities) -> Option<&'static str> {
    match scenario {
        Scenario::Herd | Scenario::Steady | Scenario::RetryStorm | Scenario::FarFuture => None,
        Scenario::OrderTimeout if caps.cancel == Support::Unsupported => Some("cancel"),
        Scenario::OrderTimeout => None,
        Scenario::SessionExpiry if caps.replace != Support::Definite => Some("replace"),
        Scenario::SessionExpiry if caps.reschedule != Support::Definite => Some("a move with a definite answer"),
        Scenario::SessionExpiry if caps.cancel != Support::Definite => Some("a cancel with a definite answer"),
        Scenario::SessionExpiry => None,
    }
}

impl Scene<'_> {
    /// Plays one run.
    pub(super) async fn play(&self) -> Result<Run, Failure> {
        match self.scenario {
            Scenario::Herd => herd::play(self).await,
            Scenario::Steady => steady::play(self).await,
            Scenario::OrderTimeout => order_timeout::play(self).await,
            Scenario::SessionExpiry => session_expiry::play(self).await,
            Scenario::RetryStorm => retry_storm::play(self).await,
            Scenario::FarFuture => far_future::play(self).await,
        }
    }

    /// Does a little of everything, so that connections, tables and caches are there. Tasks a second that were scheduled.
    pub(super) async fn warm_up(&self) -> Result<f64, Failure> {
        let tasks = WARM_UP_TASKS.min(self.tasks());
        let drive = self.drive(tasks).await?;
        let drive = Arc::new(drive);
        let crew = Crew::begin(&drive, self.args.producers).await?;
        let took = drive.schedule(0..tasks, self.args.producers, When::In(Duration::ZERO)).await?;
        crew.finish(&drive).await?;
        self.end(&drive, &mut Run::new()).await?;
        Ok(f64::from(tasks) / took.as_secs_f64())
    }

    /// How many tasks this scenario works on.
    fn tasks(&self) -> u32 {
        self.args.tasks_of(self.scenario)
    }

    /// A new queue, and books for so many tasks in it. What a store makes for a queue at its first task is there.
    async fn drive(&self, tasks: u32) -> Result<Drive, Failure> {
        let number = self.queues.fetch_add(1, Ordering::Relaxed);
        let queue = queue(self.store.backend.clone(), &format!("{}.{number}", self.name))?;
        first_task(&queue).await?;
        Ok(self.again(&Drive::new(queue, tasks, self.args.payload), tasks))
    }

    /// The same queue with new books.
    fn again(&self, drive: &Drive, tasks: u32) -> Drive {
        Drive::new(drive.queue.clone(), tasks, self.args.payload)
    }

    /// Closes a run's books, and removes its queue.
    async fn end(&self, drive: &Drive, run: &mut Run) -> Result<(), Failure> {
        self.judge(drive, run);
        let name: &QueueName = drive.queue.name();
        self.store.clear(name).await
    }

    fn judge(&self, drive: &Drive, run: &mut Run) {
        let verdict = drive.ledger.verdict();
        run.problems.extend(verdict.problems());
        run.remarks.extend(verdict.remarks());
    }

    /// An instant by which so many tasks are scheduled, as far as the warm-up tells.
    fn instant_for(&self, tasks: u32) -> Instant {
        Instant::now() + Duration::from_secs_f64(f64::from(tasks) / self.rate.max(1.0) * 1.3) + MARGIN
    }
}

/// One task goes through a queue.
async fn first_task(queue: &Queue<Bytes>) -> Result<(), Failure> {
    let mut consumer = queue.consumer().open().await?;
    queue.schedule(&Bytes::from_static(b"first")).await?;
    match timeout(PATIENCE, consumer.next()).await {
        Ok(delivery) => delivery?.complete().await?,
        Err(_) => return Err(Failure::new("the first task of a queue did not come")),
    }
    Ok(consumer.close().await?)
}

/// Bare sleeps to one instant.
fn bare_at(instant: Instant) -> Bare {
    let mut bare = Bare::default();
    for _ in 0..BARE_SLEEPS {
        bare.sleep([instant]);
    }
    bare
}

/// So many things in this time, a second.
fn per_second(count: u32, took: Duration) -> f64 {
    f64::from(count) / took.as_secs_f64().max(1e-9)
}

/// Takes lateness from the books into the run.
async fn take_lateness(run: &mut Run, drive: &Drive, bare: Bare) {
    run.take_lateness(&drive.late);
    run.bare = bare.measured().await;
}
