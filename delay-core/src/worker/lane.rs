//! One queue of a worker, where the loop that fetches its tasks and those that run them meet.

use std::sync::Arc;

use super::handler::Handler;
use super::registry::Registry;
use super::shared::Shared;
use crate::client::line::Line;

/// One queue of a worker.
pub(super) struct Lane {
    /// Its place among the worker's queues.
    pub(super) number: usize,
    pub(super) line: Arc<Line>,
    pub(super) handler: Handler,
    pub(super) registry: Arc<Registry>,
    pub(super) shared: Arc<Shared>,
}
