//! The lines of a backend, one for each queue that is consumed here or has a lease here.

use std::collections::HashMap;
use std::sync::Arc;

use delayline_core::QueueName;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::line::Line;
use crate::pump;
use crate::shared::Shared;

#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<HashMap<QueueName, Running>>);

/// A line and its pump.
type Running = (Arc<Line>, JoinHandle<()>);

impl Lines {
    /// A queue's line, if there is one.
    pub(crate) fn get(&self, queue: &QueueName) -> Option<Arc<Line>> {
        self.0.lock().get(queue).map(|(line, _)| line.clone())
    }

    /// Enters a queue's line, which begins with its first intake.
    pub(crate) fn enter(shared: &Arc<Shared>, queue: &QueueName) -> (Arc<Line>, u64, watch::Receiver<u64>) {
        let mut lines = shared.lines.0.lock();
        let (line, _) = lines.entry(queue.clone()).or_insert_with(|| {
            let line = Arc::new(Line::new(queue.clone()));
            let pump = tokio::spawn(pump::run(shared.clone(), line.clone()));
            (line, pump)
        });
        let (number, hints) = line.enter();
        (line.clone(), number, hints)
    }

    /// Ends a line that nobody needs any more; `false` if somebody does again.
    pub(crate) fn end(&self, line: &Arc<Line>) -> bool {
        let mut lines = self.0.lock();
        // Nobody can enter under this lock.
        if line.is_needed() {
            return false;
        }
        lines.remove(&line.queue);
        true
    }

    /// Waits until all lines have ended, after the backend was closed.
    pub(crate) async fn ended(&self) {
        let pumps: Vec<JoinHandle<()>> = self.0.lock().drain().map(|(_, (_, pump))| pump).collect();
        for pump in pumps {
            // A pump that panicked has ended too.
            let _ = pump.await;
        }
    }
}
