//! A sign of life that others can read through the store itself: a task that is put off again and again. It falls due, by the
//! store's own clock, when its owner is no more.

use std::sync::Arc;
use std::time::Duration;

use delayline::{DelayBackend, NewTask, QueueName, TaskId};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::exit::Failure;

/// How long after its last sign an owner counts as alive.
pub(super) const ALIVE_FOR: Duration = Duration::from_secs(10);
/// Often enough for a busy machine.
const EVERY: Duration = Duration::from_secs(2);

/// Shows the sign for as long as it exists.
pub(super) struct SignOfLife {
    backend: Arc<dyn DelayBackend>,
    work: JoinHandle<()>,
}

impl SignOfLife {
    /// Shows the sign once, and from then on in the background.
    pub(super) async fn show(backend: Arc<dyn DelayBackend>, prefix: &str) -> Result<Self, Failure> {
        let queue = queue(prefix)?;
        once(&*backend, &queue).await?;
        let work = tokio::spawn({
            let backend = backend.clone();
            async move {
                let mut every = interval(EVERY);
                every.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    every.tick().await;
                    // A store that is away for longer is the run's own trouble.
                    let _ = once(&*backend, &queue).await;
                }
            }
        });
        Ok(Self { backend, work })
    }

    pub(super) async fn end(self) {
        self.work.abort();
        // Aborted or not, it has ended then.
        let _ = self.work.await;
        let _ = self.backend.close().await;
    }
}

async fn once(backend: &dyn DelayBackend, queue: &QueueName) -> delayline::Result<()> {
    let owner = NewTask::new(ALIVE_FOR, "").id(TaskId::new("owner")?).replace();
    backend.schedule(queue, vec![owner]).await?.into_iter().try_for_each(|answer| answer.map(drop))
}

/// The queue that the sign is in.
pub(super) fn queue(prefix: &str) -> delayline::Result<QueueName> {
    QueueName::new(format!("{prefix}alive"))
}

/// What a look at the sign shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Put off within [`ALIVE_FOR`].
    Recently,
    /// Its owner is no more.
    Ended,
    /// There is none: not yet, or it was removed half-way.
    Nothing,
}

/// Looks once.
pub(super) async fn look(backend: &dyn DelayBackend, prefix: &str) -> delayline::Result<Seen> {
    let stats = backend.stats(&queue(prefix)?).await?;
    Ok(match (stats.scheduled, stats.due) {
        (1.., _) => Seen::Recently,
        (0, 1..) => Seen::Ended,
        (0, 0) => Seen::Nothing,
    })
}
