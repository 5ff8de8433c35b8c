//! The lines of a backend: one for each queue that this process consumes or has a lease of.

use std::collections::HashMap;
use std::sync::Arc;

use delayline_core::QueueName;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::consuming::line::Line;
use crate::strays;

#[derive(Debug, Default)]
pub(crate) struct Lines {
    running: Mutex<HashMap<QueueName, Running>>,
    /// The task that handles strays, as long as one of the lines has a gate.
    pub(crate) strays: strays::Place,
}

/// A line and its pump.
type Running = (Arc<Line>, JoinHandle<()>);

impl Lines {
    /// The line of a queue, if it exists.
    pub(crate) fn get(&self, queue: &QueueName) -> Option<Arc<Line>> {
        self.running.lock().get(queue).map(|(line, _)| line.clone())
    }

    /// Registers a subscription with its queue's line. The first subscription creates the line, and `start` starts its
    /// pump.
    pub(crate) fn enter(
        &self,
        queue: &QueueName,
        start: impl FnOnce(Arc<Line>) -> JoinHandle<()>,
    ) -> (Arc<Line>, u64, watch::Receiver<u64>) {
        let mut lines = self.running.lock();
        let (line, _) = lines.entry(queue.clone()).or_insert_with(|| {
            let line = Arc::new(Line::new(queue.clone()));
            (line.clone(), start(line))
        });
        let (number, notifications) = line.enter();
        (line.clone(), number, notifications)
    }

    /// Ends a line that is not needed any more; `false` if it is needed again.
    pub(crate) fn end(&self, line: &Arc<Line>) -> bool {
        let mut lines = self.running.lock();
        // No subscription can register while this lock is held.
        if line.is_needed() {
            return false;
        }
        lines.remove(&line.queue);
        true
    }

    /// Waits until all lines have ended, after the backend was closed.
    pub(crate) async fn ended(&self) {
        let pumps: Vec<JoinHandle<()>> = self.running.lock().drain().map(|(_, (_, pump))| pump).collect();
        for pump in pumps {
            // A pump that panicked has ended, too.
            let _ = pump.await;
        }
    }
}
