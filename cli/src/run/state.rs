//! What all parts of a run share.

use std::sync::Arc;

use delayline::{DelayBackend, QueueName};

use super::ids::Ids;
use crate::console::Console;
use crate::signal::Stop;
use crate::tally::Tally;

/// A run in progress.
#[derive(Debug)]
pub(crate) struct Run {
    pub(super) backend: Arc<dyn DelayBackend>,
    pub(super) queue: QueueName,
    pub(super) tally: Arc<Tally>,
    pub(super) console: Arc<Console>,
    pub(super) stop: Stop,
    /// The ids to save, if the remaining tasks would be lost and there is a file for them.
    pub(super) to_be_saved: Option<Ids>,
}
