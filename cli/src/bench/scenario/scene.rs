//! The environment of a scenario: a store, queues in it, and books for each queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use delayline::{Bytes, Queue, QueueName};
use tokio::time::{Instant, timeout};

use crate::bench::args::{BenchArgs, Scenario};
use crate::bench::drive::{Crew, Drive, PATIENCE, When, queue};
use crate::bench::figures::Run;
use crate::bench::late::Bare;
use crate::bench::show::Show;
use crate::bench::store::Store;
use crate::exit::Failure;

const WARM_UP_TASKS: u32 = 3_000;
/// Time between the planned end of scheduling and the instant at which everything is due.
const MARGIN: Duration = Duration::from_millis(500);
/// Number of sleeps to one instant, beside the many tasks that are due then.
const BARE_SLEEPS: u32 = 100;

/// The environment of a run.
pub(in crate::bench) struct Scene<'a> {
    pub(in crate::bench) store: &'a Store,
    pub(in crate::bench) args: &'a BenchArgs,
    pub(in crate::bench) show: &'a Show,
    pub(in crate::bench) scenario: Scenario,
    /// Prefix for unique queue names.
    pub(in crate::bench) name: String,
    pub(in crate::bench) queues: AtomicU32,
    /// Rate of scheduling in the warm-up, in tasks per second.
    pub(in crate::bench) rate: f64,
    /// The result of an earlier run of this scenario on this store, from which the next starts.
    pub(in crate::bench) found: Option<f64>,
}

impl Scene<'_> {
    /// Makes a few calls of each kind, so that connections, tables and caches exist. Returns the rate of scheduling, in
    /// tasks per second.
    pub(in crate::bench) async fn warm_up(&self) -> Result<f64, Failure> {
        let tasks = WARM_UP_TASKS.min(self.tasks());
        let drive = self.drive(tasks).await?;
        let drive = Arc::new(drive);
        let crew = Crew::begin(&drive, self.args.producers).await?;
        let took = drive.schedule(0..tasks, self.args.producers, When::In(Duration::ZERO)).await?;
        crew.finish(&drive).await?;
        self.end(&drive, &mut Run::new()).await?;
        Ok(f64::from(tasks) / took.as_secs_f64())
    }

    /// The number of tasks of this scenario.
    pub(super) fn tasks(&self) -> u32 {
        self.args.tasks_of(self.scenario)
    }

    /// A new queue, and books for this many tasks in it. Everything that a store creates at the first task of a queue
    /// exists.
    pub(super) async fn drive(&self, tasks: u32) -> Result<Drive, Failure> {
        let number = self.queues.fetch_add(1, Ordering::Relaxed);
        let queue = queue(self.store.backend.clone(), &format!("{}.{number}", self.name))?;
        first_task(&queue).await?;
        Ok(self.again(&Drive::new(queue, tasks, self.args.payload), tasks))
    }

    /// The same queue with new books.
    pub(super) fn again(&self, drive: &Drive, tasks: u32) -> Drive {
        Drive::new(drive.queue.clone(), tasks, self.args.payload)
    }

    /// Closes a run's books, and removes its queue.
    pub(super) async fn end(&self, drive: &Drive, run: &mut Run) -> Result<(), Failure> {
        self.judge(drive, run);
        let name: &QueueName = drive.queue.name();
        self.store.clear(name).await
    }

    pub(super) fn judge(&self, drive: &Drive, run: &mut Run) {
        let verdict = drive.ledger().verdict();
        run.problems.extend(drive.books.problems(&verdict));
        run.remarks.extend(drive.books.remarks(&verdict));
    }

    /// An instant by which this many tasks are scheduled, estimated from the warm-up.
    pub(super) fn instant_for(&self, tasks: u32) -> Instant {
        Instant::now() + Duration::from_secs_f64(f64::from(tasks) / self.rate.max(1.0) * 1.3) + MARGIN
    }
}

/// One task goes through a queue.
async fn first_task(queue: &Queue<Bytes>) -> Result<(), Failure> {
    let mut consumer = queue.consumer().open().await?;
    queue.schedule(&Bytes::from_static(b"first")).await?;
    match timeout(PATIENCE, consumer.next()).await {
        Ok(delivery) => delivery?.complete().await?,
        Err(_) => return Err(Failure::new("the first task of a queue was not delivered")),
    }
    Ok(consumer.close().await?)
}

/// Bare sleeps to one instant.
pub(super) fn bare_at(instant: Instant) -> Bare {
    let mut bare = Bare::default();
    for _ in 0..BARE_SLEEPS {
        bare.sleep([instant]);
    }
    bare
}

/// The rate per second of a number in a time.
pub(super) fn per_second(count: u32, took: Duration) -> f64 {
    f64::from(count) / took.as_secs_f64().max(1e-9)
}

/// Copies the lateness from the books to the run.
pub(super) async fn take_lateness(run: &mut Run, drive: &Drive, bare: Bare) {
    run.take_lateness(&drive.late);
    run.bare = bare.measured().await;
}
