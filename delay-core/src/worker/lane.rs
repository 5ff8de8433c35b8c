//! One queue of a worker, shared by the loop that claims its tasks and the tasks that run its handlers.

use std::sync::Arc;

use super::handler::Handler;
use super::registry::Registry;
use super::shared::Shared;
use crate::client::line::Line;

/// One queue of a worker.
pub(super) struct Lane {
    /// Position among the worker's queues.
    pub(super) number: usize,
    pub(super) line: Arc<Line>,
    pub(super) handler: Handler,
    pub(super) registry: Arc<Registry>,
    pub(super) shared: Arc<Shared>,
}
