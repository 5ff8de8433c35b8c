//! A sign of life that other programs can read through the store: a task that its owner postpones again and again. When
//! the owner is gone, the task becomes due by the store's clock.

use std::sync::Arc;
use std::time::Duration;

use delayline::{DelayBackend, NewTask, QueueName, TaskId};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::exit::Failure;

/// Time for which an owner counts as alive after its last sign.
pub(super) const ALIVE_FOR: Duration = Duration::from_secs(10);
/// Interval of the signs, short enough for a busy machine.
const EVERY: Duration = Duration::from_secs(2);

/// Shows the sign until it is dropped.
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
                    // If the store is unreachable for longer, the run itself reports it.
                    let _ = once(&*backend, &queue).await;
                }
            }
        });
        Ok(Self { backend, work })
    }

    pub(super) async fn end(self) {
        self.work.abort();
        // Aborted or not, the task has ended then.
        let _ = self.work.await;
        let _ = self.backend.close().await;
    }
}

async fn once(backend: &dyn DelayBackend, queue: &QueueName) -> delayline::Result<()> {
    let owner = NewTask::new(ALIVE_FOR, "").id(TaskId::new("owner")?).replace();
    backend.schedule(queue, vec![owner]).await?.into_iter().try_for_each(|answer| answer.map(drop))
}

/// The queue of the sign.
pub(super) fn queue(prefix: &str) -> delayline::Result<QueueName> {
    QueueName::new(format!("{prefix}alive"))
}

/// The state of the sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It was postponed within [`ALIVE_FOR`].
    Recently,
    /// Its owner is gone.
    Ended,
    /// There is no sign: not yet, or the namespace was removed in part.
    Nothing,
}

/// Reads the sign once.
pub(super) async fn look(backend: &dyn DelayBackend, prefix: &str) -> delayline::Result<Seen> {
    let stats = backend.stats(&queue(prefix)?).await?;
    Ok(match (stats.scheduled, stats.due) {
        (1.., _) => Seen::Recently,
        (0, 1..) => Seen::Ended,
        (0, 0) => Seen::Nothing,
    })
}
