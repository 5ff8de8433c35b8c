//! Tasks on their way to the backend, in batches that are neither too large nor too old.

use std::time::Duration;

use delayline::NewTask;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::exit::Failure;

/// The most tasks in a batch.
pub(crate) const BATCH_TASKS_MAX: usize = 1_000_000;
/// The most payload in a batch, in bytes.
const BATCH_BYTES_MAX: usize = 512 * 1024 * 1024;
/// A batch of a stream is passed on when it is this old, even if more keeps coming,
const BATCH_AGE_MAX: Duration = Duration::from_millis(250);
/// and when nothing has come for this long.
const QUIET: Duration = Duration::from_millis(20);

/// Tasks in the order in which they were read.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) tasks: Vec<NewTask>,
    /// The line number of each.
    pub(crate) lines: Vec<u64>,
}

/// Collects tasks and passes them on.
#[derive(Debug)]
pub(super) struct Batcher {
    sender: mpsc::Sender<Result<Batch, Failure>>,
    batch: Batch,
    bytes: usize,
    began: Instant,
    /// Whether the receiver is gone.
    closed: bool,
}

impl Batcher {
    pub(super) fn new(sender: mpsc::Sender<Result<Batch, Failure>>) -> Self {
        Self { sender, batch: Batch::default(), bytes: 0, began: Instant::now(), closed: false }
    }

    pub(super) fn push(&mut self, line: u64, task: NewTask) {
        if self.batch.tasks.is_empty() {
            self.began = Instant::now();
        }
        self.bytes += task.payload.len();
        self.batch.tasks.push(task);
        self.batch.lines.push(line);
        if self.batch.tasks.len() >= BATCH_TASKS_MAX || self.bytes >= BATCH_BYTES_MAX {
            self.flush();
        }
    }

    /// How long to wait for more before the batch is passed on; `None`: without limit.
    pub(super) fn patience(&self) -> Option<Duration> {
        if self.batch.tasks.is_empty() {
            return None;
        }
        Some(QUIET.min(BATCH_AGE_MAX.saturating_sub(self.began.elapsed())))
    }

    /// Passes the batch on. Waits until the previous batch is taken.
    pub(super) fn flush(&mut self) {
        if self.batch.tasks.is_empty() {
            return;
        }
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.closed |= self.sender.blocking_send(Ok(batch)).is_err();
    }

    /// Passes the batch on, and then the error that ended reading.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.flush();
        self.closed |= self.sender.blocking_send(Err(failure)).is_err();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}
